"""Pack artifacts, records and figures into one file; check it; make it again."""

from __future__ import annotations

from pathlib import Path

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units
from mobiledeploy.core.errors import UsageError
from mobiledeploy.steps import defaults


@click.command(
    epilog="Example:  mobiledeploy bundle build/*/int8_best.tflite --out release.zip && "
    "mobiledeploy bundle --verify release.zip",
    short_help=__doc__,
)
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.zip",
    help="File to write.",
)
@_settings.option(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"File of accepted artifacts, whose entries of these are packed; default: "
    f"{defaults.BASELINE} if it is there.",
)
@_settings.option(
    "--weights-license",
    metavar="NAME",
    help="Licence of your weights for the model card, such as Apache-2.0; default: unknown.",
)
@_settings.option(
    "--data-license",
    metavar="NAME",
    help="Licence of your images for the model card; default: unknown.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="FILE.zip",
    help="Check a bundle, every byte of it.",
)
@_frame.common
def command(
    artifacts: tuple[Path, ...],
    out: Path | None,
    baseline: Path | None,
    weights_license: str | None,
    data_license: str | None,
    verify: Path | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Pack ARTIFACTS with their records, golden samples and figures into one zip file.

    The same artifacts and figures give the same bytes. A bundle that was changed, or an artifact
    that is not the one of its record, exits with 7.
    """
    from mobiledeploy.verbs import bundle as verb

    licences = {"weights_license": weights_license, "data_license": data_license}
    if verify is not None:
        _refuse_with("--verify", artifacts=artifacts, out=out, baseline=baseline, **licences)
        result = verb.bundle_verify(verify)
        if json:
            _frame.emit_json(result)
        else:
            for line in result.lines:
                click.echo(units.one_line(line))
        return
    if out is None:
        raise UsageError("--out is missing", "name the zip file to write: --out release.zip")
    with _frame.Terminal(quiet, verbose) as terminal:
        written = verb.bundle(artifacts, out=out, baseline=baseline, reporter=terminal, **licences)
    if json:
        _frame.emit_json(written)
    else:
        _frame.show(written)


def _refuse_with(mode: str, **others: object) -> None:
    """UsageError for arguments that do not go with an option."""
    for name, value in others.items():
        if value not in (None, ()):
            what = "ARTIFACT" if name == "artifacts" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{what} does not go with {mode}", "leave it out")
