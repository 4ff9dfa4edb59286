"""Latency of artifacts; without an argument, of what was exported last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mobiledeploy.cli import _counts, _estimates, _frame
from mobiledeploy.core import units
from mobiledeploy.core.types import Counted, Estimated, Measured
from mobiledeploy.verbs import bench as verb


@click.command(
    epilog="Example:  mobiledeploy bench build/*/int8_ptq.tflite --threads 2",
    short_help=__doc__,
)
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--device",
    default="host",
    show_default=True,
    help="Where to measure; a device card's name (pixel-3; pixel for the Pixel with most points) "
    "estimates instead.",
)
@click.option("--runner", help="What drives the runtime: python, native; default: the device's.")
@click.option("--runtime", help="Default: litert for TFLite, onnxruntime for ONNX.")
@click.option("--delegate", help="xnnpack or none; default: what the runtime has.")
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Of the runtime.  [default: 1; of an estimate, those of the card's points]",
)
@click.option(
    "--runs", type=click.IntRange(min=1),
    help="Runs after the warm-up; default: until the median is known to 1 %, for 5 s at most.",
)  # fmt: skip
@_frame.common
def command(
    artifacts: tuple[Path, ...], json: bool, quiet: bool, verbose: int, **given: Any
) -> None:
    """Time ARTIFACTS that `mobiledeploy export` made, one picture at a time.

    On an emulated core (`--device emulator:cortex-a53`, see `mobiledeploy devices`) instructions
    are counted instead: exact to the instruction, and no latency. Of a phone or board that is not
    here but has a device card (`--device pixel-3`), latency is estimated from published points.
    """
    paths = tuple(dict.fromkeys(artifacts)) or verb.last_export()
    with _frame.Terminal(quiet, verbose) as terminal:
        made = verb.figures(paths, notify=terminal, **given)
    if json:
        _frame.emit_json(verb.Benched(tuple(map(str, paths)), made))
        return
    measured = {p: m for p, m in zip(paths, made, strict=True) if isinstance(m, Measured)}
    counted = {p: m for p, m in zip(paths, made, strict=True) if isinstance(m, Counted)}
    if measured:
        _show_measured(measured)
    if counted:
        _counts.show(counted)
    estimated = {p: m for p, m in zip(paths, made, strict=True) if isinstance(m, Estimated)}
    if estimated:
        _estimates.show(estimated)


def _show_measured(made: Mapping[Path, Measured]) -> None:
    first = next(iter(made.values()))
    _frame.table(
        ("file", "runtime", "median", "95 % interval", "runs", "delegated", "peak memory"),
        [
            (
                str(path),
                f"{m.target.runtime} {m.runtime_version}",
                units.duration(m.median_ns),
                " to ".join(units.duration(end) for end in m.interval_ns),
                str(len(m.samples_ns)),
                _delegated(m),
                units.size(m.peak_rss_bytes),
            )
            for path, m in made.items()
        ],
        title=f"{first.facts_before.get('cpu', first.target.device)}, "
        f"{first.target.threads} thread{'s' if first.target.threads > 1 else ''}, batch 1",
    )


def _delegated(measured: Measured) -> str:
    if measured.target.delegate == "none" or measured.total_nodes is None:
        return "–"
    return f"{measured.delegated_nodes}/{measured.total_nodes} {measured.target.delegate}"
