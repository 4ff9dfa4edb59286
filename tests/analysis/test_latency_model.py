from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.analysis import latency_model as model
from mobiledeploy.analysis.latency_model import HeldOut, Sample
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.plugins import FORMATS, RECIPES
from mobiledeploy.core.types import Layer, Tensor

TRUTH = {"dense": 0.02, "activations": 0.8, "kernels": 0.5}
WIDE_TRUTH = TRUTH | {"depthwise": 0.1, "classifier": 0.3}


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
    )


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


# The fit.


def test_planted_terms_are_found_again() -> None:
    fitted = model.fit(grid())
    assert fitted.terms == pytest.approx(TRUTH, rel=1e-6)
    families = ("a", "b", "c", "d")
    assert model.fit(grid(WIDE_TRUTH, families)).terms == pytest.approx(WIDE_TRUTH, rel=1e-6)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.floats(1e3, 1e10)), min_size=2, max_size=12),
    st.integers(0, 2**20),
)
def test_no_term_is_negative_and_more_work_never_takes_less(points, seed) -> None:
    dice = np.random.Generator(np.random.PCG64(seed))
    own = [
        Sample(str(i), workload("a", dense, 0, *map(int, dice.integers(0, 10**7, 3))), latency)
        for i, (dense, latency) in enumerate(points)
    ]
    fitted = model.fit(own)
    assert all(ns >= 0 and math.isfinite(ns) for ns in fitted.terms.values())
    work = own[0].workload
    more = dataclasses.replace(work, dense=work.dense * 2, activations=work.activations + 1)
    assert fitted.latency_ns(more) >= fitted.latency_ns(work) >= 0


@given(st.floats(1e-3, 1e3))
@settings(max_examples=20)
def test_a_slower_device_has_the_same_proportions(speed) -> None:
    terms = model.fit(grid(noise=0.1)).terms
    slower = model.fit(grid(noise=0.1, speed=speed)).terms
    assert slower == pytest.approx({k: speed * v for k, v in terms.items()}, rel=1e-6)


def test_the_shape_comes_from_similar_devices_and_the_speed_is_its_own() -> None:
    like = [grid(seed=1, speed=2.0), grid(seed=2, speed=5.0)]
    unseen = grid(seed=3, speed=0.25)
    fitted = model.fit(unseen[:1], like)
    for sample in unseen[1:]:
        assert fitted.latency_ns(sample.workload) == pytest.approx(sample.latency_ns, rel=1e-3)


def test_the_range_reaches_as_far_as_leaving_an_end_out_does() -> None:
    own = [
        Sample(str(n), workload("a", amount, 0, 100, 100, 1), 1e6)
        for n, amount in enumerate((100, 150, 1000, 5000))
    ]
    fitted = model.fit(own)
    low, high = fitted.limits["dense"]
    assert low == pytest.approx(100 * 100 / 150)
    assert high == 2 * 5000  # not five times: a factor of two is the most
    assert fitted.beyond(workload("a", 70, 0, 100, 100, 1)) == ()
    assert fitted.beyond(workload("a", 60, 0, 100, 100, 1)) == ("mult_adds", "dense")
    assert fitted.beyond(workload("a", 200, 0, 300, 100, 1)) == ("activations",)
    # An amount without a term is not a limit.
    assert fitted.beyond(workload("a", 200, 0, 100, 100, 10**9)) == ()


# How it is evaluated.


def test_a_point_left_out_is_not_used() -> None:
    own = grid(noise=0.05)
    spoiled = [*own[:4], dataclasses.replace(own[4], latency_ns=1e9), *own[5:]]
    true, odd = model.leave_one_out(own)[4], model.leave_one_out(spoiled)[4]
    assert true.expected_ns == odd.expected_ns
    assert odd.error == pytest.approx(true.expected_ns / 1e9 - 1)


def test_a_family_left_out_is_not_used_on_like_devices_either() -> None:
    families = ("a", "b", "c", "d")
    own, other = grid(WIDE_TRUTH, families, seed=1), grid(WIDE_TRUTH, families, seed=2)
    wrong = [
        dataclasses.replace(s, latency_ns=1e3 * s.latency_ns) if s.workload.family == "a" else s
        for s in other
    ]
    held_back = model.leave_one_family_out(own, [wrong])
    assert [one.sample for one in held_back] == own
    for one in held_back:
        if one.sample.workload.family == "a":
            assert one.error == pytest.approx(0, abs=0.02)


def test_leaving_a_device_out_uses_devices_with_more_points() -> None:
    like = [grid(seed=seed, speed=seed) for seed in (1, 2, 3)]
    held_back = model.leave_device_out(like, 2)
    assert len(held_back) == 3 * 9 * 7
    assert model.spread(held_back) < 1e-2
    assert model.leave_device_out(like[:1], 2) == ()
    assert model.leave_device_out([group[:2] for group in like], 2) == ()


def test_errors_and_intervals_by_hand() -> None:
    sample = grid()[0]
    held_back = [HeldOut(sample, sample.latency_ns * factor, True) for factor in (1.1, 0.9)]
    assert model.rmspe(held_back) == pytest.approx(0.1)
    logs = math.sqrt((math.log(1.1) ** 2 + math.log(0.9) ** 2) / 2)
    assert model.spread(held_back) == pytest.approx(logs)
    # Student's t with 8 degrees of freedom: 2.306.
    low, high = model.interval_ns(10.0, 0.1, 9)
    assert (low, high) == pytest.approx((10 * math.exp(-0.2306), 10 * math.exp(0.2306)), rel=1e-4)
    assert model.interval_ns(10.0, 0.1, 3)[1] > high
    nothing = HeldOut(sample, 0.0, True)
    assert model.spread([nothing]) == pytest.approx(math.log(1000))
    low, high = model.interval_ns(10.0, model.spread([nothing]), 1)
    assert 0 < low < 1e-30 < 1e30 < high < math.inf


def test_the_interval_holds_what_it_promises() -> None:
    inside = total = 0
    for seed in range(40):
        *own, last = grid(noise=0.1, seed=seed)
        expected = model.fit(own).latency_ns(last.workload)
        held_back = model.leave_one_out(own)
        low, high = model.interval_ns(expected, model.spread(held_back), len(held_back))
        inside += low <= last.latency_ns <= high
        total += 1
    assert 0.85 <= inside / total <= 1.0
