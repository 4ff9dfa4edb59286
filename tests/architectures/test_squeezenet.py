import functools

import pytest

from mobiledeploy.architectures import squeezenet
from mobiledeploy.core.errors import UsageError


@functools.lru_cache(maxsize=2)
def build(variant):
    return squeezenet.build(variant=variant, resolution=(224, 224), classes=1000)


@pytest.mark.parametrize(
    ("variant", "parameters", "mult_adds"),
    [
        # Parameters of torchvision and osmr/imgclsmob. 833 M is what Zhang et al. 2017 print for
        # 1.0; torchvision's 0.82 G are without the padding that makes the paper's 111x111.
        ("1.0", 1_248_424, 832_667_936),
        # torchvision prints 0.35 G for 1.1.
        ("1.1", 1_235_496, 349_151_936),
    ],
)
def test_size_is_the_published_one(network, variant, parameters, mult_adds):
    model = network(build(variant))
    assert model.parameters == parameters
    assert model.mult_adds == mult_adds
    assert model.lambdas == []


def test_shapes_are_those_of_table_1():
    model = build("1.0")
    rows = {
        "conv1": (111, 96),
        "maxpool1": (55, 96),
        "fire2_concat": (55, 128),
        "fire3_concat": (55, 128),
        "fire4_concat": (55, 256),
        "maxpool4": (27, 256),
        "fire5_concat": (27, 256),
        "fire6_concat": (27, 384),
        "fire7_concat": (27, 384),
        "fire8_concat": (27, 512),
        "maxpool8": (13, 512),
        "fire9_concat": (13, 512),
        "conv10": (13, 1000),
    }
    for name, (size, channels) in rows.items():
        assert model.get_layer(name).output_shape == (None, size, size, channels)


@pytest.mark.parametrize("variant", squeezenet.VARIANTS)
@pytest.mark.parametrize("size", [pytest.param(32, marks=pytest.mark.slow), 33])
def test_the_smallest_images_are_large_enough(network, variant, size):
    model = network(squeezenet.build(variant=variant, resolution=(size, size), classes=2))
    assert model.model.predict_on_batch(model.images(1)).shape == (1, 2)


@pytest.mark.slow
def test_every_kernel_trains(network):
    model = squeezenet.build(variant="1.1", resolution=(64, 64), classes=2)
    assert network(model).still_after_a_step() == []


def test_another_variant_is_refused():
    with pytest.raises(UsageError, match="'1.2'.*1.0, 1.1"):
        squeezenet.build(variant="1.2", resolution=(32, 32), classes=2)
