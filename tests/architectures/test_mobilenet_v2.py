import functools
import math

import pytest
import tf_keras
from tf_keras.src.applications import mobilenet_v2 as source

from mobiledeploy.architectures import mobilenet_v2
from mobiledeploy.core import cards
from mobiledeploy.frameworks import tf_keras as framework
from mobiledeploy.steps import card_specs


@functools.lru_cache(maxsize=1)
def build(alpha=1.0, resolution=224, classes=1000):
    return mobilenet_v2.build(alpha=alpha, resolution=(resolution,) * 2, classes=classes)


def published(alpha, resolution, classes):
    return tf_keras.applications.MobileNetV2(
        input_shape=(resolution, resolution, 3), alpha=alpha, classes=classes, weights=None
    )


@pytest.mark.parametrize(
    ("alpha", "mult_adds", "table_value"),
    [
        pytest.param(1.4, 582_195_824, 582, marks=pytest.mark.slow),
        (1.0, 300_774_272, 300),
        pytest.param(0.35, 59_285_808, 59, marks=pytest.mark.slow),
    ],
)
def test_size_is_that_of_the_authors_table(network, alpha, mult_adds, table_value):
    """TF-slim's README; it cuts off decimals where the paper rounds."""
    model = network(build(alpha))
    assert model.mult_adds == mult_adds
    assert mult_adds // 10**6 == table_value
    theirs = published(alpha, 224, 1000)
    assert model.parameters == network(theirs).parameters
    assert model.lambdas == []


def test_rows_are_those_of_table_2():
    model = build(1.0)
    rows = {
        "Conv1": (112, 32),
        "expanded_conv_project": (112, 16),
        "block_1_project": (56, 24),
        "block_3_project": (28, 32),
        "block_6_project": (14, 64),
        "block_10_project": (14, 96),
        "block_13_project": (7, 160),
        "block_16_project": (7, 320),
        "Conv_1": (7, 1280),
    }
    for name, (size, channels) in rows.items():
        assert model.get_layer(name).output_shape == (None, size, size, channels)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 0.35, 1.4])
def test_weights_of_keras_applications_load_by_name(network, tmp_path, alpha):
    ours = network(build(alpha, 64, 10))
    ours.takes_weights_of(published(alpha, 64, 10), tmp_path / "w.h5")


@pytest.mark.parametrize(
    ("alpha", "resolution"),
    [
        (0.35, 224),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in ((1.0, 96), (1.3, 224))),
    ],
)
def test_the_cards_weights_are_those_of_keras_applications(monkeypatch, alpha, resolution):
    request = []

    def get_file(name, url, **_):
        request.append(url)
        raise InterruptedError

    monkeypatch.setattr(source.data_utils, "get_file", get_file)
    with pytest.raises(InterruptedError):
        tf_keras.applications.MobileNetV2(input_shape=(resolution, resolution, 3), alpha=alpha)
    imagenet = cards.load("mobilenet_v2").weights.imagenet
    (file,) = (f for f in imagenet.files if f.alpha == alpha and resolution in f.resolutions)
    assert request == [imagenet.base_url + file.file.format(resolution=resolution)]


@pytest.mark.slow
def test_random_weights_know_what_a_bottleneck_leaves_whole():
    """Twice the variance behind a ReLU, which halves; not behind a bottleneck or a sum of them."""
    spec = card_specs.spec(cards.load("mobilenet_v2"), alpha=1.0, res=32, classes=12)
    handle = framework.build(spec, None).handle
    gains = {
        "Conv1": 2,
        "expanded_conv_depthwise": 2,
        "expanded_conv_project": 2,
        "block_1_expand": 1,
        "block_1_project": 2,
        "block_3_expand": 1,
        "Conv_1": 1,
        "predictions": 2,
    }
    for name, gain in gains.items():
        layer = handle.get_layer(name)
        kernel = layer.get_weights()[0]
        depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        fan_in = math.prod(kernel.shape[:2] if depthwise else kernel.shape[:-1])
        assert kernel.var() * fan_in == pytest.approx(gain, rel=0.2), name
