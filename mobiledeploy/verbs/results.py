"""Lists the store's records, moves them to other machines, compares them with a baseline."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import regression
from mobiledeploy.core import cold_columns, cpu, metric_columns, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    Artifact,
    CardCalibration,
    ColdStart,
    Counted,
    Estimated,
    Evaluation,
    LatencyComparison,
    Measured,
    Measurement,
    NamedWarning,
    Outcome,
    Regression,
    Result,
    StoredColdStart,
    StoredComparison,
    StoredEvaluation,
    Target,
    Verdict,
    gravest,
)
from mobiledeploy.steps import forecasts
from mobiledeploy.steps.arguments import AnyPath
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.store_records import filters, present, read
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store, StoredRecord

MARGIN = 100 * regression.TIME_MARGIN
"""The default of the growth of a time that is allowed, in percent."""

_Metric = Literal["latency", "instructions", "first_answer", "peak_memory"]
_COLD = "cold start"
# Of a cold start, the figures that are judged: what its user waits for, and what it takes.
_COLD_FIGURES: dict[_Metric, str] = {
    "first_answer": "first_answer_ns",
    "peak_memory": "peak_rss_bytes",
}


@dataclass(frozen=True)
class FigureKey(Record):
    """What identifies a figure; `weights` is the source of the model's weights.

    `io` is the artifact's `ends`.
    """

    model: str
    weights: str
    weights_sha256: str
    recipe: str
    format: str
    io: str
    kind: str
    target: Target

    @property
    def network(self) -> str:
        """The model and its weights, for people."""
        return units.network(self.model, self.weights, self.weights_sha256)

    def others(self, keys: Iterable[FigureKey]) -> str:
        """Figures that differ only in weights or `io`, in words; "" for none.

        The text goes after "only".
        """
        same = [
            key
            for key in keys
            if self
            == replace(key, weights=self.weights, weights_sha256=self.weights_sha256, io=self.io)
        ]
        ends = {key.io for key in same if replace(key, io=self.io) == self}
        weights = {
            units.network("", key.weights, key.weights_sha256) or "unknown ones"
            for key in same
            if replace(key, io=self.io) != self
        }
        return " and ".join(
            [f"of other weights: {', '.join(sorted(weights))}"] * bool(weights)
            + [f"with --io {', '.join(sorted(ends))}"] * bool(ends)
        )


@dataclass(frozen=True)
class Figure(Record):
    """A figure, and when it was made, in the form of the store."""

    made_at: str
    record: Measurement | ColdStart


@dataclass(frozen=True)
class ResultList(Record):
    """The answer of `results`, newest first."""

    results: tuple[Result, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each figure."""
        metric = metric_columns.header(self.results)
        headers = ("model", "recipe", "size", metric, "judged on", "device", "kind", "latency")
        # What a card estimated for a timing stands beside it.
        estimates = ("estimated", "error") if any(r.forecast for r in self.results) else ()
        rows = tuple(_row(r, metric, bool(estimates)) for r in self.results)
        optional = ("when", "judged on", "size", "id", "kind", metric)
        headers = (*headers, *estimates, "instructions", "when", "id")
        return (Table(headers, rows, optional=optional, names=("model",)),)


def _row(r: Result, header: str, has_estimates: bool) -> tuple[str, ...]:
    estimates: tuple[str, ...] = ()
    if has_estimates:
        f = r.forecast
        estimates = ("–", "–")
        if f is not None:
            estimates = (units.duration(f.latency_ns), units.signed_percent(f.error))
    return (
        units.one_line(
            units.network(r.model, r.weights, r.weights_sha256) or r.artifact_sha256[:12]
        ),
        units.one_line(f"{r.recipe}.{units.format_name(r.format, r.io)}"),
        "–" if r.size_bytes is None else units.size(r.size_bytes),
        metric_columns.cell(r, header),
        units.one_line(units.images(r.data_source, r.data_split, r.data_identity)) or "–",
        units.one_line(r.device),
        f"{r.kind}, recorded" if r.recorded else r.kind,
        "–" if r.latency_ns is None else units.duration(r.latency_ns),
        *estimates,
        "–" if r.instructions is None else f"{r.instructions:,}",
        r.made_at[:16],
        str(r.id),
    )


