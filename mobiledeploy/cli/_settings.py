"""Options that stand in files: the user's own, and one that came along with the folder.

A folder's file may be a stranger's, who wrote the repository. It therefore says only what a command
has marked for it: `@_settings.option` where a stranger's choice can do no harm, `@_settings.output`
for a path that is written to. What names a program, lifts a guard, replaces or removes what is
there, or reaches for another machine stays a plain `@click.option`, which only the command line,
the environment and the user's own file set.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from mobiledeploy.core import inputs
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.package import config_dir

T = TypeVar("T")
NAME = "mobiledeploy.toml"
# The ends of what we write: a folder's file names no script and no dotfile to be written over.
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
    """One that a folder's file may set."""


class Output(Option):
    """A path that is written to: a folder's file may set it to a place within the folder."""


option = functools.partial(click.option, cls=Option)
output = functools.partial(click.option, cls=Output)


class CommaList(click.ParamType[T]):
    """A type whose values have commas between on the command line: a list in a file."""


class File(NamedTuple):
    """A settings file: tables by command. `label` is its name in what is said of it."""

    path: Path
    label: str
    own: bool
    tables: Mapping[str, Mapping[str, Any]]


def own_path() -> Path:
    """The user's own file, which need not be there."""
    return config_dir() / NAME


def files(folder: Path) -> list[File]:
    """The user's own file, then the folder's, whose settings go first; those that are there.

    Of a folder it is `mobiledeploy.toml`, or `[tool.mobiledeploy]` of its pyproject.toml. Tables
    have an option's name and its value: ``[export]`` ``alpha = 0.5``.

    Raises:
        UsageError: a file that cannot be read, or holds something else than tables.
    """
    own, found = own_path(), list[File]()
    if own.is_file():
        found.append(File(own, str(own), True, _tables(own, str(own), ())))
    path, project = folder / NAME, folder / "pyproject.toml"
    if path.is_file() and not (found and path.samefile(own)):
        found.append(File(path, path.name, False, _tables(path, path.name, ())))
    elif project.is_file():
        tables = _tables(project, project.name, ("tool", "mobiledeploy"))
        found.append(File(project, project.name, False, tables))
    return found


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
    """UsageError for a table that is no command's."""
    for name in file.tables:
        if name not in commands:
            raise UsageError(
                f"{file.label} has a table for {name!r}, which is no command",
                f"there are {', '.join(commands)}",
            )


def defaults(file: File, chosen: str, command: click.Command, ctx: click.Context) -> dict[str, Any]:
    """What `file` sets of the command `chosen`, by parameter, as the command line would give it.

    Raises:
        UsageError: an option that the command does not have or that a folder's file may not set, a
            value that it does not take, or a place outside of the folder for a result.
    """
    options = {p.name: p for p in command.params if isinstance(p, click.Option) and p.name}
    return {
        name: _default(file, chosen, name, options, value, ctx)
        for name, value in file.tables.get(chosen, {}).items()
    }


def _default(
    file: File,
    chosen: str,
    name: str,
    options: Mapping[str, click.Option],
    value: Any,
    ctx: click.Context,
) -> Any:
    if name not in options:
        raise UsageError(
            f"{file.label} sets {name!r}, which {chosen} does not have",
            f"it has {', '.join(sorted(options))}",
        )
    asked = options[name]
    flag = max(asked.opts, key=len)
    elsewhere = f"give {flag} on the command line, or under [{chosen}] in {own_path()}"
    if not (file.own or isinstance(asked, Option)):
        raise UsageError(
            f"{file.label} sets {flag} of {chosen}, which a file of the current folder may not",
            elsewhere,
        )
    try:
        said = _said(asked, value)
        asked.type_cast_value(ctx, said)
    except click.BadParameter as error:
        raise UsageError(f"{file.label}: {flag} of {chosen}: {error.message}") from error
    if isinstance(asked, Output) and not file.own:
        wrong = _misplaced(file.path.parent, said, asked)
        if wrong:
            raise UsageError(f"{file.label} sets {flag} of {chosen} to {said}, {wrong}", elsewhere)
    return said


def _said(asked: click.Option, value: Any) -> Any:
    """The value as the command line would give it; BadParameter for one of another type."""
    if asked.is_flag or asked.count:
        wanted = bool if asked.is_flag else int
        if type(value) is not wanted:
            raise click.BadParameter(f"{_word(value)} is not {_WORDS[wanted]}")
        return value
    several = asked.multiple or isinstance(asked.type, CommaList)
    texts = [_text(part) for part in (value if several and isinstance(value, list) else [value])]
    return tuple(texts) if asked.multiple else ",".join(texts)


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
    """UsageError where a name that nobody gave is a link out of the current folder.

    A stranger's folder may bring `report.html` as a link to a file of the user's.
    """
    place, home = path.resolve(), Path.cwd().resolve()
    if path.is_symlink() and not place.is_relative_to(home):
        raise UsageError(
            f"{path} is a link to {place}, outside of the current folder",
            f"if that is meant, say {flag} {path}",
        )


def _misplaced(folder: Path, said: str, asked: click.Option) -> str:
    """Why a folder's file may not have a result written there; empty where it may."""
    home = folder.resolve()
    try:
        place = (home / said).resolve()
    except (OSError, RuntimeError):  # links in a circle
        return "whose links end nowhere"
    if not place.is_relative_to(home):
        return "outside of the current folder"
    if any(part.startswith(".") for part in place.relative_to(home).parts):
        return "in a hidden folder"
    a_file = isinstance(asked.type, click.Path) and not asked.type.dir_okay
    if a_file and place.suffix not in WRITTEN:
        return f"which does not end as a result does ({', '.join(WRITTEN)})"
    return ""
