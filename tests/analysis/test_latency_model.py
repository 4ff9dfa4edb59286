from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.analysis import latency_model as model
from mobiledeploy.analysis.latency_model import (
    HeldOut,
    LatencyModel,
    PointSeries,
    PredictedLatency,
    Sample,
    Spreads,
)
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.plugins import FORMATS, RECIPES
from mobiledeploy.core.types import Layer, Tensor

TRUTH = {"dense": 0.02, "activations": 0.8, "kernels": 0.5}


def workload(family: str, dense: int, depthwise: int, act: int, kernels: int, fc: int) -> Workload:
    return Workload(family, dense + depthwise, dense, depthwise, act, kernels, fc)


def grid(truth=TRUTH, families=("a",), speed=1.0, noise=0.0, seed=0) -> list[Sample]:
    dice = np.random.Generator(np.random.PCG64(seed))
    result = []
    for family in families:
        for index in range(9 if len(families) == 1 else 3):
            amounts = dice.uniform(0.3, 3, 5) * (2e8, 1e7, 5e6, 2e6, 1e6)
            work = workload(family, *map(int, amounts))
            latency = speed * sum(ns * getattr(work, name) for name, ns in truth.items())
            latency *= math.exp(noise * dice.standard_normal())
            result.append(Sample(f"{family}{index}", work, latency))
    return result


def tensor(name: str, *shape: int, constant: bool = False) -> Tensor:
    return Tensor(name, shape, "float32", constant=constant)


# The workload of a network.


def test_the_work_of_layers_is_counted_by_hand() -> None:
    image, hidden = tensor("image", 1, 6, 6, 3), tensor("hidden", 1, 3, 3, 8)
    deep, flat = tensor("deep", 1, 3, 3, 8), tensor("flat", 1, 8)
    scores = tensor("scores", 1, 10)
    layers = [
        Layer("c", "CONV_2D", (image, tensor("k", 8, 3, 3, 3, constant=True)), (hidden,)),
        Layer("d", "DEPTHWISE_CONV_2D", (hidden, tensor("l", 1, 3, 3, 8, constant=True)), (deep,)),
        Layer("r", "RELU6", (deep,), (tensor("relu", 1, 3, 3, 8),)),
        Layer("m", "MEAN", (tensor("relu", 1, 3, 3, 8),), (flat,)),
        Layer("f", "FULLY_CONNECTED", (flat, tensor("w", 10, 8, constant=True)), (scores,)),
        Layer("s", "SOFTMAX", (scores,), (tensor("out", 1, 10),)),
    ]
    result = model.workload(layers, family="mine")
    plain = 3 * 3 * 8 * 27
    assert result == Workload(
        family="mine",
        mult_adds=plain + 9 * 8 * 9 + 80,
        # 9 pixels take two tiles of 8; what is fully connected takes none.
        dense=plain * 16 // 9 + 80,
        depthwise=9 * 8 * 9,
        # ReLU6 and softmax are fused.
        activations=(108 + 72) + (72 + 72) + (72 + 8) + (8 + 10),
        kernels=8 * 27 + 72,
        classifier=80,
        operators=4,
    )


@pytest.mark.slow
def test_a_network_is_the_same_work_in_every_format(converted) -> None:
    works = {
        key: model.workload(FORMATS.load(key[1]).inspect(data).layers, family="v1")
        for key, data in converted.items()
    }
    # int8 ONNX has a wider window in its first layer, and does the rest alike.
    wide = {
        works.pop(key)
        for key in list(works)
        if key[1] == "onnx" and RECIPES.load(key[0]).RECIPE.full_integer
    }
    assert len(works) > 4
    assert len(set(works.values())) == len(wide) == 1, works
    (one,), (other,) = set(works.values()), wide
    assert one.depthwise == other.depthwise
    assert one.mult_adds < other.mult_adds < 1.05 * one.mult_adds


# The model.


def series(card: str, samples: list[Sample], *traits: float) -> PointSeries:
    return PointSeries(card, traits or (0.0,), tuple(samples))


def error(fitted: LatencyModel, index: int, sample: Sample) -> float:
    return fitted.predict(index, sample.workload).latency_ns / sample.latency_ns - 1


