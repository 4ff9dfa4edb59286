from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobiledeploy.core.errors import UsageError
from mobiledeploy.datasets import shapes


def _image(split: str, index: int, height: int, width: int) -> np.ndarray:
    return shapes.open("demo", split, resolution=(height, width)).image(index)


def test_source_is_demo_only() -> None:
    assert shapes.accepts("demo")
    assert not shapes.accepts("photos/")


def test_unknown_split_is_refused_and_says_which_there_are() -> None:
    with pytest.raises(UsageError, match=r"'all'.*train, calibration, validation, test"):
        shapes.open("demo", "all", resolution=(64, 64))


@pytest.mark.parametrize(
    ("index", "mean"),
    [(0, (138, 135, 88)), (49, (95, 160, 178)), (98, (129, 62, 192)), (111, (127, 81, 233))],
)
def test_images_are_the_ones_that_the_weights_were_trained_on(
    index: int, mean: tuple[int, int, int]
) -> None:
    # Pillow may round an edge otherwise from version to version; the scene stays.
    assert shapes.VERSION == 1
    image = _image("validation", index, 64, 64)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), mean, atol=1.0)


@settings(max_examples=60)
@given(
    split=st.sampled_from(tuple(shapes.SPLITS)),
    index=st.integers(0, 199),
    height=st.integers(32, 200),
    width=st.integers(32, 200),
)
def test_image_is_a_function_of_split_index_and_resolution(
    split: str, index: int, height: int, width: int
) -> None:
    image = _image(split, index, height, width)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, _image(split, index, height, width))


@pytest.mark.parametrize("resolution", [(32, 32), (33, 47), (1024, 1024), (32, 1024), (1024, 32)])
def test_any_resolution(resolution: tuple[int, int]) -> None:
    image = _image("test", 7, *resolution)
    assert image.shape == (*resolution, 3)
    assert image.std() > 0


def test_order_of_access_does_not_matter() -> None:
    samples = shapes.open("demo", "test", resolution=(48, 48))
    forwards = [samples.image(index) for index in range(12)]
    backwards = [samples.image(index) for index in reversed(range(12))][::-1]
    np.testing.assert_array_equal(forwards, backwards)


def test_same_scene_at_every_resolution() -> None:
    def coarse(image: np.ndarray) -> np.ndarray:
        small = Image.fromarray(image).resize((32, 32), Image.Resampling.BOX)
        return np.asarray(small, dtype=float).ravel()

    for index in range(24):
        reference = coarse(_image("validation", index, 512, 512))
        for side in (64, 96, 224, 320):
            other = coarse(_image("validation", index, side, side))
            assert np.corrcoef(reference, other)[0, 1] > 0.97


@pytest.mark.parametrize("resolution", [(96, 160), (160, 96), (96, 97)])
def test_unit_square_stands_in_the_middle_of_a_longer_image(resolution: tuple[int, int]) -> None:
    height, width = resolution
    top, left = (height - 96) // 2, (width - 96) // 2
    for index in range(12):
        middle = _image("test", index, height, width)[top : top + 96, left : left + 96]
        square = _image("test", index, 96, 96)
        # Blur reaches over the border: the outermost pixels may differ.
        difference = np.abs(middle.astype(int) - square.astype(int))[6:-6, 6:-6]
        assert difference.max() <= 2


def test_splits_are_disjoint_and_no_image_comes_twice() -> None:
    values: dict[bytes, str] = {}
    for split in shapes.SPLITS:
        samples = shapes.open("demo", split, resolution=(32, 32))
        for index in range(200):
            assert values.setdefault(samples.image(index).tobytes(), split) == split
    assert len(values) == 200 * len(shapes.SPLITS)


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_labels_are_balanced_in_every_run_of_samples(split: str) -> None:
    samples = shapes.open("demo", split, resolution=(32, 32))
    labels = [samples.label(index) for index in range(len(samples))]
    for run in (labels, labels[:50], labels[37:137]):
        counts = np.bincount(run, minlength=len(samples.classes))
        assert counts.max() - counts.min() <= 1


def test_hardness_is_balanced_over_classes() -> None:
    pairs = {(index % 12, shapes.hardness(index)) for index in range(120)}
    assert len(pairs) == 120


def test_names_sizes_and_identity() -> None:
    samples = shapes.open("demo", "validation", resolution=(96, 96))
    assert len(samples) == 1000
    assert len(samples.classes) == len(set(samples.classes)) == 12
    assert samples.id(17) == "validation/00017"
    assert len({samples.id(index) for index in range(len(samples))}) == len(samples)
    identities = {
        shapes.open("demo", split, resolution=resolution).identity
        for split in shapes.SPLITS
        for resolution in ((96, 96), (96, 97))
    }
    assert len(identities) == 2 * len(shapes.SPLITS)
    assert samples.identity == shapes.open("demo", "validation", resolution=(96, 96)).identity


@pytest.mark.parametrize("index", [-1, 200])
def test_index_outside_of_the_split(index: int) -> None:
    samples = shapes.open("demo", "calibration", resolution=(32, 32))
    for ask in (samples.image, samples.label, samples.id):
        with pytest.raises(IndexError, match="of 200 in calibration"):
            ask(index)
