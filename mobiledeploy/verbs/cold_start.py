"""What a fresh process needs until its first answer: loading, first inference, memory, size."""

from __future__ import annotations

from mobiledeploy.analysis import stats
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.recording import BenchRequest
from mobiledeploy.core.types import ColdStart
from mobiledeploy.steps import arguments, resolve
from mobiledeploy.steps.arguments import AnyPaths
from mobiledeploy.steps.bench_figures import last_export
from mobiledeploy.steps.cold_starts import ColdStartResult, ColdTiming
from mobiledeploy.steps.defaults import COLD_PROCESSES
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.timings import SECONDS, open_session
from mobiledeploy.store.database import Store

MOST_PROCESSES = 1000
"""More take hours; nobody means that."""


def cold_start(
    artifacts: AnyPaths = (),
    *,
    device: str = "host",
    via: resolve.Via = "auto",
    runner: str | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    threads: int = 1,
    runs: int = COLD_PROCESSES,
    reporter: Reporter | None = None,
) -> ColdStartResult:
    """Measures what a fresh process needs until its first answer, step by step.

    Each process opens the runtime, loads the file, prepares it and runs it once. The files are in
    the system's cache after the first process, so this is no cold boot. Each result goes to the
    store when all its processes have ended. This is `bench --cold` on the command line.

    Example:
        >>> done = md.cold_start("build/mobilenet_v1_0.5_160_demo/int8_best.tflite")
        >>> {figure.name: figure.median for figure in done.cold_starts[0].figures}

    Args:
        artifacts: as for `bench`.
        device: `host`, a phone (`adb`, `adb:SERIAL`, `pixel`) or a board
            (`ssh:[USER@]HOST[:PORT]`). It is leased exclusively.
        via: `adb` or `auto`; nothing stands in for a phone.
        runner: `python` or `native`; the default is the device's.
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        delegate: the default is the first of the runtime.
        threads: threads of the runtime.
        runs: the number of fresh processes, each with one run.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        A `ColdStart` for each artifact. If one of several fails, it is in `failed` with the reason.

    Raises:
        UsageError: a device that emulates or plays back; a runner that cannot tell; too few or too
            many processes; or as for `bench`.
        InputError: as for `bench`.
        DeviceError: the runner died or hangs, or the device was lost or is not connected.
        VoidError: a phone or board throttled or was disturbed in each try.
    """
    reporter = reporter or PythonReporter()
    if runs < stats.FEWEST:
        raise UsageError(
            f"{runs} processes have no 95 % interval of their median",
            f"give {stats.FEWEST} or more",
        )
    if runs > MOST_PROCESSES:
        raise UsageError(f"{runs} processes are too many", f"give {MOST_PROCESSES} or fewer")
    arguments.need_threads(threads)
    paths = arguments.paths(artifacts) or last_export()
    place = resolve.resolve(device, via)
    _need_real(place)
    request = resolve.bench_request(
        place,
        BenchRequest(
            device=place.name,
            runner=runner or "",
            runtime=runtime,
            threads=threads,
            delegate=delegate,
            runs=runs,
            seconds=SECONDS,
            fixed_performance=False,
        ),
    )
    failures = Failures()
    starts: dict[str, ColdStart] = {}
    with (
        open_session(place, request, None, reporter) as session,
        Store.keeping(reporter) as store,
    ):
        for path in paths:
            with failures.of(path):
                timing = ColdTiming(path, artifacts_.load(path), request, runs, reporter)
                cold = timing.undisturbed(session)
                store.add_artifact(timing.artifact)
                store.add_cold_start(cold)
                starts[str(path)] = cold
    if len(paths) == 1:
        failures.check()
    return ColdStartResult(tuple(starts), tuple(starts.values()), failures.records())


def _need_real(place: resolve.ResolvedDevice) -> None:
    """UsageError for a device without times and memory of its own."""
    if place.counts_instructions:
        raise UsageError(
            f"--cold is for times and memory, and {place.name} emulates: it has neither",
            "--device host, a phone (adb) or a board (ssh:HOST)",
        )
    if place.is_recording:
        raise UsageError(
            f"--cold starts processes, and {place.name} only plays back",
            "--device host, a phone (adb) or a board (ssh:HOST)",
        )
