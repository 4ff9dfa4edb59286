"""Write an app that answers images by an artifact, with a test of its own."""

from __future__ import annotations

from pathlib import Path

import click

from mobiledeploy.cli import _frame


@click.command(
    epilog="Example:  mobiledeploy app build/mobilenet_v1_0.25_96_demo/int8_best.tflite "
    "--language python --out myapp",
    short_help=__doc__,
)
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--language",
    metavar="NAME",
    required=True,
    help="The app's language: python, cpp, javascript, android (Kotlin), or that of a plugin.",
)
@click.option(
    "--out",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder for the app: a new one, or that of an earlier app, whose files are replaced "
    "where they are still as they were written.",
)
@click.option("--force", is_flag=True, help="Replace files of the folder whoever wrote them.")
@_frame.common
def command(
    artifact: Path, language: str, out: Path, force: bool, json: bool, quiet: bool, verbose: int
) -> None:
    """Write an app that answers images by ARTIFACT: its code, the model and a test.

    The test replays the golden samples in the app's own code, and says what a change of it broke.
    """
    from mobiledeploy.verbs import app as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.app(artifact, language=language, out=out, force=force, reporter=terminal)
    if json:
        _frame.emit_json(result)
    else:
        for line in result.lines:
            _frame.sentence(line)
