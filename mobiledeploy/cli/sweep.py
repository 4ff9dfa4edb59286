"""A grid of alphas, resolutions, recipes and devices, resumable, to its fronts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core import units
from mobiledeploy.core.plugins import EXECUTORS
from mobiledeploy.verbs import sweep as verb

# What the grid calls the options that take several values.
_GRID = {
    "arch": "archs",
    "alpha": "alphas",
    "res": "resolutions",
    "recipe": "recipes",
    "format": "formats",
    "device": "devices",
}


class Several(_settings.Listed[tuple[Any, ...]]):
    """Values with commas between."""

    name = "values"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """'0.25,0.5' -> (0.25, 0.5), each once."""
        try:
            return tuple(
                dict.fromkeys(self.kind(p.strip()) for p in str(value).split(",") if p.strip())
            )
        except ValueError:
            self.fail(f"{value!r} is not {self.kind.__name__}s with commas between", param, ctx)


@click.command(
    epilog="Example:  mobiledeploy sweep --alpha 0.25,0.5 --res 128,160 --dry-run",
    short_help=__doc__,
)
@_settings.option(
    "--arch",
    type=Several(str),
    default="mobilenet_v1",
    show_default=True,
    help="Cards, with commas between.",
)
@_settings.option("--alpha", type=Several(float), help="Default: the card's own.")
@_settings.option("--res", type=Several(int), help="Default: the card's own.")
@_settings.option(
    "--recipe",
    type=Several(str),
    default="float32,int8_ptq",
    show_default=True,
    help="What to make of each model.",
)
@_settings.option("--format", type=Several(str), help="Default: both.")
@_settings.option(
    "--device",
    type=Several(str),
    default="host",
    show_default=True,
    help='Where figures are taken; "" for none.',
)
@_settings.option("--weights", help="As for export: demo, imagenet, random.")
@_settings.option("--data", help="As for export.")
@_settings.output(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder that the models' folders are made in.",
)
@click.option("--executor", default="local", show_default=True, help="local or ray.")
@click.option("--ray-address", default="", help="HOST:PORT of a cluster; default: one is started.")
@_settings.option(
    "--jobs", type=click.IntRange(1, 1024), help="At once; default: one for two cores."
)
@_settings.option("--dry-run", is_flag=True, help="Show the plan, and do nothing.")
@_frame.common
def command(
    executor: str,
    ray_address: str,
    jobs: int | None,
    dry_run: bool,
    json: bool,
    quiet: bool,
    verbose: int,
    **given: Any,
) -> None:
    """Export, judge and time every model of the grid; show what none beats.

    The same command resumes a sweep that was interrupted: what stands is not made again.
    """
    grid = verb.SweepGrid(**{_GRID.get(name, name): value for name, value in given.items()})
    if executor not in EXECUTORS.names():
        raise click.UsageError(f"no executor {executor!r}: {', '.join(EXECUTORS.names())}")
    if ray_address and executor != "ray":
        raise click.UsageError("--ray-address goes with --executor ray")
    with _frame.Terminal(quiet, verbose) as terminal:
        if dry_run:
            plan = tuple(planned for _, planned in verb.plan(grid, jobs or 1, terminal))
            done = verb.SweepResult(plan, 0, (), ())
        else:
            done = verb.sweep(
                grid, executor=executor, workers=jobs, address=ray_address, reporter=terminal
            )
    if json:
        _frame.emit_json(done)
    elif dry_run:
        _plan(done)
    else:
        _fronts(done)
    _frame.failures(done.failed)


def _plan(done: verb.SweepResult) -> None:
    _frame.table(
        ("model", "recipes", "state", "why"),
        [(p.what, ",".join(p.recipes), p.state, units.one_line(p.why)) for p in done.jobs],
    )


def _fronts(done: verb.SweepResult) -> None:
    for front in done.fronts:
        if not front.results:
            continue
        where = f"{front.kind} on {front.device}" if front.device else front.kind
        _frame.table(
            ("model", "recipe", "top-1", "gain in top-1", "cost"),
            [
                (
                    units.network(r.model, r.weights, r.weights_sha256),
                    f"{r.recipe}.{r.format}",
                    units.percent(r.top1),
                    "–" if g is None else units.gain(g.value, g.low, g.high, g.tie),
                    units.size(r.size_bytes or 0)
                    if front.kind == "size"
                    else f"{r.instructions:,}"
                    if r.latency_ns is None
                    else units.duration(r.latency_ns),
                )
                for r, g in zip(front.results, front.gains, strict=True)
            ],
            title=f"Front of accuracy on {front.images} and {where}, cheapest first",
        )
