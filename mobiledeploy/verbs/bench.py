"""Latency of artifacts: runs of one input at batch 1, until their median is known to 1 %.

What a device gives instead of time is another verb's: instructions are count's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mobiledeploy.analysis import cores, latency, stats
from mobiledeploy.core import artifacts, device_cards, protocol, recording, records
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.errors import (
    DeployError,
    DeviceError,
    InputError,
    MissingError,
    UsageError,
    VoidError,
)
from mobiledeploy.core.plugins import DEVICES, RUNNERS
from mobiledeploy.core.ports import SILENCE, Notify, Process, Session
from mobiledeploy.core.types import Artifact, Doubt, Failed, Measured, Measurement, Target
from mobiledeploy.steps import count, estimate, golden_inputs, phones, resolve
from mobiledeploy.steps.failures import Failures
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path
from mobiledeploy.verbs import evaluate

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


@dataclass(frozen=True)
class Benched:
    """The answer of the command: each path's artifact has the measurement of the same place.

    Where a phone is estimated and counted for, all estimates come first, and paths twice. Of a
    recording that was played back, `recorded_at` is when it was made; "" for all else. `failed` are
    the paths that have no answer, each with its reason.
    """

    paths: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    recorded_at: str = ""
    failed: tuple[Failed, ...] = ()


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
    notify: Notify = SILENCE,
) -> tuple[Measurement, ...]:
    """Times artifacts, or counts their instructions where the device does that.

    Each result is in the store, with its raw samples, as soon as it exists; what is played back
    with the date of its recording, and once. Runs are timed until
    they are steady (`analysis.latency.warmups`) and the 95 % interval of the median of the steady
    ones lies within 1 % of it on both sides, or until time is up.

    Args:
        paths: artifacts with their records beside them; none for what was exported last here.
        device: where, see `resolve.resolve`; it is leased exclusively where it is timed. Of a
            recording, all that follows but `notify` is what was asked then.
        via: what a phone may be replaced by, see `resolve.resolve`.
        runner: what drives the runtime there; by default what the device says.
        runtime: by default litert for TFLite and onnxruntime for ONNX.
        threads: of the runtime.
        delegate: by default the first that the runtime has.
        runs: exactly so many after the warm-up, whatever their interval and time.
        seconds: the time limit for one artifact.
        fixed_performance: tries a phone's mode of steady clocks, see `phones.hold_clocks`.
        record: a file to keep the exchange with the device in, for `replay`.
        notify: hears of progress and doubts.

    Raises:
        UsageError: nothing was exported here, an unknown device, runner, runtime or delegate, or
            a runtime that does not run an artifact's format.
        InputError: an artifact without its record, or one that the record does not speak of.
        DeviceError: the runner died or hangs, or the phone was lost.
        VoidError: a phone throttled or was disturbed, each time that it was tried.

    Where one of several fails the others are timed all the same; then the gravest error is raised.
    """
    failures = Failures()
    made = _timed(
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
        notify=notify,
    )
    failures.check()
    return tuple(made.values())


def _timed(
    paths: Sequence[Path],
    failures: Failures,
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
    notify: Notify = SILENCE,
) -> dict[Path, Measurement]:
    """What `bench` does, with the failures of single paths in `failures` instead of raised."""
    if threads < 1:
        raise UsageError(f"{threads} threads cannot work", "give 1 or more")
    _need_runs(runs)
    place = resolve.resolve(device, via)
    if record is not None:
        place.timed("--record")
        records.need_folder(record)
    asked = resolve.asked(
        place,
        runner,
        runtime=runtime,
        threads=threads,
        delegate=delegate,
        runs=runs,
        seconds=seconds,
        fixed_performance=fixed_performance,
    )
    timings = []
    for path in dict.fromkeys(paths):
        with failures.of(path):
            timings.append(Timing(path, artifacts.load(path), asked, place.recorded, notify))
    made: dict[Path, Measurement] = {}
    if not timings:
        return made
    with opened(place, asked, record, notify) as session, Store.keeping(notify) as store:
        guard = phones.Guard(session, asked, place.recorded, notify)
        for timing in timings:
            with failures.of(timing.path):
                found: Measurement = (
                    count.count(session, timing.path, timing.artifact, timing.target, notify=notify)
                    if place.counted
                    else guard.timed(timing.path.name, partial(timing.measure, session))
                )
                store.add_artifact(timing.artifact)
                store.add_measurement(found, place.recorded_at)
                made[timing.path] = found
        if record is not None:
            # What a session that was lost had said plays nothing back.
            failures.check(DeviceError)
    return made


def _need_runs(runs: int | None) -> None:
    if runs is None:
        return
    if runs < stats.FEWEST:
        raise UsageError(
            f"{runs} runs have no 95 % interval of their median", f"give {stats.FEWEST} or more"
        )
    if runs > MOST_RUNS:
        raise UsageError(f"{runs} runs are too many", f"give {MOST_RUNS} or fewer")


def figures(
    paths: Sequence[Path] = (),
    *,
    device: str = "host",
    via: resolve.Via = "auto",
    threads: int | None = None,
    notify: Notify = SILENCE,
    **given: Any,
) -> Benched:
    """`bench`, or what stands in for a phone that is not here: its card, and an emulated core.

    The card estimates, the core that it names counts, on one thread. Where there is no such core,
    nothing is counted, and what is counted is not estimated where the card can say nothing of it:
    `notify` hears why. Arguments and errors as of `bench` and `estimated`, and UsageError for those
    that say how to run, where nothing is; `threads` is 1 by default where artifacts are run. Where
    one of several paths fails, the others have their answer, and it its reason.
    """
    _need_runs(given.get("runs"))
    paths = tuple(dict.fromkeys(paths)) or last_export()
    failures = Failures()
    found = _figures(
        paths, failures, device=device, via=via, threads=threads, notify=notify, **given
    )
    if len(paths) == 1:
        failures.check()
    return replace(found, failed=failures.told())


def _figures(
    paths: tuple[Path, ...],
    failures: Failures,
    *,
    device: str,
    via: resolve.Via,
    threads: int | None,
    notify: Notify,
    **given: Any,
) -> Benched:
    """What `figures` does, with the failures of single paths in `failures` instead of raised."""
    card = resolve.stand_in(device, via)
    if card is None:
        if via == "emulator" and (card := device_cards.matching(device)):
            notify.say(f"counted, no time: {card.title}, on {resolve.emulated(card)[1]}")
        timed = _timed(
            paths, failures, device=device, via=via, threads=threads or 1, notify=notify, **given
        )
        return Benched(tuple(map(str, timed)), tuple(timed.values()), resolve.recorded_at(device))
    for name in ("runs", "record", "runner"):
        if given.get(name) is not None:
            raise UsageError(
                f"{card.title} is not here, so that nothing is timed, and --{name} says how",
                "leave it away for an estimate, or --via adb",
            )
    chosen = {name: given.get(name) for name in ("runtime", "delegate")}
    core: resolve.Place | None = None
    try:
        core, like = resolve.emulated(card)
        counted = f"counted, no time: on {like}"
    except (DeviceError, MissingError) as error:
        counted = f"not counted: {error}"
    if chosen["delegate"] not in (None, *estimate.ON_CPU):
        core, counted = None, f"not counted: no core is a {chosen['delegate']}"
    about = f"{card.title}, {card.soc}" if card.soc else card.title
    notify.say(f"estimated, not measured: {about}, from the card {card.name}; {counted}")
    of: list[Path] = []
    made: tuple[Measurement, ...] = ()
    for path in paths:
        try:
            made += estimated([path], card, threads=threads, notify=notify, **chosen)
            of.append(path)
        except InputError as error:
            if core is None:
                failures.add(path, error)
            else:
                notify.doubt(Doubt("no-estimate", f"no estimate: {error.message}", error.hint))
        except DeployError as error:
            # Of the one card, but each file asks for points of its own precision.
            failures.add(path, error)
    rest = [path for path in paths if path not in failures]
    if core is not None and rest:
        counts = _timed(
            rest, failures, device=core.name, delegate=chosen["delegate"], notify=notify
        )
        made += tuple(counts.values())
        of += counts
    return Benched(tuple(map(str, of)), made)


def estimated(
    paths: Sequence[Path],
    card: DeviceCard,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    notify: Notify = SILENCE,
) -> tuple[Measurement, ...]:
    """`estimate` from a card, kept in the store; arguments and errors as there."""
    made = estimate.estimate(
        paths, device=card.name, threads=threads, runtime=runtime, delegate=delegate, notify=notify
    )
    with Store.keeping(notify) as store:
        for one in made:
            store.add_measurement(one)
    return made


@contextmanager
def opened(
    place: resolve.Place, asked: recording.Asked, record: Path | None, notify: Notify
) -> Iterator[Session]:
    """The session at a place; what passes in it is kept in the file `record`, void or not."""
    with DEVICES.load(place.plugin).open(place.name, exclusive=True, notify=notify) as session:
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
    plain = evaluate.target(artifact, runtime)
    return replace(
        plain, device=device, runner=runner, threads=threads, delegate=delegate or plain.delegate
    )


def last_export() -> tuple[Path, ...]:
    """The artifacts that were exported last in this folder; UsageError where there are none."""
    paths: tuple[Path, ...] = ()
    # To look for a store is no reason to make one.
    if store_path().exists():
        with Store.open() as store:
            paths = tuple(map(Path, store.last_export()))
    if not paths:
        raise UsageError(
            "nothing was exported in this folder yet",
            "mobiledeploy export, or name the artifacts",
        )
    return paths


@dataclass
class Timing:
    """One artifact being timed, again and again if need be."""

    path: Path
    artifact: Artifact
    asked: recording.Asked
    recorded: bool
    notify: Notify
    samples_ns: list[int] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

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
        self._clock, self.samples_ns, self.doubts = session.clock, [], []
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
            self.notify.progress(name, min(len(steady), self._runs), self._runs)
            return len(steady) >= self._runs
        good = (
            len(steady) >= LEAST_RUNS
            and sum(steady) >= LEAST_SECONDS * 1e9
            and latency.steady(self.samples_ns)
            and latency.enough(steady)
        )
        over = good or (elapsed >= self._seconds and len(steady) >= stats.FEWEST)
        percent = min(99, int(100 * elapsed / self._seconds))
        self.notify.progress(name, 100 if over else percent, 100)
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
        self._doubt_times(steady, ready)
        self._doubt_machine(before, after, wall * ready.threads, wall)
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
            doubts=tuple(self.doubts),
        )

    def _doubt_times(self, steady: Sequence[int], ready: protocol.Ready) -> None:
        width = stats.relative_width(steady)
        if width > latency.RELATIVE_WIDTH:
            limit = f"{self._runs} runs" if self._runs else f"{self._seconds:g} s"
            self._doubt(
                "wide-interval",
                f"after {limit} the median is known to ±{100 * width:.1f} % only",
                "close other programs, or ask for more --runs",
            )
        if not latency.steady(self.samples_ns):
            self._doubt(
                "unsteady",
                "the times did not come to rest: they drift or jump",
                "let the machine cool down, or ask for more --runs",
            )
        if ready.delegate != "none" and ready.delegated_nodes == 0:
            self._doubt(
                "not-delegated",
                f"{ready.runtime} {ready.version} left {ready.delegate} out: "
                f"it took none of {ready.total_nodes} operators",
                "this is the speed of the builtin kernels",
            )

    def _doubt_machine(
        self, before: Mapping[str, str], after: Mapping[str, str], own: float, wall: float
    ) -> None:
        """`own` is the CPU time that the runner's threads may have taken, in seconds, of `wall`."""

        def spent(fact: str) -> float:
            try:
                return float(after[fact]) - float(before[fact])
            except (KeyError, ValueError):
                return 0.0

        if max(spent("busy_cpu_s") - own, spent("stolen_cpu_s")) > BUSY * wall:
            self._doubt(
                "busy-machine",
                "other programs computed meanwhile",
                "close them and measure again",
            )

    def _doubt(self, name: str, message: str, advice: str) -> None:
        doubt = Doubt(name, f"{self.path.name}: {message}", advice)
        self.doubts.append(doubt)
        self.notify.doubt(doubt)
