"""Latency of artifacts; without an argument, of what was exported last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame, _settings
from mobiledeploy.core.errors import UsageError
from mobiledeploy.steps import defaults

if TYPE_CHECKING:
    from mobiledeploy.core.types import LatencyComparison
    from mobiledeploy.steps import resolve


def _to_devices(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Hands a program's path on: whoever calls it looks for MOBILEDEPLOY_<OPTION>."""
    if value is not None:
        os.environ[f"MOBILEDEPLOY_{(parameter.name or '').upper()}"] = value


@click.command(
    epilog="Example:  mobiledeploy bench build/*/int8_best.tflite --threads 2",
    short_help=__doc__,
)
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@_settings.option(
    "--device",
    default="host",
    show_default=True,
    help="Where: host, a phone (adb, adb:SERIAL, pixel), emulator:CORE, replay:FILE, or a device "
    "card (pixel-3) for an estimate.",
)
@_settings.option(
    "--via",
    type=click.Choice(["auto", "adb", "emulator"]),
    default="auto",
    show_default=True,
    help="How a phone's model is met: auto estimates from its device card where it is not "
    "connected, and counts on an emulated core; adb insists on the phone itself, emulator counts.",
)
@_settings.option(
    "--runner",
    help="What drives the runtime: python, native, benchmark_model; default: the device's.",
)
@_settings.option("--runtime", help="Default: litert for TFLite, onnxruntime for ONNX.")
@_settings.option("--delegate", help="xnnpack, gpu or none; default: what the runtime has.")
@_settings.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Of the runtime.  [default: 1; of an estimate, those of the card's points]",
)
@_settings.option(
    "--runs",
    type=click.IntRange(min=1),
    help="Runs after the warm-up; default: until the median is known to 1 %, for 5 s at most.",
)
@_settings.option(
    "--compare",
    is_flag=True,
    help="Of two ARTIFACTS: the second over the first, timed in turns (A B B A) so that a drift of "
    "the machine cancels.",
)
@_settings.option(
    "--rounds",
    type=click.IntRange(min=1),
    help=f"Of --compare; default: {defaults.COMPARE_ROUNDS}.",
)
@_settings.option(
    "--fixed-performance/--no-fixed-performance",
    default=True,
    show_default=True,
    help="Try a phone's mode of steady clocks, keep it if times spread less, undo it afterwards.",
)
@_settings.output(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the exchange with the device in FILE, for --device replay:FILE.",
)
@click.option(
    "--adb",
    type=click.Path(),
    expose_value=False,
    is_eager=True,
    callback=_to_devices,
    help="The adb to use; default: ANDROID_HOME's, or that of the PATH.",
)
@click.option(
    "--benchmark-model",
    type=click.Path(),
    expose_value=False,
    is_eager=True,
    callback=_to_devices,
    help="Google's benchmark_model for --runner benchmark_model.",
)
@_frame.common
def command(
    artifacts: tuple[Path, ...],
    device: str,
    via: resolve.Via,
    runner: str | None,
    runtime: str | None,
    delegate: str | None,
    threads: int | None,
    runs: int | None,
    compare: bool,
    rounds: int | None,
    fixed_performance: bool,
    record: Path | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Time ARTIFACTS that `mobiledeploy export` made, one image at a time.

    On an emulated core (`--device emulator:cortex-a53`, see `mobiledeploy devices`) instructions
    are counted instead, TFLite's to the instruction; they are no latency. Of a phone or board that
    is not here but has a device card (`--device pixel-3`), latency is estimated from published
    points, and instructions are counted on the emulated core that is most like its own.
    """
    from mobiledeploy.core.artifacts import without_records
    from mobiledeploy.verbs import bench as verb
    from mobiledeploy.verbs import compare as comparison

    if compare:
        chosen = without_records(artifacts)
        if len(chosen) != 2:
            raise UsageError(f"--compare takes two artifacts, not {len(chosen)}", "name A and B")
        if runs is not None:
            raise UsageError("--compare makes its own number of runs", "leave --runs away")
        with _frame.Terminal(quiet, verbose) as terminal:
            made = comparison.compare(
                *chosen,
                device=device,
                via=via,
                runner=runner,
                runtime=runtime,
                delegate=delegate,
                threads=threads or 1,
                rounds=rounds or defaults.COMPARE_ROUNDS,
                record=record,
                reporter=terminal,
            )
        _frame.emit_json(made) if json else _show_comparison(made, device)
        return
    if rounds is not None:
        raise UsageError("--rounds is of --compare", "--runs N for so many runs")
    with _frame.Terminal(quiet, verbose) as terminal:
        done = verb.bench(
            artifacts,
            device=device,
            via=via,
            runner=runner,
            runtime=runtime,
            delegate=delegate,
            threads=threads,
            runs=runs,
            fixed_performance=fixed_performance,
            record=record,
            reporter=terminal,
        )
    _frame.emit_json(done) if json else _frame.show(done)
    _frame.failures(done.failed)


def _show_comparison(made: LatencyComparison, device: str) -> None:
    from mobiledeploy.steps import bench_tables, resolve

    (table,) = made.tables()
    where = f"{bench_tables.recorded_prefix(resolve.recorded_at(device))}measured on "
    _frame.table(
        table.headers,
        table.rows,
        f"{where}{bench_tables.machine(made.blocks[0])}, {table.title}",
    )
