import pytest
import tf_keras

from mobiledeploy.architectures import mobilenet_v2


def build(alpha=1.0, resolution=224, classes=1000):
    return mobilenet_v2.build(alpha=alpha, resolution=(resolution,) * 2, classes=classes)


def published(alpha, resolution, classes):
    return tf_keras.applications.MobileNetV2(
        input_shape=(resolution, resolution, 3), alpha=alpha, classes=classes, weights=None
    )


@pytest.mark.parametrize(
    ("alpha", "mult_adds", "printed"),
    [(1.4, 582_195_824, 582), (1.0, 300_774_272, 300), (0.35, 59_285_808, 59)],
)
def test_size_is_that_of_the_authors_table(network, alpha, mult_adds, printed):
    """TF-slim's README; it cuts off decimals where the paper rounds."""
    built = network(build(alpha))
    assert built.mult_adds == mult_adds
    assert mult_adds // 10**6 == printed
    theirs = published(alpha, 224, 1000)
    assert built.parameters == network(theirs).parameters
    assert built.lambdas == []


def test_rows_are_those_of_table_2():
    built = build()
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
        assert built.get_layer(name).output_shape == (None, size, size, channels)


@pytest.mark.parametrize("alpha", [1.0, 0.35, 1.4])
def test_weights_of_keras_applications_load_by_name(network, tmp_path, alpha):
    ours = network(build(alpha, 64, 10))
    ours.takes_weights_of(published(alpha, 64, 10), tmp_path / "w.h5")
