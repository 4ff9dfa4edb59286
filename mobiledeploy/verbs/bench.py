"""Latency of artifacts: runs of one input at batch 1, until their median is known to 1 %.

Some devices give other figures than times: an emulated core counts instructions, and an absent
phone is estimated from its card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mobiledeploy.analysis import validity
from mobiledeploy.core import device_cards
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Measured, Measurement, NamedWarning
from mobiledeploy.steps import arguments, delegates, estimate, resolve
from mobiledeploy.steps.arguments import AnyPath, AnyPaths
from mobiledeploy.steps.bench_figures import (
    BenchResult,
    estimate_figures,
    last_export,
    need_runs,
    time_artifacts,
)
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.timings import SECONDS


def bench(
    artifacts: AnyPaths = (),
    *,
    device: str = "host",
    via: resolve.Via = "auto",
    runner: str | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    strict: bool = False,
    threads: int | None = None,
    runs: int | None = None,
    seconds: float = SECONDS,
    fixed_performance: bool = True,
    record: AnyPath | None = None,
    energy: bool = False,
    reporter: Reporter | None = None,
) -> BenchResult:
    """Times artifacts, one image at a time, or counts or estimates if the device needs it.

    Each result goes to the store at once, with its raw samples. A recording that is played back is
    stored once, with its own date. Runs are timed until they are steady
    (`analysis.latency.warmups`) and the 95 % interval of the median of the steady ones is within 1
    % of it on both sides, or until time is up.

    An absent phone or board with a device card is estimated from its published points, and its
    instructions are counted on the emulated core of its card, on one thread.

    Example:
        >>> done = md.bench("build/mobilenet_v1_0.5_160_demo/int8_best.tflite", threads=2)
        >>> done.measurements[0].median_ns

    Args:
        artifacts: one file or several, with their records beside them; none for the last export in
            this folder.
        device: `host`, a phone (`adb`, `adb:SERIAL`, `pixel`), a board (`ssh:[USER@]HOST[:PORT]`),
            `emulator:CORE`, `replay:FILE`, or a device card (`pixel-3`). A timing leases the device
            exclusively. A recording keeps its own options, so all that follow are ignored except
            `reporter`.
        via: what may replace a phone: `auto`, `adb` (nothing) or `emulator`.
        runner: `python`, `native` or `benchmark_model`; the default is the device's.
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        delegate: `xnnpack`, `gpu` or `none`; the default is the first of the runtime.
        strict: no figure of a file of which the delegate left an operator to the CPU, or of which
            that is not known.
        threads: threads of the runtime; the default is 1, and that of the card's points for an
            estimate.
        runs: exactly so many runs after the warm-up, without regard to interval and time.
        seconds: the time limit for one artifact.
        fixed_performance: tries a phone's mode of fixed clocks, and keeps it if times spread less.
        record: a file for the recording of the session, for `replay:FILE`.
        energy: also measures the joules of an inference, by blocks of idleness and of load; for a
            phone that is not being charged, and for boards that tell their power.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        A `Measured`, `Counted` or `Estimated` for each artifact. If one of several fails, it is in
        `failed` with the reason.

    Raises:
        UsageError: nothing was exported here; an unknown device, runner, runtime or delegate, or a
            runtime that does not run an artifact's format; options for a run if nothing runs.
        InputError: an artifact without a record, or with the record of another file.
        DeviceError: the runner died or hangs, or the device was lost.
        VoidError: a phone or board throttled or was disturbed in each try, or its readings do not
            tell the energy; or with `strict` an operator stays on the CPU.
        MissingError: the emulator is not installed.
    """
    reporter = reporter or PythonReporter()
    need_runs(runs)
    paths = arguments.paths(artifacts) or last_export()
    failures = Failures()
    card = resolve.stand_in(device, via)
    if card is not None:
        unusable = {"runs": runs, "record": record, "runner": runner}
        unusable |= {"energy": energy or None, "strict": strict or None}
        for name, value in unusable.items():
            if value is not None:
                raise UsageError(
                    f"{card.title} is not connected, nothing is timed, and --{name} is for timings",
                    "leave it out for an estimate, or --via adb",
                )
        result = _stand_in_figures(paths, card, failures, runtime, delegate, threads, reporter)
    else:
        if via == "emulator" and (like := device_cards.matching(device)):
            reporter.say(f"counted, no time: {like.title}, on {resolve.emulated_core(like)[1]}")
        figures = time_artifacts(
            paths,
            failures,
            device=device,
            via=via,
            runner=runner,
            runtime=runtime,
            threads=1 if threads is None else threads,
            delegate=delegate,
            strict=strict,
            runs=runs,
            seconds=seconds,
            fixed_performance=fixed_performance,
            record=arguments.path(record),
            energy=energy,
            reporter=reporter,
        )
        for path, figure in figures.items():
            if isinstance(figure, Measured) and delegates.is_split(figure):
                reporter.say(f"{path.name}: {validity.left_over(figure)}")
        result = BenchResult(
            tuple(map(str, figures)), tuple(figures.values()), resolve.recorded_at(device)
        )
    if len(paths) == 1:
        failures.check()
    return replace(result, failed=failures.records())


def _stand_in_figures(
    paths: tuple[Path, ...],
    card: DeviceCard,
    failures: Failures,
    runtime: str | None,
    delegate: str | None,
    threads: int | None,
    reporter: Reporter,
) -> BenchResult:
    """The figures of an absent device: estimates from its card, and counts of its emulated core.

    `reporter` is told why one of the two is missing.
    """
    core: resolve.ResolvedDevice | None = None
    try:
        core, like = resolve.emulated_core(card)
        count_line = f"counted, no time: on {like}"
    except (DeviceError, MissingError) as error:
        count_line = f"not counted: {error}"
    if delegate not in (None, *estimate.ON_CPU):
        core, count_line = None, f"not counted: no core is a {delegate}"
    about = f"{card.title}, {card.soc}" if card.soc else card.title
    reporter.say(f"estimated, not measured: {about}, from the card {card.name}; {count_line}")
    for warning in resolve.unready_phones():
        reporter.warn(warning)
    # Counts are kept in the store, and make the estimates narrower.
    not_counted = Failures()
    counts = (
        {}
        if core is None
        else time_artifacts(
            paths, not_counted, device=core.name, delegate=delegate, reporter=reporter
        )
    )
    figure_paths: list[Path] = []
    figures: tuple[Measurement, ...] = ()
    for path in paths:
        try:
            figures += estimate_figures(
                [path], card, threads=threads, runtime=runtime, delegate=delegate, reporter=reporter
            )
            figure_paths.append(path)
        except InputError as error:
            if path not in counts:
                failures.add(path, error)
            else:
                reporter.warn(
                    NamedWarning("no-estimate", f"no estimate: {error.message}", error.hint)
                )
        except DeployError as error:
            # There is one card, but each file needs points of its own precision.
            failures.add(path, error)
    counts = {path: figure for path, figure in counts.items() if path not in failures}
    failures.add_all(not_counted)
    return BenchResult((*map(str, figure_paths), *map(str, counts)), (*figures, *counts.values()))
