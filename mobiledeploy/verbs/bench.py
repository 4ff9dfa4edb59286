"""Latency of artifacts: runs of one input at batch 1, until their median is known to 1 %.

What a device gives instead of time is another verb's: instructions are count's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Measurement
from mobiledeploy.steps import resolve
from mobiledeploy.steps.bench_figures import last_export, time_artifacts
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.timings import SECONDS


def bench(
    paths: Sequence[Path] = (),
    *,
    device: str = "host",
    via: resolve.Via = "auto",
    runner: str | None = None,
    runtime: str | None = None,
    threads: int = 1,
    delegate: str | None = None,
    runs: int | None = None,
    seconds: float = SECONDS,
    fixed_performance: bool = True,
    record: Path | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Measurement, ...]:
    """Times artifacts, or counts their instructions where the device does that.

    Each result is in the store, with its raw samples, as soon as it exists; what is played back
    with the date of its recording, and once. Runs are timed until
    they are steady (`analysis.latency.warmups`) and the 95 % interval of the median of the steady
    ones lies within 1 % of it on both sides, or until time is up.

    Args:
        paths: artifacts with their records beside them; none for what was exported last here.
        device: where, see `resolve.resolve`; it is leased exclusively where it is timed. Of a
            recording, all that follows but `reporter` is what was asked then.
        via: what a phone may be replaced by, see `resolve.resolve`.
        runner: what drives the runtime there; by default what the device says.
        runtime: by default litert for TFLite and onnxruntime for ONNX.
        threads: of the runtime.
        delegate: by default the first that the runtime has.
        runs: exactly so many after the warm-up, whatever their interval and time.
        seconds: the time limit for one artifact.
        fixed_performance: tries a phone's mode of steady clocks, see `phones.hold_clocks`.
        record: a file to keep the exchange with the device in, for `replay`.
        reporter: hears of progress and warnings.

    Raises:
        UsageError: nothing was exported here, an unknown device, runner, runtime or delegate, or
            a runtime that does not run an artifact's format.
        InputError: an artifact without its record, or one that the record does not speak of.
        DeviceError: the runner died or hangs, or the phone was lost.
        VoidError: a phone throttled or was disturbed, each time that it was tried.

    Where one of several fails the others are timed all the same; then the gravest error is raised.
    """
    failures = Failures()
    made = time_artifacts(
        paths or last_export(),
        failures,
        device=device,
        via=via,
        runner=runner,
        runtime=runtime,
        threads=threads,
        delegate=delegate,
        runs=runs,
        seconds=seconds,
        fixed_performance=fixed_performance,
        record=record,
        reporter=reporter,
    )
    failures.check()
    return tuple(made.values())
