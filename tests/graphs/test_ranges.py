import numpy as np
import onnx
import pytest
import tf_keras

from mobiledeploy.core.plugins import FORMATS, WRITERS
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks.hard_activations import HardSwish
from tests.conftest import press
from tests.variants import slow_but

layers = tf_keras.layers


@pytest.mark.parametrize("order", slow_but([(0, 1), (1, 0)], (1, 0)))
@pytest.mark.parametrize(
    "operator", slow_but([layers.Add, layers.Multiply, layers.Subtract], layers.Add)
)
def test_ranges_of_operands_are_their_own(operator, order):
    def convolution(size, seed):
        start = tf_keras.initializers.RandomNormal(stddev=size, seed=seed)
        return layers.Conv2D(8, 3, padding="same", kernel_initializer=start)(image)

    image = layers.Input((16, 16, 3))
    operands = [convolution(0.1, 1), convolution(10.0, 2)]
    x = operator()([operands[index] for index in order])
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D(4)(x)))
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    model = Model("tf_keras", tf_keras.Model(image, x))
    data = press(model, "int8_ptq", "tflite", images, io="float")
    facts = FORMATS.load("tflite").inspect(data)
    spans = [layer.outputs[0].scale[0] * 255 for layer in facts.layers if layer.op == "CONV_2D"]
    values = [tf_keras.Model(image, y).predict_on_batch(images) for y in operands]
    widths = [float(v.max() - v.min()) for v in values]
    np.testing.assert_allclose(sorted(spans), sorted(widths), rtol=0.01)


def test_codes_before_a_hard_swish_begin_at_minus_three():
    image = layers.Input((16, 16, 3))
    start = tf_keras.initializers.RandomNormal(stddev=2, seed=1)
    before = layers.Conv2D(8, 3, padding="same", kernel_initializer=start)(image)
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(HardSwish()(before)))
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    values = tf_keras.Model(image, before).predict_on_batch(images)
    assert values.min() < -9
    data = press(Model("tf_keras", tf_keras.Model(image, x)), "int8_ptq", "tflite", images)
    layers_ = FORMATS.load("tflite").inspect(data).layers
    (codes,) = (layer.outputs[0] for layer in layers_ if layer.op == "CONV_2D")
    ((scale,), (zero,)) = codes.scale, codes.zero_point
    np.testing.assert_allclose(scale, (values.max() + 3) / 255, rtol=0.01)
    np.testing.assert_allclose(scale * (-128 - zero), -3, atol=scale)
    # The ONNX file rounds the convolution's output by the same scale, and its hard swish reads it.
    nodes = onnx.load_from_string(WRITERS.load("onnx").write(data)).graph
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in nodes.initializer}
    (conv,) = (node for node in nodes.node if node.op_type == "Conv")
    (rounding,) = (node for node in nodes.node if conv.output[0] in node.input)
    assert rounding.op_type == "QuantizeLinear"
    assert stored[rounding.input[1]] == np.float32(scale)
    assert stored[rounding.input[2]] == zero + 128
