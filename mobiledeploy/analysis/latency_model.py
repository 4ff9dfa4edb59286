"""Latency of a network on a device, from its work and from latencies of other networks.

The latency of a network in a series of points is a product, so its logarithm is a sum:

    ln(latency) = ln(work at the usual costs) + speed of the series
                  + (shares of the terms) x (how the costs of the series differ)
                  + what is peculiar to the network + noise

The work is a sum of terms (`TERMS`), each an amount times a cost. Every part but the first is
normal, with a mean of zero. Its spread comes from the series of all cards with the same engine
(empirical Bayes), so a series of one point has the form and the spread of the others, and a series
of many points has its own. This is a Gaussian process, or ridge regression with several levels
(Rasmussen and Williams 2006, chapters 2 and 5; leaving out by formula: 5.4.2).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mobiledeploy.analysis import cost as costs
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.types import Layer

Floats: TypeAlias = npt.NDArray[np.float64]

USUAL_COSTS = {
    "dense": 1.0,
    "depthwise": 3.0,
    "activations": 8.0,
    "kernels": 3.0,
    "classifier": 2.0,
    "operators": 3e5,
}
"""The cost of one unit of each term beside a mult-add of a convolution: where the fit starts.

The points of an engine change them. The operators stand for what each of them costs before it
multiplies; on a GPU that is the constant, and far more than here.
"""

TERMS = tuple(USUAL_COSTS)

FEWEST_POINTS = 8
"""With fewer points of the same engine there is no model."""

FEWEST_NETWORKS = 6
"""The smallest number of different networks, including those of similar devices."""

WIDEST = 0.3
"""Half of an interval over its estimate: wider ones are no answer."""

TILE = 8
"""Pixels that one step of a matrix multiplication takes at least: a layer of 3x3 pixels costs as
much as one of 4x4. Kernels for NEON take 4 to 12."""


def workload(layers: Sequence[Layer], *, family: str) -> Workload:
    """The workload of one inference of these layers (TensorFlow, TFLite or ONNX, in order).

    Element-wise operators of one input, changes of shape among them, are left out: runtimes fuse
    them into their neighbours, and converters differ in which of them they leave in the file.
    """
    mult_adds = dense = depthwise = activations = kernels = classifier = operators = 0
    for layer, row in zip(costs.unquantized(layers), costs.cost(layers).layers, strict=True):
        if not row.mult_adds and _is_fused(layer):
            continue
        operators += 1
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
    return Workload(
        family, mult_adds, dense, depthwise, activations, kernels, classifier, operators
    )


def _is_fused(layer: Layer) -> bool:
    moving = [t for t in layer.inputs if not t.constant]
    sizes = {costs.elements(t.shape) for t in (*moving, *layer.outputs[:1])}
    return len(moving) < 2 and len(sizes) < 2


# The model.


@dataclass(frozen=True)
class Sample:
    """A network and its latency in nanoseconds, or its instructions on an emulated core."""

    network: str
    workload: Workload
    latency_ns: float


@dataclass(frozen=True)
class PointSeries:
    """Points of one engine on one device.

    `traits` are numbers near 1 that tell how the series differs from others of the engine (threads,
    kind of core, precision): series with the same traits are more alike.
    """

    card: str
    traits: tuple[float, ...]
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Spreads:
    """The standard deviations of the parts of a logarithm of a latency, fitted by `fit_spreads`.

    `costs` are those by which the costs of one series differ from the others, and
    `costs_by_trait` those by which they differ for each unit of a trait. `networks`,
    `networks_by_trait` and `networks_of_series` are the same for what is peculiar to a network: on
    all series, by trait, and on one series. `reach` says how unlike two networks may be to share
    what is peculiar to them, and `strangers` how much of it two networks of different families
    share, from 0 to 1. `sizes` is by how much the speed of a series may change where the work is e
    times larger. `noise` is of single points.
    """

    costs: float = 0.2
    costs_by_trait: float = 0.2
    networks: float = 0.135
    networks_by_trait: float = 0.08
    networks_of_series: float = 0.05
    sizes: float = 0.04
    noise: float = 0.04
    reach: float = 1.0
    strangers: float = 0.5


# One unit of log spread: what is known of a spread before any point is seen.
_VAGUE = 0.7
# The costs of an engine may be so far from `USUAL_COSTS`: a factor of 2.2 either way, and 7.4 for
# an operator, which is a call of a function on a CPU and a command to wait for on a GPU.
_COSTS_OF_ENGINE = np.array([2.0 if name == "operators" else 0.8 for name in TERMS])
# The speed of a series is not known beforehand: a factor of 20 either way.
_SPEEDS = 3.0
# Networks are alike within so large a change of the logarithm of their work, and of the shares.
_LIKE_WORK, _LIKE_SHARES = 1.5, 0.3
# The logarithm of the work of a MobileNet.
_USUAL_WORK = 19.5
_ROUNDS = 4


@dataclass(frozen=True)
class PredictedLatency:
    """The latency of a network, and the standard deviation of its logarithm."""

    latency_ns: float
    spread: float


@dataclass(frozen=True)
class HeldOut:
    """A sample, and its prediction by a model that was fitted without it.

    `spread` is the standard deviation of the logarithm of the prediction.
    """

    sample: Sample
    expected_ns: float
    spread: float = 0.0

    @property
    def error(self) -> float:
        """Relative to the latency that it had; -0.1 is 10 % too fast."""
        return self.expected_ns / self.sample.latency_ns - 1

    @property
    def score(self) -> float:
        """The error of the logarithm in standard deviations."""
        return math.log(self.expected_ns / self.sample.latency_ns) / self.spread


class LatencyModel:
    """The latencies of all series of one engine.

    Args:
        series: at least one point in all.
        spreads: those of `fit_spreads`, of these or of other series.
    """

    def __init__(self, series: Sequence[PointSeries], spreads: Spreads) -> None:
        self._series = tuple(series)
        self._spreads = spreads
        self._samples = [sample for one in series for sample in one.samples]
        self._owner = np.repeat(np.arange(len(series)), [len(one.samples) for one in series])
        self._logs = np.log([sample.latency_ns for sample in self._samples])
        # The logarithms of the costs of the engine beside the usual ones.
        self._costs = np.zeros(len(TERMS))
        for round_ in range(_ROUNDS):
            self._solve()
            if round_ < _ROUNDS - 1:
                # The shares depend on the costs: half-way steps, because they may swing.
                fitted = _COSTS_OF_ENGINE**2 * (self._points.shares.T @ self._weights)
                self._costs = (self._costs + np.clip(fitted, -2.5, 2.5)) / 2

    def predict(self, series: int, workload: Workload) -> PredictedLatency:
        """The latency of a network in one of the series."""
        one = self._networks([workload], np.array([series]))
        between = _covariance(_pairs(one, self._points), self._spreads)
        solved = self._inverse_factor @ between.T
        own = _covariance(_pairs(one, one), self._spreads)[0, 0] + self._spreads.noise**2
        variance = max(float(own - (solved**2).sum()), self._spreads.noise**2)
        log = self._mean + self._usual(one)[0] + float((between @ self._weights)[0])
        return PredictedLatency(math.exp(log), math.sqrt(variance))

    @functools.cached_property
    def _inverse_factor(self) -> Floats:
        """Of the covariances' factor, once for all predictions: a system for each takes longer."""
        return np.linalg.inv(np.linalg.cholesky(self._matrix(self._spreads)))

    def terms(self, series: int) -> dict[str, float]:
        """What one unit of each term costs in a series, in its unit of time."""
        traits = np.array([one.traits for one in self._series])
        mine = self._owner == series
        alike = (traits @ traits[series])[self._owner]
        s = self._spreads
        share = s.costs**2 * mine + s.costs_by_trait**2 * alike
        differing = _COSTS_OF_ENGINE**2 * (self._points.shares.T @ self._weights)
        differing += self._points.shares.T @ (share * self._weights)
        speed = self._mean + _SPEEDS**2 * float(self._weights[mine].sum())
        return {
            name: USUAL_COSTS[name] * math.exp(log + speed)
            for name, log in zip(TERMS, differing, strict=True)
        }

    def held_out(self) -> tuple[tuple[HeldOut, ...], ...]:
        """By series, each point predicted without itself and without other series of its card.

        The speed of a series of one point would not be known without it: such a series has none.
        The spreads stay: fit them without the points that are judged.
        """
        inverse = self._inverse_factor.T @ self._inverse_factor
        cards = np.array([self._series[owner].card for owner in self._owner])
        results: list[list[HeldOut]] = [[] for _ in self._series]
        for index, sample in enumerate(self._samples):
            owner = self._owner[index]
            if len(self._series[owner].samples) < 2:
                continue
            out = (cards == cards[index]) & (self._owner != owner)
            out[index] = True
            block = np.linalg.inv(inverse[np.ix_(out, out)])
            place = int(out[:index].sum())
            error = float((block @ self._weights[out])[place])
            spread = math.sqrt(float(block[place, place]))
            expected = sample.latency_ns * math.exp(-error)
            results[owner].append(HeldOut(sample, expected, spread))
        return tuple(map(tuple, results))

    def log_likelihood(self, spreads: Spreads) -> float:
        """The logarithm of the probability density of the points with these spreads."""
        try:
            factor = np.linalg.cholesky(self._matrix(spreads))
        except np.linalg.LinAlgError:
            return -1e9
        half = np.linalg.solve(factor, self._residuals)
        return -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())

    def _networks(self, workloads: Sequence[Workload], owner: npt.NDArray[np.intp]) -> _Points:
        amounts = np.array([[getattr(w, name) for name in TERMS] for w in workloads], np.float64)
        parts = amounts * np.array(list(USUAL_COSTS.values())) * np.exp(self._costs)
        work = parts.sum(axis=1)
        traits = np.array([one.traits for one in self._series])
        families = np.array([w.family for w in workloads])
        return _Points(owner, parts / work[:, None], np.log(work), traits[owner], families)

    def _usual(self, points: _Points) -> Floats:
        """The logarithm of the work at the usual costs, to first order."""
        return points.log_work - points.shares @ self._costs

    def _matrix(self, spreads: Spreads) -> Floats:
        """The covariances of the points, [points, points]."""
        noise = spreads.noise**2 * np.eye(len(self._samples))
        return _covariance(self._pairs, spreads) + noise

    def _solve(self) -> None:
        self._points = self._networks([s.workload for s in self._samples], self._owner)
        differences = self._logs - self._usual(self._points)
        self._mean = float(differences.mean())
        self._residuals = differences - self._mean
        self._pairs = _pairs(self._points, self._points)
        self._weights: Floats = np.linalg.solve(self._matrix(self._spreads), self._residuals)


