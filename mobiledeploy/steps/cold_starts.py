"""What a fresh process needs until its first answer: times of its steps, memory, size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mobiledeploy.analysis import cores, stats, validity
from mobiledeploy.core import artifacts, cold_columns, protocol, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeviceError, UsageError
from mobiledeploy.core.plugins import RUNNERS
from mobiledeploy.core.ports import Process, Reporter, Session
from mobiledeploy.core.recording import BenchRequest
from mobiledeploy.core.types import (
    Artifact,
    ColdFigure,
    ColdStart,
    Failed,
    NamedWarning,
    Target,
)
from mobiledeploy.steps import bench_tables, golden_inputs, phones, resolve, timings


@dataclass(frozen=True)
class ColdStartResult(Record):
    """The answer of `bench --cold`: `cold_starts[i]` belongs to the artifact `paths[i]`.

    `failed` are the paths without an answer, each with its reason.
    """

    paths: tuple[str, ...]
    cold_starts: tuple[ColdStart, ...]
    failed: tuple[Failed, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """A table for each artifact, a row for each figure."""
        return tuple(_table(*pair) for pair in zip(self.paths, self.cold_starts, strict=True))


@dataclass(frozen=True)
class ColdTiming:
    """The cold start of one artifact, which can be repeated."""

    path: Path
    artifact: Artifact
    request: BenchRequest
    processes: int
    reporter: Reporter

    @property
    def target(self) -> Target:
        """UsageError and InputError as of `timings.target`."""
        request = self.request
        return timings.target(
            self.artifact,
            device=request.device,
            runner=request.runner,
            runtime=request.runtime,
            threads=request.threads,
            delegate=request.delegate,
        )

    def undisturbed(self, session: Session) -> ColdStart:
        """`measure`; on a phone or board, again if something changed there.

        Raises:
            VoidError: something changed in each try.
        """
        if not resolve.is_remote(self.request.device):
            return self.measure(session)
        return phones.undisturbed(
            partial(self.measure, session),
            lambda cold: validity.state_disturbances(cold.facts_before, cold.facts_after),
            session,
            self.path.name,
            self.reporter,
        )

    def measure(self, session: Session) -> ColdStart:
        """Starts the runner in one process after the other.

        Raises:
            UsageError: the runner does not tell how a model is loaded.
            DeviceError: a runner died, hangs, or did not tell what it was asked.
        """
        target, driver = self.target, RUNNERS.load(self.target.runner)
        # Runners of other packages may not have it.
        if not hasattr(driver, "cold"):
            raise UsageError(
                f"the runner {target.runner} does not tell how a model is loaded", "--runner native"
            )
        parts = driver.files(session.facts().get("machine", ""), target.runtime, target.delegate)
        files = {role: session.push(file) for role, file in parts.items()}
        starts: list[_Start] = []
        with artifacts.scratch() as folder:
            model = session.push(self.path)
            sample = golden_inputs.sample(self.path, self.artifact, folder)
            remote = None if sample is None else session.push(sample)
            argv = driver.cold(model, target, remote, files)
            before, begin = session.facts(), session.clock()
            for number in range(self.processes):
                self.reporter.progress(f"starting {self.path.name}", number, self.processes)
                process = session.run(cores.placed(argv, before, target.threads))
                starts.append(_listen(driver.hear(process, target), self.path.name))
            wall, after = session.clock() - begin, session.facts()
        self.reporter.progress(f"starting {self.path.name}", self.processes, self.processes)
        ready = starts[0].ready
        library = parts.get("library")
        return ColdStart(
            artifact_sha256=self.artifact.sha256,
            target=Target(
                target.device, target.runner, ready.runtime, ready.threads, ready.delegate
            ),
            runtime_version=ready.version,
            figures=_figures(starts),
            size_bytes=self.artifact.size_bytes,
            library_bytes=None if library is None else library.stat().st_size,
            facts_before=before,
            facts_after=after,
            warnings=self._warnings(before, after, ready.threads * wall, wall),
        )

    def _warnings(
        self, before: Mapping[str, str], after: Mapping[str, str], own: float, wall: float
    ) -> tuple[NamedWarning, ...]:
        if not timings.busy(before, after, own, wall):
            return ()
        name, message, advice = timings.BUSY_MACHINE
        warning = NamedWarning(name, message, advice, str(self.path))
        self.reporter.warn(warning)
        return (warning,)


@dataclass(frozen=True)
class _Start:
    """The events of one process."""

    ready: protocol.Ready
    loaded: protocol.Loaded
    first_inference_ns: int
    peak_rss_bytes: int

    def figures(self) -> dict[str, int]:
        """The values by name, in the order of `cold_columns.LABELS`."""
        loaded = self.loaded
        steps = {
            "library_ns": loaded.library_ns,
            "load_ns": loaded.load_ns,
            "prepare_ns": loaded.prepare_ns,
            "first_inference_ns": self.first_inference_ns,
        }
        told = {name: ns for name, ns in steps.items() if ns is not None}
        return {
            **told,
            "first_answer_ns": sum(told.values()),
            "peak_rss_bytes": self.peak_rss_bytes,
        }


def _listen(process: Process, name: str) -> _Start:
    """The events of a process that ends by itself after one run."""
    ready: protocol.Ready | None = None
    loaded: protocol.Loaded | None = None
    samples: list[int] = []
    peak_rss_bytes = 0
    kinds = protocol.Ready, protocol.Loaded, protocol.Timed, protocol.RawAnswer
    try:
        for event in protocol.listen(process, name, timings.PATIENCE_S, *kinds):
            if isinstance(event, protocol.Ready):
                ready = event
            elif isinstance(event, protocol.Loaded):
                loaded = event
            elif isinstance(event, protocol.Timed):
                samples += event.samples_ns
            elif isinstance(event, protocol.Done):
                peak_rss_bytes = event.peak_rss_bytes
    finally:
        process.kill()
    if ready is None or loaded is None or len(samples) != 1:
        raise DeviceError(
            f"the runner of {name} did not tell its times of loading and of one run",
            "it is of another version",
        )
    return _Start(ready, loaded, samples[0], peak_rss_bytes)


def _figures(starts: list[_Start]) -> tuple[ColdFigure, ...]:
    values = [start.figures() for start in starts]
    if any(value.keys() != values[0].keys() for value in values):
        raise DeviceError("the runner told other steps of loading in each process")
    figures = []
    for name in values[0]:
        samples = tuple(value[name] for value in values)
        middle, low, high = stats.median_interval(samples)
        figures.append(ColdFigure(name, samples, middle, (low, high)))
    return tuple(figures)


def _table(path: str, cold: ColdStart) -> Table:
    sizes = {"size of the file": cold.size_bytes, "size of the runtime": cold.library_bytes}
    rows = [
        (cold_columns.LABELS.get(figure.name, figure.name), *cold_columns.shown(figure))
        for figure in cold.figures
    ]
    rows += [(name, units.size(size), "–") for name, size in sizes.items() if size is not None]
    runtime = f"{cold.target.runtime} {cold.runtime_version}".strip()
    return Table(
        ("in a fresh process", "median", "95 % interval"),
        tuple(rows),
        f"{path} on {bench_tables.machine(cold)}, {runtime} with {cold.target.delegate}, "
        f"{units.several(cold.target.threads, 'thread')}: {cold.processes} processes, "
        "files in the system's cache",
    )
