"""Estimates latency on an absent device from its card's points and the artifact's layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import cost as costs
from mobiledeploy.analysis import latency_model as model
from mobiledeploy.analysis.latency_model import (
    HeldOut,
    LatencyModel,
    PointSeries,
    Sample,
    Spreads,
)
from mobiledeploy.core import artifacts, device_cards, inputs, records, units
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.device_cards import DeviceCard, Precision, Series, Workload
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import (
    Artifact,
    Counted,
    Estimated,
    FileFacts,
    Fit,
    NamedWarning,
    Target,
)
from mobiledeploy.steps import network_counts, runtimes
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path

Left = Literal["points", "families", "devices"]
# The default delegates of an estimate, which compute on the CPU.
ON_CPU = ("none", "xnnpack")
# A series of fewer points is judged by the others of its engine as well.
FEWEST_ERRORS = 5
# The first year of TFLite whose default is XNNPACK.
XNNPACK_SINCE = 2021
XNNPACK = "xnnpack"
# Emulated cores with int8 dot products, which have other kernels.
DOT_PRODUCTS = ("cortex-a55", "cortex-a76", "cortex-a710", "neoverse-n1", "neoverse-v1")
# The trait of int8: all kernels differ, which is more than four threads instead of one.
INT8 = 2.0
CALIBRATE = "measure a few models on one and `mobiledeploy devices calibrate`"
EMULATED = "emulated "
SPREADS = "spreads"
"""The folder of the cache for fitted spreads, by the hash of the points and of the model's code."""


@dataclass(frozen=True)
class SeriesFit:
    """A card's series, and those of the same engine on other cards and emulated cores.

    `lenders` are the cards of the other series. `counted` are the instructions of the file itself,
    by emulated core: for an engine such a core is one more device.
    """

    card: DeviceCard
    series: Series
    own: tuple[Sample, ...]
    like: tuple[PointSeries, ...] = ()
    lenders: tuple[str, ...] = ()
    counted: Mapping[str, Sample] = field(default_factory=dict)

    @property
    def every(self) -> tuple[PointSeries, ...]:
        """All series with what was counted, its own last."""
        like = []
        for one in self.like:
            counted = self.counted.get(one.card.removeprefix(EMULATED))
            is_int8 = self.series.precision == "int8"
            if counted and not is_latency(one) and (one.traits[-1] > 0) == is_int8:
                one = replace(one, samples=(*one.samples, counted))
            like.append(one)
        return (*like, PointSeries(self.card.name, traits(self.card, self.series), self.own))

    @property
    def enough(self) -> bool:
        """Whether the samples are enough for a model."""
        groups = (self.own, *(one.samples for one in self.like))
        samples = [sample for group in groups for sample in group]
        networks = {sample.network for sample in samples}
        return len(samples) >= model.FEWEST_POINTS and len(networks) >= model.FEWEST_NETWORKS

    @property
    def families(self) -> frozenset[str]:
        """The families of networks among all samples."""
        groups = (self.own, *(one.samples for one in self.like))
        return frozenset(sample.workload.family for group in groups for sample in group)

    @property
    def what(self) -> str:
        """A description of the series."""
        s = self.series
        return described(s.runtime, s.version or s.year, s.delegate, s.precision, s.threads)


def described(
    runtime: str, version: str | int | None, delegate: str, precision: str, threads: int
) -> str:
    """A series of points for people; `version` may be a year."""
    name = f"{runtime} {version or ''}".strip()
    name += "" if delegate == "none" else f" with {delegate}"
    return ", ".join(filter(None, (name, precision, units.several(threads, "thread"))))


