"""Outputs of several units stay float; everything before them stays in integers."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.graphs import quantized
from mobiledeploy.graphs.execution import Walk
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import float_ends
from tests.lite import Lite

RECIPE = RECIPES.load("int8_ptq").RECIPE
IMAGES = np.random.default_rng(0).uniform(-1, 1, (24, 8, 8, 3)).astype(np.float32)


def convolution(builder, source, scales, name, activation="NONE", seed=1):
    """A convolution whose output channels vary by `scales`."""
    dice = np.random.default_rng(seed)
    _, side, _, channels = builder.shape(source)
    kernel = dice.normal(size=(len(scales), 3, 3, channels)) * np.reshape(scales, (-1, 1, 1, 1))
    return builder.op(
        "CONV_2D",
        [
            source,
            builder.constant(kernel, np.float32),
            builder.constant(dice.normal(size=len(scales)), np.float32),
        ],
        builder.tensor((1, side, side, len(scales)), name=name),
        options="Conv2DOptions",
        padding=schema.Padding.SAME,
        strideW=1,
        strideH=1,
        dilationWFactor=1,
        dilationHFactor=1,
        fusedActivationFunction=getattr(schema.ActivationFunctionType, activation),
    )


def finished(builder, output):
    builder._model.signatureDefs = builder._model.metadata = []
    return builder.file(output)


def detector():
    """Boxes of 0 to 640 pixels beside scores of 0 to 1, in one tensor."""
    builder = Lite()
    features = convolution(
        builder, builder.input((1, 8, 8, 3), name="image"), [0.2] * 8, "features", "RELU6"
    )
    boxes = builder.op(
        "LOGISTIC",
        [convolution(builder, features, [0.1] * 4, "raw boxes")],
        builder.tensor((1, 8, 8, 4), name="shares"),
    )
    pixels = builder.op(
        "MUL",
        [boxes, builder.constant(np.float32(640))],
        builder.tensor((1, 8, 8, 4), name="boxes"),
        options="MulOptions",
    )
    scores = builder.op(
        "LOGISTIC",
        [convolution(builder, features, [0.1] * 6, "raw scores", seed=2)],
        builder.tensor((1, 8, 8, 6), name="scores"),
    )
    joined = builder.op(
        "CONCATENATION",
        [pixels, scores],
        builder.tensor((1, 8, 8, 10), name="answer"),
        options="ConcatenationOptions",
        axis=3,
    )
    return finished(builder, joined)


def measures(scales):
    """A layer that answers with values of several units."""
    builder = Lite()
    features = convolution(
        builder, builder.input((1, 8, 8, 3), name="image"), [0.2] * 8, "features", "RELU6"
    )
    return finished(builder, convolution(builder, features, scales, "answer"))


def start(content, may_float=True):
    return dataclasses.replace(
        quantized.start(content, RECIPE, "int8", IMAGES), may_float=may_float
    )


def types(graph):
    return {
        graph.name(int(op.outputs[0])): np.dtype(graph.dtype(int(op.outputs[0]))).name
        for op in graph.ops
    }


def worst(graph, content):
    """The largest error of each channel, as a share of the channel's own extent."""
    (exact,) = Walk(Graph(content), IMAGES).ends()
    (answer,) = Walk(Graph(quantized.integers(graph)), IMAGES).ends()
    axes = tuple(range(exact.ndim - 1))
    return np.abs(answer - exact).max(axis=axes) / np.ptp(exact, axis=axes)


def test_the_operators_that_join_are_float_and_layers_are_integers():
    content = detector()
    plain = start(content)
    graph = float_ends.apply(plain, IMAGES)
    assert set(graph.kept) == {"answer", "boxes", "shares", "scores"}
    kinds = types(Graph(quantized.integers(graph)))
    assert {kinds[name] for name in ("answer", "boxes", "shares", "scores")} == {"float32"}
    assert {kinds[name] for name in ("features", "raw boxes", "raw scores")} == {"int8"}
    # A score has one code or two in the plain file.
    assert worst(plain, content)[4:].min() > 0.5
    assert worst(graph, content).max() < 0.1


def test_a_layer_whose_own_channels_differ_is_float():
    content = measures([100.0, 0.1])
    plain = start(content)
    graph = float_ends.apply(plain, IMAGES)
    assert graph.kept == ("answer",)
    assert types(Graph(quantized.integers(graph)))["features"] == "int8"
    assert worst(plain, content)[1] > 0.5
    assert worst(graph, content).max() < 0.1


@pytest.mark.parametrize("scales", [[1.0, 1.0], [5.0, 1.0, 2.0]])
def test_outputs_of_one_unit_stay_as_they_are(scales):
    plain = start(measures(scales))
    assert float_ends.apply(plain, IMAGES) is plain


def test_outputs_that_may_not_change_stay_as_they_are():
    plain = start(detector(), may_float=False)
    assert float_ends.apply(plain, IMAGES) is plain
