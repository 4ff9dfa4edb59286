"""Latency of artifacts: runs of one input at batch 1, until their median is known to 1 %.

What a device gives instead of time is told as what it is: instructions are counted on an emulated
core, and a phone that is not here is estimated from its card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mobiledeploy.core import device_cards
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Measurement, NamedWarning
from mobiledeploy.steps import arguments, estimate, resolve
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
    threads: int | None = None,
    runs: int | None = None,
    seconds: float = SECONDS,
    fixed_performance: bool = True,
    record: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> BenchResult:
    """Times artifacts, one image at a time, or gives the figure that their device has instead.

    Each result is in the store, with its raw samples, as soon as it exists; what is played back
    with the date of its recording, and once. Runs are timed until they are steady
    (`analysis.latency.warmups`) and the 95 % interval of the median of the steady ones lies within
    1 % of it on both sides, or until time is up.

    A phone or board that is not here but has a device card is estimated from its published points,
    and its instructions are counted on the emulated core that its card names, on one thread.

    Example:
        >>> done = md.bench("build/mobilenet_v1_0.5_160_demo/int8_best.tflite", threads=2)
        >>> done.measurements[0].median_ns

    Args:
        artifacts: one file or several, their records beside them; none for what was exported last
            in this folder.
        device: `host`, a phone (`adb`, `adb:SERIAL`, `pixel`), `emulator:CORE`, `replay:FILE`, or a
            device card (`pixel-3`). It is leased exclusively where it is timed. Of a recording,
            all that follows but `reporter` is what was asked then.
        via: what a phone may be replaced by: `auto`, `adb` (nothing) or `emulator`.
        runner: `python`, `native` or `benchmark_model`; by default what the device says.
        runtime: by default litert for TFLite and onnxruntime for ONNX.
        delegate: `xnnpack`, `gpu` or `none`; by default the first that the runtime has.
        threads: of the runtime; by default 1, and of an estimate those of the card's points.
        runs: exactly so many after the warm-up, whatever their interval and time.
        seconds: the time limit for one artifact.
        fixed_performance: tries a phone's mode of steady clocks, keeps it if times spread less.
        record: a file to keep the exchange with the device in, for `replay:FILE`.
        reporter: hears of progress and warnings; by default a `PythonReporter`.

    Returns:
        A `Measured`, `Counted` or `Estimated` for each artifact. Where one of several fails, the
        others have theirs, and `failed` says why.

    Raises:
        UsageError: nothing was exported here; an unknown device, runner, runtime or delegate, or
            a runtime that does not run an artifact's format; arguments that say how to run where
            nothing runs.
        InputError: an artifact without its record, or one that the record does not speak of.
        DeviceError: the runner died or hangs, or the phone was lost.
        VoidError: a phone throttled or was disturbed, each time that it was tried.
        MissingError: the emulator is not here.
    """
    reporter = reporter or PythonReporter()
    need_runs(runs)
    paths = arguments.paths(artifacts) or last_export()
    failures = Failures()
    card = resolve.stand_in(device, via)
    if card is not None:
        for name, value in (("runs", runs), ("record", record), ("runner", runner)):
            if value is not None:
                raise UsageError(
                    f"{card.title} is not here, so that nothing is timed, and --{name} says how",
                    "leave it away for an estimate, or --via adb",
                )
        done = _stood_in(paths, card, failures, runtime, delegate, threads, reporter)
    else:
        if via == "emulator" and (like := device_cards.matching(device)):
            reporter.say(f"counted, no time: {like.title}, on {resolve.emulated_core(like)[1]}")
        timed = time_artifacts(
            paths,
            failures,
            device=device,
            via=via,
            runner=runner,
            runtime=runtime,
            threads=1 if threads is None else threads,
            delegate=delegate,
            runs=runs,
            seconds=seconds,
            fixed_performance=fixed_performance,
            record=arguments.path(record),
            reporter=reporter,
        )
        done = BenchResult(
            tuple(map(str, timed)), tuple(timed.values()), resolve.recorded_at(device)
        )
    if len(paths) == 1:
        failures.check()
    return replace(done, failed=failures.records())


def _stood_in(
    paths: tuple[Path, ...],
    card: DeviceCard,
    failures: Failures,
    runtime: str | None,
    delegate: str | None,
    threads: int | None,
    reporter: Reporter,
) -> BenchResult:
    """Of a device that is not here: what its card estimates, and what its emulated core counts.

    `reporter` hears why one of the two is missing.
    """
    core: resolve.ResolvedDevice | None = None
    try:
        core, like = resolve.emulated_core(card)
        counted = f"counted, no time: on {like}"
    except (DeviceError, MissingError) as error:
        counted = f"not counted: {error}"
    if delegate not in (None, *estimate.ON_CPU):
        core, counted = None, f"not counted: no core is a {delegate}"
    about = f"{card.title}, {card.soc}" if card.soc else card.title
    reporter.say(f"estimated, not measured: {about}, from the card {card.name}; {counted}")
    of: list[Path] = []
    made: tuple[Measurement, ...] = ()
    for path in paths:
        try:
            made += estimate_figures(
                [path], card, threads=threads, runtime=runtime, delegate=delegate, reporter=reporter
            )
            of.append(path)
        except InputError as error:
            if core is None:
                failures.add(path, error)
            else:
                reporter.warn(
                    NamedWarning("no-estimate", f"no estimate: {error.message}", error.hint)
                )
        except DeployError as error:
            # Of the one card, but each file asks for points of its own precision.
            failures.add(path, error)
    rest = [path for path in paths if path not in failures]
    if core is not None and rest:
        counts = time_artifacts(
            rest, failures, device=core.name, delegate=delegate, reporter=reporter
        )
        made += tuple(counts.values())
        of += counts
    return BenchResult(tuple(map(str, of)), made)
