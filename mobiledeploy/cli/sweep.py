"""A grid of alphas, resolutions, recipes and devices, resumable, to its fronts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mobiledeploy.cli import _frame, _settings


class Several(_settings.CommaList[tuple[Any, ...]]):
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
@_settings.option(
    "--groups", type=Several(int), help="Groups of ShuffleNet's pointwise convolutions."
)
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
    arch: tuple[str, ...],
    alpha: tuple[float, ...] | None,
    groups: tuple[int, ...] | None,
    res: tuple[int, ...] | None,
    recipe: tuple[str, ...],
    format: tuple[str, ...] | None,  # noqa: A002
    device: tuple[str, ...],
    weights: str | None,
    data: str | None,
    out: Path,
    executor: str,
    ray_address: str,
    jobs: int | None,
    dry_run: bool,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Export, judge and time every model of the grid; show what none beats.

    The same command resumes a sweep that was interrupted: what stands is not made again.
    """
    from mobiledeploy.core.plugins import EXECUTORS
    from mobiledeploy.verbs import sweep as verb

    if executor not in EXECUTORS.names():
        raise click.UsageError(f"no executor {executor!r}: {', '.join(EXECUTORS.names())}")
    if ray_address and executor != "ray":
        raise click.UsageError("--ray-address goes with --executor ray")
    with _frame.Terminal(quiet, verbose) as terminal:
        done = verb.sweep(
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
            dry_run=dry_run,
            reporter=terminal,
        )
    if json:
        _frame.emit_json(done)
    elif dry_run or done.fronts:
        _frame.show(done)
    _frame.failures(done.failed)
