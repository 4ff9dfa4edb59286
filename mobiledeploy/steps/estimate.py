"""Estimates latency on an absent device from its card's points and the artifact's layers."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import cost as costs
from mobiledeploy.analysis import latency_model as model
from mobiledeploy.analysis.latency_model import HeldOut, LatencyModel, Sample
from mobiledeploy.core import artifacts, device_cards, inputs
from mobiledeploy.core.device_cards import DeviceCard, Precision, Series, Workload
from mobiledeploy.core.errors import DeployError, DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact, Estimated, FileFacts, Fit, NamedWarning, Target
from mobiledeploy.steps import network_counts, runtimes

Left = Literal["points", "families", "devices", "publications"]
# The default delegates of an estimate, which compute on the CPU.
ON_CPU = ("none", "xnnpack")
# Fewer errors of a device say little about their spread.
FEWEST_ERRORS = 5
# The first year of TFLite whose default is XNNPACK.
XNNPACK_SINCE = 2021
# Stands for a core whose instructions are not in the table.
USUAL_CORE = "cortex-a72"
CALIBRATE = "measure a dozen models on one and `mobiledeploy devices calibrate`"

_WORDS = {
    "mult_adds": "mult-adds",
    "dense": "mult-adds of convolutions",
    "depthwise": "depthwise mult-adds",
    "activations": "activations read and written",
    "kernels": "weights of convolutions",
    "classifier": "weights of fully connected layers",
}


@dataclass(frozen=True)
class SeriesFit:
    """A card's series, the samples that it borrows from similar devices, and their cards.

    `shared` says that they are of other runtimes' versions, years or threads, or counts: a prior.
    """

    card: DeviceCard
    series: Series
    own: tuple[Sample, ...]
    like: tuple[tuple[Sample, ...], ...]
    lenders: tuple[str, ...]
    shared: bool = False

    @property
    def enough(self) -> bool:
        """Whether the samples are enough for a model."""
        samples = [sample for group in (self.own, *self.like) for sample in group]
        networks = {sample.network for sample in samples}
        return len(samples) >= model.FEWEST_POINTS and len(networks) >= model.FEWEST_NETWORKS

    @property
    def what(self) -> str:
        """A description of the series."""
        which = str(self.series.version or self.series.year or "")
        runtime = f"{self.series.runtime} {which}".strip()
        delegate = "" if self.series.delegate == "none" else f" with {self.series.delegate}"
        threads = "1 thread" if self.series.threads == 1 else f"{self.series.threads} threads"
        return f"{runtime}{delegate}, {self.series.precision}, {threads}"


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
        InputError: a file beyond the card's range, or of another precision than its points.
    """
    estimator = Estimator(device, runtime=runtime, threads=threads, delegate=delegate)
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
        estimates.append(_estimated(path, artifact, precision, work, estimator, reporter))
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
    of: Sequence[SeriesFit] = (),
) -> SeriesFit:
    """The series of `card` that fits a file best; the errors are those of `estimate`.

    `of` are the card's `choices`, which are made if they are not given.
    """
    of = of or choices(card)
    fits = [
        choice
        for choice in of
        if choice.series.precision == precision
        and runtime in (None, choice.series.runtime)
        and threads in (None, choice.series.threads)
        and choice.series.delegate in ((delegate,) if delegate else ON_CPU)
    ]
    if not fits:
        request = [precision, runtime, threads and f"{threads} threads", delegate]
        raise UsageError(
            f"{card.name} has no points of {', '.join(str(one) for one in request if one)}",
            f"it has {'; '.join(choice.what for choice in of)}",
        )
    near = runtimes.published_as(format_)
    best = max(
        fits,
        key=lambda c: (
            c.enough,
            c.series.runtime in near,
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
    """Each series of a card, with what it borrows where it has few points.

    Points of the same kind on other devices come first; without enough of them, the prior of the
    engine (`_shared`). `cards` are all cards, which are read if they are not given.
    """
    others = [other for other in cards or device_cards.all_() if other.name != card.name]
    return tuple(_choice(card, series, others) for series in card.series)


def samples(card: DeviceCard, series: Series) -> tuple[Sample, ...]:
    """The points of a series, with the workloads of their networks."""
    workloads = device_cards.workloads(card)
    return tuple(Sample(p.network, workloads[p.network], p.latency_ns) for p in series.points)


def held_out(choice: SeriesFit, family: str) -> tuple[tuple[HeldOut, ...], Left]:
    """Errors on held-out points for a network of `family`, and the kind of these errors.

    Points are left out one by one if the device has enough; otherwise similar devices are judged
    with as few points. For a family that is not among the points, whole families are left out; if
    the points have too few families, those of all devices with more are used.
    """
    if len(choice.own) < FEWEST_ERRORS:
        lenders = [choice.like] if len(choice.like) > 1 else _pools()
        errors = [h for like in lenders for h in model.leave_device_out(like, len(choice.own))]
        return _in_range(errors), "devices"
    if family in {sample.workload.family for sample in choice.own}:
        return model.leave_one_out(choice.own, choice.like), "points"
    families = {sample.workload.family for sample in choice.own}
    own = [choice] if len(families) >= model.WIDE_FAMILIES else _of_many_families()
    errors = [h for one in own for h in model.leave_one_family_out(one.own, one.like)]
    return _in_range(errors), "families"


def _choice(card: DeviceCard, series: Series, others: Sequence[DeviceCard]) -> SeriesFit:
    own = samples(card, series)
    if len(own) >= model.FEWEST_POINTS:
        return SeriesFit(card, series, own, (), ())
    like = [
        (other.name, samples(other, one))
        for other in others
        for one in other.series
        if _kind(one) == _kind(series)
    ]
    choice = _with(SeriesFit(card, series, own, (), ()), like, shared=False)
    return choice if choice.enough else with_prior(choice, others)


def with_prior(choice: SeriesFit, others: Sequence[DeviceCard]) -> SeriesFit:
    """The series with the shape that its engine has elsewhere; itself if nobody knows that shape.

    The prior is fitted to all series of the same engine and precision on other cards, each with a
    speed of its own, and to the instructions that emulated cores counted.
    """
    engine = _engine(choice.series)
    if engine is None:
        return choice
    like = [
        (other.name, samples(other, one))
        for other in others
        for one in other.series
        if (_engine(one), one.precision) == (engine, choice.series.precision)
    ]
    like += _counted(choice)
    return _with(choice, like, shared=True)


def _with(
    choice: SeriesFit, like: Sequence[tuple[str, tuple[Sample, ...]]], *, shared: bool
) -> SeriesFit:
    names = dict.fromkeys(name for name, _ in like)
    return SeriesFit(
        choice.card,
        choice.series,
        choice.own,
        tuple(group for _, group in like),
        tuple(names),
        shared and bool(like),
    )


def _engine(series: Series) -> str | None:
    """The engine whose shape a series shares; None for one that shares its shape with no other.

    TFLite computes by XNNPACK since 2021, unless the series says otherwise.
    """
    if series.delegate not in ON_CPU or series.runtime not in ("tflite", "xnnpack", "litert"):
        return None
    by_xnnpack = series.runtime != "tflite" or series.delegate == "xnnpack"
    return "xnnpack" if by_xnnpack or (series.year or 0) >= XNNPACK_SINCE else "tflite"


def _counted(choice: SeriesFit) -> list[tuple[str, tuple[Sample, ...]]]:
    """Instructions on the emulated core of the card as samples: their unit is another speed."""
    table = device_cards.instructions()
    candidates = (*choice.card.emulate, USUAL_CORE)
    cores = [core for core in candidates if (core, choice.series.precision) in table]
    if not cores:
        return []
    workloads = {name: one.workload for name, one in network_counts.load().items()}
    counts = table[cores[0], choice.series.precision]
    group = tuple(
        Sample(name, workloads[name], count) for name, count in counts.items() if name in workloads
    )
    return [(f"emulated {cores[0]}", group)]


def prior_errors(cards: Sequence[DeviceCard], engine: str) -> tuple[tuple[HeldOut, ...], ...]:
    """How wrong the shared prior is, by series: for a network of another family than the points.

    The errors are those of series of `engine`, or of all engines if it has fewer than
    `FEWEST_ERRORS` such series.

    Of each series with points of several families, each point is predicted from those of other
    families. The prior is then fitted without this card, and without all that its source published.
    """
    results: dict[str, list[tuple[HeldOut, ...]]] = {}
    for card in cards:
        for series in card.series:
            own, by = samples(card, series), _engine(series)
            if by is None or len({s.workload.family for s in own}) < 2:
                continue
            titles = {card.sources[point.source].title for point in series.points}
            others = [_without_sources(other, titles) for other in cards if other.name != card.name]
            prior = with_prior(SeriesFit(card, series, own, (), ()), others)
            if len({s.network for group in prior.like for s in group}) >= model.FEWEST_NETWORKS:
                errors = model.leave_families_out(own, prior.like)
                results.setdefault(by, []).append(errors)
    of_engine = results.get(engine, [])
    every = [errors for group in results.values() for errors in group]
    return tuple(of_engine if len(of_engine) >= FEWEST_ERRORS else every)


def _without_sources(card: DeviceCard, titles: Collection[str]) -> DeviceCard:
    """The card without the points that sources of these titles published."""
    series = []
    for one in card.series:
        points = tuple(p for p in one.points if card.sources[p.source].title not in titles)
        if points:
            series.append(dataclasses.replace(one, points=points))
    return dataclasses.replace(card, series=tuple(series))


def _kind(series: Series) -> tuple[object, ...]:
    """The kind of a series; only series of the same kind are used together."""
    s = series
    return s.runtime, s.year, s.version, s.delegate, s.precision, s.threads


def _in_range(errors: Sequence[HeldOut]) -> tuple[HeldOut, ...]:
    """Those that an estimate would not refuse; all of them if it would refuse all."""
    return tuple(one for one in errors if one.in_range) or tuple(errors)


def _of_many_families() -> list[SeriesFit]:
    """The series of all cards with enough families of networks to leave one out."""
    cards = device_cards.all_()
    return [
        choice
        for card in cards
        for choice in choices(card, cards)
        if choice.enough
        and not choice.shared
        and len({sample.workload.family for sample in choice.own}) >= model.WIDE_FAMILIES
    ]


def _pools() -> list[tuple[tuple[Sample, ...], ...]]:
    """Groups of similar devices that could lend to each other, by kind."""
    pools: dict[tuple[object, ...], list[tuple[Sample, ...]]] = {}
    for choice in _of_many_families():
        pools.setdefault(_kind(choice.series), []).append(choice.own)
    return [tuple(pool) for pool in pools.values()]


@dataclass(frozen=True)
class _Fitted:
    """A series with what it borrows, its model, and errors of as many independent points."""

    choice: SeriesFit
    model: LatencyModel
    errors: tuple[HeldOut, ...]
    held_out: Left
    count: int


class OutOfRange(InputError):
    """A network beyond the range of the card's points."""


@dataclass(frozen=True)
class LatencyEstimate:
    """The latency of a network on a device, its 95 % interval, and where both come from."""

    latency_ns: float
    interval_ns: tuple[float, float]
    choice: SeriesFit
    model: LatencyModel
    errors: tuple[HeldOut, ...]
    held_out: Left


class TooWide(OutOfRange):
    """The interval of the latency is too wide for an answer."""


class Estimator:
    """Estimates latencies on the device of a card; series are fitted once.

    Args:
        device: a card's name, or the beginning of several; UsageError if there is none.
        runtime: as of `estimate`, and so are `threads` and `delegate`.
        cards: all cards, for those of the user and ours.
    """

    def __init__(
        self,
        device: str,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        delegate: str | None = None,
        cards: Sequence[DeviceCard] = (),
    ) -> None:
        self._cards = cards or device_cards.all_()
        by_name = {card.name: card for card in self._cards}
        self.card = by_name.get(device) or (
            device_cards.matching(device) or device_cards.load(device)
        )
        self._choices: dict[tuple[Precision, str], SeriesFit | DeployError] = {}
        self._choose = functools.partial(
            choose,
            self.card,
            runtime=runtime,
            threads=threads,
            delegate=delegate,
            of=choices(self.card, self._cards),
        )
        self._fitted: dict[tuple[int, bool], _Fitted] = {}
        self._priors: dict[str, tuple[tuple[HeldOut, ...], ...]] = {}
        self._of_families: list[HeldOut] | None = None

    def latency(
        self, work: Workload, precision: Precision, format_: str, name: str
    ) -> LatencyEstimate:
        """The latency of a network; errors, which call it `name`, are those of `estimate`."""
        return self.of_series(self._series(precision, format_), work, name)

    def of_series(self, choice: SeriesFit, work: Workload, name: str) -> LatencyEstimate:
        """The latency of a network by one series of the card."""
        is_like_own = any(sample.workload.family == work.family for sample in choice.own)
        key = id(choice), is_like_own
        if key not in self._fitted:
            self._fitted[key] = self._fit(choice, work.family, is_like_own)
        fitted = self._fitted[key]
        far = fitted.model.beyond(work, model.FARTHEST)
        if far:
            low, high = fitted.model.limits[far[0]]
            raise OutOfRange(
                f"{name} is outside the range of {self.card.name}'s points: "
                f"{getattr(work, far[0]) / 1e6:,.1f} M {_WORDS[far[0]]}, more than "
                f"{model.FARTHEST:g} times beyond {low / 1e6:,.1f} M to {high / 1e6:,.1f} M",
                f"nothing is known of such networks there; {CALIBRATE}",
            )
        spread = model.spread(fitted.errors)
        if fitted.model.beyond(work):
            spread = math.hypot(spread, self._prior_spread(choice))
        latency_ns = fitted.model.latency_ns(work)
        interval_ns = model.interval_ns(latency_ns, spread, fitted.count)
        if model.half_width(latency_ns, interval_ns) > model.WIDEST:
            low_ms, high_ms = (end / 1e6 for end in interval_ns)
            raise TooWide(
                f"{self.card.name}'s points say too little about {name}: about "
                f"{latency_ns / 1e6:.3g} ms, from {low_ms:.3g} to {high_ms:.3g} ms",
                f"measure a {work.family} there and `mobiledeploy devices calibrate`",
            )
        return LatencyEstimate(
            latency_ns, interval_ns, fitted.choice, fitted.model, fitted.errors, fitted.held_out
        )

    def _fit(self, choice: SeriesFit, family: str, is_like_own: bool) -> _Fitted:
        if not is_like_own and not choice.like:
            others = [card for card in self._cards if card.name != self.card.name]
            choice = with_prior(choice, others)
        fit = model.fit(choice.own, choice.like)
        if choice.shared:
            by_series = self._prior_errors(choice)
            errors = tuple(one for series in by_series for one in series)
            if errors:
                # Errors of one series are alike: there are as many as series.
                return _Fitted(choice, fit, errors, "publications", len(by_series))
        errors, kind = held_out(choice, family)
        # The speed of this device is known from its own points only, not from those of the others.
        count = min(len(errors), max(len(choice.own), FEWEST_ERRORS))
        return _Fitted(choice, fit, errors, kind, count)

    def _prior_errors(self, choice: SeriesFit) -> tuple[tuple[HeldOut, ...], ...]:
        engine = _engine(choice.series)
        if engine is None:
            return ()
        if engine not in self._priors:
            self._priors[engine] = prior_errors(self._cards, engine)
        return self._priors[engine]

    def _prior_spread(self, choice: SeriesFit) -> float:
        """The error of the shape: of the prior, or of families left out where there is none."""
        errors = [one for series in self._prior_errors(choice) for one in series]
        return model.spread(errors or self._family_errors())

    def _family_errors(self) -> list[HeldOut]:
        if self._of_families is None:
            self._of_families = [
                error
                for one in _of_many_families()
                for error in model.leave_one_family_out(one.own, one.like)
            ]
        return self._of_families

    def _series(self, precision: Precision, format_: str) -> SeriesFit:
        """The series for a file; a refusal is remembered as well."""
        if (precision, format_) not in self._choices:
            try:
                self._choices[precision, format_] = self._choose(precision, format_)
            except DeployError as error:
                self._choices[precision, format_] = error
        choice = self._choices[precision, format_]
        if isinstance(choice, DeployError):
            raise choice
        return choice


def _estimated(
    path: Path,
    artifact: Artifact,
    precision: Precision,
    work: Workload,
    estimator: Estimator,
    reporter: Reporter,
) -> Estimated:
    one = estimator.latency(work, precision, artifact.format, path.name)
    choice, fit_ = one.choice, one.model
    warnings = tuple(_warnings(path, artifact, choice, fit_.families, work.family))
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
        latency_ns=one.latency_ns,
        interval_ns=one.interval_ns,
        fit=Fit(
            card=choice.card.name,
            runtime=choice.series.runtime,
            year=choice.series.year,
            version=choice.series.version,
            terms=fit_.terms,
            points=len(choice.own),
            borrowed=choice.lenders,
            held_out=one.held_out,
            rmspe=model.rmspe(one.errors),
            sources=tuple(
                f"{source.title} {source.url}".strip()
                for name, source in choice.card.sources.items()
                if name in sources_used
            ),
        ),
        warnings=warnings,
    )


def _warnings(
    path: Path, artifact: Artifact, choice: SeriesFit, families: frozenset[str], family: str
) -> Iterator[NamedWarning]:
    def warn(name: str, message: str, advice: str = "") -> NamedWarning:
        return NamedWarning(name, f"{path.name}: {message}", advice)

    name, runtime = choice.card.name, choice.series.runtime
    if runtime not in runtimes.published_as(artifact.format):
        yield warn(
            "other-runtime",
            f"{name}'s points are of {runtime}, not of what runs {artifact.format}",
            "take it as the speed of the hardware",
        )
    if choice.lenders:
        yield warn(
            "borrowed-shape",
            f"{name} has {len(choice.own)} of the {model.FEWEST_POINTS} points that a model needs; "
            f"its shape is borrowed from {', '.join(choice.lenders)}",
            CALIBRATE,
        )
    if family not in families:
        yield warn(
            "other-family",
            f"{name}'s points are of {', '.join(sorted(families))}, and this is {family}; the "
            "interval is that of families left out",
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
