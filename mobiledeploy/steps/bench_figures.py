"""Figures of artifacts on a device: measured, counted on an emulated core, or estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mobiledeploy.analysis import stats
from mobiledeploy.core import artifacts, records
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeviceError, UsageError
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.recording import BenchRequest
from mobiledeploy.core.types import Failed, Measured, Measurement
from mobiledeploy.steps import arguments, bench_tables, count, delegates, estimate, phones, resolve
from mobiledeploy.steps import energy as energies
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.timings import MOST_RUNS, SECONDS, Timing, open_session
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path


@dataclass(frozen=True)
class BenchResult(Record):
    """The answer of `bench`: `measurements[i]` belongs to the artifact `paths[i]`.

    If a phone is both estimated and counted for, the estimates come first and each path is listed
    twice. `recorded_at` is when a recording was made that is played back, else "". `failed` are the
    paths without an answer, each with its reason.
    """

    paths: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    recorded_at: str = ""
    failed: tuple[Failed, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """A table for each kind of figure."""
        return bench_tables.tables(self.paths, self.measurements, self.recorded_at)


def time_artifacts(
    paths: Sequence[Path],
    failures: Failures,
    *,
    device: str = "host",
    via: resolve.Via = "auto",
    runner: str | None = None,
    runtime: str | None = None,
    threads: int = 1,
    delegate: str | None = None,
    strict: bool = False,
    runs: int | None = None,
    seconds: float = SECONDS,
    fixed_performance: bool = True,
    record: Path | None = None,
    energy: bool = False,
    reporter: Reporter = SILENT,
) -> dict[Path, Measurement]:
    """Does the work of `bench`; failures of single paths go to `failures` and are not raised."""
    arguments.need_threads(threads)
    need_runs(runs)
    place = resolve.resolve(device, via)
    if record is not None:
        place.need_times("--record")
        records.need_folder(record)
    request = resolve.bench_request(
        place,
        BenchRequest(
            device=place.name,
            runner=runner or "",
            runtime=runtime,
            threads=threads,
            delegate=delegate,
            runs=runs,
            seconds=seconds,
            fixed_performance=fixed_performance,
            energy=energy,
            strict=strict,
            against_cpu=True,
        ),
    )
    if request.energy:
        energies.need_device(place, request.runner)
    if request.strict and place.counts_instructions:
        raise UsageError("--strict is for timings; here instructions are counted", "leave it out")
    timings = []
    for path in dict.fromkeys(paths):
        with failures.of(path):
            timing = Timing(path, artifacts.load(path), request, place.is_recording, reporter)
            if request.strict:
                delegates.need_one(timing.target.delegate, path.name)
            timings.append(timing)
    figures: dict[Path, Measurement] = {}
    if not timings:
        return figures
    with (
        open_session(place, request, record, reporter) as session,
        Store.keeping(reporter) as store,
    ):
        source = energies.need_source(session) if request.energy else None
        guard = phones.Guard(session, request, place.is_recording, reporter)
        for timing in timings:
            with failures.of(timing.path):
                figure: Measurement = (
                    count.count(
                        session, timing.path, timing.artifact, timing.target, reporter=reporter
                    )
                    if place.counts_instructions
                    else guard.measure(timing.path.name, partial(timing.measure, session))
                )
                if isinstance(figure, Measured):
                    if request.against_cpu:
                        figure = timing.compare_with_cpu(session, figure)
                    if source is not None:
                        figure = replace(figure, energy=energies.measure(session, timing, source))
                store.add_artifact(timing.artifact)
                store.add_measurement(figure, place.recorded_at)
                figures[timing.path] = figure
        if record is not None:
            # The recording of a lost session cannot be played back.
            failures.check(DeviceError)
    return figures


def need_runs(runs: int | None) -> None:
    """UsageError for too few runs for an interval, or for more runs than anybody means."""
    if runs is None:
        return
    if runs < stats.FEWEST:
        raise UsageError(
            f"{runs} runs have no 95 % interval of their median", f"give {stats.FEWEST} or more"
        )
    if runs > MOST_RUNS:
        raise UsageError(f"{runs} runs are too many", f"give {MOST_RUNS} or fewer")


def estimate_figures(
    paths: Sequence[Path],
    card: DeviceCard,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Measurement, ...]:
    """`estimate` from a card, with the figures added to the store.

    The same arguments and errors.
    """
    figures = estimate.estimate(
        paths,
        device=card.name,
        threads=threads,
        runtime=runtime,
        delegate=delegate,
        reporter=reporter,
    )
    with Store.keeping(reporter) as store:
        for one in figures:
            store.add_measurement(one)
    return figures


def last_export() -> tuple[Path, ...]:
    """The artifacts of the last export in this folder; UsageError if there are none."""
    paths: tuple[Path, ...] = ()
    # `Store.open` would make a store.
    if store_path().exists():
        with Store.open() as store:
            paths = tuple(map(Path, store.last_export()))
    if not paths:
        raise UsageError(
            "nothing was exported in this folder yet",
            "mobiledeploy export, or name the artifacts",
        )
    return paths
