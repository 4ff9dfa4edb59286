import pytest
import tf_keras

from mobiledeploy.architectures import vgg16


@pytest.mark.slow
def test_size_is_that_of_keras_applications(network):
    model = network(vgg16.build(resolution=(224, 224), classes=1000))
    assert model.parameters == 138_357_544
    # Howard et al. 2017 print 15300 M, osmr/imgclsmob 15480 M.
    assert model.mult_adds == 15_470_264_320
    assert model.lambdas == []


@pytest.mark.slow
def test_published_weights_load_by_name(network, tmp_path):
    reference_model = tf_keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=3)
    ours = vgg16.build(resolution=(32, 32), classes=3)
    network(ours).takes_weights_of(reference_model, tmp_path / "published.h5")
    names = [layer.name for layer in ours.layers if "dropout" not in layer.name]
    assert names[1:] == [layer.name for layer in reference_model.layers[1:]]


@pytest.mark.parametrize("size", [(32, 32), (33, 65)])
def test_small_images_fit(size):
    assert vgg16.build(resolution=size, classes=2).output_shape == (None, 2)
