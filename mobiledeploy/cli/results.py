"""What the store holds: listed, filtered, moved to another machine, held against a baseline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units

if TYPE_CHECKING:
    from mobiledeploy.core.types import Result

# Rows of a table; the store counts to no more than 2^63.
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
@_settings.option("--artifact", metavar="SHA256", help="Or the start of it.")
@_settings.option("--kind", type=click.Choice(["measured", "counted", "estimated"]))
@_settings.option("--device", help="host")
@_settings.option("--runtime", help="litert")
@_settings.option("--since", metavar="TIME", help="2026-01-31, or with 12:00 behind it; UTC.")
@_settings.option("--newest", is_flag=True, help="Only the newest of an artifact on a target.")
@_settings.option(
    "--most", type=click.IntRange(1, _MOST), help="So many rows; default: 50 for people, else all."
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

    Without a command, options choose what is listed. Measured, counted and estimated figures stand
    in columns of their own.
    """
    from mobiledeploy.verbs import results as verb

    if ctx.invoked_subcommand is not None:
        return
    people = not (json or csv)
    found = verb.results(
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
    if json:
        _frame.emit_json(found)
    elif csv:
        _csv(found.results)
    elif not found.results:
        click.echo("No figure of the store is so.")
    else:
        _frame.show(found)


@command.command("compared", epilog="Example:  mobiledeploy results compared --json")
@_frame.common
def compared(json: bool, quiet: bool, verbose: int) -> None:
    """List what `bench A B --compare` timed in turns, newest first."""
    from mobiledeploy.verbs import results as verb

    found = verb.results_compared()
    if json:
        _frame.emit_json(found)
    elif not found.comparisons:
        click.echo("Nothing was timed in turns here.")
    else:
        _frame.show(found)


@command.command("export", epilog="Example:  mobiledeploy results export phone.jsonl")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--newest", is_flag=True, help="Of figures, the newest of an artifact on a target.")
@_frame.common
def export(file: Path, newest: bool, json: bool, quiet: bool, verbose: int) -> None:
    """Write all records into FILE, a JSON object a line; a baseline set for regress, too."""
    from mobiledeploy.core import records
    from mobiledeploy.verbs import results as verb

    done = verb.results_export(file, newest=newest)
    if json:
        _frame.emit_json(done)
    else:
        click.echo(f"{done.path}: {done.records} records", err=records.is_stdout(file))


@command.command("import", epilog="Example:  mobiledeploy results import phone.jsonl")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_frame.common
def import_(file: Path, json: bool, quiet: bool, verbose: int) -> None:
    """Add the records of FILE to this store; what is known already stays once."""
    from mobiledeploy.verbs import results as verb

    done = verb.results_import(file)
    if json:
        _frame.emit_json(done)
    else:
        click.echo(f"{done.path}: {done.new} new of {done.records} records")


@command.command("regress", epilog="Example:  mobiledeploy results regress accepted.jsonl")
@click.argument("baseline", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--margin",
    type=click.FloatRange(0, 100),
    default=5.0,
    show_default=True,
    help="Percent that a time may grow; instructions and estimates may 0.1 %.",
)
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write JUnit XML.")
@click.option("--github", is_flag=True, help="Print GitHub's annotations.")
@click.option(
    "--on-inconclusive",
    type=click.Choice(["fail", "warn"]),
    default="fail",
    show_default=True,
    help="warn: end in 0 where nothing is decided.",
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
    """Hold the newest figures against BASELINE, a file of `results export`.

    Ends in 1 where a figure grew beyond its margin, in 3 where the runs cannot tell: they scatter,
    a figure was given with a warning when it was taken, or it was not taken since.
    """
    from mobiledeploy.core import records
    from mobiledeploy.core.plugins import REPORTS
    from mobiledeploy.core.types import Report
    from mobiledeploy.verbs import results as verb

    if junit is not None:
        records.need_folder(junit)
    with _frame.Terminal(quiet, verbose) as terminal:
        done = verb.results_regress(baseline, margin=margin, reporter=terminal)
    report = Report(f"figures against {baseline.name}", regressions=done.regressions)
    if junit is not None:
        records.write_atomic(junit, REPORTS.load("junit").render(report))
    if json:
        _frame.emit_json(done)
    elif github:
        click.echo(REPORTS.load("github").render(report), nl=False)
    else:
        for one in done.regressions:
            for verdict in one.verdicts:
                click.echo(units.one_line(f"{verdict.outcome}: {verdict.line}"))
    code = CODES[done.outcome]
    ctx.exit(0 if code == 3 and on_inconclusive == "warn" else code)


def _csv(results: tuple[Result, ...]) -> None:
    from mobiledeploy.core.plugins import REPORTS
    from mobiledeploy.core.types import Report

    sys.stdout.write(REPORTS.load("csv").render(Report("", results=results)))