def estimate(
    paths: Sequence[Path],
    *,
    device: str,
    runtime: str | None = None,
    threads: int | None = None,
    delegate: str | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Estimated, ...]:
    """Estimates the latency of artifacts on the device of a card, from the layers of each file.

    Instructions of a file that this folder's store holds make an estimate for XNNPACK narrower.

    Args:
        paths: artifacts with their records beside them.
        device: a card's name, or the beginning of several (pixel): then the one with most points.
        runtime: that of the card's points; the default is nearest to the file's, or has most
            points.
        threads: that of the points; the default has the most points.
        delegate: that of the points; the default is none.
        reporter: is told of progress and warnings.

    Raises:
        UsageError: no such card, or it has no such points.
        DeviceError: it has too few points for a model, and no similar device lends its shape.
        InputError: a file that the points say too little about (`TooWide`), or one of another
            precision than theirs.
    """
    card = device_cards.matching(device) or device_cards.load(device)
    by_path = {path: artifacts.load(path) for path in paths}
    estimates: list[Estimated] = []
    for path, artifact in by_path.items():
        reporter.progress("estimating", len(estimates), len(by_path))
        if artifact.recipe.weight_bits == artifact.recipe.activation_bits == 16:
            raise InputError(
                f"{path.name} computes in float16 where the core can, and points are of float32 or "
                "int8 throughout",
                "its latency can only be measured",
            )
        precision, work = read(path, artifact.spec.card or artifact.spec.name)
        choice = choose(
            card, precision, artifact.format, runtime=runtime, threads=threads, delegate=delegate
        )
        counted = {core: Sample(path.stem, work, n) for core, n in _instructions(artifact).items()}
        choice = replace(choice, counted=counted)
        estimates.append(_estimated(path, artifact, work, choice, reporter))
    reporter.progress("estimating", len(by_path), len(by_path))
    return tuple(estimates)


def read(path: Path, family: str) -> tuple[Precision, Workload]:
    """The precision and workload of a finished file; InputError if no card can have such points.

    The file needs no record.
    """
    for name in FORMATS.names():
        shelf = FORMATS.load(name)
        if path.suffix == shelf.SUFFIX:
            facts = shelf.inspect(inputs.read(path, inputs.FINISHED))
            return _precision(path, facts), model.workload(facts.layers, family=family)
    raise InputError(f"{path} is not a finished model", "give a .tflite or .onnx file")


def choose(
    card: DeviceCard,
    precision: Precision,
    format_: str,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    delegate: str | None = None,
) -> SeriesFit:
    """The series of `card` that fits a file best; the errors are those of `estimate`."""
    fits = [
        choice
        for choice in choices(card)
        if choice.series.precision == precision
        and runtime in (None, choice.series.runtime)
        and threads in (None, choice.series.threads)
        and choice.series.delegate in ((delegate,) if delegate else ON_CPU)
    ]
    if not fits:
        request = [precision, runtime, threads and f"{threads} threads", delegate]
        raise UsageError(
            f"{card.name} has no points of {', '.join(str(one) for one in request if one)}",
            f"it has {'; '.join(choice.what for choice in choices(card))}",
        )
    near = runtimes.published_as(format_)
    best = max(
        fits,
        key=lambda c: (
            c.enough,
            c.series.runtime in near,
            # Of the runtime that its owner has now.
            c.series.is_own,
            len(c.own),
            c.series.year or 0,
            -c.series.threads,
        ),
    )
    if not best.enough:
        raise DeviceError(
            f"{card.title} is not here, and its card cannot stand in: it has {len(best.own)} "
            f"point{'s' if len(best.own) > 1 else ''} of {best.what}, and no like device has "
            f"the {model.FEWEST_POINTS} that a model needs",
            f"{CALIBRATE}, take a device that `mobiledeploy devices` lists as ready, or --via "
            "emulator to count instructions",
        )
    return best


