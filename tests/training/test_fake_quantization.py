"""The differentiable function of a file is the file's own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import ARCHITECTURES, RECIPES
from mobiledeploy.core.types import Model
from mobiledeploy.graphs import execution, matrices, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.training.fake_quantization import FakeQuantization, on_grid
from tests.conftest import press
from tests.passes.conftest import NETWORKS, floats, images, quantized_graph
from tests.variants import slow_but

INT8 = RECIPES.load("int8_ptq").RECIPE


def fake_quantization(content, large):
    return FakeQuantization(Graph(content)).logits(tf.constant(large), {}).numpy()


@pytest.mark.parametrize("network", slow_but(NETWORKS, "relu6", "various"))
def test_floats_are_computed_as_by_the_interpreter(network):
    expected = execution.logits(floats(network), images())
    np.testing.assert_allclose(
        fake_quantization(floats(network), images()), expected, atol=1e-5 * np.abs(expected).max()
    )


def steps_apart(content, large):
    """The difference between the interpreter's logits and ours in codes of the output."""
    graph = Graph(content)
    target = FakeQuantization(graph)._target
    (step,), _ = graph.scale(target)
    return np.abs(fake_quantization(content, large) - execution.logits(content, large)) / step


@pytest.mark.parametrize("network", NETWORKS)
def test_integers_are_computed_to_a_code_or_two(network):
    apart = steps_apart(quantized.integers(quantized_graph(network)), images())
    assert np.mean(apart < 1.5) > 0.98
    assert apart.max() < 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mobilenet_v1", {"alpha": 0.25}),
        ("mobilenet_v2", {"alpha": 0.35}),
        ("mobilenet_v3", {"alpha": 0.75, "variant": "small"}),
        ("fd_mobilenet", {"alpha": 0.25}),
        ("mobilenet_v4", {"variant": "conv_s"}),
        ("shufflenet_v1", {"alpha": 0.5, "groups": 3}),
        ("squeezenet", {"variant": "1.1"}),
    ],
)
def test_every_kind_of_network_can_be_trained(name, arguments):
    model = ARCHITECTURES.load(name).build(resolution=(64, 64), classes=5, **arguments)
    large = images(8).repeat(3, axis=1).repeat(3, axis=2)[:, :64, :64]
    result = press(Model("tf_keras", model), "float32", "tflite", large)
    start = quantized.start(result, INT8, "float", large)
    assert np.mean(steps_apart(quantized.integers(start), large) < 3) > 0.9


def test_a_gradient_passes_rounding_and_stops_at_the_ends():
    x = tf.Variable([-3.0, -0.3, 0.26, 2.0])
    with tf.GradientTape() as tape:
        y = on_grid(x, 0.5, -4, 3)
    np.testing.assert_allclose(y, [-2.0, -0.5, 0.5, 1.5])
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 0])


def test_replacements_are_used():
    graph = Graph(floats("relu"))
    (last,) = [layer for layer in matrices.weighted_ops(graph) if layer.kind == "FULLY_CONNECTED"]
    nothing = {(last.number, 1): np.zeros(graph.shape(last.weights), np.float32)}
    answer = FakeQuantization(graph).logits(tf.constant(images()), nothing).numpy()
    np.testing.assert_allclose(answer - answer[0], 0, atol=1e-6)


def test_an_operator_without_a_gradient_is_refused_by_name():
    graph = Graph(floats("relu"))
    code = graph.model.operatorCodes[graph.ops[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.EXP
    with pytest.raises(InputError, match=r"^EXP cannot be trained"):
        FakeQuantization(graph)
