"""Estimates latency on an absent device from its card's points and the artifact's layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import cost as costs
from mobiledeploy.analysis import latency_model as model
from mobiledeploy.analysis.latency_model import HeldOut, LatencyModel, Sample
from mobiledeploy.core import artifacts, device_cards, inputs
from mobiledeploy.core.device_cards import DeviceCard, Precision, Series, Workload
from mobiledeploy.core.errors import DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact, Estimated, FileFacts, Fit, NamedWarning, Target
from mobiledeploy.steps import runtimes

Left = Literal["points", "families", "devices"]
# The default delegates of an estimate, which compute on the CPU.
ON_CPU = ("none", "xnnpack")
# Fewer errors of a device say little about their spread.
FEWEST_ERRORS = 5
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
    """A card's series, the samples that it borrows from similar devices, and their cards."""

    card: DeviceCard
    series: Series
    own: tuple[Sample, ...]
    like: tuple[tuple[Sample, ...], ...]
    lenders: tuple[str, ...]

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


def choices(card: DeviceCard) -> tuple[SeriesFit, ...]:
    """Each series of a card, with points of the same runtime on other devices to borrow."""
    others = [other for other in device_cards.all_() if other.name != card.name]
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
    like = (
        []
        if len(own) >= model.FEWEST_POINTS
        else [
            (other.name, samples(other, one))
            for other in others
            for one in other.series
            if _kind(one) == _kind(series)
        ]
    )
    return SeriesFit(
        card,
        series,
        own,
        tuple(group for _, group in like),
        tuple(dict.fromkeys(name for name, _ in like)),
    )


def _kind(series: Series) -> tuple[object, ...]:
    """The kind of a series; only series of the same kind are used together."""
    s = series
    return s.runtime, s.year, s.version, s.delegate, s.precision, s.threads


def _in_range(errors: Sequence[HeldOut]) -> tuple[HeldOut, ...]:
    """Those that an estimate would not refuse; all of them if it would refuse all."""
    return tuple(one for one in errors if one.in_range) or tuple(errors)


def _of_many_families() -> list[SeriesFit]:
    """The series of all cards with enough families of networks to leave one out."""
    return [
        choice
        for card in device_cards.all_()
        for choice in choices(card)
        if choice.enough
        and len({sample.workload.family for sample in choice.own}) >= model.WIDE_FAMILIES
    ]


def _pools() -> list[tuple[tuple[Sample, ...], ...]]:
    """Groups of similar devices that could lend to each other, by kind."""
    pools: dict[tuple[object, ...], list[tuple[Sample, ...]]] = {}
    for choice in _of_many_families():
        pools.setdefault(_kind(choice.series), []).append(choice.own)
    return [tuple(pool) for pool in pools.values()]


class OutOfRange(InputError):
    """A network beyond the range of the card's points."""


@dataclass(frozen=True)
class FittedSeries:
    """The model of a series, and its errors on held-out points for some family of networks."""

    choice: SeriesFit
    model: LatencyModel
    errors: tuple[HeldOut, ...]
    held_out: Left

    def latency(self, work: Workload, name: str) -> tuple[float, tuple[float, float]]:
        """The nanoseconds of a network and their 95 % interval; OutOfRange calls it `name`."""
        beyond = self.model.beyond(work)
        if beyond:
            low, high = self.model.limits[beyond[0]]
            raise OutOfRange(
                f"{name} is outside the range of {self.choice.card.name}'s points: "
                f"{getattr(work, beyond[0]) / 1e6:,.1f} M {_WORDS[beyond[0]]}, not "
                f"{low / 1e6:,.1f} M to {high / 1e6:,.1f} M",
                f"nothing is known of such networks there; {CALIBRATE}",
            )
        latency_ns = self.model.latency_ns(work)
        # The speed of this device is known from its own points only, not from those of the others.
        count = min(len(self.errors), max(len(self.choice.own), FEWEST_ERRORS))
        return latency_ns, model.interval_ns(latency_ns, model.spread(self.errors), count)


def fitted(choice: SeriesFit, family: str) -> FittedSeries:
    """The model of a series for networks of `family`."""
    errors, kind = held_out(choice, family)
    return FittedSeries(choice, model.fit(choice.own, choice.like), errors, kind)


def _estimated(
    path: Path, artifact: Artifact, work: Workload, choice: SeriesFit, reporter: Reporter
) -> Estimated:
    series = fitted(choice, work.family)
    fit_ = series.model
    latency_ns, interval_ns = series.latency(work, path.name)
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
        latency_ns=latency_ns,
        interval_ns=interval_ns,
        fit=Fit(
            card=choice.card.name,
            runtime=choice.series.runtime,
            year=choice.series.year,
            version=choice.series.version,
            terms=fit_.terms,
            points=len(choice.own),
            borrowed=choice.lenders,
            held_out=series.held_out,
            rmspe=model.rmspe(series.errors),
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
