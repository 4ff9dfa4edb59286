"""List the figures in the store, move them to another machine, compare with a baseline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame, _settings

if TYPE_CHECKING:
    from mobiledeploy.core.display import Record
    from mobiledeploy.core.types import Result

# The most rows of a table; SQLite's limit is 2^63.
_MOST = 1_000_000_000
CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@click.group(
    invoke_without_command=True,
    epilog="Example:  mobiledeploy results --recipe int8_best --device host --newest",
    short_help=__doc__,
)
@_settings.option("--model", help="mobilenet_v1_0.5_160")
@_settings.option("--recipe", help="int8_best")
@_settings.option("--format", type=click.Choice(["tflite", "onnx"]))
@_settings.option("--artifact", metavar="SHA256", help="The hash or the beginning of it.")
@_settings.option("--kind", type=click.Choice(["measured", "counted", "estimated"]))
@_settings.option("--device", help="host")
@_settings.option("--runtime", help="litert")
@_settings.option("--since", metavar="TIME", help="2026-01-31 or 2026-01-31T12:00; UTC.")
@_settings.option(
    "--newest", is_flag=True, help="Only the newest figure of an artifact on a target."
)
@_settings.option(
    "--most",
    type=click.IntRange(1, _MOST),
    help="Number of rows; default: 50 for people, else all.",
)
@_settings.option("--csv", is_flag=True, help="Comma-separated values, base units.")
@_frame.common
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    recipe: str | None,
    format: str | None,  # noqa: A002
    artifact: str | None,
    kind: str | None,
    device: str | None,
    runtime: str | None,
    since: str | None,
    newest: bool,
    most: int | None,
    csv: bool,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """List figures of the store, newest first.

    Without a command, options filter the list. Measured, counted and estimated figures are in
    separate columns.
    """
    from mobiledeploy.verbs import results as verb

    if ctx.invoked_subcommand is not None:
        return
    people = not (json or csv)
    list_ = verb.results(
        model=model,
        recipe=recipe,
        format=format,
        artifact=artifact,
        kind=kind,
        device=device,
        runtime=runtime,
        since=since,
        newest=newest,
        most=most or (50 if people else None),
    )
    if csv and not json:
        _csv(list_.results)
    else:
        _show(list_, bool(list_.results), "No figure in the store matches.", json)


@command.command("compared", epilog="Example:  mobiledeploy results compared --json")
@_frame.common
def compared(json: bool, quiet: bool, verbose: int) -> None:
    """List the results of `bench A B --compare`, newest first."""
    from mobiledeploy.verbs import results as verb

    list_ = verb.results_compared()
    _show(list_, bool(list_.comparisons), "There are no comparisons in this folder.", json)


@command.command("cold", epilog="Example:  mobiledeploy results cold --json")
@_frame.common
def cold(json: bool, quiet: bool, verbose: int) -> None:
    """List the results of `bench --cold`, newest first."""
    from mobiledeploy.verbs import results as verb

    list_ = verb.results_cold()
    _show(list_, bool(list_.cold_starts), "There are no cold starts in this folder.", json)


@command.command("evaluated", epilog="Example:  mobiledeploy results evaluated --json")
@_frame.common
def evaluated(json: bool, quiet: bool, verbose: int) -> None:
    """List the accuracy of files on every device, newest first.

    The list without a command shows that on the host.
    """
    from mobiledeploy.verbs import results as verb

    list_ = verb.results_evaluated()
    _show(list_, bool(list_.evaluations), "There are no evaluations in this folder.", json)


@command.command("calibration", epilog="Example:  mobiledeploy results calibration --json")
@click.option("--device", help="Only timings on this one: adb:SERIAL, ssh:HOST, host.")
@_frame.common
def calibration(device: str | None, json: bool, quiet: bool, verbose: int) -> None:
    """List what device cards estimated beside the timings, with the errors of each card.

    Estimates that are missing are made now, from files that are still where they were exported.
    """
    from mobiledeploy.verbs import results as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        list_ = verb.results_calibration(device=device, reporter=terminal)
    otherwise = "There are no timings on a device with a card that estimates them."
    _show(list_, bool(list_.calibrations), otherwise, json)


@command.command("export", epilog="Example:  mobiledeploy results export phone.jsonl")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--newest", is_flag=True, help="Only the newest figure of an artifact on a target.")
@_frame.common
def export(file: Path, newest: bool, json: bool, quiet: bool, verbose: int) -> None:
    """Write all records to FILE, one JSON object per line.

    `results regress` takes FILE as a baseline.
    """
    from mobiledeploy.core import records
    from mobiledeploy.verbs import results as verb

    transfer = verb.results_export(file, newest=newest)
    if json:
        _frame.emit_json(transfer)
    else:
        click.echo(f"{transfer.path}: {transfer.records} records", err=records.is_stdout(file))


@command.command("import", epilog="Example:  mobiledeploy results import phone.jsonl")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_frame.common
def import_(file: Path, json: bool, quiet: bool, verbose: int) -> None:
    """Add the records of FILE to this store.

    Known records are not doubled.
    """
    from mobiledeploy.verbs import results as verb

    transfer = verb.results_import(file)
    if json:
        _frame.emit_json(transfer)
    else:
        click.echo(f"{transfer.path}: {transfer.new} new of {transfer.records} records")


@command.command("regress", epilog="Example:  mobiledeploy results regress accepted.jsonl")
@click.argument("baseline", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--margin",
    type=click.FloatRange(0, 100),
    default=5.0,
    show_default=True,
    help="How much a time may grow, in percent; for instructions and estimates it is 0.1 %.",
)
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write JUnit XML.")
@click.option("--github", is_flag=True, help="Print GitHub's annotations.")
@click.option(
    "--on-inconclusive",
    type=click.Choice(["fail", "warn"]),
    default="fail",
    show_default=True,
    help="warn: exit with 0 if nothing is decided.",
)
@_frame.common
@click.pass_context
def regress(
    ctx: click.Context,
    baseline: Path,
    margin: float,
    junit: Path | None,
    github: bool,
    on_inconclusive: str,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Compare the newest figures with BASELINE, a file of `results export`.

    The exit code is 1 if a figure grew beyond its margin, and 3 if the figures cannot tell: the
    runs scatter, a figure has a warning, or it is not newer than the baseline.
    """
    from mobiledeploy.core import records
    from mobiledeploy.core.plugins import REPORTS
    from mobiledeploy.core.types import Report
    from mobiledeploy.verbs import results as verb

    if junit is not None:
        records.need_folder(junit)
    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.results_regress(baseline, margin=margin, reporter=terminal)
    report = Report(f"figures against {baseline.name}", regressions=result.regressions)
    if junit is not None:
        records.write_atomic(junit, REPORTS.load("junit").render(report))
    if json:
        _frame.emit_json(result)
    elif github:
        click.echo(REPORTS.load("github").render(report), nl=False)
    else:
        for one in result.regressions:
            for verdict in one.verdicts:
                _frame.sentence(f"{verdict.outcome}: {verdict.line}")
    code = CODES[result.outcome]
    ctx.exit(0 if code == 3 and on_inconclusive == "warn" else code)


def _show(list_: Record, has_rows: bool, otherwise: str, json: bool) -> None:
    """Prints a list as JSON or as a table, or says that there is nothing in it."""
    if json:
        _frame.emit_json(list_)
    elif has_rows:
        _frame.show(list_)
    else:
        _frame.sentence(otherwise)


def _csv(results: tuple[Result, ...]) -> None:
    from mobiledeploy.core.plugins import REPORTS
    from mobiledeploy.core.types import Report

    sys.stdout.write(REPORTS.load("csv").render(Report("", results=results)))
