"""Whether B is slower than A: times both in turns, so that a drift of the machine cancels."""

from __future__ import annotations

from pathlib import Path

from mobiledeploy.analysis import comparison, validity
from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError, UsageError, VoidError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.recording import BenchRequest
from mobiledeploy.core.types import LatencyComparison, Measured, NamedWarning
from mobiledeploy.steps import arguments, delegates, resolve, timings
from mobiledeploy.steps.arguments import AnyPath
from mobiledeploy.steps.defaults import COMPARE_ROUNDS
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.store.database import Store

MOST_ROUNDS = 1000
"""More rounds mean over 4000 processes, which take hours; nobody means that."""

BLOCK_SECONDS = 0.5


def compare(
    a: AnyPath,
    b: AnyPath,
    *,
    device: str = "host",
    via: resolve.Via = "auto",
    runner: str | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    strict: bool = False,
    threads: int = 1,
    rounds: int = COMPARE_ROUNDS,
    seconds: float = BLOCK_SECONDS,
    record: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> LatencyComparison:
    """Says whether B is slower than A: times both in the order A B B A, `rounds` times.

    Each block is a new process. The result goes to the store, with the raw samples of all blocks.
    This is `bench --compare` on the command line.

    Example:
        >>> found = md.compare("build/float32.tflite", "build/int8_best.tflite")
        >>> found.ratio, found.interval

    Args:
        a: the artifact to compare with.
        b: the artifact to judge.
        device: the device, as for `bench`.
        via: what may replace a phone, as for `bench`.
        runner: the program that drives the runtime.
        runtime: the default is that of each artifact's format.
        delegate: the default is the first of the runtime.
        strict: a delegate must take all operators of both.
        threads: threads of the runtime.
        rounds: the number of rounds of four blocks; a recording has its own number.
        seconds: the time limit for one block.
        record: a file for the recording of the session.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        Time of B over time of A, its 95 % interval, and whether that excludes 1.

    Raises:
        UsageError: too few or too many rounds, less than one thread, or as for `bench`.
        VoidError: a delegate did not take the graph of one of them.
        DeviceError: as for `bench`.
    """
    reporter = reporter or PythonReporter()
    a, b = Path(a), Path(b)
    if rounds < comparison.FEWEST:
        raise UsageError(
            f"{rounds} rounds have no interval of the ratio", f"give {comparison.FEWEST} or more"
        )
    if rounds > MOST_ROUNDS:
        raise UsageError(f"{rounds} rounds are too many", f"give {MOST_ROUNDS} or fewer")
    arguments.need_threads(threads)
    place = resolve.resolve(device, via)
    place.need_times("a comparison in turns")
    request = resolve.bench_request(
        place,
        BenchRequest(
            device=place.name,
            runner=runner or "",
            runtime=runtime,
            threads=threads,
            delegate=delegate,
            runs=None,
            seconds=seconds,
            fixed_performance=False,
            rounds=rounds,
            strict=strict,
        ),
    )
    rounds = request.rounds or rounds
    if rounds < comparison.FEWEST:
        raise InputError(f"{place.name} has {rounds} rounds only", "record it again")
    sides = {
        side: timings.Timing(
            path, artifacts.load(path), request, place.is_recording, _Quiet(reporter)
        )
        for side, path in (("A", a), ("B", b))
    }
    if request.strict:
        for timing in sides.values():
            delegates.need_one(timing.target.delegate, timing.path.name)
    order = comparison.ORDER * rounds
    blocks: list[Measured] = []
    with timings.open_session(place, request, arguments.path(record), reporter) as session:
        # From here on the time left can be told, also where a block takes minutes.
        reporter.progress("comparing", 0, len(order))
        for side in order:
            blocks.append(sides[side].measure(session))
            if reason := validity.unused_delegate(blocks[-1], strict=request.strict):
                raise VoidError(f"void: {sides[side].path.name}: {reason}", "another --delegate")
            reporter.progress("comparing", len(blocks), len(order))
    ratio = comparison.interleaved([block.median_ns for block in blocks])
    comparison_ = LatencyComparison(
        str(a), str(b), ratio.value, (ratio.low, ratio.high), ratio.changed, rounds, tuple(blocks)
    )
    with Store.keeping(reporter) as store:
        for timing in sides.values():
            store.add_artifact(timing.artifact)
        store.add_comparison(comparison_, place.recorded_at)
    return comparison_


class _Quiet:
    """Drops progress and warnings of single blocks, which are short; their records hold them."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def progress(self, what: str, done: int, total: int) -> None:
        """Says nothing."""

    def warn(self, warning: NamedWarning) -> None:
        """Says nothing."""

    def say(self, line: str) -> None:
        """Passes the line on."""
        self._reporter.say(line)
