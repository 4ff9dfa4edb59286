"""Choose the network and recipe for a budget of latency, size, memory and accuracy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units

if TYPE_CHECKING:
    from mobiledeploy.verbs import choose as verb

# Exit code 3 of docs/exit-codes.md: no candidate is within the budget beyond doubt.
INCONCLUSIVE = 3
# So many reasons why networks could not be judged are printed; --json has all.
MOST_REASONS = 4
# And so many rows; --all prints all.
MOST_ROWS = 15


@click.command(
    epilog="Example:  mobiledeploy choose --device pixel-3 --max-latency 10ms --max-size 4MB",
    short_help=__doc__,
)
@_settings.option(
    "--device",
    help="A phone or board with a device card (pixel-3), host, adb:SERIAL, or ssh:HOST. Without "
    "it there are no latencies.",
)
@_settings.option(
    "--max-latency", type=_frame.Duration(), help="The largest latency, such as 10ms or 800us."
)
@_settings.option("--min-top1", type=float, help="The least top-1 in per cent, such as 60.")
@_settings.option("--max-size", type=_frame.Amount(), help="The largest file, such as 4MB.")
@_settings.option(
    "--max-memory",
    type=_frame.Amount(),
    help="The largest memory of weights and activations, without the runtime, such as 20MB.",
)
@_settings.option("--arch", type=_frame.Names(), help="Comma-separated cards.")
@_settings.option(
    "--recipe",
    type=_frame.Names(),
    help="Comma-separated recipes; default: those of export.",
)
@_settings.option("--format", default="tflite", show_default=True, help="tflite or onnx.")
@_settings.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Threads of the latency; default: those of most points of the device.",
)
@_settings.option("--runtime", help="Runtime of the latency, as for bench.")
@_settings.option("--delegate", help="Delegate of the latency, as for bench.")
@_settings.option("--all", is_flag=True, help="Print all candidates that may be the best.")
@_frame.common
def command(
    device: str | None,
    max_latency: float | None,
    min_top1: float | None,
    max_size: int | None,
    max_memory: int | None,
    arch: tuple[str, ...] | None,
    recipe: tuple[str, ...] | None,
    format: str,  # noqa: A002
    threads: int | None,
    runtime: str | None,
    delegate: str | None,
    all: bool,  # noqa: A002 - the option's name
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Choose the most accurate network and recipe within a budget.

    Candidates are the published networks that are built here, the trainings in runs/, and the
    evaluated files of this folder's store. Exit code 3 says that none is within the budget with its
    whole intervals.
    """
    # Before numpy is imported: its systems are small here, and more threads only wait for each
    # other. On a busy machine they took two to four times the CPU time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from mobiledeploy.verbs import choose as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.choose(
            device=device,
            max_latency=max_latency,
            min_top1=min_top1,
            max_size=max_size,
            max_memory=max_memory,
            arch=arch or (),
            recipe=recipe or (),
            format=format,
            threads=threads,
            runtime=runtime,
            delegate=delegate,
            reporter=terminal,
        )
    _frame.emit_json(result) if json else _show(result, None if all else MOST_ROWS)
    if not result.has_answer:
        click.get_current_context().exit(INCONCLUSIVE)


def _show(result: verb.ChoiceResult, most: int | None) -> None:
    groups = [group for group in result.groups if group.candidates]
    tables = sorted(
        zip(result.tables(most), groups, strict=True), key=lambda pair: pair[1].best is None
    )
    # What to take comes first.
    for _, group in tables:
        _frame.sentence(_answer(group, result.device))
    if not groups:
        click.echo("No candidate is known.")
    for table, group in tables:
        if table.rows:
            click.echo()
            _frame.table(table.headers, table.rows, table.title, table.optional, table.names)
            more = len(group.shown()) - len(table.rows)
            if more:
                _frame.sentence(f"and {more} more that may be the best, or are cheaper: --all")
            _show_notes(group)
    if result.left_out:
        click.echo()
    for one in result.left_out[:MOST_REASONS]:
        _frame.sentence(f"left out: {one.what} ({one.count}): {one.why}")
    if len(result.left_out) > MOST_REASONS:
        _frame.sentence(f"and {len(result.left_out) - MOST_REASONS} more reasons; --json has all")


def _answer(group: verb.ChoiceGroup, device: str) -> str:
    """The answer of a group in a sentence."""
    if group.best is not None:
        one = group.candidates[group.best].candidate
        accuracy = units.percent(one.accuracy.value)
        about = " as float" if one.loss_unknown else ""
        metric, images = one.judged_by
        figures = [f"{accuracy} {metric}{about} ({images})"]
        if one.latency_ns is not None:
            ns = one.latency_ns
            latency, low, high = units.durations((ns.value, ns.low, ns.high))
            figures.append(f"{ns.kind} {latency} on {device} ({low} to {high})")
        if one.size_bytes is not None:
            kind = "estimated " * (one.size_bytes.kind == "estimated")
            figures.append(kind + units.size(round(one.size_bytes.value)))
        return units.one_line(f"Take {one.model} as {one.recipe}: {', '.join(figures)}.")
    if group.nearest:
        nearest = group.candidates[group.nearest[0]]
        one = nearest.candidate
        return units.one_line(
            f"No candidate judged on {group.judged_on} is within the budget; the nearest, "
            f"{one.model} as {one.recipe}, misses it by {units.percent(nearest.over)}."
        )
    if group.possible:
        return units.one_line(
            f"No candidate judged on {group.judged_on} is surely within the budget; some may be."
        )
    return units.one_line(
        f"No candidate judged on {group.judged_on} has the figures that the budget is about."
    )


def _show_notes(group: verb.ChoiceGroup) -> None:
    shown = [one.candidate for one in group.candidates if one.contender]
    if any(one.loss_unknown for one in shown):
        _frame.sentence("≤: of the float network; what the integers lose is not known")
    for name, figures in (
        ("latency", [one.latency_ns for one in shown]),
        ("size", [one.size_bytes for one in shown]),
        ("memory", [one.memory_bytes for one in shown]),
    ):
        for about in dict.fromkeys(x.about for x in figures if x and x.kind == "estimated"):
            _frame.sentence(f"~ {name}: estimated from {about}")
    if group.best is not None:
        best = group.candidates[group.best].candidate
        click.echo(units.one_line(f"File: {best.path}") if best.path else f"Next: `{best.command}`")
    for one in group.measurements:
        _frame.sentence(
            f"To decide, measure the {one.what} of {one.model} as {one.recipe}: {one.why}:"
        )
        click.echo(f"  {one.command}")
