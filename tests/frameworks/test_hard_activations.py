from collections import Counter

import numpy as np
import pytest
import tf_keras

from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks.hard_activations import HardSigmoid, HardSwish
from tests.conftest import press
from tests.variants import slow_but

layers = tf_keras.layers
IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """A hard swish, and a squeeze and excite with a hard sigmoid."""
    image = layers.Input((16, 16, 3))
    x = HardSwish()(layers.Conv2D(12, 3)(image))
    factor = layers.Conv2D(12, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, HardSigmoid()(factor)])
    x = HardSwish()(layers.Conv2D(8, 3)(x))
    scores = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    return tf_keras.Model(image, scores)


def test_values_are_the_papers():
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    relu6 = np.clip(x + 3, 0, 6)
    np.testing.assert_allclose(HardSigmoid()(x), relu6 / 6, atol=1e-6)
    np.testing.assert_allclose(HardSwish()(x), x * relu6 / 6, atol=1e-6)


def test_a_graph_answers_as_its_layers_do(model):
    """TensorFlow fuses convolutions with what follows them, in a graph alone."""
    np.testing.assert_allclose(model.predict_on_batch(IMAGES), model(IMAGES), atol=1e-5)


def test_a_saved_model_loads(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded_model = tf_keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded_model(IMAGES), model(IMAGES))


@pytest.mark.parametrize("recipe", slow_but(["float32", "int8_ptq"], "int8_ptq"))
@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("tflite", {"HARD_SWISH": 2, "DEQUANTIZE": 0, "QUANTIZE": 0}),
        ("onnx", {"GlobalAveragePool": 2}),
    ],
)
def test_files_hold_the_operators_that_are_fast(model, recipe, format_, expected):
    shelf = FORMATS.load(format_)
    facts = shelf.inspect(press(Model("tf_keras", model), recipe, format_, IMAGES))
    result = Counter(layer.op for layer in facts.layers)
    assert {op: result[op] for op in expected} == expected
    # Around the first convolution, of int8 ONNX alone.
    assert result["Transpose"] == (3 if (recipe, format_) == ("int8_ptq", "onnx") else 0)
    if recipe == "int8_ptq":
        assert shelf.float_layers(facts) == ()
