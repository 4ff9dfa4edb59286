"""Figures of artifacts on a device: measured, counted on an emulated core, or estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mobiledeploy.analysis import stats
from mobiledeploy.core import artifacts, records
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeviceError, UsageError
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Failed, Measurement
from mobiledeploy.steps import bench_tables, count, estimate, phones, resolve
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.timings import MOST_RUNS, SECONDS, Timing, opened
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path


@dataclass(frozen=True)
class BenchResult(Record):
    """The answer of the command: each path's artifact has the measurement of the same place.

    Where a phone is estimated and counted for, all estimates come first, and paths twice. Of a
    recording that was played back, `recorded_at` is when it was made; "" for all else. `failed` are
    the paths that have no answer, each with its reason.
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
    runs: int | None = None,
    seconds: float = SECONDS,
    fixed_performance: bool = True,
    record: Path | None = None,
    reporter: Reporter = SILENT,
) -> dict[Path, Measurement]:
    """What `bench` does, with the failures of single paths in `failures` instead of raised."""
    if threads < 1:
        raise UsageError(f"{threads} threads cannot work", "give 1 or more")
    need_runs(runs)
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
            timings.append(Timing(path, artifacts.load(path), asked, place.recorded, reporter))
    made: dict[Path, Measurement] = {}
    if not timings:
        return made
    with opened(place, asked, record, reporter) as session, Store.keeping(reporter) as store:
        guard = phones.Guard(session, asked, place.recorded, reporter)
        for timing in timings:
            with failures.of(timing.path):
                found: Measurement = (
                    count.count(
                        session, timing.path, timing.artifact, timing.target, reporter=reporter
                    )
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


def need_runs(runs: int | None) -> None:
    """UsageError for a number of runs that has no interval, or is a slip of the hand."""
    if runs is None:
        return
    if runs < stats.FEWEST:
        raise UsageError(
            f"{runs} runs have no 95 % interval of their median", f"give {stats.FEWEST} or more"
        )
    if runs > MOST_RUNS:
        raise UsageError(f"{runs} runs are too many", f"give {MOST_RUNS} or fewer")


def estimated(
    paths: Sequence[Path],
    card: DeviceCard,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Measurement, ...]:
    """`estimate` from a card, kept in the store; arguments and errors as there."""
    made = estimate.estimate(
        paths,
        device=card.name,
        threads=threads,
        runtime=runtime,
        delegate=delegate,
        reporter=reporter,
    )
    with Store.keeping(reporter) as store:
        for one in made:
            store.add_measurement(one)
    return made


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
