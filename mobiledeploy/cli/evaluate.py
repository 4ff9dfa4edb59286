"""Evaluate artifacts on labelled images: top-1, top-5, agreement with float, confusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from mobiledeploy.cli import _frame, _settings

if TYPE_CHECKING:
    from mobiledeploy.steps.arguments import ImageOptions


@click.command(
    epilog="Example:  mobiledeploy evaluate build/*/int8_best.tflite --data photos",
    short_help=__doc__,
)
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@_settings.option(
    "--data",
    metavar="demo|DIR|FILE",
    help="Images with labels or other annotations (docs/data.md); default: those of the artifact's "
    "export, without its calibration images.",
)
@_frame.task_option
@_settings.option("--runtime", help="Default: litert for TFLite, onnxruntime for ONNX.")
@_settings.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Number of runners at once; default: one per core here, one on a phone or board.",
)
@_frame.device_options
@_frame.limit_option
@_frame.preprocessing_options
@_frame.common
def command(
    artifacts: tuple[Path, ...],
    data: str | None,
    task: str | None,
    runtime: str | None,
    threads: int | None,
    device: str,
    delegate: str | None,
    strict: bool,
    record: Path | None,
    limit: int | None,
    json: bool,
    quiet: bool,
    verbose: int,
    **images: Unpack[ImageOptions],
) -> None:
    """Evaluate ARTIFACTS: .tflite and .onnx files of `mobiledeploy export` or of any tool."""
    from mobiledeploy.verbs import evaluate as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.evaluate(
            artifacts,
            data=data,
            task=task,
            runtime=runtime,
            threads=threads,
            device=device,
            delegate=delegate,
            strict=strict,
            record=record,
            limit=limit,
            reporter=terminal,
            **images,
        )
    if json:
        _frame.emit_json(result)
        _frame.failures(result.failed)
        return
    _frame.show(result)
    _frame.failures(result.failed)
