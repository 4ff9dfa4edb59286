"""Records as people see them: short where they are printed, a table where a notebook shows them."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mobiledeploy.core import units

LONGEST_REPR = 500
_LONGEST_CELL = 120


class Record:
    """What the frozen dataclasses that verbs answer with share: how they are shown."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A dataclass makes a `__repr__` of its own only where its class has none.
        cls.__repr__ = Record.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """The fields in their order, as far as there is room; of many values how many they are."""
        whole = ""
        for name, value in _fields(self):
            field = f"{', ' if whole else ''}{name}={_SHORT.repr(value)}"
            if len(whole) + len(field) > LONGEST_REPR - len(type(self).__name__) - len("(, ...)"):
                whole += ", ..."
                break
            whole += field
        return f"{type(self).__name__}({whole})"

    def tables(self) -> tuple[Table, ...]:
        """The record for people: its fields, where it has no table of its own."""
        rows = tuple((name, _cell(name, value)) for name, value in _fields(self))
        return (Table(("field", "value"), rows, type(self).__name__),)

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables())


@dataclass(frozen=True)
class Table(Record):
    """A table for people: every row has a text for each header.

    `optional` are the headers that a narrow terminal can do without, the first one first. `names`
    are those of columns whose cells it shortens in their middle and does not break.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    optional: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """Itself."""
        return (self,)

    def html(self) -> str:
        """The table, every text of it escaped."""
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        head = "".join(f"<th>{escape(header)}</th>" for header in self.headers)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows
        )
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _fields(record: object) -> list[tuple[str, object]]:
    assert dataclasses.is_dataclass(record)
    return [(f.name, getattr(record, f.name)) for f in dataclasses.fields(record) if f.repr]


class _Short(reprlib.Repr):
    """Long collections as `<1000 Prediction>`, records within records by their first field."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = 60
        self.maxother = 60

    def repr1(self, x: object, level: int) -> str:
        if isinstance(x, Record):
            first, value = _fields(x)[0]
            inner = f"{first}={super().repr1(value, level - 1)}, ..." if level > 0 else "..."
            return f"{type(x).__name__}({inner})"
        if isinstance(x, tuple | list) and len(x) > 3:
            kinds = {type(item).__name__ for item in x}
            return f"<{len(x)} {kinds.pop() if len(kinds) == 1 else 'values'}>"
        if isinstance(x, Mapping) and len(x) > 3:
            return f"<{len(x)} entries>"
        return super().repr1(x, level)


_SHORT = _Short()


def _cell(name: str, value: object) -> str:
    """A field for people, its unit by the end of its name."""
    if value is None:
        return "–"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_ns"):
            return units.duration(value)
        if name.endswith("_bytes"):
            return units.size(round(value))
        if name in ("top1", "top5", "agreement", "sparsity"):
            return units.percent(value)
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if name.endswith("_ns") and isinstance(value, tuple) and len(value) == 2:
        return " to ".join(map(units.duration, value))
    if isinstance(value, str | Path):
        text = str(value)
        return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"
    return _SHORT.repr(value)
