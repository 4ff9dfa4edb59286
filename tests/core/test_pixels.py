import numpy as np
import pytest

from mobiledeploy.core import preprocessing
from mobiledeploy.core.pixels import MOST_BYTES, PixelCache, has_room
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import DataRef, ModelInput, Preprocessing

DATA = DataRef("demo", "validation", (24, 32), identity="0" * 64)


def end(**changes):
    channels = 1 if changes.get("channels") == "gray" else 3
    return ModelInput(
        "image",
        "image",
        (24, 32, channels),
        Preprocessing(**({"input_range": (-1.0, 1.0)} | changes)),
    )


class Counted:
    """The demo images, and how often one was drawn."""

    def __init__(self):
        self.samples = dataset("demo").open("demo", "validation", resolution=(48, 64))
        self.drawn = 0

    def image(self, index):
        self.drawn += 1
        return self.samples.image(index)


@pytest.mark.parametrize("channels", ["rgb", "bgr", "gray"])
def test_an_image_is_drawn_once_and_is_the_same(tmp_path, channels):
    samples, signature = Counted(), [end(channels=channels, crop=0.8)]
    cache = PixelCache(tmp_path, DATA)
    (alone,) = preprocessing.sample_inputs(samples, 3, signature)
    (first,) = preprocessing.sample_inputs(samples, 3, signature, cache)
    (second,) = preprocessing.sample_inputs(samples, 3, signature, cache)
    assert samples.drawn == 2
    np.testing.assert_array_equal(alone, first)
    np.testing.assert_array_equal(alone, second)


def test_other_numbers_of_the_same_pixels_are_no_other_image(tmp_path):
    samples, cache = Counted(), PixelCache(tmp_path, DATA)
    (one,) = preprocessing.sample_inputs(samples, 0, [end(input_range=(-1.0, 1.0))], cache)
    (other,) = preprocessing.sample_inputs(samples, 0, [end(input_range=(0.0, 255.0))], cache)
    assert samples.drawn == 1
    np.testing.assert_allclose(other / 127.5 - 1, one, atol=1e-6)


@pytest.mark.parametrize("changes", [{"crop": 0.5}, {"resize": "bicubic"}, {"channels": "bgr"}])
def test_another_geometry_is_another_image(tmp_path, changes):
    cache = PixelCache(tmp_path, DATA)
    cache.put(0, end(), np.zeros((24, 32, 3), np.uint8))
    assert cache.get(0, end()) is not None
    assert cache.get(0, end(**changes)) is None
    assert cache.get(1, end()) is None
    assert PixelCache(tmp_path, DataRef("photos", "validation", (24, 32))).get(0, end()) is None


def test_a_folder_that_takes_nothing_is_no_error(tmp_path):
    samples, cache = Counted(), PixelCache(tmp_path / "absent", DATA)
    for _ in range(2):
        preprocessing.sample_inputs(samples, 0, [end()], cache)
    assert samples.drawn == 2


def test_a_file_of_another_size_is_not_taken(tmp_path):
    cache = PixelCache(tmp_path, DATA)
    cache.put(0, end(), np.zeros((5, 5, 3), np.uint8))
    assert cache.get(0, end()) is None
    assert len(list(tmp_path.iterdir())) == 1


def test_only_so_many_pixels_are_kept(tmp_path):
    size = 24 * 32 * 3
    assert has_room(tmp_path, 10, (end(),))
    assert not has_room(tmp_path, MOST_BYTES // size + 1, (end(),))
    assert not has_room(tmp_path, 10, (ModelInput("age", "tensor", (1,)),))