@dataclass(frozen=True)
class ComparisonList(Record):
    """The answer of `results compared`, newest first."""

    comparisons: tuple[StoredComparison, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each comparison."""
        rows = tuple(
            (
                units.one_line(f"{c.b} over {c.a}"),
                units.one_line(c.device),
                f"{c.ratio:.3f}",
                "{:.3f} to {:.3f}".format(*c.interval),
                units.change_word(c.ratio, c.changed),
                str(c.rounds),
                c.made_at[:16] + ", recorded" * c.recorded,
            )
            for c in self.comparisons
        )
        headers = ("B over A", "device", "ratio", "95 % interval", "", "rounds", "when")
        return (Table(headers, rows, "measured in turns"),)


@dataclass(frozen=True)
class ColdStartList(Record):
    """The answer of `results cold`, newest first."""

    cold_starts: tuple[StoredColdStart, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each cold start, with the medians of its figures."""
        headers = ("model", "recipe", "device", "runtime", *cold_columns.LABELS.values())
        return (
            Table(
                (*headers, "processes", "when"),
                tuple(map(_cold_cells, self.cold_starts)),
                "fresh processes, files in the system's cache",
                optional=("when", "processes", *list(cold_columns.LABELS.values())[:3]),
            ),
        )


def _cold_cells(stored: StoredColdStart) -> tuple[str, ...]:
    cold = stored.cold_start
    medians = {figure.name: cold_columns.shown(figure)[0] for figure in cold.figures}
    return (
        units.one_line(stored.model or cold.artifact_sha256[:12]),
        units.one_line(f"{stored.recipe}.{stored.format}"),
        units.one_line(cold.target.device),
        units.one_line(f"{cold.target.runtime} {cold.runtime_version}, {cold.target.runner}"),
        *(medians.get(name, "–") for name in cold_columns.LABELS),
        str(cold.processes),
        stored.made_at[:16],
    )


@dataclass(frozen=True)
class EvaluationList(Record):
    """The answer of `results evaluated`, newest first."""

    evaluations: tuple[StoredEvaluation, ...]

    def tables(self) -> tuple[Table, ...]:
        """A table for each device: accuracies of different devices are not of one column."""
        by_place: dict[tuple[str, ...], list[StoredEvaluation]] = {}
        for e in self.evaluations:
            place = (e.device, e.isa, f"{e.runtime} {e.runtime_version}".strip(), e.delegate)
            by_place.setdefault(place, []).append(e)
        headers = ("model", "recipe", "format", "images", "metric", "agrees with float", "when")
        return tuple(
            Table(
                headers,
                tuple(_evaluation_cells(e) for e in rows),
                units.one_line(f"on {place[0]}: {', '.join(filter(None, place[1:]))}"),
            )
            for place, rows in by_place.items()
        )


def _evaluation_cells(e: StoredEvaluation) -> tuple[str, ...]:
    images = units.images(e.data_source, e.data_split, e.data_identity)
    return (
        units.one_line(e.model),
        e.recipe,
        e.format,
        units.one_line(f"{e.images} of {images}"),
        metric_columns.cell(e),
        units.percent(e.agreement),
        e.made_at[:16] + ", recorded" * e.recorded,
    )


@dataclass(frozen=True)
class CalibrationList(Record):
    """The answer of `results calibration`: for each series of a card, estimates beside timings."""

    calibrations: tuple[CardCalibration, ...]

    def tables(self) -> tuple[Table, ...]:
        """A table for each series."""
        return tuple(table for one in self.calibrations for table in one.tables())


@dataclass(frozen=True)
class RecordTransfer(Record):
    """The number of records written to a file, or read from it, and how many were new."""

    path: str
    records: int
    new: int


@dataclass(frozen=True)
class RegressionReport(Record):
    """The answer of `results regress`: a regression for each figure of the baseline."""

    baseline: str
    outcome: Outcome
    regressions: tuple[Regression, ...]


def results(
    *,
    model: str | None = None,
    recipe: str | None = None,
    format: str | None = None,  # noqa: A002 - the option's name
    artifact: str | None = None,
    kind: str | None = None,
    device: str | None = None,
    runtime: str | None = None,
    since: str | None = None,
    newest: bool = False,
    most: int | None = None,
) -> ResultList:
    """Lists figures of this folder's store, newest first.

    Example:
        >>> found = md.results(recipe="int8_best", device="host", newest=True)
        >>> [(r.model, r.latency_ns) for r in found.results]

    Args:
        model: such as mobilenet_v1_0.5_160. Figures must fit all given filters.
        recipe: such as int8_best.
        format: `tflite` or `onnx`.
        artifact: its sha256, or the beginning of it.
        kind: `measured`, `counted` or `estimated`.
        device: such as host.
        runtime: such as litert.
        since: 2026-01-31, or 2026-01-31T12:00; UTC.
        newest: only the newest figure of an artifact on a target.
        most: the greatest number of figures.

    Returns:
        The figures, with facts of their artifacts.

    Raises:
        UsageError: no store in this folder, or `since` is not a time.
    """
    filters_ = filters(
        model=model,
        recipe=recipe,
        format=format,
        artifact=artifact,
        kind=kind,
        device=device,
        runtime=runtime,
        since=since,
    )
    with present() as database:
        figures = database.results(filters_, newest=newest, most=most)
        return ResultList(forecasts.beside(database, figures))


def results_compared() -> ComparisonList:
    """Lists the results of `compare`, newest first.

    Example:
        >>> [(c.a, c.b, c.ratio) for c in md.results_compared().comparisons]

    Returns:
        The comparisons, without their blocks.

    Raises:
        UsageError: there is no store in this folder.
    """
    with present() as database:
        return ComparisonList(database.comparisons())


def results_cold() -> ColdStartList:
    """Lists the results of `cold_start`, newest first.

    Example:
        >>> [(c.model, c.cold_start.processes) for c in md.results_cold().cold_starts]

    Returns:
        The cold starts, with all their samples.

    Raises:
        UsageError: there is no store in this folder.
    """
    with present() as database:
        return ColdStartList(database.cold_starts())


def results_evaluated() -> EvaluationList:
    """Lists the evaluations of every device, newest first.

    `results` and `report` show those of the host only.

    Example:
        >>> [(e.device, e.value) for e in md.results_evaluated().evaluations]

    Returns:
        The evaluations, without their predictions.

    Raises:
        UsageError: there is no store in this folder.
    """
    with present() as database:
        return EvaluationList(database.evaluations())


def results_calibration(
    *, device: str | None = None, reporter: Reporter | None = None
) -> CalibrationList:
    """Compares what device cards estimated with the timings on their devices.

    Estimates that are missing are made now, from files that are still where they were exported.

    Example:
        >>> [(c.card, c.within, c.counted) for c in md.results_calibration().calibrations]

    Args:
        device: only timings on this one, as figures name it: adb:SERIAL, ssh:HOST, host.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        For each series of a card, the errors of its estimates.

    Raises:
        UsageError: there is no store in this folder.
    """
    reporter = reporter or PythonReporter()
    filters_ = filters(kind="measured", device=device)
    with present() as database:
        timings = database.results(filters_, newest=True)
        missing = tuple(forecasts.complete(database, timings, reporter))
    if missing:
        with Store.keeping(reporter) as database:
            for number, one in enumerate(missing, 1):
                database.add_measurement(one)
                reporter.progress("estimates", number, len(missing))
            return CalibrationList(forecasts.calibrations(database, timings))
    with present() as database:
        return CalibrationList(forecasts.calibrations(database, timings))


def results_export(file: AnyPath, *, newest: bool = False) -> RecordTransfer:
    """Writes all records of the store to a file, one JSON object per line, whole or not at all.

    Example:
        >>> md.results_export("phone.jsonl")

    Args:
        file: the file to write.
        newest: writes only the newest figure of an artifact on a target.

    Returns:
        The number of written records.

    Raises:
        UsageError: no store in this folder, or the file cannot be written.
    """
    with present() as database:
        lines = tuple(database.dump(newest))
    records.write_atomic(Path(file), "".join(line + "\n" for line in lines))
    return RecordTransfer(os.fspath(file), len(lines), len(lines))


def results_import(file: AnyPath) -> RecordTransfer:
    """Adds the records of a file of `results_export`, all or none; known records are not doubled.

    A timing on the `host` of another processor gets the device `host:PROCESSOR`: it stands for none
    of this machine.

    Example:
        >>> md.results_import("phone.jsonl").new

    Args:
        file: the file to read.

    Returns:
        The number of records in the file, and how many of them were new.

    Raises:
        InputError: a line that is not a record; the error has its number.
    """
    path = Path(file)
    # Read twice: the file may be larger than memory, and a bad file must not make a store.
    count = sum(1 for _ in read(path))
    with Store.open() as database:
        new = database.load(read(path), partial(_of_its_host, cpu.name()))
    return RecordTransfer(str(path), count, new)


def _of_its_host(here: str, one: StoredRecord) -> StoredRecord:
    """The record; `host` in a timing of another processor is not `here`, and gets its name."""
    record = one.record
    if isinstance(record, LatencyComparison):
        blocks = tuple(replace(block, target=_target(here, block)) for block in record.blocks)
        return replace(one, record=replace(record, blocks=blocks))
    if isinstance(record, Measured | ColdStart):
        return replace(one, record=replace(record, target=_target(here, record)))
    return one


def _target(here: str, timing: Measured | ColdStart) -> Target:
    """The target of an imported timing; one that comes back from elsewhere is of `host` again."""
    target, there = timing.target, timing.facts_before.get("cpu", here)
    if target.device not in ("host", f"host:{there}"):
        return target
    return replace(target, device="host" if there == here else f"host:{there}")


def results_regress(
    baseline: AnyPath, *, margin: float = MARGIN, reporter: Reporter | None = None
) -> RegressionReport:
    """Compares the store's newest figures with a file of `results_export`.

    Figures of the same model, weights, recipe, format and io on the same target are compared, even
    if the bytes of the files differ, because these change from commit to commit. A figure that is
    not newer than the baseline's, or that has a warning, is inconclusive. The store keeps the
    verdicts.

    Example:
        >>> md.results_regress("accepted.jsonl").outcome

    Args:
        baseline: a file with the accepted figures.
        margin: how much a time may grow, in percent; for instructions and estimates it is 0.1 %.
        reporter: is told of warnings; the default is a `PythonReporter`.

    Returns:
        A verdict for each figure of the baseline, and the gravest of them.

    Raises:
        UsageError: a baseline without figures, no store in this folder, or an impossible margin.
        InputError: the baseline cannot be read.
    """
    reporter = reporter or PythonReporter()
    if not 0 <= margin < math.inf:
        raise UsageError(f"a margin of {margin:g} % cannot be", "5 is usual")
    baseline_figures = _figures(read(Path(baseline)))
    if not baseline_figures:
        raise UsageError(f"{baseline} has no figures", "mobiledeploy bench, then results export")
    with present() as database:
        figures = _figures(_own_records(database.dump(newest=True)))
    regressions = tuple(
        _compare(key, figures, old, margin / 100) for key, old in baseline_figures.items()
    )
    with Store.keeping(reporter) as database:
        for one in regressions:
            for verdict in one.verdicts:
                if one.artifact_sha256:
                    database.add_verdict(one.artifact_sha256, "regress", verdict)
            for warning in one.warnings:
                reporter.warn(warning)
    return RegressionReport(
        str(baseline), gravest({one.outcome for one in regressions}), regressions
    )


def _own_records(lines: Iterator[str]) -> Iterator[StoredRecord]:
    """The store's own records, without those of other versions of mobiledeploy."""
    for line in lines:
        with suppress(InputError):
            yield store.read_stored(line, str(store.path()))


def _figures(entries: Iterator[StoredRecord]) -> dict[FigureKey, Figure]:
    """The newest figure for each key."""
    artifacts: dict[str, Artifact] = {}
    # Only the newest of each, because all of them may be larger than memory.
    figures: dict[tuple[str, str, Target], tuple[str, Measurement | ColdStart]] = {}
    for one in entries:
        if isinstance(one.record, Artifact):
            artifacts[one.record.sha256] = one.record
        elif not isinstance(one.record, Evaluation | Verdict | LatencyComparison):
            of = (one.record.artifact_sha256, _kind(one.record), one.record.target)
            if of not in figures or figures[of][0] <= one.made_at:
                # The last of two figures of the same moment counts.
                figures.pop(of, None)
                figures[of] = (one.made_at, one.record)
    result: dict[FigureKey, Figure] = {}
    for made_at, m in sorted(figures.values(), key=lambda pair: pair[0]):
        a = artifacts.get(m.artifact_sha256)
        if a is None:
            key = FigureKey(m.artifact_sha256[:12], "", "", "", "", "", _kind(m), m.target)
        else:
            weights = a.spec.weights
            key = FigureKey(
                a.spec.name,
                weights.source,
                weights.sha256,
                a.recipe.name,
                a.format,
                a.ends,
                _kind(m),
                m.target,
            )
        result[key] = Figure(made_at, m)
    return result


def _kind(figure: Measurement | ColdStart) -> str:
    return _COLD if isinstance(figure, ColdStart) else figure.kind


def _compare(
    key: FigureKey, here: Mapping[FigureKey, Figure], old: Figure, margin: float
) -> Regression:
    """The regression of a figure, with a verdict for each of its metrics."""
    metrics: tuple[_Metric, ...] = ("latency",)
    if key.kind == _COLD:
        metrics = tuple(_COLD_FIGURES)
    elif key.kind == "counted":
        metrics = ("instructions",)
    one, *others = (_compare_metric(key, here, old, margin, metric) for metric in metrics)
    return replace(one, verdicts=sum((other.verdicts for other in others), one.verdicts))


def _compare_metric(
    key: FigureKey,
    here: Mapping[FigureKey, Figure],
    old_figure: Figure,
    margin: float,
    metric: _Metric,
) -> Regression:
    newest, kind, t = here.get(key), key.kind, key.target
    new, old = None if newest is None else newest.record, old_figure.record
    where = f"{t.device}, {t.runtime}, {units.several(t.threads, 'thread')}"
    where += ", fresh processes" * (kind == _COLD)
    path = f"{key.network} {key.recipe}.{units.format_name(key.format, key.io)} on {where}"
    limit = margin if kind in ("measured", _COLD) else regression.EXACT_MARGIN

    def regression_of(
        outcome: Outcome, ratio: tuple[float, float, float] | None, line: str
    ) -> Regression:
        value, interval = float("nan"), None
        if ratio is not None:
            value, interval = ratio[0] - 1, (ratio[1] - 1, ratio[2] - 1)
        verdict = Verdict(
            metric,
            "",
            outcome,
            value,
            interval,
            limit,
            0,
            None,
            f"{path}: {line}",
        )
        sha = "" if new is None else new.artifact_sha256
        warnings = () if new is None else _warnings(path, new, old)
        return Regression(
            path, key.model, key.recipe, key.format, sha, old.artifact_sha256, (verdict,), warnings
        )

    if newest is None or new is None:
        others = key.others(here)
        line = f"no {kind} figure of it here" + f", only {others}" * bool(others)
        return regression_of("inconclusive", None, f"{line}; bench it first")
    if newest == old_figure or newest.made_at < old_figure.made_at:
        line = f"not {kind} since the baseline ({old_figure.made_at[:16]}); bench it first"
        return regression_of("inconclusive", None, line)
    try:
        ratio = _ratio(new, old, metric)
    except ValueError as error:
        return regression_of("inconclusive", None, str(error))
    difference = _incomparable(new, old)
    if difference:
        return regression_of("inconclusive", ratio, f"not comparable: {difference}")
    uncertain = _uncertain(new, old)
    if uncertain:
        line = f"{_words(metric, ratio)}, but {uncertain}; bench it again"
        return regression_of("inconclusive", ratio, line)
    outcome = regression.outcome(ratio[1], ratio[2], limit)
    return regression_of(outcome, ratio, f"{_words(metric, ratio)}, margin {100 * limit:g} %")


def _ratio(
    new: Measurement | ColdStart, old: Measurement | ColdStart, metric: _Metric
) -> tuple[float, float, float]:
    """As `regression.ratio`, with its errors."""
    if isinstance(new, ColdStart) and isinstance(old, ColdStart):
        new_samples, old_samples = (
            [f.samples for f in cold.figures if f.name == _COLD_FIGURES[metric]]
            for cold in (new, old)
        )
        if not (new_samples and old_samples):
            raise ValueError(f"one of the cold starts has no {_COLD_FIGURES[metric]}")
        return regression.ratio_of_medians(new_samples[0], old_samples[0])
    if isinstance(new, ColdStart) or isinstance(old, ColdStart):
        raise ValueError("a cold start is compared with its own kind only")
    return regression.ratio(new, old)


def _words(metric: str, ratio: tuple[float, float, float]) -> str:
    metric = metric.replace("_", " ")
    value, low, high = (100 * (x - 1) for x in ratio)
    exact = low == high
    return f"{metric} {value:+.2f} %" + ("" if exact else f" ({low:+.2f} to {high:+.2f} %)")


def _incomparable(new: Measurement | ColdStart, old: Measurement | ColdStart) -> str:
    """Why two figures of one kind and target cannot be compared, "" if they can."""
    if isinstance(new, Measured | ColdStart) and isinstance(old, Measured | ColdStart):
        cpus = new.facts_before.get("cpu"), old.facts_before.get("cpu")
        return "" if cpus[0] == cpus[1] else f"timed on {cpus[0]}, the baseline on {cpus[1]}"
    if isinstance(new, Counted) and isinstance(old, Counted) and new.versions != old.versions:
        names = sorted(dict(new.versions.items() ^ old.versions.items()))
        return f"counted with another {', '.join(names)}"
    if isinstance(new, Estimated) and isinstance(old, Estimated) and new.fit != old.fit:
        return "the model of latency was fitted anew"
    return ""


def _uncertain(new: Measurement | ColdStart, old: Measurement | ColdStart) -> str:
    """Which of two figures has a warning that it is rough, and the warnings; "" for none."""
    sides = (("the new figure", new), ("the baseline's", old))
    warnings = {
        whose: ", ".join(d.name for d in m.warnings if d.name in regression.ROUGH)
        for whose, m in sides
    }
    return "; ".join(
        f"{whose} is uncertain ({names})" for whose, names in warnings.items() if names
    )


def _warnings(
    path: str, new: Measurement | ColdStart, old: Measurement | ColdStart
) -> tuple[NamedWarning, ...]:
    warnings = list(new.warnings)
    versions = [getattr(m, "runtime_version", "") for m in (old, new)]
    if versions[0] != versions[1]:
        warnings.append(
            NamedWarning(
                "other-runtime",
                f"runtime {versions[1]}, the baseline's was {versions[0]}",
                "a change may be the runtime's",
                path,
            )
        )
    return tuple(warnings)
