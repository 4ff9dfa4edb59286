"""Tables of counted instructions; never a time among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from mobiledeploy.cli import _frame
from mobiledeploy.core import units
from mobiledeploy.core.types import Counted

# How many operators a single artifact's table shows: the heaviest.
LAYERS = 12
MULTIPLICATIONS = ("sdot", "mmla", "mla", "fmla", "fmla16", "fmadd")


def show(made: Mapping[Path, Counted]) -> None:
    """A row for each artifact; of a single one, its operators too."""
    first = next(iter(made.values()))
    _frame.table(
        ("file", "runtime", "instructions", "multiplying", "loaded", "stored", "like the host"),
        [
            (
                str(path),
                f"{c.target.runtime} {c.runtime_version}",
                f"{c.instructions:,}",
                _multiplying(c),
                units.size(c.bytes_loaded),
                units.size(c.bytes_stored),
                "equal" if c.host_difference == 0 else f"within {c.host_difference:.2g}",
            )
            for path, c in made.items()
        ],
        title=f"counted on an emulated {first.core} ({first.versions.get('qemu', 'qemu')}), "
        "1 thread, batch 1: instructions of one inference, not a time",
    )
    if len(made) == 1 and first.by_layer:
        click.echo()
        _show_layers(first)


def _show_layers(counted: Counted) -> None:
    heaviest = sorted(counted.by_layer, key=lambda layer: -layer.instructions)[:LAYERS]
    rest = counted.instructions - sum(layer.instructions for layer in heaviest)
    _frame.table(
        ("operator", "kernel", "instructions", "share"),
        [
            (name, kernel, f"{number:,}", f"{100 * number / counted.instructions:.1f} %")
            for name, kernel, number in (
                *((_short(layer.name), layer.kernel, layer.instructions) for layer in heaviest),
                ("all others, and the runtime", "", max(0, rest)),
            )
        ],
    )


def _multiplying(counted: Counted) -> str:
    """The classes that multiply, largest first, each with its share."""
    shares = {
        name: counted.by_class.get(name, 0) / counted.instructions for name in MULTIPLICATIONS
    }
    return ", ".join(
        f"{name} {100 * share:.0f} %"
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
        if share >= 0.01
    )


def _short(name: str) -> str:
    """The first of the names that a fused operator has, the end of it where it is long."""
    first = name.partition(";")[0]
    return first if len(first) <= 48 else "…" + first[-47:]
