"""Device cards: ``<name>.toml`` describes a phone or board, and gives its published latencies.

Each published latency is listed with its source, in series that are never mixed: a series is of one
runtime, one precision and one number of threads. The workloads of the networks are in
``networks.csv`` beside the cards; a user's own card holds them itself (`networks`).
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobiledeploy.core import inputs, records
from mobiledeploy.core.cards import find, names_in
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.package import config_dir, shipped

Precision = Literal["float32", "int8"]
OWN = "measured"
"""How the names of sources begin that are timings of the card's owner."""


@dataclass(frozen=True)
class Workload(Record):
    """The work of one inference of a network; it does not depend on the type of the numbers.

    `mult_adds` counts all of them, as the papers do. `dense` are those of convolutions and fully
    connected layers, with pixels rounded up to whole tiles (`analysis.latency_model.TILE`),
    `depthwise` those of depthwise convolutions. `activations` are the numbers that operators read
    and write, fused ones left out. `kernels` are the weights of convolutions, `classifier` those of
    fully connected layers. `operators` is the number of operators, fused ones left out; 0 if nobody
    counted them. `family` names the kind of network (mobilenet_v1).
    """

    family: str
    mult_adds: int
    dense: int
    depthwise: int
    activations: int
    kernels: int
    classifier: int
    operators: int = 0


@dataclass(frozen=True)
class EmulatedCore(Record):
    """Some equal cores of a machine, at their highest clock."""

    name: str
    count: int
    clock_hz: int


@dataclass(frozen=True)
class Reference(Record):
    """The source of a figure."""

    title: str
    url: str = ""
    note: str = ""


@dataclass(frozen=True)
class Point(Record):
    """A latency that was published or measured; `source` is a key of the card's `sources`."""

    network: str
    latency_ns: int
    source: str


@dataclass(frozen=True)
class Series(Record):
    """Points of one runtime, one precision and one number of threads.

    `version` and `year` are those of the runtime, "" and None if the source gives none. `cores`
    says which cores were used, `statistic` what was published about the runs (mean, median, min);
    "" if that is not known. `caveat` is the warning that an estimate from these points carries.
    """

    runtime: str
    precision: Precision
    threads: int
    points: tuple[Point, ...]
    year: int | None = None
    version: str = ""
    delegate: str = "none"
    cores: str = ""
    statistic: str = ""
    caveat: str = ""

    @property
    def is_own(self) -> bool:
        """Whether the card's owner measured points of it."""
        return any(point.source.startswith(OWN) for point in self.points)


@dataclass(frozen=True)
class DeviceCard(Record):
    """The known facts about a phone or a board.

    `models` are its names in Android (ro.product.model), `devices` those by which figures name the
    machine of a user's own card (host, adb:SERIAL, ssh:HOST). `cores` starts with the fastest core.
    `emulate` lists the emulated cores that multiply as the fastest core does, with or without dot
    products: that decides which kernels a runtime uses. The closest comes first; it is the same
    core if that can be emulated. `networks` are the workloads of points that ``networks.csv`` does
    not have.
    """

    name: str
    title: str
    soc: str
    cores: tuple[EmulatedCore, ...]
    sources: Mapping[str, Reference]
    series: tuple[Series, ...]
    models: tuple[str, ...] = ()
    emulate: tuple[str, ...] = ()
    networks: Mapping[str, Workload] = dataclasses.field(default_factory=dict)
    devices: tuple[str, ...] = ()
    folder: str = ""

    @property
    def points(self) -> int:
        """The number of published latencies."""
        return sum(len(series.points) for series in self.series)

    def describes(self, device: str, model: str) -> bool:
        """Whether it is the card of the machine that figures name `device`, of this model."""
        return device in self.devices or (bool(model) and model in self.models)


def folders() -> tuple[Path, ...]:
    """The folders that are searched for cards, in this order: the user's folder, then ours."""
    return (user_folder(), shipped("android_bench") / "devices")


def user_folder() -> Path:
    """The folder of the user's own cards."""
    return config_dir() / "devices"


