"""Time artifacts; without an argument, those of the last export."""

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
    """Puts a program's path into MOBILEDEPLOY_<OPTION>, where its callers look for it."""
    if value is not None:
        os.environ[f"MOBILEDEPLOY_{(parameter.name or '').upper()}"] = value


@click.command(
    epilog="Example:  mobiledeploy bench build/*/int8_best.tflite --threads 2",
    short_help=__doc__,
)
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@_settings.machine(
    "--device",
    default="host",
    show_default=True,
    help="host, a phone (adb, adb:SERIAL, pixel), a board (ssh:[USER@]HOST[:PORT]), emulator:CORE, "
    "replay:FILE, or a device card (pixel-3) for an estimate.",
)
@_settings.option(
    "--via",
    type=click.Choice(["auto", "adb", "emulator"]),
    default="auto",
    show_default=True,
    help="For a phone's model: auto estimates from its device card if it is not "
    "connected, and counts on an emulated core; adb needs the phone itself; emulator counts.",
)
@_settings.option(
    "--runner",
    help="Program that drives the runtime: python, native, benchmark_model; default: the device's.",
)
@_settings.option("--runtime", help="Default: litert for TFLite, onnxruntime for ONNX.")
@_settings.option("--delegate", help="xnnpack, gpu or none; default: the first of the runtime.")
@_frame.strict_option
@_settings.option(
    "--threads",
    type=click.IntRange(1, 64),
    help="Threads of the runtime.  [default: 1; for an estimate, those of the card's points]",
)
@_settings.option(
    "--runs",
    type=click.IntRange(min=1),
    help="Runs after the warm-up; default: until the median is known to 1 %, at most 5 s. With "
    f"--cold fresh processes; default: {defaults.COLD_PROCESSES}.",
)
@_settings.option(
    "--cold",
    is_flag=True,
    help="Start fresh processes, and tell the time until the first answer by its steps, peak "
    "memory and size; not on emulated cores.",
)
@_settings.option(
    "--energy",
    is_flag=True,
    help="Also measure the joules of an inference, above idle and in all, on a phone that is not "
    "being charged, or a board that tells its power: 2 to 8 minutes for each file.",
)
@_settings.option(
    "--compare",
    is_flag=True,
    help="Compare two ARTIFACTS: time B over time A, timed in turns (A B B A), so a drift of "
    "the machine cancels.",
)
@_settings.option(
    "--rounds",
    type=click.IntRange(min=1),
    help=f"Rounds of --compare; default: {defaults.COMPARE_ROUNDS}.",
)
@_settings.option(
    "--fixed-performance/--no-fixed-performance",
    default=True,
    show_default=True,
    help="Try a phone's mode of fixed clocks, keep it if times spread less, undo it afterwards.",
)
@_settings.output(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Record the session in FILE, for --device replay:FILE.",
)
@click.option(
    "--adb",
    type=click.Path(),
    expose_value=False,
    is_eager=True,
    callback=_to_devices,
    help="The adb to use; default: the one of ANDROID_HOME, or of the PATH.",
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
    strict: bool,
    threads: int | None,
    runs: int | None,
    cold: bool,
    energy: bool,
    compare: bool,
    rounds: int | None,
    fixed_performance: bool,
    record: Path | None,
    json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Time ARTIFACTS of `mobiledeploy export`, one image at a time.

    On an emulated core (`--device emulator:cortex-a53`, see `mobiledeploy devices`) instructions
    are counted instead, exactly for TFLite; they are not a latency. For an absent phone or board
    with a device card (`--device pixel-3`), latency is estimated from published points, and
    instructions are counted on the emulated core that is most similar to its own.
    """
    from mobiledeploy.core.artifacts import without_records
    from mobiledeploy.verbs import bench as verb
    from mobiledeploy.verbs import cold_start
    from mobiledeploy.verbs import compare as comparison

    questions = {"--compare": compare, "--cold": cold, "--energy": energy}
    if len(several := [name for name, asked in questions.items() if asked]) > 1:
        raise UsageError(f"{' and '.join(several)} are two questions", "leave out one of them")
    if compare:
        paths = without_records(artifacts)
        if len(paths) != 2:
            raise UsageError(f"--compare takes two artifacts, not {len(paths)}", "name A and B")
        if runs is not None:
            raise UsageError("--compare chooses its own number of runs", "leave out --runs")
        with _frame.Terminal(quiet, verbose) as terminal:
            comparison_ = comparison.compare(
                *paths,
                device=device,
                via=via,
                runner=runner,
                runtime=runtime,
                delegate=delegate,
                strict=strict,
                threads=threads or 1,
                rounds=rounds or defaults.COMPARE_ROUNDS,
                record=record,
                reporter=terminal,
            )
        _frame.emit_json(comparison_) if json else _show_comparison(comparison_, device)
        return
    if rounds is not None:
        raise UsageError("--rounds is for --compare", "--runs N sets the number of runs")
    if cold:
        if strict:
            raise UsageError("--strict is for timings, not for --cold", "leave out one of them")
        if record is not None:
            raise UsageError("--record is for timings, not for --cold", "leave out one of them")
        with _frame.Terminal(quiet, verbose) as terminal:
            cold_starts = cold_start.cold_start(
                artifacts,
                device=device,
                via=via,
                runner=runner,
                runtime=runtime,
                delegate=delegate,
                threads=threads or 1,
                runs=defaults.COLD_PROCESSES if runs is None else runs,
                reporter=terminal,
            )
        _frame.emit_json(cold_starts) if json else _frame.show(cold_starts)
        _frame.failures(cold_starts.failed)
        return
    with _frame.Terminal(quiet, verbose) as terminal:
        result = verb.bench(
            artifacts,
            device=device,
            via=via,
            runner=runner,
            runtime=runtime,
            delegate=delegate,
            strict=strict,
            threads=threads,
            runs=runs,
            fixed_performance=fixed_performance,
            record=record,
            energy=energy,
            reporter=terminal,
        )
    _frame.emit_json(result) if json else _frame.show(result)
    _frame.failures(result.failed)


def _show_comparison(comparison: LatencyComparison, device: str) -> None:
    from mobiledeploy.steps import bench_tables, resolve

    (table,) = comparison.tables()
    where = f"{bench_tables.recorded_prefix(resolve.recorded_at(device))}measured on "
    _frame.table(
        table.headers,
        table.rows,
        f"{where}{bench_tables.machine(comparison.blocks[0])}, {table.title}",
    )
