import numpy as np
import pytest

from mobiledeploy.architectures import mobilenet_v1, ssdlite
from mobiledeploy.core import cards
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.frameworks import tf_keras as framework


def build(backbone="mobilenet_v1", alpha=0.25, resolution=64, classes=12):
    return ssdlite.build(
        backbone=backbone, alpha=alpha, resolution=(resolution,) * 2, classes=classes
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "mult_adds", "parameters", "printed"),
    [
        ("mobilenet_v1", 1_307_836_608, 5_086_036, (1.3, 5.1)),
        ("mobilenet_v2", 787_273_408, 4_320_660, (0.8, 4.3)),
    ],
)
def test_size_is_that_of_table_6(network, backbone, mult_adds, parameters, printed):
    """At 320 pixels, with the 80 classes of COCO."""
    model = network(build(backbone, 1.0, 320, 80))
    assert (model.mult_adds, model.parameters) == (mult_adds, parameters)
    assert (round(mult_adds / 1e9, 1), round(parameters / 1e6, 1)) == printed
    assert model.lambdas == []


@pytest.mark.parametrize(
    "resolution",
    [
        *(pytest.param(r, marks=pytest.mark.slow) for r in ((320, 320), (160, 96), (300, 301))),
        (32, 32),
    ],
)
def test_there_is_a_box_and_a_row_of_scores_for_each_anchor(resolution):
    arguments = {"backbone": "mobilenet_v2", "alpha": 0.35, "resolution": resolution}
    anchors = ssdlite.anchors(**arguments)
    model = ssdlite.build(**arguments, classes=7)
    assert model.output_shape == [(None, anchors.count, 4), (None, anchors.count, 7)]
    assert [end.name for end in framework.outputs(model)] == ["boxes", "scores"]
    assert [end.activation for end in framework.outputs(model)] == ["none", "sigmoid"]


def test_anchors_are_those_of_the_api():
    """Six maps, scales from 0.2 to 0.95; three anchors at each place of the first map."""
    anchors = ssdlite.anchors(backbone="mobilenet_v1", alpha=1.0, resolution=(320, 320))
    assert [level.grid[0] for level in anchors.levels] == [20, 10, 5, 3, 2, 1]
    assert anchors.count == 2034
    assert [len(level.sizes) for level in anchors.levels] == [3, 6, 6, 6, 6, 6]
    assert anchors.levels[0].sizes[0] == (0.1, 0.1)
    # 0.35, ratio 2: twice as wide as high.
    height, width = anchors.levels[1].sizes[1]
    assert width == pytest.approx(2 * height, rel=1e-5)
    assert height * width == pytest.approx(0.35**2, rel=1e-5)
    assert anchors.levels[5].sizes[5][0] == pytest.approx((0.95 * 1.0) ** 0.5, rel=1e-5)


@pytest.mark.slow
def test_the_maps_have_the_strides_of_the_paper():
    for backbone, (first, second) in ssdlite.FEATURES.items():
        model = build(backbone, resolution=64)
        assert model.get_layer(first).output_shape[1:3] == (4, 4)
        assert model.get_layer(second).output_shape[1:3] == (2, 2)


@pytest.mark.slow
def test_before_training_every_score_is_small():
    scores = build()(np.zeros((1, 64, 64, 3), np.float32))[1].numpy()
    np.testing.assert_allclose(scores, ssdlite.PRIOR, rtol=1e-3)


@pytest.mark.slow
def test_a_classifier_gives_its_weights_to_the_backbone(network, tmp_path):
    classifier = mobilenet_v1.build(alpha=0.25, resolution=(64, 64), classes=5)
    network(classifier).randomise()
    classifier.save_weights(tmp_path / "w.h5")
    model = build()
    loaded = framework.load_shared(model, tmp_path / "w.h5", alpha=0.25)
    assert len(loaded) == 54
    assert "conv_preds" not in loaded
    for name in ("conv1", "conv_pw_13_bn"):
        for ours, theirs in zip(
            model.get_layer(name).get_weights(),
            classifier.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match="no such layer conv1") as raised:
        framework.load_shared(build(alpha=0.5), tmp_path / "w.h5", alpha=0.5)
    assert raised.value.hint.endswith("--alpha 0.25")


def test_another_backbone_is_refused():
    with pytest.raises(UsageError, match="no backbone 'vgg16'"):
        build("vgg16")


def test_cards_name_backbones_that_there_are():
    found = {
        card.arguments["backbone"]
        for card in map(cards.load, cards.names())
        if card.task == "detection"
    }
    assert found == set(ssdlite.FEATURES)
