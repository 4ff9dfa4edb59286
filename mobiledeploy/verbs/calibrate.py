"""Makes a device card of the user's own, or adds points to one, from models measured there."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from csv import DictReader
from csv import Error as CsvError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from mobiledeploy.analysis import latency_model as model
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import device_cards, inputs, records, units
from mobiledeploy.core.device_cards import DeviceCard, Point, Precision, Reference, Series, Workload
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Measured, NamedWarning
from mobiledeploy.steps import arguments, estimate
from mobiledeploy.steps.arguments import AnyPath, AnyPaths
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.store.database import Store

_Kind = tuple[str, str, Precision, int, str]
COLUMNS = ("file", "latency_ms")
_EMPTY = DeviceCard("", "", soc="", cores=(), sources={}, series=())


@dataclass(frozen=True)
class CalibratedSeries(Record):
    """A series with points of the owner: its leave-one-out error, and that of mult-adds alone.

    Both are null for a single point.
    """

    series: str
    points: int
    rmspe: float | None
    mult_adds_rmspe: float | None


@dataclass(frozen=True)
class DeviceCalibration(Record):
    """The card that was written to `path`, and the errors of the model from its points."""

    path: str
    card: DeviceCard
    series: tuple[CalibratedSeries, ...]
    warnings: tuple[NamedWarning, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each series."""
        rows = tuple(
            (
                one.series,
                str(one.points),
                units.percent(one.rmspe),
                units.percent(one.mult_adds_rmspe),
            )
            for one in self.series
        )
        headers = ("points of", "points", "error, each left out", "of mult-adds alone")
        title = f"{self.card.name}: how well the points are estimated by each other"
        return (Table(headers, rows, title),)


@dataclass(frozen=True)
class _Measurement:
    """The latency of one model, and the facts that decide its series."""

    network: str
    workload: Workload
    precision: Precision
    runtime: str
    version: str
    threads: int
    delegate: str
    latency_ns: int
    model: str = ""

    @property
    def kind(self) -> _Kind:
        return self.runtime, self.version, self.precision, self.threads, self.delegate


def calibrate(
    name: str,
    artifacts: AnyPaths = (),
    *,
    csv: AnyPath | None = None,
    device: str = "host",
    runtime: str = "tflite",
    threads: int = 1,
    title: str = "",
    add: bool = False,
    force: bool = False,
    reporter: Reporter | None = None,
) -> DeviceCalibration:
    """Writes the device card `name` from measured models; `bench` estimates from it.

    This is `devices calibrate` on the command line. Points are the newest measurement of each
    artifact on `device` in this folder's store, or the rows of a table that was measured elsewhere.
    Each runtime and version, precision, number of threads and delegate makes a series of its own.
    One point is enough for an engine that other cards have points of (XNNPACK, ncnn); others need 8
    points of 6 networks.

    With `add`, the points join those of the card that is there. A point of the same network is
    replaced. A card of the package is copied to your folder first, and your copy is used from then
    on. Points join a series of the same runtime and version; published points of another version
    keep a series of their own.

    Example:
        >>> md.calibrate("board", csv="latencies.csv", threads=4)
        >>> md.bench("build/int8_best.tflite", device="board")

    Args:
        name: the card's name; letters, digits, - and _.
        artifacts: one file or several that were measured here.
        csv: a table with the columns file and latency_ms, one model per row, with the files beside
            the table. An optional column family names the kind of network, as model cards do, for
            files without a record.
        device: the device on which `artifacts` were measured.
        runtime: the runtime of the latencies in `csv`.
        threads: the threads of the latencies in `csv`.
        title: a description of the device, for people.
        add: keeps the card and adds points to it.
        force: replaces an existing card of yours.
        reporter: is told of warnings; the default is a `PythonReporter`.

    Returns:
        The card, and the errors of estimating its points from each other.

    Raises:
        UsageError: neither artifacts nor a table, or both; an existing card, or none with `add`; an
            artifact that was not measured, or on a phone of another model; too few points.
        InputError: a table or a model that cannot be read or used.
    """
    reporter = reporter or PythonReporter()
    paths, table = arguments.paths(artifacts), arguments.path(csv)
    path = device_cards.user_folder() / f"{name}.toml"
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise UsageError(f"{name!r} is not a name for a card", "use letters, digits, - and _")
    if add and force:
        raise UsageError("--force replaces a card, and --add keeps it", "give one of them")
    if path.exists() and not (force or add):
        raise UsageError(
            f"{path} is there already",
            "--add adds to it, --force replaces it, or take another name",
        )
    before = _EMPTY
    if add:
        before = device_cards.load(name)
    if bool(paths) == (table is not None):
        raise UsageError("name either artifacts that were measured here, or --csv FILE")
    if table is None:
        measurements = list(_from_store(paths, device))
        origin = f"measured by mobiledeploy bench --device {device}"
    else:
        measurements = list(_from_table(table, runtime, threads))
        origin = f"measured by the owner, {table.name}"
    _need_model(before, measurements)
    before = replace(before, name=name, title=title or before.title or name)
    usable, warnings = _enough_points(before, measurements)
    for warning in warnings:
        reporter.warn(warning)
    card = _with_points(before, usable, origin)
    if table is None:
        # So that its estimates are found beside timings.
        card = replace(card, devices=tuple(dict.fromkeys((*before.devices, device))))
    with records.writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    records.write_atomic(path, toml(card))
    # Reads the file back, so that the errors are those of the written card.
    card_of_file = device_cards.read(path)
    return DeviceCalibration(
        str(path),
        card_of_file,
        tuple(
            _calibrated_series(choice)
            for choice in estimate.choices(card_of_file)
            if choice.series.is_own
        ),
        tuple(warnings),
    )