def choices(card: DeviceCard, cards: Sequence[DeviceCard] = ()) -> tuple[SeriesFit, ...]:
    """Each series of a card, with those of the same engine on other cards.

    `cards` are all cards, which are read if they are not given.
    """
    cards = cards or device_cards.all_()
    like: dict[str, list[PointSeries]] = {engine_of(series): [] for series in card.series}
    for other in cards:
        workloads = device_cards.workloads(other)
        for series in other.series:
            engine = engine_of(series)
            if other.name != card.name and engine in like:
                own = _samples(series, workloads)
                like[engine].append(PointSeries(other.name, traits(other, series), own))
    lenders = {engine: tuple(dict.fromkeys(s.card for s in same)) for engine, same in like.items()}
    if XNNPACK in like:
        like[XNNPACK] += _counted_networks()
    workloads = device_cards.workloads(card)
    return tuple(
        SeriesFit(card, series, _samples(series, workloads), tuple(like[engine]), lenders[engine])
        for series in card.series
        for engine in [engine_of(series)]
    )


def _samples(series: Series, workloads: Mapping[str, Workload]) -> tuple[Sample, ...]:
    """The points of a series, with the workloads of their networks."""
    return tuple(Sample(p.network, workloads[p.network], p.latency_ns) for p in series.points)


class TooWide(InputError):
    """The points say too little about a network."""


@dataclass(frozen=True)
class FittedSeries:
    """The model of a series, and its errors on held-out points for some family of networks.

    `reach` is half of the interval in standard deviations.
    """

    choice: SeriesFit
    model: LatencyModel
    errors: tuple[HeldOut, ...]
    held_out: Left
    reach: float

    @property
    def _count(self) -> str:
        """The advice to count, where that would help."""
        if engine_of(self.choice.series) != XNNPACK or self.choice.counted:
            return ""
        return "; or count its instructions: `mobiledeploy doctor --emulator`, then `bench` again"

    def latency(self, work: Workload, name: str) -> tuple[float, tuple[float, float]]:
        """The nanoseconds of a network and their 95 % interval; TooWide calls it `name`."""
        prediction = self.model.predict(len(self.choice.like), work)
        interval_ns = model.interval_ns(prediction, self.reach)
        if model.half_width(prediction.latency_ns, interval_ns) > model.WIDEST:
            low, high = (f"{end / 1e6:.3g} ms" for end in interval_ns)
            raise TooWide(
                f"{self.choice.card.name}'s points say too little about {name}: between {low} and "
                f"{high}",
                f"measure it there, or another {work.family}, and `mobiledeploy devices calibrate`"
                + self._count,
            )
        return prediction.latency_ns, interval_ns


def fitted(choice: SeriesFit, family: str) -> FittedSeries:
    """The model of a series for networks of `family`.

    The spreads are fitted without the card. The errors are of points that were left out, each
    predicted from the other points of its series and from other cards. For a family that nobody
    measured with this engine, whole families are left out.

    Raises:
        DeviceError: no series has two points, so there is no error.
    """
    every = choice.every
    spreads = _spreads_without_card(choice)
    fit = LatencyModel(every, spreads)
    if family not in choice.families:
        like = comparable(every, families_left_out(every, spreads))
        # Networks of one family only say nothing of others.
        if like:
            return FittedSeries(choice, fit, like, "families", model.reach(like))
    by_series = fit.held_out()
    like = comparable(every, by_series)
    if not like:
        raise DeviceError(
            f"nothing tells the error of {choice.card.name}'s points: no series of "
            f"{choice.series.runtime}, {choice.series.precision} has two",
            CALIBRATE,
        )
    reach = model.reach(like)
    if len(by_series[-1]) >= FEWEST_ERRORS:
        return FittedSeries(choice, fit, by_series[-1], "points", reach)
    return FittedSeries(choice, fit, like, "devices", reach)


def comparable(
    series: Sequence[PointSeries], errors: Sequence[Sequence[HeldOut]]
) -> tuple[HeldOut, ...]:
    """The errors, given by series, of latencies in the precision of the last series."""
    return tuple(
        error
        for one, own in zip(series, errors, strict=True)
        if is_latency(one) and one.traits[-1] == series[-1].traits[-1]
        for error in own
    )


def own_errors(choice: SeriesFit) -> tuple[HeldOut, ...]:
    """Each point of a series, predicted from its others and other cards; () for a single one."""
    return LatencyModel(choice.every, _spreads_without_card(choice)).held_out()[-1]


