"""The effect of quantization on each layer's values, and the sources of the answer's error.

Values are [..., C], channels last. An integer tensor stands for scale * (code - zero point); where
equalization has scaled its channels, for that divided by the channel's factor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis.accuracy import LARGEST_SQNR_DB
from mobiledeploy.core.display import Record

Doubles = NDArray[np.float64]
Codes = NDArray[Any]
Reals = NDArray[np.float32] | NDArray[np.float64]

SATURATED = 0.01
"""A channel counts as saturated from this share of values beyond the codes on."""
GOOD_DB = 30.0
"""The SQNR of the logits at 3 % error.

Above it, with every best class the same, nothing needs a fix.
"""
_MUCH = 0.3
"""Share of the error for which a cause is worth a remedy."""
_UNEVEN = 16.0
"""Range ratio that leaves the narrowest channels 4 bits or fewer."""
FEW = 3
"""The most layers that are named; an error of more layers counts as spread."""
_WORTH_NAMING = 0.05
_MOST = 0.75
"""Share of the error that is most of it."""
_FLOAT_ERROR = 1e-3
"""As a fraction of a step: smaller errors are float32's rounding in layers that only move codes."""
_FOUND_AGAIN = 1.005
"""The smallest factor of a channel that counts as equalization."""

_FEW_CODES = 16
"""Of 256: a channel that has fewer loses more than four bits of eight."""
_CONSTANT = 1e-6
"""A channel that varies by less than this share of its output says nothing."""

Cause = Literal["clipped", "codes", "weights"]


@dataclass(frozen=True)
class CodeGrid:
    """Codes of a tensor: real = scale * (code - zero), code of lowest to highest."""

    scale: float
    zero: int
    lowest: int
    highest: int

    def codes(self, real: Reals) -> Doubles:
        """The nearest codes, halves to even, saturated; as floats."""
        codes: Doubles = np.rint(real / self.scale) + self.zero
        return codes.clip(self.lowest, self.highest)

    def real(self, codes: Codes) -> Doubles:
        """The real values of codes."""
        return (np.asarray(codes, np.float64) - self.zero) * self.scale

    def beyond(self, real: Reals) -> NDArray[np.bool_]:
        """A mask of the values that are more than half a step outside of all codes."""
        codes = real / self.scale + self.zero
        return (codes < self.lowest - 0.5) | (codes > self.highest + 0.5)


@dataclass(frozen=True)
class LayerError(Record):
    """One layer of an integer model beside the same layer in float, over some images.

    Attributes:
        reads: the names of the layers that it reads; () for the image.
        sqnr_db: of its values as the network delivers them; all error of the layers before it is
            inherited. 200 where nothing differs.
        own_sqnr_db: of its own values where its inputs are exact, rounded to their codes only: the
            float layer on the same rounded inputs is the reference.
        alone_sqnr_db: of the logits of a float network in which this layer alone has its own error.
        share: its own error's part of the logits' error, from 0 to 1, as if the errors of all
            layers added up.
        cosine: of its values and the exact ones.
        clipped: part of its own error that is values beyond the codes, from 0 to 1.
        coded: part that is the rounding of its values to codes.
        weighted: the rest: integer weights, and integer arithmetic.
        range_ratio: the widest channel's range over that of the narrowest one that is not dead.
        channels: how many it has.
        dead: those that take one value only, in float.
        lost: those that vary in float and take one code only.
        saturated: those that go beyond the codes with over 1 % of their values.
        codes_used: share of all codes that its values take.
        node: the name of the layer in the artifact, which may be longer than `name`.
    """

    name: str
    op: str
    output: tuple[int, ...]
    reads: tuple[str, ...]
    sqnr_db: float
    own_sqnr_db: float
    alone_sqnr_db: float
    share: float
    cosine: float
    clipped: float
    coded: float
    weighted: float
    range_ratio: float
    channels: int
    dead: int
    lost: int
    saturated: int
    codes_used: float
    node: str = ""

    @property
    def cause(self) -> Cause | None:
        """The main cause of its own error; None if it has none."""
        parts: dict[Cause, float] = {
            "clipped": self.clipped,
            "codes": self.coded,
            "weights": self.weighted,
        }
        most = max(parts, key=lambda cause: parts[cause])
        return most if parts[most] > 0 else None


@dataclass(frozen=True)
class Remedy(Record):
    """A remedy: `name` is a recipe or an option of export, `layers` are the affected layers."""

    name: str
    why: str
    command: str
    layers: tuple[str, ...] = ()


