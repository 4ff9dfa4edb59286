"""Check that artifacts lost no accuracy since they were accepted: a gate for CI."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units
from mobiledeploy.core.errors import DeployError
from mobiledeploy.steps import defaults

if TYPE_CHECKING:
    from mobiledeploy.core.types import Check, Report
    from mobiledeploy.steps.arguments import ImageOptions
    from mobiledeploy.verbs import check as verb

_REGRESSED, _INCONCLUSIVE = 1, 3
_POINTS = click.FloatRange(0, 100, min_open=True, max_open=True)


@click.command(
    epilog="Example:  mobiledeploy check build/*/int8_best.tflite --baseline accuracy.json "
    "--junit check.xml",
    short_help=__doc__,
)
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@_settings.output(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"File of accepted artifacts, or a bundle that holds one; default: {defaults.BASELINE}, "
    "and for a bundle, if that is not there, its own.",
)
@click.option(
    "--update-baseline",
    is_flag=True,
    help="Accept the artifacts: write the baseline without a check.",
)
@_settings.option(
    "--data",
    metavar="demo|DIR|FILE",
    help="Images with labels or other annotations (docs/data.md); default: those of the artifact's "
    "export, without its calibration images.",
)
@_frame.task_option
@_settings.option(
    "--margin",
    type=_POINTS,
    default=1.0,
    show_default=True,
    help="Points of top-1, or of the task's first metric, that an artifact may lose against the "
    "accepted one.",
)
@_settings.option(
    "--float-margin",
    type=_POINTS,
    default=2.0,
    show_default=True,
    help="Points that it may lose against the accepted float32 artifact.",
)
@_settings.option(
    "--floor", type=_POINTS, help="The least top-1, or first metric of the task, in percent."
)
@_settings.option(
    "--max-flips",
    type=_POINTS,
    help=f"Percent of the answers that may change; default: any; with --no-labels "
    f"{100 * defaults.UNLABELLED_FLIPS:g}.",
)
@_settings.option("--no-labels", is_flag=True, help="Judge only by the number of changed answers.")
@_settings.option(
    "--on-inconclusive",
    type=click.Choice(["fail", "warn"]),
    default="fail",
    show_default=True,
    help="fail: too few images exit with 3; warn: with 0 and a warning.",
)
@_settings.output("--junit", type=click.Path(dir_okay=False, path_type=Path), help="JUnit XML.")
@_settings.output("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Markdown.")
@_settings.option(
    "--github", is_flag=True, help="Write annotations and the step summary of GitHub Actions."
)
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
    baseline: Path | None,
    update_baseline: bool,
    data: str | None,
    task: str | None,
    margin: float,
    float_margin: float,
    floor: float | None,
    max_flips: float | None,
    no_labels: bool,
    on_inconclusive: Literal["fail", "warn"],
    junit: Path | None,
    markdown: Path | None,
    github: bool,
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
    """Compare ARTIFACTS with a baseline of accepted ones: pass, fail or inconclusive.

    A .zip is a bundle: it is checked whole, and all artifacts in it are judged.

    The exit code is 0 if all pass, 1 if one regressed, 3 if there are too few images to tell, and
    that of the error if one cannot be judged; the others are judged nevertheless.
    """
    from mobiledeploy.verbs import check as verb

    if update_baseline:
        if baseline is None:
            _settings.refuse_link_out(Path(defaults.BASELINE), "--baseline")
        with _frame.Terminal(quiet, verbose) as terminal:
            update = verb.update_baseline(
                artifacts,
                baseline=baseline,
                data=data,
                task=task,
                margin=margin,
                max_flips=max_flips,
                no_labels=no_labels,
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
            _frame.emit_json(update)
        else:
            _show_update(update, labelled=not no_labels)
        return
    try:
        with _frame.Terminal(quiet, verbose) as terminal:
            report = verb.check(
                artifacts,
                baseline=baseline,
                data=data,
                task=task,
                margin=margin,
                float_margin=float_margin,
                floor=floor,
                max_flips=max_flips,
                no_labels=no_labels,
                on_inconclusive=on_inconclusive,
                junit=junit,
                markdown=markdown,
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
    except DeployError as error:
        if github:
            line = units.one_line(str(error)).replace("%", "%25")
            click.echo(f"::error title=mobiledeploy check::{line}", err=True)
        raise
    if github:
        _github(report, terminal)
    if json:
        _frame.emit_json(report)
    else:
        _show(report, quiet)
    _frame.failures(report.failed)
    click.get_current_context().exit(_code(report))


def _code(report: Report) -> int:
    outcomes = {check.outcome for check in report.checks}
    if "fail" in outcomes:
        return _REGRESSED
    open_ = "inconclusive" in outcomes and report.on_inconclusive == "fail"
    return _INCONCLUSIVE if open_ else 0


def _github(report: Report, terminal: _frame.Terminal) -> None:
    """Writes the summary to its file and annotations to standard error, which GitHub reads too."""
    from mobiledeploy.core import records
    from mobiledeploy.core.plugins import REPORTS
    from mobiledeploy.core.types import NamedWarning

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        records.append(Path(summary), REPORTS.load("markdown").render(report))
    else:
        terminal.warn(
            NamedWarning(
                "no-summary", "--github: GITHUB_STEP_SUMMARY is not set, no summary is written"
            )
        )
    click.echo(REPORTS.load("github").render(report), err=True, nl=False)


def _show(report: Report, quiet: bool) -> None:
    # Not at the top: help prints no table.
    from mobiledeploy.cli import _tables

    _frame.show(report)
    # The table has the whole paths.
    names = _tables.endings([check.path for check in report.checks])
    for check, name in zip(report.checks, names, strict=True):
        for verdict in check.verdicts:
            if verdict.outcome != "pass" or not (quiet or verdict.metric == "class"):
                _frame.sentence(f"{name}: {verdict.outcome}: {verdict.line}")
        if not quiet:
            _show_rest(check, name)
    if "inconclusive" in {c.outcome for c in report.checks} and report.on_inconclusive == "warn":
        click.echo("warning: too few images to tell [inconclusive]", err=True)
    sys.stdout.flush()


def _show_rest(check: Check, name: str) -> None:
    from mobiledeploy.core.types import Verdict

    passing: list[Verdict] = [
        v for v in check.verdicts if v.metric == "class" and v.outcome == "pass"
    ]
    few = f", {check.untested} have too few images to be judged alone" if check.untested else ""
    if passing or few:
        _frame.sentence(f"{name}: {units.several(len(passing), 'class')} did not regress{few}")
    for pair in check.moved:
        text = f"{pair.true} is taken for {pair.predicted} {pair.now} times, {pair.before} before"
        _frame.sentence(f"{name}: {text}")


def _show_update(update: verb.BaselineUpdate, *, labelled: bool) -> None:
    from mobiledeploy.steps import accuracy_check

    for c in update.changes:
        title, before, now = c.figures()
        # A task without annotations and without a float model is judged by what changed.
        least = f"{accuracy_check.points(c.decides):g}"
        margin = (
            f"a loss of {least} points of {title} or more"
            if labelled and now != "–"
            else f"whether {least} % of the answers or more changed"
        )
        words = f"{c.model} {c.recipe} {c.format}: "
        if c.artifact_before is None:
            words += f"new, {title} {now}"
        else:
            words += f"{title} {before} -> {now}"
            words += (
                f", other images or preprocessing ({c.images} images)"
                if c.flips is None
                else f", {c.flips} of {c.images} answers changed"
            )
            words += (
                ", the same file"
                if c.artifact_before == c.artifact_sha256
                else f", file {c.artifact_before[:12]} -> {c.artifact_sha256[:12]}"
            )
        words += f"; {units.several(c.images, 'image')} can decide {margin}"
        _frame.sentence(words)
    _frame.sentence(f"{update.baseline} is written: commit it")