def test_a_grid_predicts_what_lies_between_its_points() -> None:
    own = grid(families=("a", "b", "c", "d"))
    fitted = LatencyModel([series("x", own)], Spreads())
    assert max(abs(error(fitted, 0, sample)) for sample in own) < 0.03
    held_back = fitted.held_out()[0]
    assert [one.sample for one in held_back] == own
    assert model.rmspe(held_back) < 0.12 < model.rmspe(model.by_mult_adds(own))
    # What one unit costs has the right size.
    assert fitted.terms(0)["activations"] == pytest.approx(TRUTH["activations"], rel=1)
    assert fitted.terms(0)["dense"] == pytest.approx(TRUTH["dense"], rel=1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.floats(1e3, 1e10)), min_size=1, max_size=12),
    st.integers(0, 2**20),
)
def test_every_prediction_is_a_time_and_no_cost_is_negative(points, seed) -> None:
    dice = np.random.Generator(np.random.PCG64(seed))
    own = [
        Sample(str(i), workload("a", dense, 0, *map(int, dice.integers(0, 10**7, 3))), latency)
        for i, (dense, latency) in enumerate(points)
    ]
    fitted = LatencyModel([series("x", own)], Spreads())
    assert all(ns > 0 and math.isfinite(ns) for ns in fitted.terms(0).values())
    prediction = fitted.predict(0, own[0].workload)
    assert 0 < prediction.latency_ns < math.inf
    assert prediction.spread > 0


