"""Layers that lost the filters that no answer depends on, for people."""

from __future__ import annotations

from collections.abc import Sequence

from mobiledeploy.core import units
from mobiledeploy.core.display import Table
from mobiledeploy.core.types import ShrunkLayer

MOST = 3
"""Rows of the table; the rest is in its last row."""


def tables(layers: Sequence[ShrunkLayer]) -> tuple[Table, ...]:
    """A table of the layers that lost most filters and of all together; () if none did."""
    if not layers:
        return ()
    largest = sorted(layers, key=lambda layer: layer.left_out, reverse=True)[:MOST]
    rows = [(f"of {short(layer.layer)}", of(layer)) for layer in largest]
    if len(layers) > len(largest):
        total = ShrunkLayer("", sum(x.filters for x in layers), sum(x.left_out for x in layers))
        rows.append((f"of {len(layers)} layers together", of(total)))
    title = "No answer depends on these filters; they are left out (--no-shrink keeps them):"
    return (Table(("filters", "left out"), tuple(rows), title),)


def of(layer: ShrunkLayer) -> str:
    """'12 of 24'."""
    return f"{layer.left_out:,} of {layer.filters:,}"


def short(name: str) -> str:
    """The first of the names of fused operators, which TFLite joins; it is the layer's."""
    return units.one_line(name.partition(";")[0])