@dataclass
class Scaling:
    """Finds the factors that equalization has given to the channels of one tensor.

    The least squares factor from exact to delivered values; equalization only makes channels wider,
    so a smaller output is an error and not a factor.
    """

    both: Doubles | float = 0.0
    exact: Doubles | float = 0.0

    def add(self, exact: Reals, delivered: Reals) -> None:
        """One image's values, [..., C], both in real numbers."""
        rows, others = _rows(exact), _rows(delivered)
        self.both = self.both + np.einsum("nc,nc->c", rows, others)
        self.exact = self.exact + np.einsum("nc,nc->c", rows, rows)

    def factor(self) -> Doubles:
        """One factor for each channel, 1 where it was not scaled: [C]."""
        both, exact = np.asarray(self.both), np.asarray(self.exact)
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = both / exact
        return np.where(np.isfinite(factors) & (factors > _FOUND_AGAIN), factors, 1.0)


@dataclass
class Tally:
    """Adds up what one layer does, image after image.

    Values beyond `ends` are as good as the ends: no reader of the layer tells them apart.
    """

    grid: CodeGrid
    factor: Doubles
    ends: tuple[float, float] = (-np.inf, np.inf)
    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    square: float = 0.0
    own_signal: float = 0.0
    own_noise: float = 0.0
    clipped_noise: float = 0.0
    coded_noise: float = 0.0
    values: int = 0
    low: Doubles | None = None
    high: Doubles | None = None
    low_code: Doubles | None = None
    high_code: Doubles | None = None
    beyond: Doubles | float = 0.0
    code_set: set[int] = field(default_factory=set)

    def add(self, exact: Reals, delivered: Codes, own: Codes, reference: Reals) -> Doubles:
        """One image.

        Args:
            exact: what the float network's layer answers, [..., C].
            delivered: the codes that the integer network's layer answers.
            own: the codes that it answers where its inputs are the exact ones.
            reference: what the float layer answers to these inputs, rounded as they are.

        Returns:
            The layer's own error, as long as `exact`, in the float network's units.
        """
        both = self.grid.real(delivered) / self.factor, self.grid.real(own) / self.factor
        x, r, q, o = (_rows(np.clip(one, *self.ends)) for one in (exact, reference, *both))
        own_error = o - r
        own_error[np.abs(own_error) < _FLOAT_ERROR * self.grid.scale / self.factor] = 0
        rounding_error = self.grid.real(self.grid.codes(r * self.factor)) / self.factor - r
        beyond = self.grid.beyond(r * self.factor)
        self.signal += float((x**2).sum())
        self.noise += float(((q - x) ** 2).sum())
        self.dot += float((q * x).sum())
        self.square += float((q**2).sum())
        self.own_signal += float((r**2).sum())
        self.own_noise += float((own_error**2).sum())
        self.clipped_noise += float((rounding_error[beyond] ** 2).sum())
        self.coded_noise += float((rounding_error[~beyond] ** 2).sum())
        self.values += len(x)
        self.beyond = self.beyond + beyond.sum(axis=0)
        self.low, self.high = _widen(self.low, self.high, x)
        self.low_code, self.high_code = _widen(self.low_code, self.high_code, _rows(own))
        self.code_set.update(np.unique(delivered).tolist())
        return own_error.reshape(exact.shape)

    @property
    def own_sqnr_db(self) -> float:
        """See `LayerError`."""
        return decibels(self.own_signal, self.own_noise)

    def error(
        self,
        name: str,
        op: str,
        output: tuple[int, ...],
        reads: tuple[str, ...],
        *,
        alone: float,
        power: float,
        share: float,
        node: str = "",
    ) -> LayerError:
        """The layer's row; `alone` is its noise in the logits, whose own power is `power`."""
        assert self.low is not None and self.high is not None
        assert self.low_code is not None and self.high_code is not None
        dead = self.high == self.low
        extent = (np.maximum(self.high, 0) - np.minimum(self.low, 0)) * self.factor
        alive = extent[~dead & (extent > 0)]
        parts = np.array([self.clipped_noise, self.coded_noise, 0.0])
        parts[2] = max(self.own_noise - parts.sum(), 0.0)
        parts *= self.own_noise > 0
        clipped, coded, weighted = parts / max(parts.sum(), np.finfo(float).tiny)
        length = np.sqrt(self.signal * self.square)
        return LayerError(
            name=name,
            op=op,
            output=output,
            reads=reads,
            sqnr_db=decibels(self.signal, self.noise),
            own_sqnr_db=self.own_sqnr_db,
            alone_sqnr_db=decibels(power, alone),
            share=share,
            cosine=float(self.dot / length) if length else float(self.signal == self.square),
            clipped=float(clipped),
            coded=float(coded),
            weighted=float(weighted),
            range_ratio=float(alive.max() / alive.min()) if len(alive) else 1.0,
            channels=len(dead),
            dead=int(dead.sum()),
            lost=int((~dead & (self.low_code == self.high_code)).sum()),
            saturated=int((np.asarray(self.beyond) > SATURATED * self.values).sum()),
            codes_used=len(self.code_set) / (self.grid.highest - self.grid.lowest + 1),
            node=node,
        )