@given(st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_a_slower_device_is_slower_by_its_factor(speed) -> None:
    other = series("y", grid(seed=5))
    work = grid(seed=6)[0].workload
    one, slower = (
        LatencyModel([series("x", grid(noise=0.1, speed=factor)), other], Spreads()).predict(
            0, work
        )
        for factor in (1.0, speed)
    )
    assert slower.latency_ns == pytest.approx(speed * one.latency_ns, rel=0.02)
    assert slower.spread == pytest.approx(one.spread, rel=0.02)


def test_one_point_has_the_form_of_the_other_cards_and_a_speed_of_its_own() -> None:
    strange = {"dense": 0.001, "activations": 3.0, "kernels": 0.1}
    like = [series(f"card {seed}", grid(strange, seed=seed, speed=seed)) for seed in (1, 2, 3)]
    unseen = grid(strange, seed=4, speed=0.25)
    fitted = LatencyModel([*like, series("own", unseen[:1])], Spreads())
    alone = LatencyModel([series("own", unseen[:1])], Spreads())
    rest = unseen[1:]
    worst, worst_alone = (
        max(abs(error(one, index, sample)) for sample in rest)
        for one, index in ((fitted, 3), (alone, 0))
    )
    assert worst < 0.25
    assert worst < worst_alone / 2
    for sample in rest:
        by_both = fitted.predict(3, sample.workload).spread
        assert by_both < alone.predict(0, sample.workload).spread


def test_a_series_without_points_has_no_speed() -> None:
    fitted = LatencyModel([series("x", grid()), series("y", [])], Spreads())
    assert fitted.predict(1, grid()[0].workload).spread > 2


def test_series_of_the_same_traits_are_more_alike() -> None:
    truths = {0.0: TRUTH, 1.0: {"dense": 0.1, "activations": 0.1, "kernels": 0.1}}
    others = [
        series(f"card {seed} {trait}", grid(truth, seed=seed), trait)
        for trait, truth in truths.items()
        for seed in (1, 2, 3)
    ]
    spreads = dataclasses.replace(Spreads(), costs_by_trait=1.0)
    for trait, truth in truths.items():
        unseen = grid(truth, seed=4)
        errors = []
        for claimed in truths:
            own = series("own", unseen[:1], claimed)
            fitted = LatencyModel([*others, own], spreads)
            errors.append([abs(error(fitted, 6, sample)) for sample in unseen[1:]])
        true, false = errors if trait == 0.0 else errors[::-1]
        assert np.mean(true) < np.mean(false)


def test_the_interval_widens_beyond_the_points() -> None:
    own = [
        Sample(str(n), workload("a", n * 10**7, n * 10**5, n * 10**5, n * 10**5, 1), n * 1e6)
        for n in (8, 10, 12, 15)
    ]
    fitted = LatencyModel([series("x", own)], Spreads())

    def spread(times: float) -> float:
        work = workload("a", *(int(times * amount) for amount in (15e7, 15e5, 15e5, 15e5)), 1)
        return fitted.predict(0, work).spread

    assert spread(1.0) < spread(1.25) < spread(4) < spread(20)
    # At most the speed and the prior's own error.
    other = workload("b", 10, 10, 10**9, 10, 1)
    assert spread(1.25) < fitted.predict(0, other).spread < 2


def test_a_count_of_the_network_itself_narrows_the_interval() -> None:
    truths = [grid(families=("a", "b"), seed=1, speed=speed) for speed in (1.0, 50.0)]
    (own, counted), new = truths, grid(families=("z",), seed=9)[0]
    with_count = [*counted, dataclasses.replace(new, latency_ns=50 * new.latency_ns)]
    before, after = (
        LatencyModel([series("phone", own[:1]), series("core", samples)], Spreads())
        for samples in (counted, with_count)
    )
    assert after.predict(0, new.workload).spread < before.predict(0, new.workload).spread
    assert abs(error(after, 0, new)) < 0.1


def test_spreads_follow_the_points() -> None:
    def points(noise: float) -> list[PointSeries]:
        return [series(f"c{n}", grid(noise=noise, seed=n, speed=n)) for n in (1, 2, 3)]

    quiet, loud = model.fit_spreads(points(0.0)), model.fit_spreads(points(0.3))
    assert quiet.noise < Spreads().noise < loud.noise
    fitted = LatencyModel(points(0.3), Spreads())
    assert fitted.log_likelihood(loud) > fitted.log_likelihood(quiet)
    # One point says nothing of spreads.
    assert model.fit_spreads([series("x", grid()[:1])]).noise == pytest.approx(0.04, rel=0.1)


# How it is evaluated.


def test_what_is_left_out_is_not_used() -> None:
    own, other = grid(noise=0.1), grid(noise=0.1, seed=1)
    sibling = grid(noise=0.1, seed=2)
    every = [series("x", own), series("x", sibling), series("y", other)]
    held_back = LatencyModel(every, Spreads()).held_out()
    assert [len(one) for one in held_back] == [9, 9, 9]
    # As if it had been fitted to the rest: the formula agrees, but for the usual costs.
    rest = [series("x", own[1:]), series("y", other)]
    prediction = LatencyModel(rest, Spreads()).predict(0, own[0].workload)
    assert held_back[0][0].expected_ns == pytest.approx(prediction.latency_ns, rel=0.02)
    assert held_back[0][0].spread == pytest.approx(prediction.spread, rel=0.1)
    # A point alone in its series has no speed to be judged by.
    single = LatencyModel([series("x", own[:1]), series("y", other)], Spreads()).held_out()
    assert [len(one) for one in single] == [0, 9]


def test_errors_and_intervals_by_hand() -> None:
    sample = grid()[0]
    held_back = [HeldOut(sample, sample.latency_ns * factor, 0.05) for factor in (1.1, 0.9)]
    assert model.rmspe(held_back) == pytest.approx(0.1)
    assert [one.score for one in held_back] == pytest.approx(
        [math.log(1.1) / 0.05, math.log(0.9) / 0.05]
    )
    # Few points: the worst of them; none: the normal distribution.
    assert model.reach(held_back) == pytest.approx(-math.log(0.9) / 0.05)
    assert model.reach([]) == pytest.approx(1.96, abs=1e-3)
    many = [HeldOut(sample, sample.latency_ns * math.exp(n / 100), 0.1) for n in range(1, 101)]
    assert model.reach(many) == pytest.approx(9.6)
    low, high = model.interval_ns(PredictedLatency(10.0, 0.1), 2.0)
    assert (low, high) == pytest.approx((10 * math.exp(-0.2), 10 * math.exp(0.2)))
    assert model.half_width(10.0, (8.0, 13.0)) == pytest.approx(0.25)
    in_proportion = [
        Sample("1", workload("a", 10, 0, 1, 1, 1), 20.0),
        Sample("2", workload("a", 20, 0, 1, 1, 1), 60.0),
    ]
    assert [one.expected_ns for one in model.by_mult_adds(in_proportion)] == pytest.approx(
        [30.0, 40.0]
    )


def test_the_interval_holds_what_it_promises() -> None:
    inside = total = 0
    for seed in range(40):
        *own, last = grid(noise=0.1, seed=seed)
        points = [series("x", own), series("y", grid(noise=0.1, seed=seed + 100))]
        fitted = LatencyModel(points, model.fit_spreads(points[1:]))
        reach = model.reach([one for results in fitted.held_out() for one in results])
        low, high = model.interval_ns(fitted.predict(0, last.workload), reach)
        inside += low <= last.latency_ns <= high
        total += 1
    assert 0.85 <= inside / total <= 1.0