def _spreads_without_card(choice: SeriesFit) -> Spreads:
    """The spreads of other cards; of its own points if its engine has no other card."""
    if any(map(is_latency, choice.like)):
        return _kept_spreads(choice.like)
    return _kept_spreads(choice.every)


def _kept_spreads(series: tuple[PointSeries, ...]) -> Spreads:
    """`spreads_of`, which the cache keeps: the fit and its library take half a second each time."""
    code = records.sha256(Path(model.__file__))
    path = cache_dir() / SPREADS / f"{records.sha256(f'{code}{series!r}'.encode())}.json"
    with suppress(DeployError):
        kept = records.loads(Spreads, inputs.read(path, inputs.RECORD), str(path))
        if all(0 < value < math.inf for value in astuple(kept)):
            return kept
    spreads = spreads_of(series)
    # Without a cache that can be written it is fitted again.
    with suppress(OSError, DeployError):
        path.parent.mkdir(parents=True, exist_ok=True)
        records.write_atomic(path, records.dumps(spreads))
    return spreads


@functools.lru_cache(maxsize=64)
def spreads_of(series: tuple[PointSeries, ...]) -> Spreads:
    """`model.fit_spreads`, which is not repeated for the same series."""
    return model.fit_spreads(series)


def families_left_out(
    series: Sequence[PointSeries], spreads: Spreads
) -> tuple[tuple[HeldOut, ...], ...]:
    """By series, each point predicted from other families only, on all series."""
    results: list[list[HeldOut]] = [[] for _ in series]
    for family in sorted({sample.workload.family for one in series for sample in one.samples}):
        rest = [without_family(one, family) for one in series]
        if not any(one.samples for one in rest):
            continue
        fit = LatencyModel(rest, spreads)
        for index, (one, left) in enumerate(zip(series, rest, strict=True)):
            for sample in one.samples if left.samples else ():
                if sample.workload.family == family:
                    prediction = fit.predict(index, sample.workload)
                    results[index].append(HeldOut(sample, prediction.latency_ns, prediction.spread))
    return tuple(map(tuple, results))


def without_family(one: PointSeries, family: str) -> PointSeries:
    """The series without its networks of a family."""
    left = tuple(sample for sample in one.samples if sample.workload.family != family)
    return replace(one, samples=left)


def traits(card: DeviceCard, series: Series) -> tuple[float, ...]:
    """Threads (1 for four), int8 dot products, a core that cannot be emulated, and int8."""
    return (
        math.log(series.threads) / math.log(4),
        float(card.emulate[:1] in [(core,) for core in DOT_PRODUCTS]),
        float(bool(card.cores) and not card.emulate),
        INT8 * (series.precision == "int8"),
    )


def engine_of(series: Series) -> str:
    """What computes: series of one engine are shaped alike.

    TFLite computes by XNNPACK since 2021, and earlier if the series says so.
    """
    if series.delegate not in ON_CPU:
        return f"{series.runtime} {series.delegate}"
    if series.runtime in ("xnnpack", "litert") or series.delegate == "xnnpack":
        return XNNPACK
    # A series without a year was measured by its owner, now.
    is_new = (series.year or XNNPACK_SINCE) >= XNNPACK_SINCE
    return XNNPACK if series.runtime == "tflite" and is_new else series.runtime


def is_latency(one: PointSeries) -> bool:
    """False for instructions of an emulated core."""
    return not one.card.startswith(EMULATED)


def _counted_networks() -> list[PointSeries]:
    """The instructions of published networks on emulated cores, as further series of XNNPACK."""
    workloads = {name: one.work for name, one in network_counts.load().items()}
    return [
        PointSeries(
            f"{EMULATED}{core}",
            (0.0, float(core in DOT_PRODUCTS), 0.0, INT8 * (precision == "int8")),
            tuple(
                Sample(name, workloads[name], count)
                for name, count in counts.items()
                if name in workloads
            ),
        )
        for (core, precision), counts in device_cards.instructions().items()
    ]


