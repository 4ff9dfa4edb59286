from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.architectures import mobilenet_v1
from mobiledeploy.core.errors import UsageError
from tests.variants import slow_but


def _published(alpha: float, resolution: int, classes: int) -> tf_keras.Model:
    return tf_keras.applications.MobileNet(
        input_shape=(resolution, resolution, 3), alpha=alpha, classes=classes, weights=None
    )


@pytest.fixture(scope="module")
def model() -> tf_keras.Model:
    return mobilenet_v1.build(alpha=0.5, resolution=(160, 160), classes=10)


@pytest.mark.slow
def test_layers_are_those_of_keras_applications(model: tf_keras.Model) -> None:
    theirs = [
        layer
        for layer in _published(0.5, 160, 10).layers
        if not isinstance(layer, tf_keras.layers.ZeroPadding2D | tf_keras.layers.InputLayer)
    ]
    ours = model.layers[1:]
    # Keras numbers the names that it makes up itself.
    assert ours[-5].name == "global_average_pooling2d"
    assert theirs[-5].name.startswith("global_average_pooling2d")
    names = [layer.name for layer in ours]
    assert names[:-5] + names[-4:] == [x.name for x in [*theirs[:-5], *theirs[-4:]]]
    for own, reference_model in zip(ours, theirs, strict=True):
        assert type(own) is type(reference_model)
        assert own.output_shape == reference_model.output_shape
        assert [w.shape for w in own.get_weights()] == [
            w.shape for w in reference_model.get_weights()
        ]


def test_batch_normalisation_and_activation_are_standard(model: tf_keras.Model) -> None:
    norms = [x for x in model.layers if isinstance(x, tf_keras.layers.BatchNormalization)]
    assert len(norms) == 27
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-3, 0.99)}
    activations = [x for x in model.layers if isinstance(x, tf_keras.layers.ReLU)]
    assert {float(activation.max_value) for activation in activations} == {6.0}


def test_no_bare_tensor_operations(model: tf_keras.Model) -> None:
    assert not [x.name for x in model.layers if "Lambda" in type(x).__name__]


def test_ends_are_named_and_scores_are_probabilities(model: tf_keras.Model) -> None:
    assert model.input_names == ["image"]
    assert model.output_names == ["predictions"]
    images = np.random.default_rng(0).uniform(-1, 1, (2, 160, 160, 3)).astype(np.float32)
    scores = model.predict_on_batch(images)
    assert scores.shape == (2, 10)
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("alpha", "millions"),
    [
        # Also one of the variants below.
        pytest.param(1.0, 4.2, marks=pytest.mark.slow),
        pytest.param(0.75, 2.6, marks=pytest.mark.slow),
        pytest.param(0.5, 1.3, marks=pytest.mark.slow),
        (0.25, 0.5),
    ],
)
def test_parameters_are_those_of_the_papers_table_6(alpha: float, millions: float) -> None:
    keras_model = mobilenet_v1.build(alpha=alpha, resolution=(224, 224), classes=1000)
    # Moving statistics are not counted.
    trained_model = sum(math.prod(weight.shape) for weight in keras_model.trainable_weights)
    assert round(trained_model / 1e6, 1) == millions


@pytest.mark.slow
@settings(max_examples=4)
@given(height=st.integers(32, 300), width=st.integers(32, 300))
def test_sizes_round_up_at_every_stride(height: int, width: int) -> None:
    keras_model = mobilenet_v1.build(alpha=0.05, resolution=(height, width), classes=2)
    rows = [("conv1", 2), *((f"conv_dw_{k}", s) for k, (s, _) in enumerate(mobilenet_v1.BLOCKS, 1))]
    for name, stride in rows:
        height, width = math.ceil(height / stride), math.ceil(width / stride)
        assert keras_model.get_layer(name).output_shape[1:3] == (height, width)


@pytest.mark.parametrize("resolution", slow_but([(32, 32), (33, 47), (1024, 1024)], (33, 47)))
def test_any_resolution(resolution: tuple[int, int]) -> None:
    keras_model = mobilenet_v1.build(alpha=0.1, resolution=resolution, classes=3)
    assert keras_model.predict_on_batch(np.zeros((1, *resolution, 3), np.float32)).shape == (1, 3)


@pytest.mark.parametrize("alpha", slow_but([1e-6, 0.01, 0.3, 0.7, 1.4], 1e-6, 0.3))
def test_widths_round_down_to_at_least_one(alpha: float) -> None:
    keras_model = mobilenet_v1.build(alpha=alpha, resolution=(32, 32), classes=2)
    for number, (_, filters) in enumerate(mobilenet_v1.BLOCKS, start=1):
        expected = max(1, math.floor(filters * alpha))
        assert keras_model.get_layer(f"conv_pw_{number}").filters == expected


def test_published_weights_load_and_predict_the_same(real_data: Path) -> None:
    weights = real_data / "imagenet" / "mobilenet_7_5_224_tf.h5"
    if not weights.is_file():
        pytest.skip(f"no {weights} (set MOBILEDEPLOY_REAL_DATA)")
    ours = mobilenet_v1.build(alpha=0.75, resolution=(224, 224), classes=1000)
    before = {weight.name: weight.numpy() for weight in ours.weights}
    ours.load_weights(weights, by_name=True)
    unchanged = [w.name for w in ours.weights if np.array_equal(w.numpy(), before[w.name])]
    assert not unchanged
    theirs = _published(0.75, 224, 1000)
    theirs.load_weights(weights)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(
        ours.predict_on_batch(images), theirs.predict_on_batch(images), atol=1e-6
    )


@pytest.mark.parametrize(
    ("variant", "mult_adds", "table_value", "millions"),
    [
        ("separable", 568_740_352, 569, 4.2),
        ("shallow", 307_323_392, 307, 2.9),
        # Printed as 4866: that is without the fully connected layer's 1.0 M.
        ("full", 4_867_293_184, 4867, 29.3),
    ],
)
def test_the_variants_have_the_papers_size(network, variant, mult_adds, table_value, millions):
    keras_model = network(
        mobilenet_v1.build(alpha=1.0, resolution=(224, 224), classes=1000, variant=variant)
    )
    assert keras_model.mult_adds == mult_adds
    assert round(mult_adds / 1e6) == table_value
    assert round(keras_model.parameters / 1e6, 1) == millions
    assert keras_model.lambdas == []


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UsageError, match="separable, shallow, full"):
        mobilenet_v1.build(alpha=1.0, resolution=(32, 32), classes=2, variant="deep")
