from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.analysis import masks
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.datasets import scenes, shapes

BOTH = ("demo-boxes", "demo-masks")


def opened(source, split="validation", resolution=(64, 64)):
    return dataset(source).open(source, split, resolution=resolution, labels=())


def table(samples, index):
    mask = samples.annotation(index).mask
    assert mask is not None
    return masks.decode(mask)


def test_the_words_are_its_own():
    assert all(scenes.accepts(source) and not shapes.accepts(source) for source in BOTH)
    assert not scenes.accepts("demo")
    assert not scenes.accepts("/somewhere/demo-boxes")


def test_unknown_split_is_refused_and_says_which_there_are():
    with pytest.raises(UsageError, match=r"'all'.*train, calibration, validation, test"):
        opened("demo-masks", "all")


@pytest.mark.parametrize(
    ("index", "mean"), [(0, (40, 38, 128)), (49, (107, 103, 111)), (111, (135, 218, 219))]
)
def test_images_are_the_ones_that_the_weights_were_trained_on(index, mean):
    # Pillow may round an edge otherwise from version to version; the scene stays.
    assert scenes.VERSION == 1
    image = opened("demo-boxes").image(index)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), mean, atol=1.0)


def test_both_data_sets_have_the_same_images_and_their_own_classes():
    boxes, tables = map(opened, BOTH)
    assert boxes.classes == shapes.CLASSES
    assert tables.classes == ("background", *shapes.CLASSES)
    assert boxes.identity != tables.identity
    for index in range(12):
        np.testing.assert_array_equal(boxes.image(index), tables.image(index))
        assert boxes.id(index) == tables.id(index) == f"validation/{index:05d}"
        assert boxes.label(index) == tables.label(index) == -1


def test_no_scene_is_an_image_of_one_shape_and_none_comes_twice():
    images = {
        samples.image(index).tobytes()
        for source in ("demo", "demo-boxes")
        for split in scenes.SPLITS
        for samples in (opened(source, split, (32, 32)),)
        for index in range(60)
    }
    assert len(images) == 2 * 60 * len(scenes.SPLITS)


@pytest.mark.parametrize("resolution", [(96, 96), (64, 96), (96, 64)])
def test_boxes_and_masks_fit_each_other(resolution):
    height, width = resolution
    boxes, tables = (opened(source, resolution=resolution) for source in BOTH)
    for index in range(60):
        truth, classes = boxes.annotation(index), table(tables, index)
        assert classes.shape == resolution
        assert boxes.image(index).shape == (*resolution, 3)
        assert 1 <= len(truth.boxes) == len(truth.labels) <= 7
        covered = np.zeros(resolution, bool)
        for (left, top, right, bottom), label in zip(truth.boxes, truth.labels, strict=True):
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            rows = slice(int(np.floor(top * height)), int(np.ceil(bottom * height)))
            columns = slice(int(np.floor(left * width)), int(np.ceil(right * width)))
            covered[rows, columns] = True
            # Nothing hides a shape whole, though a ring or a crescent fills little of its box.
            assert np.mean(classes[rows, columns] == label + 1) > 0.06
        assert not classes[~covered].any()
        assert set(np.unique(classes)) == {0, *(label + 1 for label in truth.labels)}


def test_boxes_touch_what_they_hold():
    """On the easy images nothing is hidden, so a box is as large as its pixels."""
    boxes, tables = (opened(source, resolution=(160, 160)) for source in BOTH)
    held = 0
    for index in range(12):
        truth, classes = boxes.annotation(index), table(tables, index)
        for box, label in zip(truth.boxes, truth.labels, strict=True):
            if truth.labels.count(label) > 1:
                continue
            rows, columns = np.nonzero(classes == label + 1)
            edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(np.array(box) * 160, edges, atol=1.5)
            held += 1
    assert held > 12


def test_a_mask_shows_what_the_image_shows():
    """Where the class changes from pixel to pixel, so does the colour."""
    samples = opened("demo-masks", resolution=(160, 160))
    for index in range(12):
        classes, image = table(samples, index), samples.image(index).astype(float)
        steps = np.abs(np.diff(image, axis=1)).sum(axis=2)
        changes = np.diff(classes, axis=1) != 0
        assert steps[changes].mean() > 5 * steps[~changes].mean()


def test_classes_and_hardness_are_balanced():
    samples = opened("demo-boxes")
    labels = [label for index in range(600) for label in samples.annotation(index).labels]
    counts = np.bincount(labels, minlength=12)
    assert counts.max() < 1.3 * counts.min()
    few, many = (
        np.mean([len(samples.annotation(index).boxes) for index in range(start, start + 12)])
        for start in (0, 108)
    )
    assert few < many


def test_same_scene_at_every_resolution():
    for index in range(12):
        small, large = (opened("demo-masks", resolution=(side, side)) for side in (64, 192))
        middle = table(large, index)[1::3, 1::3]
        assert np.mean(table(small, index) == middle) > 0.99
        coarse, fine = (
            opened("demo-boxes", resolution=(side, side)).annotation(index) for side in (64, 192)
        )
        assert coarse.labels == fine.labels
        np.testing.assert_allclose(coarse.boxes, fine.boxes, atol=1e-9)


@pytest.mark.parametrize("source", BOTH)
def test_names_sizes_and_identity(source):
    assert len(opened(source)) == 1000
    identities = {
        opened(source, split, size).identity
        for split in scenes.SPLITS
        for size in ((96, 96), (96, 97))
    }
    assert len(identities) == 2 * len(scenes.SPLITS)
    assert opened(source, "held").identity == opened(source).identity


@pytest.mark.parametrize("index", [-1, 200])
def test_index_outside_of_the_split(index):
    samples = opened("demo-masks", "calibration", (32, 32))
    for ask in (samples.image, samples.label, samples.id, samples.annotation):
        with pytest.raises(IndexError, match="of 200 in calibration"):
            ask(index)
