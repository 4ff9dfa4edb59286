import pytest

from mobiledeploy.architectures import alexnet


@pytest.mark.slow
def test_size_is_the_papers(network):
    model = network(alexnet.build(resolution=(224, 224), classes=1000))
    # The paper prints 60 million parameters; Howard et al. 2017 print 720 M mult-adds.
    assert model.parameters == 60_965_224
    assert model.mult_adds == 724_406_816
    assert model.lambdas == []
    sizes = {1: 55, 2: 27, 3: 13, 4: 13, 5: 13}
    neurons = {1: 290_400, 2: 186_624, 3: 64_896, 4: 64_896, 5: 43_264}
    for number, size in sizes.items():
        _, height, width, filters = model.model.get_layer(f"conv{number}").output_shape
        assert (height, width) == (size, size)
        # The counts of section 3.5, as far as its own text is consistent.
        assert height * width * filters == neurons[number]


@pytest.mark.slow
def test_joined_towers_are_what_others_count(network, monkeypatch):
    combined = [(*row[:4], 1, *row[5:]) for row in alexnet.CONVOLUTIONS]
    monkeypatch.setattr(alexnet, "CONVOLUTIONS", combined)
    model = network(alexnet.build(resolution=(224, 224), classes=1000))
    # osmr/imgclsmob prints 62.378344 M and 1132.33 M.
    assert model.parameters == 62_378_344
    assert round(model.mult_adds / 1132.33e6, 2) == 1.0


@pytest.mark.slow
def test_every_kernel_trains(network):
    model = alexnet.build(resolution=(64, 64), classes=2)
    assert network(model).still_after_a_step() == []


def test_the_smallest_and_an_odd_image_fit():
    for size in ((64, 64), (65, 97)):
        assert alexnet.build(resolution=size, classes=2).output_shape == (None, 2)
