"""Latency of artifacts; without an argument, of what was exported last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mobiledeploy.cli import _frame
from mobiledeploy.core import units
from mobiledeploy.core.types import Estimated, Measured
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
    help="Where: host, or a device card's name for an estimate (pixel-3; pixel for the Pixel with "
    "most points; `mobiledeploy devices` lists them).",
)
@click.option("--runner", default="python", show_default=True, help="What drives the runtime.")
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
    """Time ARTIFACTS that `mobiledeploy export` made, one picture at a time."""
    paths = tuple(dict.fromkeys(artifacts)) or verb.last_export()
    with _frame.Terminal(quiet, verbose) as terminal:
        made = verb.figures(paths, notify=terminal, **given)
    if json:
        _frame.emit_json(verb.Benched(tuple(map(str, paths)), made))
        return
    measured = [(path, m) for path, m in zip(paths, made, strict=True) if isinstance(m, Measured)]
    if measured:
        _measured_table(measured)
    estimated = [(path, m) for path, m in zip(paths, made, strict=True) if isinstance(m, Estimated)]
    if estimated:
        _estimated_table(estimated)


def _measured_table(made: Sequence[tuple[Path, Measured]]) -> None:
    _, first = made[0]
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
            for path, m in made
        ],
        title=f"{first.facts_before.get('cpu', first.target.device)}, "
        f"{first.target.threads} thread{'s' if first.target.threads > 1 else ''}, batch 1",
    )


def _estimated_table(made: Sequence[tuple[Path, Estimated]]) -> None:
    _, first = made[0]
    _frame.table(
        ("file", "estimated", "95 % interval", "for", "threads", "points", "their error"),
        [
            (
                str(path),
                units.duration(m.latency_ns),
                " to ".join(units.duration(end) for end in m.interval_ns),
                f"{m.target.runtime} {m.fit.version or m.fit.year or ''}".strip(),
                str(m.target.threads),
                _points(m),
                f"{units.percent(m.fit.rmspe)}, {m.fit.held_out} left out",
            )
            for path, m in made
        ],
        title=f"estimated, not measured: {first.target.device}, batch 1",
    )


def _points(estimated: Estimated) -> str:
    borrowed = estimated.fit.borrowed
    return f"{estimated.fit.points}{f' + {len(borrowed)} like devices' if borrowed else ''}"


def _delegated(measured: Measured) -> str:
    if measured.target.delegate == "none" or measured.total_nodes is None:
        return "–"
    return f"{measured.delegated_nodes}/{measured.total_nodes} {measured.target.delegate}"
