"""Tables for people: on a terminal each one fits its width, elsewhere lines are as long as needed.

A table that is too wide loses as little as possible. In this order: the folder that all files share
and the columns with one value for all rows go to the title; cells break between words; columns that
the command can spare are left out, and named below; each row becomes a list, one of many rows a
short one. Names, such as those of layers, do not break: what has no room is left out in their
middle. Paths break behind their folders.

Sentences break between words, but a command in backticks does not: it can be copied whole.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import click

from mobiledeploy.core import units

_GAP = 2
_LONGEST_WORD = 32
"""Characters: a longer word, such as a path, breaks anywhere if there is no room for it."""
_SHORTEST_NAME = 18
"""Characters that remain of a longer name at least."""
_MOST_LISTS = 4
"""Rows: of more of them, a line for each cell would be pages that nobody can compare."""
_COMMAND = re.compile(r"(?:^Next: )?`[^`]+`")
_HARD_SPACE = "\N{NO-BREAK SPACE}"
_NUMBER = re.compile(r"[–~≤\d+±-]")


@dataclass(frozen=True)
class _Layout:
    """A table on its way to fit: its columns, each a header and its cells, and words around it."""

    columns: tuple[tuple[str, tuple[str, ...]], ...]
    title: str
    left_out: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def without(self, header: str) -> _Layout:
        return replace(self, columns=tuple(c for c in self.columns if c[0] != header))

    def titled(self, words: str) -> _Layout:
        return replace(self, title=f"{self.title}, {words}" if self.title else words)

    def width(self, *, broken: bool) -> int:
        """Characters of a line; `broken` with cells that break between words.

        Headers may break, and names be shortened, anyway.
        """
        widths = [self.least(*c) if broken else self.whole(*c) for c in self.columns]
        return sum(widths) + _GAP * (len(widths) - 1)

    def whole(self, header: str, cells: Sequence[str]) -> int:
        """The narrowest width of a column whose cells have one line each."""
        least = self.least(header, cells)
        return least if header in self.names else max(least, *map(len, cells), 0)

    def least(self, header: str, cells: Sequence[str]) -> int:
        """The narrowest width of a column.

        Numbers do not break, words do so where they are long, and a name is one word.
        """
        longest = max(map(len, header.split()), default=0)
        if _is_number(cells):
            return max(longest, *map(len, cells))
        if header in self.names:
            return max(longest, *(min(len(cell), _SHORTEST_NAME) for cell in cells), 1)
        words = (part for cell in cells for word in cell.split() for part in _parts(word))
        return max(longest, *(min(len(word), _LONGEST_WORD) for word in words), 1)


def show(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    optional: Sequence[str] = (),
    names: Sequence[str] = (),
) -> None:
    """Prints a table.

    `optional` are the headers that it can do without, the first one first; `names` are those of
    columns of names.
    """
    cells = tuple(zip(*rows, strict=True)) if rows else ((),) * len(headers)
    columns = tuple(zip(headers, cells, strict=True))
    layout = _Layout(columns, title, names=tuple(names))
    if sys.stdout.isatty():
        _print_on_terminal(layout, optional)
    else:
        _print_lines(layout)


def sentence(text: str) -> None:
    """Prints words for people: on a terminal lines break between them, elsewhere there is one."""
    line = units.one_line(text)
    click.echo(wrapped(line, shutil.get_terminal_size().columns) if sys.stdout.isatty() else line)


def endings(paths: Sequence[str]) -> list[str]:
    """Each path from the first of its last folders on that no other path shares from there."""
    parts = [path.split("/") for path in paths]
    names = []
    for place, own in enumerate(parts):
        others = [one for n, one in enumerate(parts) if n != place and one != own]
        least = next(
            (n for n in range(1, len(own)) if all(one[-n:] != own[-n:] for one in others)), len(own)
        )
        names.append("/".join(own[-least:]))
    return names


def wrapped(line: str, width: int, indent: str = "") -> str:
    """The line in lines of `width` characters, the later ones behind `indent`.

    Commands in backticks and words longer than a line are not broken.
    """
    whole = _COMMAND.sub(lambda command: command[0].replace(" ", _HARD_SPACE), line)
    broken = textwrap.fill(
        whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return broken.replace(_HARD_SPACE, " ")


def _print_lines(layout: _Layout) -> None:
    if layout.title:
        click.echo(layout.title)
    padded = []
    for header, cells in layout.columns:
        width = max(map(len, (header, *cells)))
        right = _is_number(cells)
        padded.append([c.rjust(width) if right else c.ljust(width) for c in (header, *cells)])
    for line in zip(*padded, strict=True):
        click.echo((" " * _GAP).join(line).rstrip())


def _print_on_terminal(layout: _Layout, optional: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)
    fitting = _fit(layout, optional, console.width)
    if fitting is None:
        _print_lists(layout)
        return
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    texts: list[Sequence[str]] = []
    for (header, cells), width in zip(
        fitting.columns, _widths(fitting, console.width), strict=True
    ):
        if header in fitting.names:
            texts.append(_shortened(cells, width))
        else:
            texts.append([_behind_folders(cell, width) for cell in cells])
        grid.add_column(
            header,
            justify="right" if _is_number(cells) else "left",
            overflow="fold",
            width=width,
        )
    for row in zip(*texts, strict=True):
        grid.add_row(*row)
    if fitting.title:
        console.print(fitting.title)
    console.print(grid)
    if fitting.left_out:
        names = ", ".join(fitting.left_out)
        console.print(f"Left out on this narrow terminal: {names}.", style="dim")


def _fit(layout: _Layout, optional: Sequence[str], width: int) -> _Layout | None:
    """The table in so many characters; None if there is no way."""
    if layout.width(broken=False) <= width:
        return layout
    layout = _without_folder(layout)
    if layout.width(broken=False) <= width:
        return layout
    for header, cells in layout.columns[:0:-1]:
        if layout.width(broken=False) > width and len(cells) > 1 and len(set(cells)) == 1:
            layout = layout.without(header)
            if cells[0] not in ("", "–"):
                layout = layout.titled(f"{header} {cells[0]}".strip())
    for header in optional:
        present = header in dict(layout.columns)
        if present and layout.width(broken=True) > width:
            layout = replace(layout.without(header), left_out=(*layout.left_out, header))
    return layout if layout.width(broken=True) <= width else None


def _without_folder(layout: _Layout) -> _Layout:
    """The folder of all files of the first column in the title instead."""
    header, cells = layout.columns[0]
    folders = [os.path.dirname(cell).split("/") for cell in cells]  # noqa: PTH120 - a text for people
    levels = takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    folder = "/".join(names[0] for names in levels)
    if not folder or any(" " in cell for cell in cells):
        return layout
    short = tuple(cell[len(folder) + 1 :] for cell in cells)
    columns = ((header, short), *layout.columns[1:])
    return replace(layout, columns=columns).titled(f"in {folder}")


def _shortened(cells: Sequence[str], width: int) -> Sequence[str]:
    """Names of `width` characters at most, which differ where the whole ones do, if they can.

    What is left out is no part of a number, if that can be, and near to the middle: the end of
    conv_13 would look like that of conv_3.
    """
    if max(map(len, cells), default=0) <= width:
        return cells

    def judge(way: tuple[str, ...]) -> tuple[int, int]:
        return len(set(way)), -sum(map(_cuts_number, cells, way))

    heads = sorted(range(1, width - 1), key=lambda head: abs(2 * head - width))
    ways = [tuple(units.shortened(cell, width, head) for cell in cells) for head in heads]
    return max(ways, key=judge, default=cells)


def _cuts_number(whole: str, short: str) -> bool:
    head, _, tail = short.partition("…") if short != whole else ("", "", "")
    ends = (len(head), len(whole) - len(tail))
    return any(whole[end - 1 : end + 1].isdigit() and 0 < end < len(whole) for end in ends)


def _parts(word: str) -> list[str]:
    """A word in the parts between which it breaks: a path behind each folder."""
    return re.findall(r"[^/]*/+|[^/]+", word)


def _behind_folders(cell: str, width: int) -> str:
    """The cell with line breaks in those of its words that are too long paths."""
    words = []
    for word in cell.split(" "):
        lines = [""]
        for part in _parts(word) if len(word) > width else [word]:
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append("")
            lines[-1] += part
        words.append("\n".join(lines))
    return " ".join(words)


def _print_lists(layout: _Layout) -> None:
    """Each row as lines of a header and its value; of many rows as a line and a sentence."""
    if layout.title:
        sentence(layout.title)
    columns = shutil.get_terminal_size().columns
    rows = list(zip(*(cells for _, cells in layout.columns), strict=True))
    headers = [header for header, _ in layout.columns]
    width = max(map(len, headers))
    for number, row in enumerate(rows):
        if len(rows) > _MOST_LISTS:
            click.echo(row[0])
            cells = ", ".join(
                f"{header}: {cell}" if header else cell
                for header, cell in zip(headers[1:], row[1:], strict=True)
                if cell not in ("", "–")
            )
            click.echo(wrapped(f"  {cells}", columns, "  "))
            continue
        if number:
            click.echo()
        for header, cell in zip(headers, row, strict=True):
            line = f"{header.ljust(width)}  {cell}".rstrip()
            click.echo(wrapped(line, columns, " " * (width + _GAP)))


def _is_number(cells: Sequence[str]) -> bool:
    return bool(cells) and all(_NUMBER.match(cell) and ", " not in cell for cell in cells)


def _widths(layout: _Layout, width: int) -> list[int]:
    """The width of each column: what it needs, and of the rest a share by what it lacks.

    Cells that break cost a line each and come first; then headers, which cost one line; then names,
    which are shortened and cost none.
    """
    widths = [layout.least(*column) for column in layout.columns]
    is_name = [header in layout.names for header, _ in layout.columns]
    cells = [max(map(len, cells), default=0) for _, cells in layout.columns]
    whole = [
        max(len(header), need) for (header, _), need in zip(layout.columns, cells, strict=True)
    ]
    for wanted in (
        [0 if name else need for name, need in zip(is_name, cells, strict=True)],
        [0 if name else need for name, need in zip(is_name, whole, strict=True)],
        whole,
    ):
        lack = [max(0, need - now) for need, now in zip(wanted, widths, strict=True)]
        rest = min(width - sum(widths) - _GAP * (len(widths) - 1), sum(lack))
        widths = [
            now + (rest * more // sum(lack) if more else 0)
            for now, more in zip(widths, lack, strict=True)
        ]
    return widths
