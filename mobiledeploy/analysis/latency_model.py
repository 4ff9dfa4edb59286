"""Latency of a network on a device, from its workload and the latencies of other networks.

A sum of physical terms: multiplications, traffic of activations, weights. The cost of each in
nanoseconds is fitted to latencies of other networks on the same device and cannot be negative.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mobiledeploy.analysis import cost as costs
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.types import Layer

TERMS = ("dense", "activations", "kernels")
"""Multiplications, memory traffic of activations, and of kernels, which are packed for each run."""

WIDE = (*TERMS, "depthwise", "classifier")
"""Further terms if families of networks differ enough: depthwise multiplications, and the weights
of fully connected layers, which are read once."""

WIDE_FAMILIES = 3
FEWEST_POINTS = 8
"""With fewer points of its own, a device's terms cannot be separated."""

FEWEST_NETWORKS = 6
"""The smallest number of different networks, including those of similar devices."""

ROUNDS = 10
# Of terms that are all zero.
TINY = 1e-12

TILE = 8
"""Pixels that one step of a matrix multiplication takes at least: a layer of 3x3 pixels costs as
much as one of 4x4. Kernels for NEON take 4 to 12."""


def workload(layers: Sequence[Layer], *, family: str) -> Workload:
    """The workload of one inference of these layers (TensorFlow, TFLite or ONNX, in order).

    Element-wise operators of one input, changes of shape among them, are left out: runtimes fuse
    them into their neighbours, and converters differ in which of them they leave in the file.
    """
    mult_adds = dense = depthwise = activations = kernels = classifier = 0
    for layer, row in zip(costs.unquantized(layers), costs.cost(layers).layers, strict=True):
        if not row.mult_adds and _is_fused(layer):
            continue
        mult_adds += row.mult_adds
        activations += row.activations
        if row.kind == costs.FULLY_CONNECTED:
            dense += row.mult_adds
            classifier += row.kernel
        elif row.mult_adds:
            kernels += row.kernel
            if row.kind.startswith("Conv DW"):
                depthwise += row.mult_adds
            else:
                tiles = -(-row.pixels // TILE)
                dense += row.mult_adds * tiles * TILE // row.pixels
    return Workload(family, mult_adds, dense, depthwise, activations, kernels, classifier)


def _is_fused(layer: Layer) -> bool:
    moving = [t for t in layer.inputs if not t.constant]
    sizes = {costs.elements(t.shape) for t in (*moving, *layer.outputs[:1])}
    return len(moving) < 2 and len(sizes) < 2


# The model.


@dataclass(frozen=True)
class Sample:
    """A network and its latency in nanoseconds."""

    network: str
    workload: Workload
    latency_ns: float


@dataclass(frozen=True)
class LatencyModel:
    """Nanoseconds for one unit of each term, and the amounts of each between which it holds.

    `families` are those of the networks that it was fitted to.
    """

    terms: Mapping[str, float]
    limits: Mapping[str, tuple[float, float]]
    families: frozenset[str]

    def latency_ns(self, workload: Workload) -> float:
        """The latency that the model predicts, inside or outside its limits."""
        return float(sum(ns * getattr(workload, name) for name, ns in self.terms.items()))

    def beyond(self, workload: Workload) -> tuple[str, ...]:
        """The amounts of `workload` that lie outside the limits, by name."""
        return tuple(
            name
            for name, (low, high) in self.limits.items()
            if not low <= getattr(workload, name) <= high
        )


@dataclass(frozen=True)
class HeldOut:
    """A sample, and its prediction by a model that was fitted without it.

    `in_range` is False if that model would have refused to answer.
    """

    sample: Sample
    expected_ns: float
    in_range: bool

    @property
    def error(self) -> float:
        """Relative to the latency that it had; -0.1 is 10 % too fast."""
        return self.expected_ns / self.sample.latency_ns - 1


class Fitter(Protocol):
    """A function that fits a model to a device's own samples and those of similar devices."""

    def __call__(
        self, own: Sequence[Sample], like: Sequence[Sequence[Sample]] = ()
    ) -> LatencyModel:
        """The model."""
        ...


def rule(own: Sequence[Sample], like: Sequence[Sequence[Sample]] = ()) -> LatencyModel:
    """Latency in proportion to mult-adds: the baseline for `fit`."""
    return _solve([own, *like], ("mult_adds",))


def fit(own: Sequence[Sample], like: Sequence[Sequence[Sample]] = ()) -> LatencyModel:
    """The model of one device that fits its samples best.

    Latency is a sum of terms, each an amount of the workload times a number of nanoseconds that is
    not negative; squares of relative errors are least (scipy's NNLS). With `like`, the samples of
    like devices, all share the proportions between the terms, and each has a speed of its own.
    """
    groups = [own, *like]
    samples = list(itertools.chain(*groups))
    families = {sample.workload.family for sample in samples}
    # Networks of one family grow in all terms together: only others tell the rest of them apart.
    names = WIDE if len(families) >= WIDE_FAMILIES else TERMS
    return _solve(groups, names)


def leave_one_out(
    own: Sequence[Sample], like: Sequence[Sequence[Sample]] = (), *, by: Fitter = fit
) -> tuple[HeldOut, ...]:
    """Predicts each of `own` from the others of `own` and all of `like`; two or more are needed."""
    return tuple(
        _held_out(sample, by([*own[:index], *own[index + 1 :]], like))
        for index, sample in enumerate(own)
    )


def leave_one_family_out(
    own: Sequence[Sample], like: Sequence[Sequence[Sample]] = (), *, by: Fitter = fit
) -> tuple[HeldOut, ...]:
    """Predicts each of `own` from networks of other families only, also in `like`."""
    results = []
    for family in dict.fromkeys(sample.workload.family for sample in own):
        rest, *others = (_without(group, family) for group in (own, *like))
        model = by(rest, [group for group in others if group])
        results += [_held_out(s, model) for s in own if s.workload.family == family]
    return tuple(results)


def leave_device_out(like: Sequence[Sequence[Sample]], points: int) -> tuple[HeldOut, ...]:
    """The error of knowing only so many points of a device, measured with devices that have more.

    Each device of `like` in turn keeps `points` of its samples, and the rest of them is predicted
    from these and from the other devices.
    """
    results = []
    for index, own in enumerate(like):
        others = [*like[:index], *like[index + 1 :]]
        for start in range(len(own) if others and len(own) > points else 0):
            sample_subset = [own[(start + step) % len(own)] for step in range(points)]
            model = fit(sample_subset, others)
            results += [_held_out(sample, model) for sample in own if sample not in sample_subset]
    return tuple(results)


def rmspe(results: Sequence[HeldOut]) -> float:
    """Root of the mean squared relative error, a fraction."""
    return math.sqrt(sum(one.error**2 for one in results) / len(results))


def spread(results: Sequence[HeldOut]) -> float:
    """The spread of errors: root of the mean square of ln(expected / true).

    A prediction near zero counts as a thousand times too small.
    """
    logs = (math.log(max(1e-3, one.expected_ns / one.sample.latency_ns)) for one in results)
    return math.sqrt(sum(log**2 for log in logs) / len(results))


def interval_ns(
    latency_ns: float, spread: float, count: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of a latency whose estimates scatter by `spread`, known from `count` errors.

    Student's t on logarithms of ratios, with `count` - 1 degrees of freedom, of which one is the
    least.
    """
    from scipy.special import stdtrit

    reach = float(stdtrit(max(1, count - 1), (1 + confidence) / 2)) * spread
    return latency_ns * math.exp(-reach), latency_ns * math.exp(reach)


def _without(group: Sequence[Sample], family: str) -> list[Sample]:
    return [sample for sample in group if sample.workload.family != family]


def _held_out(sample: Sample, model: LatencyModel) -> HeldOut:
    in_range = not model.beyond(sample.workload)
    return HeldOut(sample, model.latency_ns(sample.workload), in_range)


def _solve(groups: Sequence[Sequence[Sample]], names: Sequence[str]) -> LatencyModel:
    """Terms of the first group; alternates between the common terms and the groups' speeds."""
    # scipy.optimize takes longer to import than most commands that import this file.
    from scipy.optimize import nnls

    samples = list(itertools.chain(*groups))
    amounts = np.array([[getattr(s.workload, name) for name in names] for s in samples], np.float64)
    units = np.maximum(amounts.max(axis=0), 1.0)
    latencies = np.array([sample.latency_ns for sample in samples])
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    logs = np.array([np.log(latencies[owner == i]).mean() for i in range(len(groups))])
    for _ in range(ROUNDS if len(groups) > 1 else 1):
        scaled_amounts = amounts / units * (np.exp(logs)[owner] / latencies)[:, None]
        terms, _ = nnls(scaled_amounts, np.ones(len(samples)))
        log_speeds = np.log(latencies / np.maximum(amounts / units @ terms, TINY))
        if len(groups) > 1:
            logs = np.array([log_speeds[owner == i].mean() for i in range(len(groups))])
    own = terms / units * np.exp(logs[0])
    return LatencyModel(
        terms={name: float(ns) for name, ns in zip(names, own, strict=True)},
        limits={
            name: _limits([getattr(s.workload, name) for s in samples])
            for name in ("mult_adds", *names)
        },
        families=frozenset(sample.workload.family for sample in samples),
    )


def _limits(amounts: Sequence[int]) -> tuple[float, float]:
    """Limits beyond the ends, found by leaving an end out, at most a factor of two."""
    distinct = sorted(set(amounts))
    if len(distinct) < 2:
        return distinct[0] / 2, distinct[0] * 2
    below = distinct[0] / distinct[1] if distinct[0] else 1.0
    above = distinct[-1] / distinct[-2] if distinct[-2] else 1.0
    return distinct[0] * max(0.5, below), distinct[-1] * min(2.0, above)
