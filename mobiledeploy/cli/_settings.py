"""Options in settings files: the user's own file, and the file of the current folder.

A stranger may have written a folder's file. So it may set only options that are marked for it:
`@_settings.option` if a stranger's choice can do no harm, `@_settings.output` for a path that is
written to, `@_settings.machine` for the device to work on. An option that names a program, lifts a
guard, replaces or removes files, or uses another machine is a plain `@click.option`. Only the
command line, the environment and the user's own file set it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from mobiledeploy.core import inputs
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.package import config_dir

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

T = TypeVar("T")
NAME = "mobiledeploy.toml"
# Devices that are here. A stranger's file must not have the user's keys open another machine.
HERE = ("adb", "emulator", "host", "replay")
# The suffixes of our results: a folder's file must not have a script or a dotfile overwritten.
WRITTEN = (".csv", ".html", ".json", ".jsonl", ".md", ".png", ".svg", ".xml")
_WORDS = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a number",
    list: "a list",
    str: "text",
}


class Option(click.Option):
    """An option that a folder's file may set."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What its type offers, or else the names that it accepts."""
        offered = super().shell_complete(ctx, incomplete)
        if offered:
            return offered
        # Not at the top: help completes nothing.
        from mobiledeploy.cli import _completion

        return _completion.items(self.name or "", incomplete, isinstance(self.type, CommaList))


class Output(Option):
    """A path that is written to; a folder's file may set it to a place in the folder."""


class Machine(Option):
    """A device to work on; a folder's file may name this computer and what is connected to it."""


option = functools.partial(click.option, cls=Option)
output = functools.partial(click.option, cls=Output)
machine = functools.partial(click.option, cls=Machine)


class CommaList(click.ParamType[T]):
    """A type of comma-separated values on the command line, and a list in a file."""


class File(NamedTuple):
    """A settings file with its tables by command. `label` is its name in messages."""

    path: Path
    label: str
    own: bool
    tables: Mapping[str, Mapping[str, Any]]


def own_path() -> Path:
    """The user's own file, which may not exist."""
    return config_dir() / NAME


def files(folders: Sequence[Path]) -> list[File]:
    """The existing files: the user's own, then that of the first folder with one, which prevails.

    A folder's file is `mobiledeploy.toml`, or `[tool.mobiledeploy]` of its pyproject.toml. Tables
    have the names and values of options: ``[export]`` ``alpha = 0.5``.

    Raises:
        UsageError: a file that cannot be read, or that holds other things than tables.
    """
    own, result = own_path(), list[File]()
    if own.is_file():
        result.append(File(own, str(own), True, _tables(own, str(own), ())))
    for folder in folders:
        path, project = folder / NAME, folder / "pyproject.toml"
        if path.is_file() and not (result and path.samefile(own)):
            label = os.path.relpath(path)
            return [*result, File(path, label, False, _tables(path, label, ()))]
        if project.is_file():
            label = os.path.relpath(project)
            tables = _tables(project, label, ("tool", "mobiledeploy"))
            if tables:
                return [*result, File(project, label, False, tables)]
    return result


