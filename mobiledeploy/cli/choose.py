"""Choose the network and recipe for a budget of latency, size, memory and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units

if TYPE_CHECKING:
    from mobiledeploy.verbs import choose as verb

# Exit code 3 of docs/exit-codes.md: no candidate is within the budget beyond doubt.
INCONCLUSIVE = 3
# So many reasons why networks could not be judged are printed; --json has all.
MOST_REASONS = 4


class NamesOption(_settings.CommaList[tuple[str, ...]]):
    """Comma-separated names."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """'a,b' -> ('a', 'b'), each once."""
        return tuple(dict.fromkeys(p.strip() for p in str(value).split(",") if p.strip()))


@click.command(
    epilog="Example:  mobiledeploy choose --device pixel-3 --max-latency 10ms --max-size 4MB",
    short_help=__doc__,
)
@_settings.option(
    "--device",
    required=True,
    help="A phone or board with a device card (pixel-3), host, or adb:SERIAL.",
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
@_settings.option("--arch", type=NamesOption(), default="", help="Comma-separated cards.")
@_settings.option(
    "--recipe",
    type=NamesOption(),
    default="",
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
@_frame.common
def command(
    device: str,
    max_latency: float | None,
    min_top1: float | None,
    max_size: int | None,
    max_memory: int | None,
    arch: tuple[str, ...],
    recipe: tuple[str, ...],
    format: str,  # noqa: A002
    threads: int | None,
    runtime: str | None,
    delegate: str | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Choose the most accurate network and recipe within a budget.

    Candidates are the published networks that are built here, the trainings in runs/, and the
    evaluated files of this folder's store. Exit code 3 says that none is within the budget with its
    whole intervals.
    """
    from mobiledeploy.verbs import choose as verb

    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.choose(
            device=device,
            max_latency=max_latency,
            min_top1=min_top1,
            max_size=max_size,
            max_memory=max_memory,
            arch=arch,
            recipe=recipe,
            format=format,
            threads=threads,
            runtime=runtime,
            delegate=delegate,
            reporter=terminal,
        )
    _frame.emit_json(result) if json else _show(result)
    if not result.has_answer:
        click.get_current_context().exit(INCONCLUSIVE)


def _show(result: verb.ChoiceResult) -> None:
    groups = [group for group in result.groups if group.candidates]
    for table, group in zip(result.tables(), groups, strict=True):
        _frame.table(table.headers, table.rows, table.title)
        _show_group(group)
        click.echo()
    for one in result.left_out[:MOST_REASONS]:
        click.echo(units.one_line(f"left out: {one.count} of {one.what}: {one.why}"))
    if len(result.left_out) > MOST_REASONS:
        click.echo(f"and {len(result.left_out) - MOST_REASONS} more reasons; --json has all")


def _show_group(group: verb.ChoiceGroup) -> None:
    if group.nearest:
        nearest = group.candidates[group.nearest[0]]
        click.echo(
            "no candidate is within the budget; the nearest is "
            f"{nearest.candidate.model} {nearest.candidate.recipe}, over it by "
            f"{units.percent(nearest.over)}"
        )
    elif group.best is None and group.possible:
        click.echo("no candidate is within the budget with its whole intervals")
    elif group.best is None:
        click.echo("no candidate has the figures that the budget is about")
    else:
        click.echo(f"Next: `{group.candidates[group.best].candidate.command}`")
    shown = [one.candidate.latency_ns for one in group.candidates if one.contender]
    for about in dict.fromkeys(x.about for x in shown if x and x.kind == "estimated"):
        click.echo(f"estimated from {about}")
    for one in group.measurements:
        click.echo(f"measure the {one.what} of {one.model} {one.recipe}: {one.why}; {one.command}")
