import pytest

from mobiledeploy.architectures import googlenet
from tests.variants import slow_but


def test_size_is_that_of_the_published_model(network):
    model = network(googlenet.build(resolution=(224, 224), classes=1000))
    # The Caffe model's weights without its auxiliary classifiers. Howard et al. 2017 print 6.8 M
    # and 1550 M mult-adds, the paper's own table some 1.5 G.
    assert model.parameters == 6_998_552
    assert model.mult_adds == 1_582_671_872
    assert model.lambdas == []


def test_shapes_are_those_of_table_1():
    model = googlenet.build(resolution=(224, 224), classes=1000)
    rows = {
        "conv1": (112, 64),
        "pool1": (56, 64),
        "conv2": (56, 192),
        "pool2": (28, 192),
        "inception_3a_concat": (28, 256),
        "inception_3b_concat": (28, 480),
        "pool3": (14, 480),
        "inception_4a_concat": (14, 512),
        "inception_4b_concat": (14, 512),
        "inception_4c_concat": (14, 512),
        "inception_4d_concat": (14, 528),
        "inception_4e_concat": (14, 832),
        "pool4": (7, 832),
        "inception_5a_concat": (7, 832),
        "inception_5b_concat": (7, 1024),
    }
    for name, (size, channels) in rows.items():
        assert model.get_layer(name).output_shape == (None, size, size, channels)


@pytest.mark.slow
def test_every_kernel_trains(network):
    assert network(googlenet.build(resolution=(64, 64), classes=2)).still_after_a_step() == []


@pytest.mark.parametrize("size", slow_but([(32, 32), (33, 47)], (33, 47)))
def test_small_images_fit(size):
    assert googlenet.build(resolution=size, classes=2).output_shape == (None, 2)