def decibels(power: float, noise: float) -> float:
    """10 log10(power / noise), within +-200; nothing wrong is 200, and no signal but noise -200."""
    if noise <= 0:
        return LARGEST_SQNR_DB
    if power <= 0:
        return -LARGEST_SQNR_DB
    ratio = 10 * float(np.log10(power) - np.log10(noise))
    return min(max(ratio, -LARGEST_SQNR_DB), LARGEST_SQNR_DB)


def most(layers: Sequence[LayerError]) -> tuple[LayerError, ...]:
    """The fewest layers that make most of the logits' error, largest first; () without any error.

    Whether the error enters in a few layers (`FEW`) or is spread is asked of these alone.
    """
    total = 0.0
    layers_ = []
    for layer in _by_share(layers):
        layers_.append(layer)
        total += layer.share
        if total >= _MOST:
            break
    return tuple(layers_)


def _by_share(layers: Sequence[LayerError]) -> list[LayerError]:
    return sorted((layer for layer in layers if layer.share > 0), key=lambda layer: -layer.share)


def has_unlike_channels(values: Reals) -> bool:
    """Whether the channels of an output [N, ...] are of units that one scale cannot hold.

    Channels are the last axis, or of two axes the shorter one: detectors give [N, 8400, 85] or [N,
    85, 8400].
    """
    if values.ndim < 2 or not values.size:
        return False
    axis = values.ndim - 1
    if values.ndim == 3 and values.shape[1] < values.shape[2]:
        axis = 1
    others = tuple(side for side in range(values.ndim) if side != axis)
    return unlike(values.min(axis=others), values.max(axis=others))


def unlike(low: Reals, high: Reals) -> bool:
    """Whether 8-bit codes of all channels leave one of them fewer than 16.

    `low` and `high` are the smallest and largest value of each channel. A constant one needs none.
    """
    # The codes cover zero in any case.
    extent = max(float(high.max()), 0.0) - min(float(low.min()), 0.0)
    if not extent:
        return False
    shares = (high - low) / extent
    return bool(np.any((shares > _CONSTANT) & (shares * 256 < _FEW_CODES)))


