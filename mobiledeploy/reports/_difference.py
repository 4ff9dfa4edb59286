"""What the page about two files shows: their graphs as rows of layers, and what changed in each.

A row is a layer of both files, or of one. Rows stand in the order in which layers run. Layers that
differ only as most layers do (float32 → int8) are quiet, and runs of quiet rows are folded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from mobiledeploy.core import units
from mobiledeploy.core.types import FileFigures, Pair, Side
from mobiledeploy.reports import _page

SHORTEST_FOLD = 3
"""A run of fewer quiet rows is not folded."""
MOST_LINKS = 12
"""So many changed layers are listed above the graphs."""
# Two exports of one model may differ in the last bits of a scale.
_SAME_SCALE = 1e-6

State = Literal["same", "usual", "changed", "odd", "added", "removed"]
SIGNS: Mapping[State, str] = {
    "same": "=",
    "usual": "≈",
    "changed": "≠",
    "odd": "!",
    "added": "+",
    "removed": "−",
}
"""A state for who sees no colours."""
QUIET: tuple[State, ...] = ("same", "usual")


@dataclass(frozen=True)
class Box:
    """A layer of one file as texts.

    `follows`: it reads the layer above it; the first layer reads none. If it reads others, `reads`
    are the anchor ("" for none) and the short name of each layer that it reads.
    """

    anchor: str
    name: str
    short: str
    what: str
    more: str
    follows: bool
    reads: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """A layer of both files or of one; `changes` are those of both, `label` is the SQNR."""

    state: State
    a: Box | None
    b: Box | None
    label: str
    changes: tuple[str, ...]

    @property
    def sign(self) -> str:
        """The state for who sees no colours."""
        return SIGNS[self.state]

    @property
    def box(self) -> Box:
        """The layer's box in A, or in B if A does not have it."""
        box = self.a or self.b
        assert box is not None
        return box


@dataclass(frozen=True)
class Fold:
    """A run of rows; a folded one is closed, under the line `title`."""

    folded: bool
    title: str
    rows: tuple[Row, ...]


def context(
    paths: tuple[str, str],
    size_bytes: tuple[int, int],
    layers: Sequence[Pair],
    figures: Sequence[FileFigures],
) -> dict[str, Any]:
    """The variables of difference.html."""
    pairs = sorted(layers, key=lambda pair: pair.place)
    usual = _usual_types(pairs)
    rows = list(_rows(pairs, usual))
    columns = [row.a for row in rows if row.a], [row.b for row in rows if row.b]
    loud = [row for row in rows if row.state not in QUIET]
    return {
        "a": paths[0],
        "b": paths[1],
        "files": [
            (letter, path, units.size(size), units.several(len(column), "layer"))
            for letter, path, size, column in zip("AB", paths, size_bytes, columns, strict=True)
        ],
        "sentence": _sentence(rows, usual),
        "figures": [_figure(one) for one in figures],
        "links": loud[:MOST_LINKS],
        "unlisted": max(0, len(loud) - MOST_LINKS),
        "folds": list(_folds(rows, " to ".join(usual or ()))),
        "signs": SIGNS,
    }


def _usual_types(pairs: Sequence[Pair]) -> tuple[str, str] | None:
    """The types in both files of most layers with weights."""
    both = Counter((p.a.type, p.b.type) for p in pairs if p.a and p.b and p.a.mult_adds)
    return both.most_common(1)[0][0] if both else None


def _rows(pairs: Sequence[Pair], usual: tuple[str, str] | None) -> Iterator[Row]:
    first = _boxes("a", [pair.a for pair in pairs])
    second = _boxes("b", [pair.b for pair in pairs])
    for pair, a, b in zip(pairs, first, second, strict=True):
        changes = tuple(_changes(pair, usual))
        yield Row(_state(pair, changes), a, b, _label(pair), changes)


def _boxes(letter: str, sides: Sequence[Side | None]) -> list[Box | None]:
    places = {side.name: f"{letter}{n}" for n, side in enumerate(sides) if side}
    boxes: list[Box | None] = []
    above = ""
    for n, side in enumerate(sides):
        if side is None:
            boxes.append(None)
            continue
        follows = above in side.reads if above else not side.reads
        reads = tuple((places.get(x, ""), _short(x)) for x in side.reads)
        if side.reads == (above,) or not (above or reads):
            reads = ()
        elif not reads:
            reads = (("", "the input"),)
        boxes.append(_box(f"{letter}{n}", side, follows, reads))
        above = side.name
    return boxes