def _instructions(artifact: Artifact) -> dict[str, int]:
    """The instructions of a file on emulated cores, from this folder's store."""
    if artifact.format != "tflite" or not store_path().exists():
        return {}
    with Store.open() as store:
        figures = store.measurements_of(artifact.sha256)
    # The newest come first.
    return {
        one.core: one.instructions
        for one in reversed(figures)
        if isinstance(one, Counted) and one.target.runtime == "litert"
    }


def _estimated(
    path: Path, artifact: Artifact, work: Workload, choice: SeriesFit, reporter: Reporter
) -> Estimated:
    series = fitted(choice, work.family)
    latency_ns, interval_ns = series.latency(work, path.name)
    warnings = tuple(_warnings(path, artifact, choice, work.family))
    for warning in warnings:
        reporter.warn(warning)
    sources_used = {point.source for point in choice.series.points}
    return Estimated(
        artifact_sha256=artifact.sha256,
        target=Target(
            choice.card.name,
            "none",
            choice.series.runtime,
            choice.series.threads,
            choice.series.delegate,
        ),
        latency_ns=latency_ns,
        interval_ns=interval_ns,
        fit=Fit(
            card=choice.card.name,
            runtime=choice.series.runtime,
            year=choice.series.year,
            version=choice.series.version,
            terms=series.model.terms(len(choice.like)),
            points=len(choice.own),
            borrowed=choice.lenders,
            held_out=series.held_out,
            rmspe=model.rmspe(series.errors),
            sources=tuple(
                f"{source.title} {source.url}".strip()
                for name, source in choice.card.sources.items()
                if name in sources_used
            ),
            precision=choice.series.precision,
            is_point=any(sample.workload == work for sample in choice.own),
        ),
        warnings=warnings,
    )


def _warnings(
    path: Path, artifact: Artifact, choice: SeriesFit, family: str
) -> Iterator[NamedWarning]:
    def warn(name: str, message: str, advice: str = "") -> NamedWarning:
        return NamedWarning(name, message, advice, str(path))

    name, runtime = choice.card.name, choice.series.runtime
    if runtime not in runtimes.published_as(artifact.format):
        yield warn(
            "other-runtime",
            f"{name}'s points are of {runtime}, not of what runs {artifact.format}",
            "take it as the speed of the hardware",
        )
    if choice.lenders and len(choice.own) < model.FEWEST_POINTS:
        yield warn(
            "borrowed-shape",
            f"{name} has {len(choice.own)} of the {model.FEWEST_POINTS} points that a model needs; "
            f"its shape is borrowed from {', '.join(choice.lenders)}",
            CALIBRATE,
        )
    families = {sample.workload.family for sample in choice.own}
    if family not in families:
        yield warn(
            "other-family",
            f"{name}'s points are of {', '.join(sorted(families))}, and this is {family}",
            CALIBRATE,
        )
    if artifact.recipe.weight_bits == 16:
        yield warn("computed-in-float32", "weights of 16 bits are computed in float32 there")
    if choice.series.caveat:
        yield warn("points", choice.series.caveat)


def _precision(path: Path, facts: FileFacts) -> Precision:
    """The precision that the file computes with; InputError if no card has points of it."""
    cost = costs.cost(facts.layers)
    if cost.uncounted:
        raise InputError(
            f"{path.name} has operators whose work is not counted: {', '.join(cost.uncounted)}",
            "its latency can only be measured",
        )
    kinds = set()
    for layer, row in zip(costs.unquantized(facts.layers), cost.layers, strict=True):
        if row.mult_adds:
            # The kernel and its input; biases are wider.
            kinds |= {t.dtype for t in layer.inputs if not t.constant or len(t.shape) > 1}
    if kinds == {"float32"}:
        return "float32"
    if kinds and kinds <= {"int8", "uint8"}:
        return "int8"
    raise InputError(
        f"{path.name} computes with {' and '.join(sorted(kinds)) or 'no weights'}, "
        "and points are of float32 or int8 throughout",
        "its latency can only be measured",
    )
