"""The entry: finds the command's file, runs it, turns errors into one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections import ChainMap
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from mobiledeploy import __version__
from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.package import project_folders

HERE = Path(__file__).parent
# Exit codes that do not belong to an error (core/errors.py): see docs/exit-codes.md.
INTERNAL, INTERRUPTED = 70, 130
_STDOUT, _STDERR = 1, 2


class Rooms(click.Group):
    """Commands by file name: the list imports nothing, and a command imports only its file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The files of cli/, except this one and those with an underscore."""
        return sorted(p.stem for p in HERE.glob("*.py") if p.stem != "main" and p.stem[0] != "_")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The `command` of cli/<name>.py."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"mobiledeploy.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. A pipe that breaks in it belongs to a child: see `_Stream`.

        It becomes a DeployError, because click would exit with 1, which is a verdict here.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise DeployError("a pipe broke before the work was done") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line per command, the first line of its file's docstring, so --help stays quick."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_line(name)) for name in self.list_commands(ctx)])


def _first_line(name: str) -> str:
    with (HERE / f"{name}.py").open(encoding="utf-8") as stream:
        return stream.readline().strip().strip('"')


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
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the versions of mobiledeploy and of its runtimes.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """From a Keras MobileNet to measured int8 TFLite and ONNX files."""
    group, name, files = ctx.command, ctx.invoked_subcommand, _settings.files(project_folders())
    if not (files and name and isinstance(group, Rooms)):
        return
    for file in files:
        _settings.need_commands(file, group.list_commands(ctx))
    command = group.get_command(ctx, name)
    if command and any(name in file.tables for file in files):
        defaults = [_settings.defaults(file, name, command, ctx) for file in files]
        ctx.default_map = {name: dict(ChainMap(*reversed(defaults)))}


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


class _Stream(io.FileIO):
    """Standard output or error, whose reader may close it (`| head`).

    Later output is dropped; the work goes on to its end and its exit code.
    """

    def write(self, data: Any) -> int:
        """Returns the number of bytes that were written or dropped.

        Raises OSError once if a result cannot be written for another reason, such as a full disk.
        """
        try:
            return super().write(data)
        except OSError as error:
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, self.fileno())
            os.close(nobody)
            if self.fileno() == _STDERR or isinstance(error, BrokenPipeError):
                return super().write(data)
            raise


def _open_streams() -> None:
    """Opens the standard streams that the caller closed, and replaces those that can break."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is this one
    for name, number in (("stdout", _STDOUT), ("stderr", _STDERR)):
        old = getattr(sys, name)
        same = ("encoding", "line_buffering", "write_through")
        options = {key: getattr(old, key) for key in same} if old else {"encoding": "utf-8"}
        raw = io.BufferedWriter(_Stream(number, "w", closefd=False))
        # A file's name may hold bytes that are not text in the terminal's encoding.
        setattr(sys, name, io.TextIOWrapper(raw, errors="backslashreplace", **options))


def _verbosity() -> int:
    return sum(
        len(a) - 1 for a in sys.argv[1:] if a.startswith("-v") and set(a[1:]) == {"v"}
    ) + sys.argv.count("--verbose")


def run() -> int:
    """Runs the program and returns its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    _open_streams()
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
        return int(error.code or 0)
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
        internal = DeployError(
            f"internal error: {type(error).__name__}: {first}",
            "please report it with the output of the same command and -vv",
        )
        return _fail(internal, error)


def _fail(error: DeployError, cause: BaseException) -> int:
    if _verbosity() >= 2:
        import traceback

        traceback.print_exception(cause)
    _frame.error(str(error))
    return error.exit_code


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())
