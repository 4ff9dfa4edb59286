"""Write a page with plots and tables of the figures in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units
from mobiledeploy.steps import defaults


@click.command(
    epilog="Example:  mobiledeploy report --device host --out front.html",
    short_help=__doc__,
)
@_settings.option(
    "--format",
    type=click.Choice(defaults.REPORT_FORMATS),
    default="html",
    show_default=True,
    help="Format; html is one file that needs no network.",
)
@_settings.output(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: report.<format>."
)
@click.option(
    "--site",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for linked pages instead of a file: a leaderboard, and a page for each model.",
)
@_settings.option("--title", default=defaults.REPORT_TITLE, show_default=True, help="Heading.")
@_settings.option("--model", help="Only this one: mobilenet_v1_0.5_160")
@_settings.option("--recipe", help="Only this one: int8_best")
@_settings.option("--kind", type=click.Choice(["measured", "counted", "estimated"]))
@_settings.option("--device", help="Only this one: host")
@_frame.common
def command(
    format: Literal["html", "markdown", "csv", "json", "svg", "png"],  # noqa: A002
    out: Path | None,
    site: Path | None,
    title: str,
    model: str | None,
    recipe: str | None,
    kind: str | None,
    device: str | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Write accuracy against latency, size and mult-adds, with the tables behind them.

    Measured, counted and estimated figures have separate plots. With --site it writes a folder that
    any web server can serve, such as GitHub Pages.
    """
    from mobiledeploy.core import records
    from mobiledeploy.verbs import report as verb

    if out is None and site is None:
        out = verb.default(format)
        _settings.refuse_link_out(out, "--out")
    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.report(
            format=format,
            out=out,
            title=title,
            model=model,
            recipe=recipe,
            kind=kind,
            device=device,
            site=site,
            reporter=terminal,
        )
    if json:
        _frame.emit_json(result)
    else:
        text = f"{result.path}: {result.results} figures, {units.size(result.size_bytes)}"
        click.echo(text, err=out is not None and records.is_stdout(out))
