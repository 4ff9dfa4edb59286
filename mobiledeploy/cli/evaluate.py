"""Top-1, top-5, agreement with float and confusion of artifacts, on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units
from mobiledeploy.core.artifacts import named
from mobiledeploy.core.types import Evaluation
from mobiledeploy.verbs import evaluate as verb

# Of the pairs of classes that are taken for each other, as many as are worth a glance.
_PAIRS = 3


@click.command(
    epilog="Example:  mobiledeploy evaluate build/*/int8_best.tflite --data photos",
    short_help=__doc__,
)
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@_settings.option(
    "--data",
    metavar="demo|DIR|FILE.npz",
    help="Labelled images; default: what the artifact was exported with, but for those that "
    "calibrated it.",
)
@_settings.option("--runtime", help="Default: litert for TFLite, onnxruntime for ONNX.")
@_settings.option(
    "--threads", type=click.IntRange(1, 64), help="Runners at once; default: one for each core."
)
@_frame.preprocessing_options
@_frame.common
def command(
    artifacts: tuple[Path, ...], json: bool, quiet: bool, verbose: int, **given: Any
) -> None:
    """Judge ARTIFACTS that `mobiledeploy export` made."""
    changes = _frame.overrides(given)
    paths = named(artifacts)
    with _frame.Terminal(quiet, verbose) as terminal:
        done = verb.evaluated(paths, overrides=changes, reporter=terminal, **given)
    if json:
        _frame.emit_json(done)
        _frame.failures(done.failed)
        return
    _frame.table(
        ("file", "runtime", "images", "top-1", "top-5", "agrees with float", "images/s"),
        [
            (
                path,
                e.target.runtime,
                str(e.images),
                units.percent(e.top1),
                units.percent(e.top5),
                units.percent(e.agreement),
                f"{e.images_per_second:.0f}",
            )
            for path, e in zip(done.paths, done.evaluations, strict=True)
        ],
    )
    for path, e in zip(done.paths, done.evaluations, strict=True):
        if e.confusion and not quiet:
            click.echo(f"{path} takes {', '.join(_pairs(e))}")
    _frame.failures(done.failed)


def _pairs(evaluation: Evaluation) -> list[str]:
    labels = evaluation.data.labels

    def name(index: int) -> str:
        return labels[index] if index < len(labels) else f"class {index}"

    return [
        f"{name(true)} for {name(predicted)} ({count} times)"
        for true, predicted, count in evaluation.confusion[:_PAIRS]
    ]
