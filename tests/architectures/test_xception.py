import pytest
import tf_keras

from mobiledeploy.architectures import xception
from tests.variants import slow_but


@pytest.mark.slow
def test_size_is_that_of_keras_applications(network):
    model = network(xception.build(resolution=(299, 299), classes=1000))
    assert model.model.count_params() == 22_910_480
    assert model.parameters == 22_855_952
    assert model.lambdas == []


@pytest.mark.slow
def test_mult_adds_are_the_published_ones(network):
    # osmr/imgclsmob prints 8403.63 M, with batch normalisation and activations.
    model = network(xception.build(resolution=(299, 299), classes=1000))
    assert model.mult_adds == 8_357_403_496


@pytest.mark.slow
def test_published_weights_load_by_name(network, tmp_path):
    # Keras numbers the names that it makes up itself, from one on in a fresh session.
    tf_keras.backend.clear_session()
    reference_model = tf_keras.applications.Xception(
        weights=None, input_shape=(71, 71, 3), classes=3
    )
    ours = xception.build(resolution=(71, 71), classes=3)
    network(ours).takes_weights_of(reference_model, tmp_path / "published.h5")


@pytest.mark.slow
def test_every_kernel_trains(network):
    assert network(xception.build(resolution=(32, 32), classes=2)).still_after_a_step() == []


@pytest.mark.parametrize("size", slow_but([(32, 32), (33, 71)], (33, 71)))
def test_small_images_fit(size):
    assert xception.build(resolution=size, classes=2).output_shape == (None, 2)