def fit_spreads(series: Sequence[PointSeries]) -> Spreads:
    """The spreads that make the points of these series most likely.

    What is known beforehand (`Spreads`, a factor of two either way) decides where points do not.
    """
    # scipy.optimize takes longer to import than most commands that import this file.
    from scipy.optimize import minimize

    start = _unbounded(Spreads())
    found = start
    for _ in range(2):
        model = LatencyModel(series, _bounded(found))

        def surprise(logs: Floats, model: LatencyModel = model) -> float:
            beforehand = float((((logs - start) / _VAGUE) ** 2).sum()) / 2
            return beforehand - model.log_likelihood(_bounded(logs))

        found = minimize(
            surprise, found, method="L-BFGS-B", options={"maxiter": 25, "eps": 1e-3, "ftol": 1e-5}
        ).x
    return _bounded(found)


def _unbounded(spreads: Spreads) -> Floats:
    *logs, strangers = dataclasses.astuple(spreads)
    return np.array([*np.log(logs), math.log(strangers / (1 - strangers))])


def _bounded(values: Floats) -> Spreads:
    *logs, strangers = (float(value) for value in values)
    names = [field.name for field in dataclasses.fields(Spreads)][:-1]
    by_name = dict(zip(names, map(math.exp, logs), strict=True))
    return Spreads(**by_name, strangers=1 / (1 + math.exp(-strangers)))


