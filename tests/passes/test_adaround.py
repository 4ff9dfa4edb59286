"""Rounding by the outputs of a layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core.batches import Batch
from mobiledeploy.graphs import execution, matrices, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import adaround
from tests.passes.conftest import images, quantized_graph, sqnr


@settings(max_examples=60)
@given(
    blocks=st.integers(1, 3),
    outputs=st.integers(1, 4),
    inputs=st.integers(1, 9),
    spread=st.floats(0, 3),
    seed=st.integers(0, 2**32 - 1),
    dead=st.booleans(),
    limit=st.sampled_from([7, 127]),
)
def test_codes_are_at_least_as_good_as_the_nearest(
    blocks, outputs, inputs, spread, seed, dead, limit
):
    random = np.random.default_rng(seed)
    weights = random.normal(size=(blocks, outputs, inputs))
    scale = np.abs(weights).max(axis=-1) / limit
    mixing = random.normal(size=(blocks, 40, inputs)) * np.exp(spread * random.normal(size=inputs))
    if dead:
        mixing[:, :, 0] = 0
    mixing -= mixing.mean(axis=1, keepdims=True)
    gram = mixing.transpose(0, 2, 1) @ mixing / 40
    cross = weights @ gram
    codes = adaround.round_weights(weights, scale, gram, cross, limit=limit)
    assert codes.shape == weights.shape
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() <= limit
    damping = adaround.RIDGE * np.trace(gram, axis1=1, axis2=2) / inputs
    objective = gram + np.maximum(damping, 1e-70)[:, None, None] * np.eye(inputs)
    optimum = weights / scale[..., None]
    ours = adaround.loss(codes.astype(float), optimum, objective)
    nearest = adaround.loss(np.round(optimum), optimum, objective)
    assert (ours <= nearest * (1 + 1e-9) + 1e-12).all()


def test_inputs_that_never_change_are_rounded_to_the_nearest():
    weights = np.array([[[0.5, -1.27, 0.333]]])
    nothing = np.zeros((1, 3, 3))
    codes = adaround.round_weights(weights, np.array([[0.01]]), nothing, weights @ nothing)
    np.testing.assert_array_equal(codes, [[[50, -127, 33]]])


def test_weights_that_are_zero_stay_zero():
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, 4, 9))
    weights[random.random(weights.shape) < 0.5] = 0
    mixing = random.normal(size=(2, 60, 9)) @ random.normal(size=(2, 9, 9))
    gram = mixing.transpose(0, 2, 1) @ mixing / 60
    scale = np.abs(weights).max(axis=-1) / 127
    codes = adaround.round_weights(weights, scale, gram, weights @ gram)
    assert not codes[weights == 0].any()
    assert np.count_nonzero(codes) > 0.9 * np.count_nonzero(weights)


def problem(blocks, outputs, inputs, seed=0):
    """The optimum, the objective and the mask of zeros of a layer."""
    random = np.random.default_rng(seed)
    best = 40 * random.normal(size=(blocks, outputs, inputs))
    mixing = random.normal(size=(blocks, 2 * inputs, inputs)) @ random.normal(size=(inputs, inputs))
    objective = mixing.transpose(0, 2, 1) @ mixing / inputs + np.eye(inputs)
    return best, objective, random.random(best.shape) < 0.1


@pytest.mark.parametrize(("blocks", "outputs", "inputs"), [(1, 7, 50), (2, 5, 33), (6, 1, 9)])
def test_blocks_of_columns_give_the_codes_of_single_columns(blocks, outputs, inputs):
    best, objective, zeros = problem(blocks, outputs, inputs)
    swept = adaround._sweep(best, objective, zeros, 127)
    polished = np.where(zeros, 0, np.round(best)).clip(-127, 127)
    start = polished.copy()
    adaround._polish(polished, best, objective, zeros, 127)
    for block in range(blocks):
        order = np.argsort(-np.diag(objective[block]))
        upper = np.linalg.cholesky(np.linalg.inv(objective[block][np.ix_(order, order)])).T
        for row in range(outputs):
            rest = best[block, row, order].copy()
            for column, place in enumerate(order):
                code = 0 if zeros[block, row, place] else np.clip(np.round(rest[column]), -127, 127)
                assert swept[block, row, place] == code
                rest -= (rest[column] - code) / upper[column, column] * upper[column]
            codes, optimum = start[block, row], best[block, row]
            for _ in range(adaround._SWEEPS):
                for column in np.flatnonzero(~zeros[block, row]):
                    slope = (codes - optimum) @ objective[block][:, column]
                    target = codes[column] - slope / objective[block][column, column]
                    codes[column] = np.round(np.clip(target, -127, 127))
            np.testing.assert_array_equal(polished[block, row], codes)


def test_it_brings_answers_nearer_to_those_of_the_floats():
    for name in ("relu6", "relu"):
        plain = quantized_graph(name)
        fresh = images(24, seed=1)
        reference = execution.logits(plain.floats, fresh)
        better = adaround.apply(plain, images())
        before, after = (
            sqnr(reference, execution.logits(quantized.integers(d), fresh)) for d in (plain, better)
        )
        assert after > before, name


def test_a_bias_makes_up_for_what_rounding_shifts():
    plain = quantized_graph("relu")
    reference = execution.logits(plain.floats, images())
    shifts = [
        np.abs((execution.logits(quantized.integers(d), images()) - reference).mean(axis=0)).mean()
        for d in (plain, adaround.apply(plain, images()))
    ]
    assert shifts[1] < shifts[0]


def test_few_photographs_are_joined_by_their_mirror_images():
    few = images(3)
    (joined,) = adaround.with_mirrored(few).arrays
    np.testing.assert_array_equal(joined[:3], few)
    np.testing.assert_array_equal(joined[3:], few[:, :, ::-1])
    many = np.arange(2 * 100 * 4 * 1, dtype=np.float32).reshape(100, 2, 4, 1)
    (joined,) = adaround.with_mirrored(many).arrays
    assert len(joined) == adaround.MIRRORED == 160
    np.testing.assert_array_equal(joined[-1], many[59, :, ::-1])
    enough = np.zeros((adaround.MIRRORED, 2, 2, 3), np.float32)
    assert len(adaround.with_mirrored(enough)) == len(enough)
    for other in (np.zeros((5, 7), np.float32), np.zeros((5, 4, 4, 2), np.float32)):
        assert len(adaround.with_mirrored(other)) == 5
    assert len(adaround.with_mirrored(Batch((few, few)))) == 3


def test_weights_with_few_samples_stay_nearer_to_their_floats(monkeypatch):
    plain = quantized_graph("relu6")
    nearest = weights(quantized.integers(plain))
    changed = []
    for few in (8, 8000):
        monkeypatch.setattr(adaround, "FEW_SAMPLES", {8: few})
        changed.append(np.mean(weights(adaround.apply(plain, images()).integers) != nearest))
    assert changed[1] < changed[0] / 2


def weights(content):
    """All codes of weights of a file."""
    graph = Graph(content)
    layers = matrices.weighted_ops(graph)
    return np.concatenate([graph.constant_values(layer.weights).reshape(-1) for layer in layers])
