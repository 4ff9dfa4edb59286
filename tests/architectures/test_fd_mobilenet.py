import pytest

from mobiledeploy.architectures import fd_mobilenet


def build(alpha, resolution=224, classes=1000):
    return fd_mobilenet.build(alpha=alpha, resolution=(resolution,) * 2, classes=classes)


@pytest.mark.parametrize(
    ("alpha", "parameters", "mult_adds", "table_value"),
    [
        # Exact parameters are those of osmr/imgclsmob.
        pytest.param(1.0, 2_901_288, 144_489_728, 144, marks=pytest.mark.slow),
        pytest.param(0.5, 993_928, 40_132_224, 40, marks=pytest.mark.slow),
        (0.25, 383_160, 12_037_952, 12),
    ],
)
def test_size_is_the_papers(network, alpha, parameters, mult_adds, table_value):
    model = network(build(alpha))
    assert model.parameters == parameters
    assert model.mult_adds == mult_adds
    assert round(mult_adds / 1e6) == table_value
    assert model.lambdas == []


def test_five_strides_stand_in_the_first_seven_convolutions():
    model = build(0.25, 224, 2)
    sizes = [model.get_layer(f"conv_pw_{n}").output_shape[1] for n in range(1, 12)]
    assert model.get_layer("conv1").output_shape[1] == 112
    assert sizes == [56, 28, 28, 14, 14, 7, 7, 7, 7, 7, 7]
