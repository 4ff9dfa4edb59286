import functools

import numpy as np
import pytest

from mobiledeploy.architectures import mobilenet_v4
from mobiledeploy.core.errors import UsageError


@functools.lru_cache(maxsize=2)
def build(variant, resolution=224):
    return mobilenet_v4.build(variant=variant, resolution=(resolution,) * 2, classes=1000)


@pytest.mark.parametrize(
    ("variant", "resolution", "parameters", "mult_adds"),
    [
        # Exact parameters are those that timm prints for mobilenetv4_conv_small and _medium. The
        # paper prints 3.8 M and 0.2 G, and 9.2 M and 1.0 G: Conv-M has 1.08 G at its 256 pixels.
        ("conv_s", 224, 3_774_024, 186_005_568),
        pytest.param("conv_m", 256, 9_715_512, 1_080_244_224, marks=pytest.mark.slow),
    ],
)
def test_size_is_the_papers(network, variant, resolution, parameters, mult_adds):
    model = network(build(variant, resolution))
    assert model.parameters == parameters
    assert model.mult_adds == mult_adds
    assert model.lambdas == []


@pytest.mark.parametrize(
    ("variant", "resolution"),
    [("conv_s", 224), pytest.param("conv_m", 256, marks=pytest.mark.slow)],
)
def test_stages_halve_the_image(variant, resolution):
    model = build(variant, resolution)
    values = [layer.output_shape[1] for layer in model.layers if len(layer.output_shape) == 4]
    assert tuple(dict.fromkeys(values)) == (*(resolution >> n for n in range(1, 6)), 1)


@pytest.mark.slow
def test_the_four_forms_of_a_block():
    kinds = {
        (bool(block.start), bool(block.middle))
        for block in mobilenet_v4.VARIANTS["conv_m"]
        if isinstance(block, mobilenet_v4.Uib)
    }
    assert kinds == {(True, True), (True, False), (False, False)}
    assert mobilenet_v4.Uib(0, 3, 1, 96, 2) in mobilenet_v4.VARIANTS["conv_s"]
    model = mobilenet_v4.build(variant="conv_s", resolution=(32, 32), classes=2)
    names = {layer.name for layer in model.layers}
    # Block 6 is ExtraDW of stride 2, block 7 an inverted bottleneck, block 11 a ConvNeXt block.
    assert model.get_layer("block6_start").strides == (1, 1)
    assert model.get_layer("block6_middle").strides == (2, 2)
    assert "block6_add" not in names
    assert {"block7_middle", "block7_add", "block11_start", "block11_add"} <= names
    assert not {"block7_start", "block11_middle"} & names


@pytest.mark.slow
def test_every_kernel_trains(network):
    model = mobilenet_v4.build(variant="conv_s", resolution=(32, 32), classes=2)
    assert network(model).still_after_a_step() == []


def test_another_variant_is_refused():
    with pytest.raises(UsageError, match="'hybrid_m'.*conv_s, conv_m"):
        mobilenet_v4.build(variant="hybrid_m", resolution=(32, 32), classes=2)


@pytest.mark.slow
def test_scores_are_probabilities():
    model = mobilenet_v4.build(variant="conv_s", resolution=(33, 47), classes=3)
    assert (model.input_names, model.output_names) == (["image"], ["predictions"])
    scores = model.predict_on_batch(np.zeros((1, 33, 47, 3), np.float32))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
