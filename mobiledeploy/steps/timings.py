"""One artifact timed: runs of one input at batch 1 until their median is known to 1 %."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mobiledeploy.analysis import cores, latency, stats
from mobiledeploy.core import artifacts, protocol, recording, records
from mobiledeploy.core.errors import DeviceError, VoidError
from mobiledeploy.core.plugins import DEVICES, RUNNERS
from mobiledeploy.core.ports import Process, Reporter, Session
from mobiledeploy.core.types import Artifact, Measured, NamedWarning, Target
from mobiledeploy.steps import golden_inputs, resolve, runtimes

SECONDS = 5.0
"""How long one artifact is timed at most, unless the number of runs is fixed."""
# As the native runner counts.
MOST_RUNS = 1 << 30
# Fewer runs, or a shorter time, can look steady by chance.
LEAST_RUNS = 20
LEAST_SECONDS = 0.5
# A runner speaks about every 100 ms, and ends soon after it was asked to.
PATIENCE_S = 60.0
# Above this share of one core, what others computed meanwhile can be seen in the times.
BUSY = 0.25


@contextmanager
def opened(
    place: resolve.ResolvedDevice,
    asked: recording.BenchRequest,
    record: Path | None,
    reporter: Reporter,
) -> Iterator[Session]:
    """The session at a place; what passes in it is kept in the file `record`, void or not."""
    with DEVICES.load(place.plugin).open(place.name, exclusive=True, reporter=reporter) as session:
        if record is None:
            yield session
            return
        recorder = recording.Recorder(session)
        try:
            yield recorder
        except VoidError:
            records.write_atomic(record, records.dumps(recorder.recording(asked)))
            raise
        records.write_atomic(record, records.dumps(recorder.recording(asked)))


def target(
    artifact: Artifact,
    *,
    device: str = "host",
    runner: str = "python",
    runtime: str | None = None,
    threads: int = 1,
    delegate: str | None = None,
) -> Target:
    """Where and how an artifact is timed, as its record will say; arguments as for `bench`.

    The delegate is "" for the default of another package's runtime: it is known when it has run.

    Raises:
        InputError: nothing here runs the artifact's format.
        UsageError: `runtime` runs other formats.
    """
    plain = runtimes.target(artifact, runtime)
    return replace(
        plain, device=device, runner=runner, threads=threads, delegate=delegate or plain.delegate
    )


@dataclass
class Timing:
    """One artifact being timed, again and again if need be."""

    path: Path
    artifact: Artifact
    asked: recording.BenchRequest
    recorded: bool
    reporter: Reporter
    samples_ns: list[int] = field(default_factory=list)
    warnings: list[NamedWarning] = field(default_factory=list)

    def __post_init__(self) -> None:
        """UsageError and InputError as of `target`."""
        asked = self.asked
        self.target = target(
            self.artifact,
            device=asked.device,
            runner=asked.runner,
            runtime=asked.runtime,
            threads=asked.threads,
            delegate=asked.delegate,
        )
        self._runs, self._seconds = asked.runs, asked.seconds
        self._clock: Callable[[], float] = time.monotonic
        self._files: dict[str, str] | None = None

    def measure(self, session: Session, *, seconds: float | None = None) -> Measured:
        """Runs the runner until the times are good enough, and draws up the record.

        `seconds` is the time limit in place of the limit, or of the number of runs, that was asked.
        """
        self._runs = None if seconds else self.asked.runs
        self._seconds = seconds or self.asked.seconds
        self._clock, self.samples_ns, self.warnings = session.clock, [], []
        target, driver = self.target, RUNNERS.load(self.target.runner)
        if self._files is None:
            machine = session.facts().get("machine", "")
            # What is played back needs no runner: whether it is here or not is all the same.
            wanted = {} if self.recorded else driver.files(machine, target.runtime)
            self._files = {role: session.push(file) for role, file in wanted.items()}
        with artifacts.scratch() as folder:
            model = session.push(self.path)
            sample = golden_inputs.sample(self.path, self.artifact, folder)
            remote = None if sample is None else session.push(sample)
            argv = () if self.recorded else driver.bench(model, target, remote, self._files)
            before, begun = session.facts(), self._clock()
            process = driver.hear(session.run(cores.placed(argv, before, target.threads)), target)
            try:
                ready, done = self._listen(process)
            finally:
                process.kill()
            wall, after = self._clock() - begun, session.facts()
        return self._measured(target, ready, done, before, after, wall)

    def _listen(self, process: Process) -> tuple[protocol.Ready, protocol.Done]:
        """Collects samples until there are enough; those that come after that are left out."""
        ready: protocol.Ready | None = None
        begun, enough = self._clock(), False
        asked = 0.0
        listener = protocol.Listener(self.path.name, PATIENCE_S)
        listener.listen(0, process)
        while not enough or self._clock() - asked < PATIENCE_S:
            _, event = listener.next()
            if isinstance(event, protocol.Ready):
                ready, begun = event, self._clock()
            elif isinstance(event, protocol.Done) and ready and enough:
                return ready, event
            elif isinstance(event, protocol.Timed) and ready:
                if not enough:
                    self.samples_ns += event.samples_ns
                    enough = self._enough(self._clock() - begun)
                    if enough:
                        asked = self._clock()
                        process.stop()
            else:
                raise DeviceError(f"the runner said {type(event).__name__} at the wrong time")
        raise DeviceError(
            f"the runner of {self.path.name} goes on {PATIENCE_S:g} s after it was asked to end"
        )

    def _enough(self, elapsed: float) -> bool:
        warm = latency.warmups(self.samples_ns)
        steady = self.samples_ns[warm:]
        name = f"timing {self.path.name}"
        if self._runs is not None:
            self.reporter.progress(name, min(len(steady), self._runs), self._runs)
            return len(steady) >= self._runs
        good = (
            len(steady) >= LEAST_RUNS
            and sum(steady) >= LEAST_SECONDS * 1e9
            and latency.steady(self.samples_ns)
            and latency.enough(steady)
        )
        over = good or (elapsed >= self._seconds and len(steady) >= stats.FEWEST)
        percent = min(99, int(100 * elapsed / self._seconds))
        self.reporter.progress(name, 100 if over else percent, 100)
        return over

    def _measured(
        self,
        target: Target,
        ready: protocol.Ready,
        done: protocol.Done,
        before: Mapping[str, str],
        after: Mapping[str, str],
        wall: float,
    ) -> Measured:
        warm = latency.warmups(self.samples_ns)
        steady = self.samples_ns[warm:][: self._runs]
        middle, low, high = stats.median_interval(steady)
        self._warning_times(steady, ready)
        self._warning_machine(before, after, wall * ready.threads, wall)
        return Measured(
            artifact_sha256=self.artifact.sha256,
            target=Target(
                target.device, target.runner, ready.runtime, ready.threads, ready.delegate
            ),
            runtime_version=ready.version,
            samples_ns=tuple(steady),
            warmups_ns=tuple(self.samples_ns[:warm]),
            median_ns=middle,
            interval_ns=(low, high),
            peak_rss_bytes=done.peak_rss_bytes,
            delegated_nodes=ready.delegated_nodes,
            total_nodes=ready.total_nodes,
            facts_before=before,
            facts_after=after,
            warnings=tuple(self.warnings),
        )

    def _warning_times(self, steady: Sequence[int], ready: protocol.Ready) -> None:
        width = stats.relative_width(steady)
        if width > latency.RELATIVE_WIDTH:
            limit = f"{self._runs} runs" if self._runs else f"{self._seconds:g} s"
            self._warn(
                "wide-interval",
                f"after {limit} the median is known to ±{100 * width:.1f} % only",
                "close other programs, or ask for more --runs",
            )
        if not latency.steady(self.samples_ns):
            self._warn(
                "unsteady",
                "the times did not come to rest: they drift or jump",
                "let the machine cool down, or ask for more --runs",
            )
        if ready.delegate != "none" and ready.delegated_nodes == 0:
            self._warn(
                "not-delegated",
                f"{ready.runtime} {ready.version} left {ready.delegate} out: "
                f"it took none of {ready.total_nodes} operators",
                "this is the speed of the builtin kernels",
            )

    def _warning_machine(
        self, before: Mapping[str, str], after: Mapping[str, str], own: float, wall: float
    ) -> None:
        """`own` is the CPU time that the runner's threads may have taken, in seconds, of `wall`."""

        def spent(fact: str) -> float:
            try:
                return float(after[fact]) - float(before[fact])
            except (KeyError, ValueError):
                return 0.0

        if max(spent("busy_cpu_s") - own, spent("stolen_cpu_s")) > BUSY * wall:
            self._warn(
                "busy-machine",
                "other programs computed meanwhile",
                "close them and measure again",
            )

    def _warn(self, name: str, message: str, advice: str) -> None:
        warning = NamedWarning(name, f"{self.path.name}: {message}", advice)
        self.warnings.append(warning)
        self.reporter.warn(warning)