@dataclass(frozen=True)
class _Points:
    """Networks in series: [n], [n, terms], [n], [n, traits] and [n]."""

    owner: npt.NDArray[np.intp]
    shares: Floats
    log_work: Floats
    traits: Floats
    families: npt.NDArray[np.str_]


@dataclass(frozen=True)
class _Pairs:
    """How alike points are, each [rows, columns]; it does not depend on spreads.

    `shares` are the products of the shares of the terms, and `engine` the covariances by the costs
    of the engine, which all series share.
    """

    same: Floats
    alike: Floats
    engine: Floats
    shares: Floats
    sizes: Floats
    apart: Floats
    family: npt.NDArray[np.bool_]


def _pairs(rows: _Points, columns: _Points) -> _Pairs:
    apart = ((rows.log_work[:, None] - columns.log_work[None]) / _LIKE_WORK) ** 2
    apart += (((rows.shares[:, None] - columns.shares[None]) / _LIKE_SHARES) ** 2).sum(axis=2)
    sizes = (rows.log_work - _USUAL_WORK)[:, None] * (columns.log_work - _USUAL_WORK)[None]
    return _Pairs(
        (rows.owner[:, None] == columns.owner[None]).astype(np.float64),
        rows.traits @ columns.traits.T,
        (rows.shares * _COSTS_OF_ENGINE**2) @ columns.shares.T,
        rows.shares @ columns.shares.T,
        sizes,
        apart,
        rows.families[:, None] == columns.families[None],
    )


