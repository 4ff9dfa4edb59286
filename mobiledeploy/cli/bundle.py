"""Pack artifacts, records and figures into one file; check it; make it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core.errors import InputError, UsageError
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
    metavar="FILE.zip|DIR",
    help="File to write; with --reproduce the folder for the new files.",
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
    "--sign",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="KEY.pem",
    help="Sign the new bundle with this private key: the signature is FILE.zip.sig.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="FILE.zip",
    help="Check a bundle, every byte of it.",
)
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PUB.pem",
    help="With --verify: check FILE.zip.sig by this public key, too.",
)
@click.option(
    "--reproduce",
    type=click.Path(path_type=Path),
    metavar="FILE.zip",
    help="Make the artifacts of a bundle again and compare them, byte for byte.",
)
@click.option("--data", metavar="DIR|FILE", help="With --reproduce: your images, if it needs them.")
@click.option(
    "--weights",
    metavar="FILE",
    help="With --reproduce: your weights or model file, if it needs them.",
)
@_frame.common
def command(
    artifacts: tuple[Path, ...],
    out: Path | None,
    baseline: Path | None,
    weights_license: str | None,
    data_license: str | None,
    sign: Path | None,
    verify: Path | None,
    key: Path | None,
    reproduce: Path | None,
    data: str | None,
    weights: str | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Pack ARTIFACTS with their records, golden samples and figures into one zip file.

    The same artifacts and figures give the same bytes. The exit code is 7 for a bundle that was
    changed, for an artifact that is not the one of its record, and for files that do not come out
    the same with --reproduce.
    """
    from mobiledeploy.verbs import bundle as verb

    packing = {
        "artifacts": artifacts,
        "baseline": baseline,
        "weights_license": weights_license,
        "data_license": data_license,
        "sign": sign,
    }
    again = {"data": data, "weights": weights}
    if verify is not None:
        _refuse_with("--verify", **packing, **again, out=out, reproduce=reproduce)
        checked = verb.bundle_verify(verify, key=key)
        _answer(checked, checked.lines, json)
        return
    if out is None:
        raise UsageError("--out is missing", "say where to write: --out release.zip")
    if reproduce is not None:
        _refuse_with("--reproduce", **packing, key=key)
        with _frame.Terminal(quiet, verbose) as terminal:
            made = verb.bundle_reproduce(
                reproduce, out=out, data=data, weights=weights, reporter=terminal
            )
        _answer(made, made.lines, json)
        click.get_current_context().exit(0 if made.same else InputError.exit_code)
    _refuse_with("a new bundle", **again, key=key)
    with _frame.Terminal(quiet, verbose) as terminal:
        written = verb.bundle(
            artifacts,
            out=out,
            baseline=baseline,
            weights_license=weights_license,
            data_license=data_license,
            sign=sign,
            reporter=terminal,
        )
    if json:
        _frame.emit_json(written)
    else:
        _frame.show(written)
        if written.signature:
            _frame.sentence(f"signed: {written.signature}")


def _answer(record: object, lines: Sequence[str], json: bool) -> None:
    if json:
        _frame.emit_json(record)
        return
    for line in lines:
        _frame.sentence(line)


def _refuse_with(mode: str, **others: object) -> None:
    """UsageError for arguments that do not go with an option."""
    for name, value in others.items():
        if value not in (None, ()):
            what = "ARTIFACT" if name == "artifacts" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{what} does not go with {mode}", "leave it out")
