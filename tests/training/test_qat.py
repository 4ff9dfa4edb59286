"""Integers learn the answers of the floats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.graphs import execution, matrices, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.training import qat
from tests.passes.conftest import floats, images, quantized_graph


@pytest.fixture
def brief(monkeypatch):
    """A few steps, large enough to be seen."""
    monkeypatch.setattr(qat, "STEPS", 12)
    monkeypatch.setattr(qat, "LEARNING_RATE", 0.2)


def diverges(made):
    fresh = images(48, seed=1)
    return accuracy.divergence(
        execution.logits(made.floats, fresh), execution.logits(quantized.integers(made), fresh)
    )


@pytest.mark.slow
def test_answers_come_nearer_to_those_of_the_floats(monkeypatch):
    """On weights of 4 bits, which leave much to be learnt."""
    monkeypatch.setattr(qat, "STEPS", 48)
    plain = dataclasses.replace(quantized_graph("relu"), recipe=RECIPES.load("int8x4_ptq").RECIPE)
    trained_model = qat.apply(plain, images(96, seed=2))
    assert trained_model.trained == 1
    assert diverges(trained_model) < 0.7 * diverges(plain)


def codes(made):
    graph = Graph(quantized.integers(made))
    return {
        layer.name: graph.constant_values(layer.weights) for layer in matrices.weighted_ops(graph)
    }


@pytest.mark.slow
def test_codes_stay_within_their_bits(brief):
    plain = dataclasses.replace(quantized_graph("relu"), recipe=RECIPES.load("int8x4_ptq").RECIPE)
    graph = Graph(quantized.integers(qat.apply(plain, images())))
    for layer in matrices.weighted_ops(graph):
        limit = matrices.largest_code(layer, plain.recipe)
        assert np.abs(graph.constant_values(layer.weights).astype(int)).max() <= limit


def sparse_and_clustered():
    """The floats of "relu" with half of every layer zero, and the last layer of four values."""
    graph = Graph(floats("relu"))
    layers = matrices.weighted_ops(graph)
    for layer in layers:
        values = graph.constant_values(layer.weights).copy()
        values[np.abs(values) < np.median(np.abs(values))] = 0
        if layer is layers[-1]:
            values = np.where(values != 0, np.sign(values) * 0.25, 0)
        graph.replace_constant(layer.op, 1, values)
    return graph.pack()


@pytest.mark.slow
def test_zeros_stay_zero_and_clusters_do_not_change(brief):
    content = sparse_and_clustered()
    plain = quantized.start(content, RECIPES.load("int8_ptq").RECIPE, "int8", images())
    before, after = codes(plain), codes(qat.apply(plain, images()))
    graph = Graph(content)
    changes_ = 0
    for layer in matrices.weighted_ops(graph):
        zero = graph.constant_values(layer.weights) == 0
        assert not after[layer.name][zero].any()
        moved_count = np.count_nonzero(before[layer.name] != after[layer.name])
        assert not (layer.is_clustered and moved_count)
        changes_ += moved_count
    assert changes_


@pytest.mark.slow
def test_each_part_is_gentler_and_sees_the_images_in_another_order(brief, monkeypatch):
    rates, orders = [], []
    stepper, batches = qat._stepper, qat._batches
    monkeypatch.setattr(qat, "_stepper", lambda *a: rates.append(a[-2]) or stepper(*a))
    monkeypatch.setattr(qat, "_batches", lambda *a: orders.append(a[-1]) or batches(*a))
    qat.apply(qat.apply(quantized_graph("relu"), images()), images())
    assert rates == [qat.LEARNING_RATE, qat.LEARNING_RATE * qat.FALL]
    assert orders == [0, 1]
    first, second = (np.concatenate(list(batches(images(), turn))) for turn in orders)
    assert not np.array_equal(first, second)


def test_every_image_is_used_before_one_is_repeated():
    numbered = np.arange(50, dtype=np.float32)[:, None, None, None]
    values = np.concatenate([batch.ravel() for batch in qat._batches(numbered, 0)])
    counts = np.bincount(values.astype(int), minlength=50)
    assert counts.sum() == qat.STEPS * qat.BATCH
    assert counts.max() - counts.min() <= 1


@pytest.mark.slow
def test_progress_is_reported(brief):
    messages = []
    qat.apply(quantized_graph("relu"), images(), lambda *step: messages.append(step))
    assert messages[-1] == ("quantization-aware training", 12, 12)
