"""The door: finds the command's file, runs it, turns what goes wrong into one line and a code."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import click

from mobiledeploy import __version__
from mobiledeploy.core import inputs, units
from mobiledeploy.core.errors import DeployError, InputError, UsageError

HERE = Path(__file__).parent
# Exit codes that are not an error's own (core/errors.py): see docs/exit-codes.md.
INTERNAL, INTERRUPTED = 70, 130


class Rooms(click.Group):
    """Commands by file name: listing them imports nothing, running one imports its file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The files of cli/, but for the door and its frame."""
        return sorted(p.stem for p in HERE.glob("*.py") if p.stem != "main" and p.stem[0] != "_")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The `command` of cli/<name>.py."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"mobiledeploy.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line a command, from its file's first docstring line, so that --help stays quick."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_line(name)) for name in self.list_commands(ctx)])


def _first_line(name: str) -> str:
    with (HERE / f"{name}.py").open(encoding="utf-8") as stream:
        return stream.readline().strip().strip('"')


def settings(folder: Path) -> dict[str, Any]:
    """Defaults from `mobiledeploy.toml`, or `[tool.mobiledeploy]` of pyproject.toml, in `folder`.

    Keys are option names, in a table per command: ``[export]`` ``alpha = 0.5``.
    """
    own, project = folder / "mobiledeploy.toml", folder / "pyproject.toml"
    path = own if own.is_file() else project
    if not path.is_file():
        return {}
    try:
        data = inputs.toml(path)
    except InputError as error:
        raise UsageError(error.message, error.hint) from error
    found = data if path == own else data.get("tool", {}).get("mobiledeploy", {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise UsageError(f"{path.name}: options stand in a table per command", "[export]")
    return {
        command: {key.replace("-", "_"): _setting(value) for key, value in options.items()}
        for command, options in found.items()
    }


def _setting(value: Any) -> Any:
    """A value as the command line would give it: a list is what has commas between there."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _check_settings(
    found: dict[str, Any], chosen: str | None, group: Rooms, ctx: click.Context
) -> None:
    """All tables by their names; the options of the one command that is loaded anyway."""
    commands = group.list_commands(ctx)
    for name in found:
        if name not in commands:
            raise UsageError(
                f"the settings file has a table for {name!r}, which is no command",
                f"there are {', '.join(commands)}",
            )
    command = group.get_command(ctx, chosen) if chosen in found else None
    if chosen and command:
        known = {p.name for p in command.params}
        wrong = sorted(set(found[chosen]) - known)
        if wrong:
            raise UsageError(
                f"the settings file sets {wrong[0]!r}, which {chosen} does not have",
                f"it has {', '.join(sorted(known))}",
            )


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from mobiledeploy.verbs.doctor import versions

    click.echo(f"mobiledeploy {__version__}")
    for name, version in versions().items():
        click.echo(f"{name} {version or 'not installed'}")
    ctx.exit()


@click.command(
    cls=Rooms,
    context_settings={"auto_envvar_prefix": "MOBILEDEPLOY", "help_option_names": ["-h", "--help"]},
    epilog="Example:  mobiledeploy export --alpha 0.5 --res 160 && mobiledeploy bench",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Versions of mobiledeploy and of the runtimes beneath it.",
)  # fmt: skip
@click.pass_context
def cli(ctx: click.Context) -> None:
    """From a Keras MobileNet to measured int8 TFLite and ONNX files."""
    found = settings(Path.cwd())
    chosen = ctx.invoked_subcommand
    if found and isinstance(ctx.command, Rooms):
        _check_settings(found, chosen, ctx.command, ctx)
        ctx.default_map = found


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _verbosity() -> int:
    return sum(
        len(a) - 1 for a in sys.argv[1:] if a.startswith("-v") and set(a[1:]) == {"v"}
    ) + sys.argv.count("--verbose")


def run() -> int:
    """The whole program; its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as we run
    if isinstance(sys.stdout, TextIOWrapper):
        # A file's name may hold bytes that are no text in the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(prog_name="mobiledeploy", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except SystemExit as error:
        # What click makes of a pipe that broke, and how it ends after shell completion.
        return _broken(error) if isinstance(error.__context__, OSError) else int(error.code or 0)
    except BrokenPipeError as error:
        return _broken(error)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        help_ = f"{context.command_path} --help" if context else "mobiledeploy --help"
        return _fail(UsageError(error.format_message().rstrip("."), f"see {help_}"), error)
    except DeployError as error:
        return _fail(error, error)
    except OSError as error:
        what = error.filename or "the result"
        reason = (error.strerror or str(error)).lower()
        return _fail(UsageError(f"cannot read or write {what}: {reason}"), error)
    except RecursionError as error:
        return _fail(InputError("the input nests too deep"), error)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        known = DeployError(
            f"internal error: {type(error).__name__}: {first}",
            "please report it with the output of the same command and -vv",
        )
        return _fail(known, error)


def _broken(error: BaseException) -> int:
    """Nothing is wrong where the reader of the result left (`| head`); else work was cut short."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return _fail(DeployError("a pipe broke before the work was done"), error)


def _fail(error: DeployError, cause: BaseException) -> int:
    if _verbosity() >= 2:
        import traceback

        traceback.print_exception(cause)
    click.echo(f"error: {units.one_line(str(error))}", err=True)
    return error.exit_code


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())
