"""Export, evaluate and time a grid of models; resumable; show the Pareto fronts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mobiledeploy.cli import _frame, _settings


class Several(_settings.CommaList[tuple[Any, ...]]):
    """Comma-separated values."""

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
            self.fail(f"{value!r} is not comma-separated {self.kind.__name__}s", param, ctx)


@click.command(
    epilog="Example:  mobiledeploy sweep --alpha 0.25,0.5 --res 128,160 --dry-run",
    short_help=__doc__,
)
@_settings.option(
    "--arch",
    type=Several(str),
    default="mobilenet_v1",
    show_default=True,
    help="Comma-separated cards.",
)
@_settings.option("--alpha", type=Several(float), help="Default: the card's own.")
@_settings.option(
    "--groups", type=Several(int), help="Groups of ShuffleNet's pointwise convolutions."
)
@_settings.option("--res", type=Several(int), help="Default: the card's own.")
@_settings.option(
    "--recipe",
    type=Several(str),
    help="Recipes for each model; default: those of export.",
)
@_settings.option("--format", type=Several(str), help="Default: both.")
@_settings.machine(
    "--device",
    type=Several(str),
    default="host",
    show_default=True,
    help='Devices for figures; "" for none.',
)
@_settings.option("--weights", help="As for export: demo, imagenet, random.")
@_settings.option("--data", help="As for export.")
@_settings.output(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("build"),
    show_default=True,
    help="Folder for the models' folders.",
)
@click.option("--executor", default="local", show_default=True, help="local or ray.")
@click.option(
    "--ray-address", default="", help="HOST:PORT of a cluster; by default one is started."
)
@_settings.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    help="Number of jobs at once; default: one per two cores.",
)
@_settings.option(
    "--max-latency",
    type=_frame.Duration(),
    help="The largest latency on each device, such as 10ms: what is surely over it is dropped.",
)
@_settings.option(
    "--max-size",
    type=_frame.Amount(),
    help="The largest file, such as 4MB: what is surely over it is dropped.",
)
@_settings.option(
    "--keep-front",
    is_flag=True,
    help="Do not time files that cannot come onto the front any more.",
)
@_settings.option("--dry-run", is_flag=True, help="Only show the plan.")
@_frame.common
def command(
    arch: tuple[str, ...],
    alpha: tuple[float, ...] | None,
    groups: tuple[int, ...] | None,
    res: tuple[int, ...] | None,
    recipe: tuple[str, ...] | None,
    format: tuple[str, ...] | None,  # noqa: A002
    device: tuple[str, ...],
    weights: str | None,
    data: str | None,
    out: Path,
    executor: str,
    ray_address: str,
    jobs: int | None,
    max_latency: float | None,
    max_size: int | None,
    keep_front: bool,
    dry_run: bool,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Export, evaluate and time every model of a grid; show the Pareto fronts.

    The same command resumes an interrupted sweep: existing files are not made again. What is over
    a limit, or dominated with --keep-front, is dropped before it is made or timed, by whole
    intervals alone.
    """
    from mobiledeploy.core.plugins import EXECUTORS
    from mobiledeploy.verbs import sweep as verb

    if executor not in EXECUTORS.names():
        raise click.UsageError(f"no executor {executor!r}: {', '.join(EXECUTORS.names())}")
    if ray_address and executor != "ray":
        raise click.UsageError("--ray-address goes with --executor ray")
    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.sweep(
            arch=arch,
            alpha=alpha,
            groups=groups,
            res=res,
            recipe=recipe,
            format=format,
            device=device,
            weights=weights,
            data=data,
            out=out,
            executor=executor,
            ray_address=ray_address,
            jobs=jobs,
            max_latency=max_latency,
            max_size=max_size,
            keep_front=keep_front,
            dry_run=dry_run,
            reporter=terminal,
        )
    if json:
        _frame.emit_json(result)
    elif dry_run or result.fronts:
        _frame.show(result)
    _frame.failures(result.failed)