def _box(anchor: str, side: Side, follows: bool, reads: tuple[tuple[str, str], ...]) -> Box:
    more = []
    if side.scale is not None:
        more.append(f"scale {side.scale:.4g}")
    if side.zero_point is not None:
        more.append(f"zero point {side.zero_point}")
    if side.weight_bytes:
        more.append(f"weights {units.size(side.weight_bytes)}")
    if side.instructions is not None:
        more.append(f"{side.instructions:,} instructions")
    if side.own_sqnr_db is not None:
        more.append(f"own error {side.own_sqnr_db:.1f} dB")
    if side.left_out:
        more.append(f"{units.several(side.left_out, 'filter')} left out")
    return Box(
        anchor,
        units.one_line(side.name),
        _short(side.name),
        f"{side.kind}, {side.type} {_shape(side)}",
        ", ".join(more),
        follows,
        reads,
    )


def _short(name: str) -> str:
    """A layer's name for a box: TFLite joins the names of fused operators, the first is enough."""
    return _page.short_layer(units.one_line(name.partition(";")[0])) or "(no name)"


def _shape(side: Side) -> str:
    return "×".join(map(str, side.shape))


def _label(pair: Pair) -> str:
    if pair.sqnr_db is None:
        return ""
    if math.isnan(pair.sqnr_db):
        return "same weights"
    return f"{pair.sqnr_db:.1f} dB"


def _changes(pair: Pair, usual: tuple[str, str] | None) -> Iterator[str]:
    """What is odd, and what differs besides the types that differ as in most layers."""
    a, b = pair.a, pair.b
    if a is None or b is None:
        return
    # The shapes themselves come below.
    odd = [one for one in pair.odd if one != "shape"]
    yield from odd
    kinds, types = f"{a.kind} → {b.kind}", f"{a.type} → {b.type}"
    if a.kind != b.kind and kinds not in odd:
        yield kinds
    type_differs = a.type != b.type and (a.type, b.type) != usual
    if type_differs and not any(one.startswith(types) for one in odd):
        yield f"type {types}"
    # ONNX has the channels of the same shape elsewhere.
    if sorted(a.shape) != sorted(b.shape):
        yield f"shape {_shape(a)} → {_shape(b)}"
    if a.scale is not None and b.scale is not None:
        if not math.isclose(a.scale, b.scale, rel_tol=_SAME_SCALE):
            yield f"scale {a.scale:.4g} → {b.scale:.4g}"
        if a.zero_point != b.zero_point:
            yield f"zero point {a.zero_point} → {b.zero_point}"
    error_differs = pair.sqnr_db is not None and not math.isnan(pair.sqnr_db)
    if a.type == b.type and error_differs and not any(x.startswith("weights ") for x in odd):
        yield f"weights {pair.sqnr_db:.1f} dB"


def _state(pair: Pair, changes: Sequence[str]) -> State:
    if pair.a is None or pair.b is None:
        return "added" if pair.a is None else "removed"
    if pair.odd:
        return "odd"
    if changes:
        return "changed"
    return "same" if pair.a.type == pair.b.type else "usual"


def _sentence(rows: Sequence[Row], usual: tuple[str, str] | None) -> str:
    count = Counter(row.state for row in rows)
    words: dict[State, str] = {
        "removed": "only in A",
        "added": "only in B",
        "odd": "unlike the others",
        "changed": "changed",
    }
    parts = [
        f"{units.several(count[state], 'layer')} {word}"
        for state, word in words.items()
        if count[state]
    ]
    if count["usual"] and usual is not None:
        parts.append(
            f"{units.several(count['usual'], 'layer')} changed from {' to '.join(usual)} only"
        )
    if count["same"]:
        parts.append(f"{units.several(count['same'], 'layer')} the same")
    return f"{', '.join(parts)}." if parts else "Neither file has a layer."


def _figure(one: FileFigures) -> tuple[str, ...]:
    def text(value: float) -> str:
        return f"{value:,.0f} instructions" if one.kind == "counted" else units.duration(value)

    low, high = (100 * (end - 1) for end in one.interval)
    change = f"{100 * (one.ratio - 1):+.1f} %"
    if low != high:
        change += f" ({low:+.1f} to {high:+.1f} %)"
    where = f"{one.device}, {one.runtime}, {units.several(one.threads, 'thread')}"
    return one.kind, where, text(one.a), text(one.b), change


def _folds(rows: Sequence[Row], usual: str) -> Iterator[Fold]:
    for quiet, run in groupby(rows, key=lambda row: row.state in QUIET):
        group = tuple(run)
        if not quiet or len(group) < SHORTEST_FOLD:
            yield Fold(False, "", group)
            continue
        states, what = {row.state for row in group}, "without another change"
        if len(states) == 1:
            what = "the same" if "same" in states else f"changed from {usual} only"
        ends = f"{group[0].box.short} to {group[-1].box.short}"
        yield Fold(True, f"{units.several(len(group), 'layer')} {what}: {ends}", group)