def _covariance(pairs: _Pairs, s: Spreads) -> Floats:
    """The covariances of the logarithms of latencies, without the noise."""
    same, alike = pairs.same, pairs.alike
    by_costs = s.costs**2 * same + s.costs_by_trait**2 * alike
    by_network = s.networks**2 + s.networks_by_trait**2 * alike + s.networks_of_series**2 * same
    likeness = np.exp(pairs.apart / (-2 * s.reach**2))
    likeness *= s.strangers + (1 - s.strangers) * pairs.family
    total: Floats = same * (_SPEEDS**2 + s.sizes**2 * pairs.sizes)
    total += pairs.engine + pairs.shares * by_costs + likeness * by_network
    return total


# Errors and intervals.


def by_mult_adds(own: Sequence[Sample]) -> tuple[HeldOut, ...]:
    """Predicts each of `own` from the others in proportion to mult-adds: the baseline."""
    results = []
    for index, sample in enumerate(own):
        rest = [*own[:index], *own[index + 1 :]]
        logs = [math.log(one.latency_ns / one.workload.mult_adds) for one in rest]
        speed = math.exp(sum(logs) / len(logs))
        results.append(HeldOut(sample, speed * sample.workload.mult_adds))
    return tuple(results)


def half_width(latency_ns: float, interval_ns: tuple[float, float]) -> float:
    """Half of the interval of a latency, relative to the latency."""
    return (interval_ns[1] - interval_ns[0]) / 2 / latency_ns


def rmspe(results: Sequence[HeldOut]) -> float:
    """Root of the mean squared relative error, a fraction."""
    return math.sqrt(sum(one.error**2 for one in results) / len(results))


def reach(results: Sequence[HeldOut], confidence: float = 0.95) -> float:
    """The standard deviations within which held-out points lie with this probability.

    At least those of a normal distribution. Beyond, the scores of points that were left out decide:
    the rank of a prediction interval (conformal; Vovk et al. 2005), the largest if there are few.
    """
    scores = sorted(abs(one.score) for one in results)
    rank = math.ceil((len(scores) + 1) * confidence)
    seen = scores[min(rank, len(scores)) - 1] if scores else 0.0
    return max(NormalDist().inv_cdf((1 + confidence) / 2), seen)


def interval_ns(prediction: PredictedLatency, reach: float) -> tuple[float, float]:
    """The interval of a latency: so many standard deviations of its logarithm to each side."""
    width = math.exp(reach * prediction.spread)
    return prediction.latency_ns / width, prediction.latency_ns * width
