"""Replay golden samples; find what is wrong with your own preprocessing."""

from __future__ import annotations

from pathlib import Path

import click

from mobiledeploy.cli import _frame

_WRONG = 1


@click.command(
    epilog="Example:  mobiledeploy verify build/mobilenet_v1_0.25_96_demo/int8_best.tflite "
    "--pipeline 'python preprocess.py'",
    short_help=__doc__,
)
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--pipeline",
    metavar="COMMAND|FILE.npz",
    help="Your app's preprocessing: an .npz of its tensors for the golden "
    "images, in their order, or a command that is called with the .npz to write and the "
    "images' paths.",
)
@_frame.device_options
@_frame.common
def command(
    artifact: Path,
    pipeline: str | None,
    device: str,
    delegate: str | None,
    strict: bool,
    record: Path | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Replay the golden samples of ARTIFACT, and check the preprocessing of an app against it.

    The exit code is 1 if the file's answers differ from those at its export, or if the pipeline's
    input differs from that of the training.
    """
    from mobiledeploy.verbs import verify as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.verify(
            artifact,
            pipeline=pipeline,
            device=device,
            delegate=delegate,
            strict=strict,
            record=record,
            reporter=terminal,
        )
    if json:
        _frame.emit_json(result)
    else:
        for line in result.lines:
            _frame.sentence(line)
    click.get_current_context().exit(0 if result.sound else _WRONG)