def _tables(path: Path, label: str, keys: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    try:
        data: Any = inputs.toml(path)
    except InputError as error:
        raise UsageError(error.message, error.hint) from error
    for key in keys:
        data = data.get(key, {}) if isinstance(data, dict) else {}
    if not isinstance(data, dict) or not all(isinstance(v, dict) for v in data.values()):
        raise UsageError(f"{label}: options stand in a table per command", "[export]")
    return {
        command: {key.replace("-", "_"): value for key, value in options.items()}
        for command, options in data.items()
    }


def need_commands(file: File, commands: Collection[str]) -> None:
    """UsageError for a table that does not belong to a command."""
    for name in file.tables:
        if name not in commands:
            raise UsageError(
                f"{file.label} has a table for {name!r}, which is not a command",
                f"there are {', '.join(commands)}",
            )


def defaults(file: File, owner: str, command: click.Command, ctx: click.Context) -> dict[str, Any]:
    """The values that `file` sets for the command `owner`, in the form of the command line.

    Raises:
        UsageError: an option that the command does not have or that a folder's file may not set, an
            invalid value, or a place outside of the folder for a result.
    """
    options = {p.name: p for p in command.params if isinstance(p, click.Option) and p.name}
    return {
        name: _default(file, owner, name, options, value, ctx)
        for name, value in file.tables.get(owner, {}).items()
    }


def _default(
    file: File,
    owner: str,
    name: str,
    options: Mapping[str, click.Option],
    value: Any,
    ctx: click.Context,
) -> Any:
    if name not in options:
        raise UsageError(
            f"{file.label} sets {name!r}, which {owner} does not have",
            f"it has {', '.join(sorted(options))}",
        )
    option_ = options[name]
    flag = max(option_.opts, key=len)
    elsewhere = f"give {flag} on the command line, or under [{owner}] in {own_path()}"
    if not (file.own or isinstance(option_, Option)):
        raise UsageError(
            f"{file.label} sets {flag} of {owner}, which a file of the current folder may not",
            elsewhere,
        )
    try:
        text = _command_line_form(option_, value)
        option_.type_cast_value(ctx, text)
    except click.BadParameter as error:
        raise UsageError(f"{file.label}: {flag} of {owner}: {error.message}") from error
    if isinstance(option_, Machine) and not file.own:
        # Not at the top: `--help` imports next to nothing.
        from mobiledeploy.core.plugins import DEVICES

        for device in text.split(","):
            plugin = device.partition(":")[0].strip()
            if plugin in DEVICES.names() and plugin not in HERE:
                raise UsageError(
                    f"{file.label} sets {flag} of {owner} to {device}, and a file of the current "
                    "folder may not choose another machine",
                    elsewhere,
                )
    if isinstance(option_, Output) and not file.own:
        wrong = _misplaced(file.path.parent, text, option_)
        if wrong:
            raise UsageError(f"{file.label} sets {flag} of {owner} to {text}, {wrong}", elsewhere)
    return text if file.own else _from_here(file.path.parent, text, option_)


def _from_here(folder: Path, text: Any, option_: click.Option) -> Any:
    """A path of a file in `folder`, as the current folder names it; other values stay."""
    names_file = isinstance(option_, Output) or isinstance(option_.type, click.Path)
    if not isinstance(text, str) or folder.samefile(Path.cwd()):
        return text
    # The values of these may be words as well.
    either = option_.name in ("data", "weights") and (folder / text).exists()
    return os.path.relpath(folder / text) if names_file or either else text


def _command_line_form(option_: click.Option, value: Any) -> Any:
    """The value in the form of the command line; BadParameter for another type."""
    if option_.is_flag or option_.count:
        kind = bool if option_.is_flag else int
        if type(value) is not kind:
            raise click.BadParameter(f"{_word(value)} is not {_WORDS[kind]}")
        return value
    several = option_.multiple or isinstance(option_.type, CommaList)
    texts = [_text(part) for part in (value if several and isinstance(value, list) else [value])]
    return tuple(texts) if option_.multiple else ",".join(texts)


def _text(value: Any) -> str:
    if type(value) not in (str, int, float):
        raise click.BadParameter(f"{_word(value)} is neither text nor a number")
    try:
        text = str(value)
    except ValueError as error:  # a hexadecimal number with more digits than Python writes
        raise click.BadParameter("the number is too large") from error
    return text


def _word(value: Any) -> str:
    return _WORDS.get(type(value), "a date or time")


def refuse_link_out(path: Path, flag: str) -> None:
    """UsageError if a default file name is a link out of the current folder.

    A stranger's folder may have `report.html` as a link to a file of the user's.
    """
    place, home = path.resolve(), Path.cwd().resolve()
    if path.is_symlink() and not place.is_relative_to(home):
        raise UsageError(
            f"{path} is a link to {place}, outside of the current folder",
            f"if that is meant, say {flag} {path}",
        )


def _misplaced(folder: Path, text: str, option_: click.Option) -> str:
    """Why a folder's file may not have a result written there; empty if it may."""
    home = folder.resolve()
    try:
        place = (home / text).resolve()
    except (OSError, RuntimeError):  # links in a circle
        return "whose links end nowhere"
    if not place.is_relative_to(home):
        return "outside of the current folder"
    if any(part.startswith(".") for part in place.relative_to(home).parts):
        return "in a hidden folder"
    a_file = isinstance(option_.type, click.Path) and not option_.type.dir_okay
    if a_file and place.suffix not in WRITTEN:
        return f"which does not end as a result does ({', '.join(WRITTEN)})"
    return ""