def remedies(
    layers: Sequence[LayerError],
    *,
    sqnr_db: float,
    agreement: float,
    recipe: str,
    per_tensor: bool,
    improved: bool,
    known: Collection[str],
    unlike_output: str = "",
) -> tuple[Remedy, ...]:
    """The remedies for an integer model, most promising first; () if none is needed.

    Args:
        layers: in the order in which they run.
        sqnr_db: of the logits.
        agreement: share of the images on which the best class is that of the float model.
        recipe: what it was made by.
        per_tensor: whether its weights have one scale a tensor.
        improved: whether passes (equalization, rounding by answers, ranges) have worked on it.
        known: recipes that there are; no other is named.
        unlike_output: the layer of an integer output whose channels are of several units.
    """
    results = []
    if unlike_output:
        better = recipe != "int8_best" and "int8_best" in known
        results.append(
            Remedy(
                "float-output",
                f"the values of {unlike_output} are of several units, and one int8 scale leaves "
                "some of them fewer than 16 of its 256 codes",
                "export with --recipe int8_best"
                if better
                else f"export with --keep-float {unlike_output}",
                (unlike_output,),
            )
        )
    if sqnr_db >= GOOD_DB and agreement == 1:
        return tuple(results)
    layers_, largest = _by_share(layers), most(layers)
    parts = {
        "clipped": sum(x.share * x.clipped for x in layers_),
        "codes": sum(x.share * x.coded for x in layers_),
        "weights": sum(x.share * x.weighted for x in layers_),
    }
    if parts["clipped"] >= _MUCH:
        clipped_layers = [x for x in layers_ if x.cause == "clipped"] or layers_[:1]
        results.append(
            Remedy(
                "calibration",
                f"{parts['clipped']:.0%} of the error is values beyond the ranges that the "
                "calibration images showed",
                "export with --data of more, and more typical, images",
                _names(clipped_layers),
            )
        )
    if per_tensor and parts["weights"] >= _MUCH:
        clipped_layers = [x for x in layers_ if x.cause == "weights"]
        results.append(
            Remedy(
                "per-channel",
                f"one scale for all weights of a layer makes {parts['weights']:.0%} of the error",
                "export with a recipe of per-channel weights: --recipe int8_ptq or int8_best",
                _names(clipped_layers),
            )
        )
    uneven = _uneven(layers_)
    if not improved and recipe != "int8_best" and "int8_best" in known:
        reasons = []
        even = [x for x in layers_ if x.name not in uneven]
        if sum(x.share for x in layers_ if x.name in uneven) >= _MUCH:
            source = next(iter(uneven.values()))
            reasons.append(
                f"channels of {source.name} differ {source.range_ratio:.0f}-fold in range and "
                "share one scale: equalization"
            )
        if sum(x.share * x.weighted for x in even) >= _MUCH:
            reasons.append(
                f"integer weights make {parts['weights']:.0%} of the error: rounding by answers"
            )
        if sum(x.share * (x.clipped + x.coded) for x in even) >= _MUCH:
            reasons.append("other ranges of activations")
        if reasons:
            why = "; ".join(reasons)
            results.append(
                Remedy("int8_best", why, "export with --recipe int8_best", _names(layers_))
            )
    few = largest if len(largest) <= FEW else ()
    if few:
        share = sum(x.share for x in few)
        options = " ".join(f"--keep-float {name}" for name in _names(few))
        results.append(
            Remedy(
                "keep-float",
                f"{share:.0%} of the error enters in {len(few)} of {len(layers)} layers",
                f"export with {options}",
                _names(few),
            )
        )
    if improved and not few and recipe != "int8_qat" and "int8_qat" in known:
        results.append(
            Remedy(
                "int8_qat",
                f"the error is spread over {len(largest)} of {len(layers)} layers: they have to "
                "learn together",
                "export with --recipe int8_qat, which trains on --data",
                _names(layers_),
            )
        )
    if parts["codes"] + parts["clipped"] >= 0.5 and "int16x8_ptq" in known:
        wide = [x for x in layers_ if x.cause in ("codes", "clipped")]
        results.append(
            Remedy(
                "int16x8_ptq",
                f"{parts['codes'] + parts['clipped']:.0%} of the error is activations in 8 bits",
                "export with --recipe int16x8_ptq: slower, where a runtime has it",
                _names(wide),
            )
        )
    return tuple(results)


def _uneven(layers_: Sequence[LayerError]) -> dict[str, LayerError]:
    """Layers whose error is that of channels of different ranges -> the layer that makes them.

    It is in the codes of that layer itself, whose narrow channels have few; or in the weights of
    one that reads it, which share a scale and are large where the channels are narrow.
    """
    by_name = {layer.name: layer for layer in layers_}
    sources_ = {}
    for layer in layers_:
        sources = [layer] if layer.cause == "codes" else []
        if layer.cause == "weights":
            sources = [by_name[name] for name in layer.reads if name in by_name]
        source = max(sources, key=lambda one: one.range_ratio, default=None)
        if source and source.range_ratio >= _UNEVEN and layer.share >= _WORTH_NAMING:
            sources_[layer.name] = source
    return sources_


def _names(layers: Sequence[LayerError]) -> tuple[str, ...]:
    """The few that matter, the first in any case."""
    return tuple(
        layer.name
        for place, layer in enumerate(layers[:FEW])
        if place == 0 or layer.share >= _WORTH_NAMING
    )


def _rows(values: Any) -> Doubles:
    array = np.asarray(values, np.float64)
    return array.reshape(-1, array.shape[-1] if array.ndim else 1)


def _widen(low: Doubles | None, high: Doubles | None, rows: Doubles) -> tuple[Doubles, Doubles]:
    below, above = rows.min(axis=0), rows.max(axis=0)
    if low is None or high is None:
        return below, above
    return np.minimum(low, below), np.maximum(high, above)
