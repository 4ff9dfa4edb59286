"""Two artifacts layer by layer, what changed most first."""

from __future__ import annotations

import math
from pathlib import Path

import click

from mobiledeploy.cli import _frame
from mobiledeploy.core import units
from mobiledeploy.verbs import diff as verb


@click.command(
    epilog="Example:  mobiledeploy diff build/*/float32.tflite build/*/int8_ptq.tflite",
    short_help=__doc__,
)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--most", type=click.IntRange(min=1), default=20, show_default=True, help="Layers.")
@_frame.common
def command(a: Path, b: Path, most: int, json: bool, quiet: bool, verbose: int) -> None:
    """Compare the artifacts A and B: types, shapes, weights, size, instructions.

    Below stand figures of one kind that the store has of both on one target.
    """
    done = verb.diff(a, b)
    if json:
        _frame.emit_json(done)
        return
    _frame.table(
        ("layer", "operator", "type", "weights", "SQNR", "instructions", "odd"),
        [_row(pair) for pair in done.layers[:most]],
        title=f"{a} {units.size(done.size_bytes[0])} → {b} {units.size(done.size_bytes[1])}",
    )
    if len(done.layers) > most:
        click.echo(f"{len(done.layers) - most} more layers; --most shows them")
    for f in done.figures:
        low, high = (100 * (end - 1) for end in f.interval)
        exact = "" if low == high else f" ({low:+.1f} to {high:+.1f} %)"
        values = (f"{x:,.0f} instructions" if f.kind == "counted" else units.duration(x)
                  for x in (f.a, f.b))  # fmt: skip
        click.echo(
            f"{f.kind} on {f.device}, {f.runtime}: {' → '.join(values)}, "
            f"{100 * (f.ratio - 1):+.1f} %{exact}"
            + (f"; delegated {' → '.join(f.delegated)}" if any(f.delegated) else "")
        )


def _row(pair: verb.Pair) -> tuple[str, ...]:
    sides = [side for side in (pair.a, pair.b) if side]
    kept = sides[0]

    def change(values: list[str]) -> str:
        return values[0] if len(set(values)) == 1 else " → ".join(values)

    if pair.sqnr_db is None:
        error = "–"
    else:
        error = "same" if math.isnan(pair.sqnr_db) else f"{pair.sqnr_db:.1f} dB"
    counts = ["–" if s.instructions is None else f"{s.instructions:,}" for s in sides]
    return (
        units.one_line(kept.name)[-48:], change([s.kind for s in sides]),
        change([s.type for s in sides]), change([units.size(s.weight_bytes) for s in sides]),
        error, change(counts), "; ".join(pair.odd) or "–",
    )  # fmt: skip
