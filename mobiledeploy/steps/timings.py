"""Times one artifact: runs of one input at batch 1 until their median is known to 1 %."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mobiledeploy.analysis import cores, latency, stats, validity
from mobiledeploy.core import arrays, artifacts, detectors, inputs, protocol, recording, records
from mobiledeploy.core.errors import DeployError, DeviceError, VoidError
from mobiledeploy.core.plugins import DEVICES, RUNNERS
from mobiledeploy.core.ports import Process, Reporter, Runner, Session
from mobiledeploy.core.types import Artifact, Measured, NamedWarning, Target
from mobiledeploy.steps import (
    answer_steps,
    cpu_answers,
    delegates,
    golden,
    golden_inputs,
    resolve,
    runtimes,
)

SECONDS = 5.0
"""The longest timing of one artifact, unless the number of runs is fixed."""
# The limit of the native runner.
MOST_RUNS = 1 << 30
# Fewer runs, or a shorter time, can look steady by chance.
LEAST_RUNS = 20
LEAST_SECONDS = 0.5
# A runner writes about every 100 ms, and ends soon after a request to stop.
PATIENCE_S = 60.0
# Above this share of one core, other programs affect the times.
BUSY = 0.25
BUSY_MACHINE = (
    "busy-machine",
    "other programs computed meanwhile",
    "close them and measure again",
)
"""The name, message and advice of the warning for a busy machine."""


@contextmanager
def open_session(
    place: resolve.ResolvedDevice,
    request: recording.BenchRequest,
    record: Path | None,
    reporter: Reporter,
) -> Iterator[Session]:
    """Opens the session on a device; its recording goes to the file `record`, void or not."""
    with DEVICES.load(place.plugin).open(place.name, exclusive=True, reporter=reporter) as session:
        if record is None:
            yield session
            return
        recorder = recording.Recorder(session)
        try:
            yield recorder
        except VoidError:
            records.write_atomic(record, records.dumps(recorder.recording(request)))
            raise
        records.write_atomic(record, records.dumps(recorder.recording(request)))


def target(
    artifact: Artifact,
    *,
    device: str = "host",
    runner: str = "python",
    runtime: str | None = None,
    threads: int = 1,
    delegate: str | None = None,
) -> Target:
    """The target of a timing for its record; the arguments are those of `bench`.

    The delegate is "" for the default of another package's runtime: the run will tell it.

    Raises:
        InputError: no runtime runs the artifact's format.
        UsageError: `runtime` runs other formats.
    """
    plain = runtimes.target(artifact, runtime)
    return replace(
        plain, device=device, runner=runner, threads=threads, delegate=delegate or plain.delegate
    )


def busy(before: Mapping[str, str], after: Mapping[str, str], own: float, wall: float) -> bool:
    """Whether other programs computed meanwhile, by a machine's facts before and after.

    `own` is the CPU time of the runner's threads at most, in seconds, in `wall` seconds.
    """

    def seconds_of(fact: str) -> float:
        try:
            return float(after[fact]) - float(before[fact])
        except (KeyError, ValueError):
            return 0.0

    return max(seconds_of("busy_cpu_s") - own, seconds_of("stolen_cpu_s")) > BUSY * wall


def _clocks_of(driver: Runner, facts: Mapping[str, str], threads: int) -> tuple[str, ...]:
    """The option for the clocks of the cores of a timing, if the runner and the machine have it."""
    # Only the native runner can: others run on this host, or are not ours.
    option: str | None = getattr(driver, "CLOCKS", None)
    biggest = cores.biggest(cores.capacities(facts.get("core_capacity", "")), threads)
    if option is None or not biggest or "time_in_state" not in facts:
        return ()
    return option, f"/sys/devices/system/cpu/cpu{biggest[0]}/cpufreq/stats/time_in_state"


@dataclass
class Timing:
    """The timing of one artifact, which can be repeated."""

    path: Path
    artifact: Artifact
    request: recording.BenchRequest
    is_recording: bool
    reporter: Reporter
    samples_ns: list[int] = field(default_factory=list)
    warnings: list[NamedWarning] = field(default_factory=list)

    def __post_init__(self) -> None:
        """UsageError and InputError as of `target`."""
        request = self.request
        self.target = target(
            self.artifact,
            device=request.device,
            runner=request.runner,
            runtime=request.runtime,
            threads=request.threads,
            delegate=request.delegate,
        )
        self._runs, self._seconds = request.runs, request.seconds
        self._clock: Callable[[], float] = time.monotonic
        self._files: dict[str, str] | None = None
        self._ready: protocol.Ready | None = None
        self._answer: protocol.RawAnswer | None = None

    def measure(self, session: Session, *, seconds: float | None = None) -> Measured:
        """Runs the runner until the times are good enough, and makes the record.

        `seconds` replaces the requested time limit or number of runs.
        """
        self._runs = None if seconds else self.request.runs
        self._seconds = seconds or self.request.seconds
        self._clock, self.samples_ns, self.warnings = session.clock, [], []
        self._answer = None
        with self._running(session, self.target) as (process, before, start):
            try:
                self._ready, end = self._listen(process)
            finally:
                process.kill()
            wall, after = self._clock() - start, session.facts()
        return self._measured(self.target, self._ready, end, before, after, wall)

    def compare_with_cpu(self, session: Session, measured: Measured) -> Measured:
        """The figure, with the distance of its answer from that of the built-in kernels.

        They run once, in a process of their own. The figure itself if there is no delegate, or no
        answer to compare. The reporter is told if they do not run the file.
        """
        ready, answer = self._ready, self._answer
        if answer is None or ready is None or ready.delegate == "none":
            return measured
        target = replace(self.target, delegate="none")
        try:
            with self._running(session, target, "--max-runs", "1") as (process, _, _):
                try:
                    cpu = self._only_answer(process)
                finally:
                    process.kill()
            places = protocol.places(self.artifact.outputs, ready.outputs)
            own, others = (
                [raw[place] for place in places]
                for raw in (
                    arrays.raw(protocol.raw_outputs(event), ready.outputs)
                    for event in (answer, cpu)
                )
            )
        except DeployError as error:
            # The timing is valid without it.
            self.reporter.say(
                f"{self.path.name}: its answer is not compared with that of the built-in kernels: "
                f"{error.message}"
            )
            return measured
        distance = cpu_answers.apart(self.artifact, own, others)
        if warning := cpu_answers.warning(measured, distance, own):
            self._warn(warning.name, warning.message, warning.advice)
        return replace(measured, cpu_steps=distance.steps, warnings=tuple(self.warnings))

    @contextmanager
    def _running(
        self, session: Session, target: Target, *options: str
    ) -> Iterator[tuple[Process, Mapping[str, str], float]]:
        """The runner on the artifact, the machine's facts before it, and the time of its start."""
        driver = RUNNERS.load(target.runner)
        if self._files is None:
            machine = session.facts().get("machine", "")
            # A recording that is played back needs no runner, so its files may be missing.
            parts = (
                {} if self.is_recording else driver.files(machine, target.runtime, target.delegate)
            )
            self._files = {role: session.push(file) for role, file in parts.items()}
        with artifacts.scratch() as folder:
            model = session.push(self.path)
            sample = golden_inputs.sample(self.path, self.artifact, folder)
            remote = None if sample is None else session.push(sample)
            argv = () if self.is_recording else driver.bench(model, target, remote, self._files)
            before, start = session.facts(), self._clock()
            options += _clocks_of(driver, before, target.threads)
            placed = cores.placed((*argv, *options), before, target.threads)
            yield driver.hear(session.run(placed), target), before, start

    def _only_answer(self, process: Process) -> protocol.RawAnswer:
        """The answer of a runner that ends by itself."""
        kinds = protocol.Ready, protocol.Timed, protocol.RawAnswer
        events = list(protocol.listen(process, self.path.name, PATIENCE_S, *kinds))
        answers = [event for event in events if isinstance(event, protocol.RawAnswer)]
        if not answers:
            raise protocol.untimely(events[-1])
        return answers[-1]

    def _listen(self, process: Process) -> tuple[protocol.Ready, protocol.Done]:
        """Collects samples until there are enough; later samples are left out."""
        ready: protocol.Ready | None = None
        start, enough = self._clock(), False
        stop_time = 0.0
        listener = protocol.Listener(self.path.name, PATIENCE_S)
        listener.listen(0, process)
        while not enough or self._clock() - stop_time < PATIENCE_S:
            _, event = listener.next()
            if isinstance(event, protocol.Ready):
                ready, start = event, self._clock()
            elif isinstance(event, protocol.Done) and ready and enough:
                return ready, event
            elif isinstance(event, protocol.RawAnswer) and ready:
                self._answer = event
            elif isinstance(event, protocol.Timed) and ready:
                if not enough:
                    self.samples_ns += event.samples_ns
                    enough = self._enough(self._clock() - start)
                    if enough:
                        stop_time = self._clock()
                        process.stop()
            else:
                raise protocol.untimely(event)
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
        end: protocol.Done,
        before: Mapping[str, str],
        after: Mapping[str, str],
        wall: float,
    ) -> Measured:
        warm = latency.warmups(self.samples_ns)
        steady = self.samples_ns[warm:][: self._runs]
        middle, low, high = stats.median_interval(steady)
        distance = golden.timed(self.artifact, ready, self._answer)
        self._warn_answer(distance, ready)
        self._warn_times(steady)
        if ready.threads > 1 and detectors.POSTPROCESS.encode() in inputs.read(
            self.path, inputs.FINISHED
        ):
            self._warn(
                "threads-lose-boxes",
                f"{detectors.POSTPROCESS} can leave out classes with more than one thread",
                "let the app run this file with one thread, and time it with --threads 1",
            )
        if busy(before, after, wall * ready.threads, wall):
            self._warn(*BUSY_MACHINE)
        measured = Measured(
            artifact_sha256=self.artifact.sha256,
            target=Target(
                target.device, target.runner, ready.runtime, ready.threads, ready.delegate
            ),
            runtime_version=ready.version,
            samples_ns=tuple(steady),
            warmups_ns=tuple(self.samples_ns[:warm]),
            median_ns=middle,
            interval_ns=(low, high),
            peak_rss_bytes=end.peak_rss_bytes,
            delegated_nodes=ready.delegated_nodes,
            total_nodes=ready.total_nodes,
            facts_before={**before, "gpu": ready.adapter} if ready.adapter else before,
            facts_after={**after, **validity.clocks_of_runs(end.clocks)},
            golden_steps=None if distance is None else distance.steps,
            left_operators=delegates.left(self.path, ready),
        )
        for warning in delegates.warnings(measured, ready.adapter):
            self._warn(warning.name, warning.message, warning.advice)
        return replace(measured, warnings=tuple(self.warnings))

    def _warn_answer(
        self, distance: answer_steps.AnswerDistance | None, ready: protocol.Ready
    ) -> None:
        if distance is None or distance.within:
            return
        then = self.artifact.golden
        self._warn(
            "differs-from-host",
            f"the answer for the first golden image is {distance.text} from that of the export "
            f"({then.runtime} on {then.isa}); this is {ready.runtime} {ready.version} "
            f"with {ready.delegate} on {ready.cpu}",
            f"mobiledeploy verify {self.path.name} --device {self.request.device}",
        )

    def _warn_times(self, steady: Sequence[int]) -> None:
        if stats.relative_width(steady) > latency.RELATIVE_WIDTH:
            limit = f"{self._runs} runs" if self._runs else f"{self._seconds:g} s"
            self._warn(
                "wide-interval",
                f"after {limit} the median is not known to ±{100 * latency.RELATIVE_WIDTH:g} % yet",
                "close other programs, or ask for more --runs",
            )
        if not latency.steady(self.samples_ns):
            self._warn(
                "unsteady",
                "the times did not come to rest: they drift or jump",
                "let the machine cool down, or ask for more --runs",
            )

    def _warn(self, name: str, message: str, advice: str) -> None:
        warning = NamedWarning(name, message, advice, str(self.path))
        self.warnings.append(warning)
        self.reporter.warn(warning)