def toml(card: DeviceCard) -> str:
    """The text of a card's file; TOML has no null, so None fields are left out."""

    def present(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: present(item) for key, item in value.items() if item is not None}
        return [present(item) for item in value] if isinstance(value, list) else value

    plain = present(records.encode(card))
    del plain["folder"]
    return tomli_w.dumps(plain)


def _from_store(paths: Sequence[Path], device: str) -> Iterator[_Measurement]:
    with Store.open() as store:
        for path in paths:
            artifact = artifacts_.load(path)
            measurement = next(
                (
                    m
                    for m in store.measurements_of(artifact.sha256)
                    if isinstance(m, Measured) and m.target.device == device
                ),
                None,
            )
            if measurement is None:
                raise UsageError(
                    f"{path} was not measured on {device} in this folder",
                    f"mobiledeploy bench {path} --device {device}",
                )
            yield _of_artifact(path, artifact.spec.card, artifact.spec.name, measurement)


def _of_artifact(path: Path, card: str | None, network: str, measurement: Measured) -> _Measurement:
    precision, workload = estimate.read(path, card or network)
    target = measurement.target
    return _Measurement(
        network,
        workload,
        precision,
        target.runtime,
        measurement.runtime_version,
        target.threads,
        target.delegate,
        round(measurement.median_ns),
        measurement.facts_before.get("model", ""),
    )


def _from_table(table: Path, runtime: str, threads: int) -> Iterator[_Measurement]:
    try:
        text = inputs.text(table, inputs.TABLE, "utf-8-sig")
        reader = DictReader(io.StringIO(text, newline=""))
        rows, columns = list(reader), reader.fieldnames or ()
    except CsvError as error:
        raise InputError(f"{table} cannot be read: {error}") from error
    absent = [column for column in COLUMNS if column not in columns]
    if absent:
        raise InputError(
            f"{table} has no column {absent[0]}", f"its columns are {' and '.join(COLUMNS)}"
        )
    for number, row in enumerate(rows, start=2):
        try:
            latency_ns = round(float(row["latency_ms"]) * 1e6)
        except (TypeError, ValueError, OverflowError):
            latency_ns = 0
        if latency_ns <= 0:
            raise InputError(
                f"{table}, line {number}: {row['latency_ms']!r} is not a latency in ms"
            )
        path = table.parent / (row["file"] or "")
        precision, workload = estimate.read(path, row.get("family") or _family(path))
        yield _Measurement(path.stem, workload, precision, runtime, "", threads, "none", latency_ns)


def _family(path: Path) -> str:
    """The model card of an artifact; any other file is a family of its own."""
    if artifacts_.record_path(path).exists():
        spec = artifacts_.load(path).spec
        return spec.card or spec.name
    return path.stem


