"""ONNX files that compute in float16, compared with their float TFLite on ONNX Runtime."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mobiledeploy.analysis import cost
from mobiledeploy.formats import onnx as shelf
from mobiledeploy.graphs import execution, float16
from mobiledeploy.writers import onnx as converter
from tests.lite import Lite, answers
from tests.passes.conftest import NETWORKS, floats, images
from tests.variants import slow_but
from tests.writers.test_onnx import (
    CASES,
    NHWC,
    by,
    pad_op,
    permuted,
    reshape_op,
    run,
    simple,
    uniform,
)

HALF_STEP = 2.0**-11
"""The largest relative error of one rounding to float16."""


def half_file(content):
    data = converter.write(float16.halve(content))
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    return data


def assert_near(content, *values, steps=8):
    """Checks that the float16 ONNX file answers as the float TFLite; returns the file."""
    data = half_file(content)
    for ours, theirs in zip(run(data, *values), answers(content, *values), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        largest = float(np.abs(theirs.astype(np.float64)).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=steps * HALF_STEP * largest)
    return data


def types(data):
    """For each operator but Cast: its name and whether it computes in float16."""
    return Counter(
        (layer.op, any(t.dtype == "float16" for t in layer.outputs))
        for layer in shelf.inspect(data).layers
        if layer.op != "Cast"
    )


@pytest.mark.parametrize("name", CASES)
def test_an_operator_with_halves_answers_as_in_tflite(name):
    build, values = CASES[name]
    builder = Lite()
    assert_near(builder.file(build(builder)), *values)


@pytest.mark.parametrize("name", slow_but(NETWORKS, "relu6", "various"))
def test_a_network_computes_its_products_in_half_and_answers_as_in_float(name):
    content = floats(name)
    data = half_file(content)
    (products,) = {half for (op, half) in types(data) if op in ("Conv", "Gemm")}
    assert products
    assert {half for (op, half) in types(data) if op in ("AveragePool", "Softmax")} <= {False}
    facts = shelf.inspect(data)
    assert {t.dtype for t in (*facts.inputs, *facts.outputs)} == {"float32"}
    values = images(4)
    expected = execution.run(content, values)
    ours = np.concatenate([run(data, one[None])[0] for one in values])
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    assert np.any(ours != expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_half_as_large_and_costs_as_many_mult_adds(name):
    whole, half = converter.write(floats(name)), half_file(floats(name))
    before, after = (shelf.inspect(data) for data in (whole, half))
    costs = [cost.cost(facts.layers) for facts in (before, after)]
    assert costs[0].mult_adds == costs[1].mult_adds > 0
    assert costs[0].params == costs[1].params
    assert not costs[1].uncounted
    sizes = [
        sum(
            cost.size_bytes(t)
            for layer in facts.layers
            for t in layer.inputs
            if t.constant and t.dtype.startswith("float") and len(t.shape) > 1
        )
        for facts in (before, after)
    ]
    assert sizes[0] == 2 * sizes[1]
    # `diff` and `verify` compare layers by their names.
    assert {x.name for x in before.layers} <= {x.name for x in after.layers}
    assert shelf.sparsity(half) == pytest.approx(shelf.sparsity(whole), abs=1e-3)


def test_the_logits_are_those_before_the_softmax():
    facts = shelf.inspect(half_file(floats("relu6")))
    (softmax,) = (layer for layer in facts.layers if layer.op == "Softmax")
    assert facts.logits == softmax.inputs[0].name
    assert softmax.inputs[0].dtype == "float32"


def test_a_product_with_a_weight_beyond_half_stays_in_float():
    b = Lite()
    large = uniform(6, 1, 1, 4)
    large[0, 0, 0, 0] = 7e4
    x = simple(b, b.input(NHWC), w=b.constant(uniform(4, 1, 1, 4)))
    y = simple(b, x, filters=6, w=b.constant(large))
    data = assert_near(
        b.file(simple(b, y, w=b.constant(1e-5 * uniform(4, 1, 1, 6)))), uniform(*NHWC)
    )
    assert types(data) == {("Conv", True): 2, ("Conv", False): 1}


def test_only_what_lies_between_products_is_in_half():
    b = Lite()
    scaled = by(b, "MUL", b.input(NHWC), 0.1)
    x = simple(b, scaled)
    y = simple(b, by(b, "ADD", x, 0.3))
    data = assert_near(b.file(by(b, "MUL", y, 20.0)), uniform(*NHWC))
    assert types(data) == {
        ("Mul", False): 2,
        ("Add", True): 1,
        ("Conv", True): 2,
    }


def test_squares_and_their_sums_are_float():
    """A value of 300 is no large one, and its square has no half."""
    b = Lite()
    x = simple(b, b.input(NHWC), w=b.constant(300 + uniform(4, 1, 1, 4)))
    squares = b.op("MUL", [x, x], NHWC, options="MulOptions")
    total = simple(b, squares, w=b.constant(np.full((4, 1, 1, 4), 1e-5, np.float32)))
    data = assert_near(b.file(simple(b, total)), 1 + np.abs(uniform(*NHWC)))
    assert types(data) == {("Conv", True): 2, ("Conv", False): 1, ("Mul", False): 1}


def test_an_output_between_products_is_float_and_keeps_its_name():
    b = Lite()
    x = simple(b, b.input(NHWC), activation=3)
    y = simple(b, x)
    content = b.file(x, y)
    data = assert_near(content, uniform(*NHWC))
    whole = shelf.inspect(converter.write(content))
    facts = shelf.inspect(data)
    assert [(t.name, t.dtype) for t in facts.outputs] == [
        (t.name, "float32") for t in whole.outputs
    ]
    assert types(data)["Conv", True] == 2


def test_a_constant_is_read_in_both_types():
    b = Lite()
    number = b.constant(np.float32([0.25]))

    def plus(x):
        return b.op("ADD", [x, number], b.shape(x), options="AddOptions")

    x = simple(b, plus(b.input(NHWC)))
    data = assert_near(b.file(simple(b, plus(x))), uniform(*NHWC))
    assert types(data) == {("Add", False): 1, ("Add", True): 1, ("Conv", True): 2}


def test_zeros_around_a_pool_stay_visible():
    """ONNX Runtime takes a Pad of zeros for the pool's own padding, which is no value."""
    b = Lite()
    x = simple(b, b.input(NHWC), w=b.constant(-np.abs(uniform(4, 1, 1, 4)) - 9))
    padded = pad_op(b, x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pool = b.op(
        "MAX_POOL_2D",
        [padded],
        (1, 6, 5, 4),
        options="Pool2DOptions",
        padding=1,
        strideH=1,
        strideW=1,
        filterHeight=3,
        filterWidth=3,
    )
    content = b.file(simple(b, pool))
    data = assert_near(content, np.abs(uniform(*NHWC)) + 1)
    assert types(data)["MaxPool", True] == 1


def test_moved_values_stay_halves():
    b = Lite()
    x = permuted(b, simple(b, b.input(NHWC)), (0, 2, 1, 3))
    data = assert_near(b.file(simple(b, reshape_op(b, x, (1, 6, 5, 4)))), uniform(*NHWC))
    assert {half for (op, half) in types(data)} == {True}


def test_a_file_without_float_weights_has_no_halves():
    b = Lite()
    data = converter.write(float16.halve(b.file(b.op("ABS", [b.input(NHWC)], NHWC))))
    kinds = {n.op_type for n in onnx.load_model_from_string(data).graph.node}
    assert "Cast" not in kinds
    assert all(
        i.data_type != TensorProto.FLOAT16
        for i in onnx.load_model_from_string(data).graph.initializer
    )