def names() -> tuple[str, ...]:
    """Every card's name, sorted."""
    return names_in(folders())


def load(name: str) -> DeviceCard:
    """The card; UsageError for an unknown name, InputError naming file and field of a bad one."""
    return read(find("device card", name, folders()))


def all_() -> tuple[DeviceCard, ...]:
    """Every card, sorted by name; InputError for a broken one."""
    return tuple(map(load, names()))


def matching(name: str) -> DeviceCard | None:
    """The card of this name, or the one with most points among those whose names start with it.

    ``pixel`` is the Pixel with most published points. None if no card matches.
    """
    names_ = names()
    if name in names_:
        return load(name)
    candidates = [load(other) for other in names_ if other.startswith(f"{name}-")]
    # Most points first, then by name: the result does not depend on the file system.
    return min(candidates, key=lambda card: (-card.points, card.name), default=None)


def of_device(device: str, model: str = "") -> DeviceCard | None:
    """The card of the machine that figures name `device`, or else of its `model`; None for none.

    Of several cards, one that names the machine comes first, then the one with most points.
    """
    # Only a user's own card names a machine.
    cards = all_() if model else tuple(map(load, names_in((user_folder(),))))
    return min(
        (card for card in cards if card.describes(device, model)),
        key=lambda card: (device not in card.devices, -card.points, card.name),
        default=None,
    )


def read(path: Path) -> DeviceCard:
    """The card in a file; InputError naming file and field."""
    data = inputs.toml(path)
    if "folder" in data:
        raise InputError(f"{path}: fields folder do not fit")
    card: DeviceCard = records.decode(DeviceCard, data, str(path))
    _check(card, path)
    return dataclasses.replace(card, folder=str(path.parent))


def workloads(card: DeviceCard) -> Mapping[str, Workload]:
    """The workload of each network that the card refers to."""
    return networks() | dict(card.networks)


def networks() -> dict[str, Workload]:
    """The workloads of the networks of the published points, counted in files of these networks."""
    path = shipped("android_bench") / "devices" / "networks.csv"
    rows = list(csv.DictReader(io.StringIO(inputs.text(path, inputs.TABLE), newline="")))
    counts = [field.name for field in dataclasses.fields(Workload)][1:]
    try:
        return {
            row["network"]: Workload(row["family"], **{name: int(row[name]) for name in counts})
            for row in rows
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error


def instructions() -> dict[tuple[str, Precision], dict[str, int]]:
    """The instructions of networks by (emulated core, precision), from ``instructions.csv``."""
    path = shipped("android_bench") / "devices" / "instructions.csv"
    table: dict[tuple[str, Precision], dict[str, int]] = {}
    rows = csv.DictReader(io.StringIO(inputs.text(path, inputs.TABLE), newline=""))
    try:
        for row in rows:
            precision: Precision = "int8" if row["precision"] == "int8" else "float32"
            counts = table.setdefault((row["core"], precision), {})
            counts[row["network"]] = int(row["instructions"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    return table


def _check(card: DeviceCard, path: Path) -> None:
    def require(condition: bool, field: str, what: str) -> None:
        if not condition:
            raise InputError(f"{path}: {field} {what}")

    require(card.name == path.stem, "name", f"is {card.name!r}, not that of the file")
    for core in card.cores:
        require(core.count > 0 and core.clock_hz > 0, "cores", "have a count or clock of 0")
    network_names = networks().keys() | card.networks.keys()
    for workload in card.networks.values():
        counts = [getattr(workload, f.name) for f in dataclasses.fields(Workload)][1:]
        is_valid = min(counts) >= 0 and workload.mult_adds > 0
        require(is_valid, "networks", "have a count below 0, or no mult-adds")
    for series in card.series:
        require(series.threads > 0, "series.threads", f"is {series.threads}")
        for point in series.points:
            require(point.latency_ns > 0, "series.points", f"{point.network} takes no time")
            require(
                point.network in network_names, "series.points", f"{point.network} is not known"
            )
            require(point.source in card.sources, "series.points", f"{point.source} is no source")