def _need_model(card: DeviceCard, measurements: Sequence[_Measurement]) -> None:
    """UsageError if the card names models, and a timing is of another one."""
    others = {one.model for one in measurements if one.model} - set(card.models)
    if card.models and others:
        raise UsageError(
            f"{card.name} is the card of {', '.join(card.models)}, and the timings are of "
            f"{', '.join(sorted(others))}",
            "make a card of another name",
        )


def _enough_points(
    card: DeviceCard, measurements: Sequence[_Measurement]
) -> tuple[list[_Measurement], list[NamedWarning]]:
    """The measurements of kinds with enough points, and a warning for each other kind.

    Points of other cards with the same engine count as well.
    """
    count = Counter(one.kind for one in measurements)
    networks = {kind: len({o.workload for o in measurements if o.kind == kind}) for kind in count}
    enough = {
        _kind(choice.series): choice.enough
        for choice in estimate.choices(_with_points(card, measurements, ""))
        if choice.series.is_own
    }
    few = [
        f"{count[kind]} of {networks[kind]} networks for {_kind_text(kind)}"
        for kind in count
        if not enough[kind]
    ]
    need = f"{model.FEWEST_POINTS} points of {model.FEWEST_NETWORKS} networks make a model"
    usable = [one for one in measurements if enough[one.kind]]
    if not usable:
        raise UsageError(
            f"{need}, and there are {'; '.join(few) or 'none'}",
            "measure more: alphas and resolutions that enclose what shall be estimated",
        )
    return usable, [NamedWarning("too-few-points", f"{need}; left out: {text}") for text in few]


def _kind(series: Series) -> _Kind:
    return series.runtime, series.version, series.precision, series.threads, series.delegate


def _kind_text(kind: _Kind) -> str:
    runtime, version, precision, threads, delegate = kind
    which = f"{runtime} {version}".strip()
    return f"{which} {delegate}, {precision}, {threads} thread{'s' if threads > 1 else ''}"


def _with_points(card: DeviceCard, measurements: Sequence[_Measurement], origin: str) -> DeviceCard:
    """The card with points that its owner measured."""
    sources = dict(card.sources)
    source, number = device_cards.OWN, 1
    while sources.setdefault(source, Reference(origin)).title != origin:
        number += 1
        source = f"{device_cards.OWN}_{number}"
    networks, workloads = dict(card.networks), dict(device_cards.workloads(card))
    every = list(card.series)
    for one in measurements:
        # Files of one name may have been converted differently.
        network, number = one.network, 1
        while workloads.setdefault(network, one.workload) != one.workload:
            number += 1
            network = f"{one.network}_{number}"
        networks[network] = one.workload
        place = next((i for i, series in enumerate(every) if _joins(one, series)), len(every))
        if place == len(every):
            runtime, version, precision, threads, delegate = one.kind
            every.append(
                Series(
                    runtime,
                    precision,
                    threads,
                    (),
                    version=version,
                    delegate=delegate,
                    statistic="median",
                )
            )
        point = Point(network, one.latency_ns, source)
        # Of a network that is measured again only the new timings stay.
        earlier = card.series[place].points if place < len(card.series) else ()
        others = (
            p
            for p in every[place].points
            if p.network != network or p not in earlier or not p.source.startswith(device_cards.OWN)
        )
        every[place] = replace(every[place], points=(*others, point))
    models = card.models or tuple(dict.fromkeys(one.model for one in measurements if one.model))
    return replace(
        card, sources=sources, series=tuple(every), networks=networks, models=models, folder=""
    )


def _joins(one: _Measurement, series: Series) -> bool:
    """Whether a point is of the series: a published one must name its version."""
    return _kind(series) == one.kind and (
        series.is_own or not series.points or bool(series.version)
    )


def _calibrated_series(choice: estimate.SeriesFit) -> CalibratedSeries:
    errors = estimate.own_errors(choice)
    return CalibratedSeries(
        choice.what,
        len(choice.own),
        model.rmspe(errors) if errors else None,
        model.rmspe(model.by_mult_adds(choice.own)) if errors else None,
    )
