import pytest
import tf_keras
from tf_keras.src.applications import mobilenet_v3 as source

from mobiledeploy.architectures import mobilenet_v3
from mobiledeploy.core import cards
from mobiledeploy.core.errors import UsageError
from mobiledeploy.frameworks.hard_activations import HardSigmoid, HardSwish


def build(variant, alpha=1.0, resolution=224, classes=1000):
    return mobilenet_v3.build(
        variant=variant, alpha=alpha, resolution=(resolution,) * 2, classes=classes
    )


def published(variant, alpha, resolution, classes):
    size, _, minimalistic = variant.partition("_")
    network = getattr(tf_keras.applications, f"MobileNetV3{size.title()}")
    return network(
        input_shape=(resolution, resolution, 3),
        alpha=alpha,
        classes=classes,
        weights=None,
        minimalistic=bool(minimalistic),
        include_preprocessing=False,
    )


@pytest.mark.parametrize(
    ("variant", "alpha", "mult_adds", "table_value"),
    [
        pytest.param("large", 1.0, 216_589_760, 217, marks=pytest.mark.slow),
        pytest.param("large", 0.75, 154_560_624, 155, marks=pytest.mark.slow),
        pytest.param("small", 0.75, 43_399_344, 43, marks=pytest.mark.slow),
        pytest.param("large_minimalistic", 1.0, 209_136_704, 209, marks=pytest.mark.slow),
        # Printed as 66 and 65 M: an earlier search's network.
        ("small", 1.0, 56_510_400, 57),
        pytest.param("small_minimalistic", 1.0, 52_288_448, 52, marks=pytest.mark.slow),
    ],
)
def test_size_is_that_of_the_authors_table(network, variant, alpha, mult_adds, table_value):
    model = network(build(variant, alpha))
    assert model.mult_adds == mult_adds
    assert round(mult_adds / 1e6) == table_value
    assert model.parameters == network(published(variant, alpha, 224, 1000)).parameters
    assert model.lambdas == []


@pytest.mark.parametrize(
    ("variant", "alpha"),
    [
        pytest.param("small", 1.0, marks=pytest.mark.slow),
        pytest.param("large_minimalistic", 0.5, marks=pytest.mark.slow),
        pytest.param("small", 0.5, marks=pytest.mark.slow),
        pytest.param("large", 1.0, marks=pytest.mark.slow),
        pytest.param("large", 0.5, marks=pytest.mark.slow),
        pytest.param("large_minimalistic", 1.0, marks=pytest.mark.slow),
        pytest.param("small_minimalistic", 1.0, marks=pytest.mark.slow),
        pytest.param("small_minimalistic", 0.5, marks=pytest.mark.slow),
    ],
)
def test_weights_of_keras_applications_load_by_name(network, tmp_path, variant, alpha):
    ours = network(build(variant, alpha, 64, 10))
    ours.takes_weights_of(published(variant, alpha, 64, 10), tmp_path / "w.h5")


@pytest.mark.parametrize("variant", mobilenet_v3.VARIANTS)
def test_the_cards_weights_are_those_of_keras_applications(variant):
    imagenet = cards.load(f"mobilenet_v3_{variant}").weights.imagenet
    assert imagenet.base_url == source.BASE_WEIGHT_PATH
    assert {file.file: (file.alpha, file.resolutions, file.md5) for file in imagenet.files} == {
        f"weights_mobilenet_v3_{name}.h5": (float(name.split("_")[-2]), (224,), md5)
        for name, (md5, _) in source.WEIGHTS_HASHES.items()
        if name.startswith(f"{variant}_224")
    }


@pytest.mark.slow
def test_the_minimalistic_ones_have_neither_hard_swish_nor_squeeze_nor_5x5():
    for variant in ("large_minimalistic", "small_minimalistic"):
        for layer in build(variant, 0.25, 32, 2).layers:
            assert not isinstance(layer, HardSwish | HardSigmoid | tf_keras.layers.Multiply)
            assert getattr(layer, "kernel_size", (3, 3)) in ((3, 3), (1, 1))


@pytest.mark.slow
def test_it_trains_on_a_cpu(network):
    assert network(build("small", 0.25, 32, 2)).still_after_a_step() == []


def test_an_unknown_variant_is_refused():
    with pytest.raises(UsageError, match="large, small"):
        build("tiny")
