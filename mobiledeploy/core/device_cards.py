"""Device cards: ``<name>.toml`` says what a phone or board is, and what was published of its speed.

Published latencies stand there one by one with their source, in series that are never mixed: of one
runtime, one precision, one number of threads. What the networks of these points have to do is in
``networks.csv`` beside the cards; a card of the user's own brings it along (`networks`).
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
from mobiledeploy.core.cards import find, listed
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.package import config_dir, shipped

Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class Workload(Record):
    """What one inference of a network has to do, whatever the type of its numbers.

    `mult_adds` are all, as the papers count them. `dense` are those of convolutions and fully
    connected layers, with pixels rounded up to whole tiles (`analysis.latency_model.TILE`),
    `depthwise` those of depthwise convolutions. `activations` are the numbers that operators read
    and write, fused ones left out. `kernels` are the weights of convolutions, `classifier` those
    of fully connected layers. `family` names the kind of network (mobilenet_v1).
    """

    family: str
    mult_adds: int
    dense: int
    depthwise: int
    activations: int
    kernels: int
    classifier: int


@dataclass(frozen=True)
class EmulatedCore(Record):
    """Some equal cores of a machine, at their highest clock."""

    name: str
    count: int
    clock_hz: int


@dataclass(frozen=True)
class Reference(Record):
    """Where figures are from."""

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
    """Points that belong together: one runtime, one precision, one number of threads.

    `version` or `year` are those of the runtime, "" and None where the source gives none. `cores`
    says which of them worked, `statistic` what was published of the runs (mean, median, min); ""
    where that is not known. `caveat` is what an estimate from these points has to say.
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


@dataclass(frozen=True)
class DeviceCard(Record):
    """What is known of a phone or a board.

    `models` are what Android calls it (ro.product.model). `cores` begin with the fastest, and
    `emulate` are the emulated cores that multiply as that one does, by dot products or without:
    that decides which kernels a runtime takes. The nearest comes first, its own where there is
    such a one. `networks` are the workloads of points that ``networks.csv`` does not have.
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
    folder: str = ""

    @property
    def points(self) -> int:
        """How many latencies are published of it."""
        return sum(len(series.points) for series in self.series)


def folders() -> tuple[Path, ...]:
    """Where cards are looked for, first to last: the user's folder comes before ours."""
    return (user_folder(), shipped("android_bench") / "devices")


def user_folder() -> Path:
    """Where a card of the user's lies."""
    return config_dir() / "devices"


def names() -> tuple[str, ...]:
    """Every card's name, sorted."""
    return listed(folders())


def load(name: str) -> DeviceCard:
    """The card; UsageError for an unknown name, InputError naming file and field of a bad one."""
    return read(find("device card", name, folders()))


def all_() -> tuple[DeviceCard, ...]:
    """Every card, by name; a broken one is an InputError."""
    return tuple(map(load, names()))


def matching(name: str) -> DeviceCard | None:
    """The card that `name` means: its own, or the one with most points of those that it begins.

    ``pixel`` is the Pixel with most published points; None where no card is meant.
    """
    known = names()
    if name in known:
        return load(name)
    of_kind = [load(other) for other in known if other.startswith(f"{name}-")]
    # Most points first, then the name, so that the answer does not hang on the file system.
    return min(of_kind, key=lambda card: (-card.points, card.name), default=None)


def read(path: Path) -> DeviceCard:
    """The card in a file; InputError naming file and field."""
    data = inputs.toml(path)
    if "folder" in data:
        raise InputError(f"{path}: fields folder do not fit")
    card: DeviceCard = records.decode(DeviceCard, data, str(path))
    _check(card, path)
    return dataclasses.replace(card, folder=str(path.parent))


def workloads(card: DeviceCard) -> Mapping[str, Workload]:
    """What each network that the card speaks of has to do."""
    return networks() | dict(card.networks)


def networks() -> dict[str, Workload]:
    """The networks of the published points, counted in files that were made of them."""
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


def _check(card: DeviceCard, path: Path) -> None:
    def demand(holds: bool, field: str, what: str) -> None:
        if not holds:
            raise InputError(f"{path}: {field} {what}")

    demand(card.name == path.stem, "name", f"is {card.name!r}, not that of the file")
    for core in card.cores:
        demand(core.count > 0 and core.clock_hz > 0, "cores", "have a count or clock of 0")
    known = networks().keys() | card.networks.keys()
    for workload in card.networks.values():
        counts = [getattr(workload, f.name) for f in dataclasses.fields(Workload)][1:]
        fits = min(counts) >= 0 and workload.mult_adds > 0
        demand(fits, "networks", "have a count below 0, or no mult-adds")
    for series in card.series:
        demand(series.threads > 0, "series.threads", f"is {series.threads}")
        for point in series.points:
            demand(point.latency_ns > 0, "series.points", f"{point.network} takes no time")
            demand(point.network in known, "series.points", f"{point.network} is not known")
            demand(point.source in card.sources, "series.points", f"{point.source} is no source")
