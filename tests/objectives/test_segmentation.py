import numpy as np
import pytest
import tensorflow as tf

from mobiledeploy.analysis import masks
from mobiledeploy.core import cards
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.objectives import segmentation
from mobiledeploy.steps import card_specs
from mobiledeploy.training import windows
from mobiledeploy.training.loop import LabelledImages

SPEC = card_specs.spec(cards.load("lraspp_mobilenet_v3_small"), res=32, classes=3)
TABLE = np.zeros((32, 32), np.int64)
TABLE[8:24, :16] = 2
TABLE[:4] = -1


def examples(*tables):
    truth = tuple(Annotation(mask=masks.encode(table)) for table in tables)
    return LabelledImages(
        np.zeros((len(truth), 32, 32, 3), np.uint8), np.full(len(truth), -1), truth
    )


def test_targets_are_the_classes_of_pixels():
    (tables,) = segmentation.targets(examples(TABLE, TABLE[::-1]), SPEC)
    assert tables.shape == (2, 32, 32, 1)
    np.testing.assert_array_equal(tables[0, ..., 0], np.where(TABLE < 0, 255, TABLE))
    np.testing.assert_array_equal(tables[1], tables[0, ::-1])


def test_an_unknown_class_and_empty_masks_are_refused():
    with pytest.raises(InputError, match="a mask has class 3, and there are 3 classes"):
        segmentation.targets(examples(TABLE, np.full((32, 32), 3)), SPEC)
    with pytest.raises(InputError, match="no pixel has a class"):
        segmentation.targets(examples(np.full((32, 32), -1)), SPEC)


def test_masks_move_as_images_do():
    """An image that shows its own mask still does after the windows were cut out of both."""
    (tables,) = segmentation.targets(examples(TABLE, TABLE), SPEC)
    places = windows.places(tf.constant([[0.0, 0.3], [0.5, 0.9], [0.5, 0.2], [0.0, 0.9]]), 0.5)
    images = windows.cut(tf.constant(np.repeat(tables, 3, axis=-1), tf.float32), places)
    (moved,) = segmentation.moved((tf.constant(tables),), places)
    assert set(np.unique(moved)) <= {0, 2, 255}
    # The first window is the whole image, mirrored.
    np.testing.assert_array_equal(moved[0], tables[0][:, ::-1])
    assert len(np.unique(moved[1])) > 1
    # A pixel between two classes is a mixture in the image alone.
    inner = np.isin(np.asarray(images)[..., :1], (0, 2, 255))
    np.testing.assert_array_equal(np.asarray(images)[..., :1][inner], np.asarray(moved)[inner])
    assert inner.mean() > 0.7


def test_the_loss_is_the_mean_over_annotated_pixels():
    (tables,) = segmentation.targets(examples(TABLE, TABLE), SPEC)
    logits = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    (loss,) = segmentation.losses(None)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for number, one in enumerate(loss(tf.constant(tables), tf.constant(logits))):
        known = TABLE >= 0
        picked = np.take_along_axis(log_p[number], TABLE.clip(0)[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(one, -picked[known].mean(), rtol=1e-5)
    # What nobody annotated changes nothing.
    changed = logits.copy()
    changed[:, :4] += 100 * np.arange(3, dtype=np.float32)
    before, after = (loss(tf.constant(tables), tf.constant(x)) for x in (logits, changed))
    np.testing.assert_allclose(before, after)
