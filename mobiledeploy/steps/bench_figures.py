"""Figures of artifacts on a device: measured, counted on an emulated core, or estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mobiledeploy.analysis import stats
from mobiledeploy.core import artifacts, device_cards, records
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Failed, Measurement, NamedWarning
from mobiledeploy.steps import count, estimate, phones, resolve
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
    reporter: Reporter = SILENT,
    **given: Any,
) -> BenchResult:
    """`bench`, or what stands in for a phone that is not here: its card, and an emulated core.

    The card estimates; the core that it names counts, on one thread. `reporter` hears why one of
    the two is missing. Arguments and errors are those of `bench` and `estimated`; UsageError for
    arguments that say how to run where nothing runs. `threads` is 1 by default where artifacts run.
    Where one of several paths fails, the others have their answers, and it has its reason.
    """
    _need_runs(given.get("runs"))
    paths = tuple(dict.fromkeys(paths)) or last_export()
    failures = Failures()
    found = _figures(
        paths, failures, device=device, via=via, threads=threads, reporter=reporter, **given
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
    reporter: Reporter,
    **given: Any,
) -> BenchResult:
    """What `figures` does, with the failures of single paths in `failures` instead of raised."""
    card = resolve.stand_in(device, via)
    if card is None:
        if via == "emulator" and (card := device_cards.matching(device)):
            reporter.say(f"counted, no time: {card.title}, on {resolve.emulated(card)[1]}")
        timed = time_artifacts(
            paths,
            failures,
            device=device,
            via=via,
            threads=threads or 1,
            reporter=reporter,
            **given,
        )
        return BenchResult(
            tuple(map(str, timed)), tuple(timed.values()), resolve.recorded_at(device)
        )
    for name in ("runs", "record", "runner"):
        if given.get(name) is not None:
            raise UsageError(
                f"{card.title} is not here, so that nothing is timed, and --{name} says how",
                "leave it away for an estimate, or --via adb",
            )
    chosen = {name: given.get(name) for name in ("runtime", "delegate")}
    core: resolve.ResolvedDevice | None = None
    try:
        core, like = resolve.emulated(card)
        counted = f"counted, no time: on {like}"
    except (DeviceError, MissingError) as error:
        counted = f"not counted: {error}"
    if chosen["delegate"] not in (None, *estimate.ON_CPU):
        core, counted = None, f"not counted: no core is a {chosen['delegate']}"
    about = f"{card.title}, {card.soc}" if card.soc else card.title
    reporter.say(f"estimated, not measured: {about}, from the card {card.name}; {counted}")
    of: list[Path] = []
    made: tuple[Measurement, ...] = ()
    for path in paths:
        try:
            made += estimated([path], card, threads=threads, reporter=reporter, **chosen)
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
            rest, failures, device=core.name, delegate=chosen["delegate"], reporter=reporter
        )
        made += tuple(counts.values())
        of += counts
    return BenchResult(tuple(map(str, of)), made)


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
