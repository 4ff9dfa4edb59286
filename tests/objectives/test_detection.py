"""Targets and losses of a detector, against the task's own decoding and plain sums."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from mobiledeploy.analysis import anchors as anchors_
from mobiledeploy.core import cards, detectors
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.types import Annotation, ModelOutput
from mobiledeploy.objectives import detection
from mobiledeploy.steps import card_specs
from mobiledeploy.training import loop

SPEC = card_specs.spec(cards.load("ssdlite_mobilenet_v1"), alpha=0.25, res=96, classes=3)
ANCHORS = detectors.anchors_of(SPEC)
ENDS = detectors.with_anchors(
    (
        ModelOutput("boxes", (ANCHORS.count, 4)),
        ModelOutput("scores", (ANCHORS.count, 3), "sigmoid"),
    ),
    ANCHORS,
)
TRUTH = (
    Annotation(labels=(2, 0), boxes=((0.1, 0.2, 0.5, 0.6), (0.55, 0.5, 0.97, 0.9))),
    Annotation(labels=(1,), boxes=((0.3, 0.02, 0.33, 0.06),)),
    Annotation(),
    Annotation(labels=(0, 1), boxes=((0, 0, 1, 1), (0.4, 0.4, 0.7, 0.8)), crowd=(True, False)),
)


def examples(truth=TRUTH) -> loop.LabelledImages:
    count = len(truth)
    return loop.LabelledImages(
        np.zeros((count, 96, 96, 3), np.uint8), np.full(count, -1, np.int64), truth
    )


def encoded(targets):
    return [x.numpy() for x in detection.encoded(tuple(map(tf.constant, targets)), SPEC)]


def test_what_is_learnt_decodes_to_the_annotations():
    boxes, scores = encoded(detection.targets(examples(), SPEC))
    assert boxes.shape == (4, ANCHORS.count, 5)
    assert scores.shape == (4, ANCHORS.count, 4)
    task = TASKS.load("detection")
    truth = [*TRUTH[:3], dataclasses.replace(TRUTH[3], labels=(1,), boxes=TRUTH[3].boxes[1:])]
    for n, one in enumerate(truth):
        answer = task.decode((boxes[n, :, :4], scores[n, :, :3]), ENDS)
        assert sorted(answer.classes) == sorted(one.labels)
        order = [answer.classes.index(label) for label in one.labels]
        np.testing.assert_allclose(
            np.array([answer.boxes[i] for i in order]).reshape(-1, 4),
            np.array(one.boxes).reshape(-1, 4),
            atol=1e-5,
        )


def test_each_box_is_learnt_and_an_image_without_any_learns_nothing_but_background():
    boxes, scores = encoded(detection.targets(examples(), SPEC))
    learnt = (boxes[..., 4] > 0).sum(axis=1)
    # The second one is smaller than any anchor: none reaches an IoU of 0.5.
    assert learnt[1] == 1
    assert learnt[2] == 0
    assert learnt[0] >= 2
    # An image weighs as much whatever the number of its boxes.
    np.testing.assert_allclose(boxes[[0, 1, 3], :, 4].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scores[2, :, 3], 1)
    assert not scores[2, :, :3].any()


def test_matching_is_by_the_iou():
    """The anchors of IoU 0.5 and more, and for each box the nearest, counted one by one."""
    boxes, _ = encoded(detection.targets(examples(), SPEC))
    y, x, height, width = anchors_.table(ANCHORS).T
    sides = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    for n in (0, 1):
        ious = np.array([[_iou(anchor, box) for anchor in sides] for box in TRUTH[n].boxes])
        expected = (ious >= 0.5).any(axis=0)
        expected[ious.argmax(axis=1)] = True
        np.testing.assert_array_equal(boxes[n, :, 4] > 0, expected)


def _iou(one, other):
    both = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return both / (sum(areas) - both)


def test_boxes_follow_windows_and_mirrors():
    targets = tuple(map(tf.constant, detection.targets(examples(TRUTH[:1] * 3), SPEC)))
    windows = tf.constant([[0, 1, 1, 0], [0.1, 0, 0.6, 0.5], [0.5, 0.5, 1, 1]], tf.float32)
    boxes, classes = (x.numpy() for x in detection.moved(targets, windows))
    np.testing.assert_allclose(boxes[0, 0], [0.5, 0.2, 0.9, 0.6], atol=1e-6)
    np.testing.assert_allclose(boxes[1, 0], [0.2, 0.2, 1.0, 1.0], atol=1e-6)
    # What has its centre outside is not there.
    assert classes.tolist() == [[2, 0], [2, -1], [-1, 0]]
    np.testing.assert_allclose(boxes[2, 1], [0.1, 0.0, 0.94, 0.8], atol=1e-6)


def test_the_losses_are_their_formulas():
    truth = np.zeros((1, 2, 5), np.float32)
    truth[0, 0] = [1, 2, 3, 4, 0.5]
    offsets = np.float32([[[1.5, 2, 3, 7], [9, 9, 9, 9]]])
    assert detection.smooth_l1(truth, offsets).numpy() == pytest.approx(0.5 * (0.125 + 2.5))
    truth = np.float32([[[1, 0, 0.5], [0, 0, 1]]])
    scores = np.float32([[[0.9, 0.2], [0.1, 0.6]]])
    expected = -0.5 * (0.75 * 0.1**2 * math.log(0.9) + 0.25 * 0.2**2 * math.log(0.8)) - 0.25 * (
        0.1**2 * math.log(0.9) + 0.6**2 * math.log(0.4)
    )
    assert detection.focal(truth, scores).numpy() == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(detection.focal(truth, np.float32([[[0, 1], [1, 0]]])).numpy()).all()


def test_images_without_a_box_are_refused():
    with pytest.raises(InputError, match="no image has a box"):
        detection.targets(examples((Annotation(),)), SPEC)
