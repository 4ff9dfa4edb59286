"""Boxes with classes, as offsets from anchors: a focal loss of classes, a smooth L1 of offsets.

An anchor whose IoU with an annotated box is 0.5 or more learns the one with the largest IoU, and
each box is learnt by the anchor nearest to it, whatever their IoU: W. Liu et al. 2016, SSD: Single
Shot MultiBox Detector, section 2.2, https://arxiv.org/abs/1512.02325. All other anchors learn that
there is nothing. Boxes over crowds are left out.

Both losses are sums over the anchors of an image, divided by the number of those that learn a box.
The classes have the focal loss of T.-Y. Lin et al. 2017, Focal Loss for Dense Object Detection,
https://arxiv.org/abs/1708.02002, with the weights that TensorFlow's Object Detection API trains
SSDLite by (ssdlite_mobilenet_v3_*_320x320_coco.config).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mobiledeploy.analysis import anchors as anchors_
from mobiledeploy.core import detectors
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import Anchors, ModelSpec, TrainingSettings

MATCHED = 0.5
"""The least IoU of an anchor with the box that it learns."""
FOCUS = 2.0
"""The exponent gamma of the focal loss."""
WEIGHT = 0.75
"""The weight alpha of what is there; what is not there has the rest."""
_LEAST = 1e-7
_TINY = 1e-8


def targets(examples: Any, spec: ModelSpec) -> tuple[Array, ...]:
    """Boxes, float32 [N, M, 4] left, top, right, bottom, and their classes, int64 [N, M].

    M is the largest number of boxes of one image; the rest has the class -1.
    """
    truth = examples.truth()
    most = max((len(one.boxes) for one in truth), default=0)
    if not most:
        raise InputError("no image has a box to learn from", "give images with boxes")
    boxes = np.zeros((len(truth), most, 4), np.float32)
    classes = np.full((len(truth), most), -1, np.int64)
    for number, one in enumerate(truth):
        crowd = one.crowd or (False,) * len(one.boxes)
        kept = [index for index, is_crowd in enumerate(crowd) if not is_crowd]
        for place, index in enumerate(kept):
            boxes[number, place] = one.boxes[index]
            classes[number, place] = one.labels[index]
    return boxes, classes


def moved(targets: tuple[Any, ...], windows: Any) -> tuple[Any, ...]:
    """The parts of the boxes in the windows; a box whose centre is outside is left out."""
    boxes, classes = targets
    top, left, bottom, right = (windows[:, None, side] for side in range(4))
    x = (boxes[..., 0::2] - left[..., None]) / (right - left)[..., None]
    y = (boxes[..., 1::2] - top[..., None]) / (bottom - top)[..., None]
    # A mirrored box has its right side first.
    low_x, high_x = tf.reduce_min(x, axis=-1), tf.reduce_max(x, axis=-1)
    low_y, high_y = y[..., 0], y[..., 1]
    center_x, center_y = (low_x + high_x) / 2, (low_y + high_y) / 2
    inside = (center_x > 0) & (center_x < 1) & (center_y > 0) & (center_y < 1)
    seen = tf.clip_by_value(tf.stack([low_x, low_y, high_x, high_y], axis=-1), 0.0, 1.0)
    return seen, tf.where(inside, classes, -1)


def encoded(targets: tuple[Any, ...], spec: ModelSpec) -> Any:
    """For `boxes` float32 [N, A, 5] and for `scores` [N, A, classes + 1], of each anchor.

    Offsets, and 1 for the class; the last column is the anchor's weight.
    """
    boxes, classes = targets
    anchors = detectors.anchors_of(spec)
    assert anchors is not None
    overlaps = _overlaps(boxes, classes, anchors)
    best = tf.reduce_max(overlaps, axis=2)
    mine = tf.argmax(overlaps, axis=2)
    # [N, M, A]: the anchor nearest to each box. Where it is that of two boxes, the nearer has it.
    nearest = tf.one_hot(tf.argmax(overlaps, axis=1), anchors.count, dtype=tf.float32)
    nearest *= tf.cast(classes >= 0, tf.float32)[..., None]
    wanted = tf.transpose(nearest, (0, 2, 1)) * (1 + overlaps)
    is_forced = tf.reduce_max(wanted, axis=2) > 0
    mine = tf.where(is_forced, tf.argmax(wanted, axis=2), mine)
    matched = (best >= MATCHED) | is_forced
    positive = tf.cast(matched, tf.float32)
    count = tf.maximum(tf.reduce_sum(positive, axis=1, keepdims=True), 1.0)
    own_boxes = tf.gather(boxes, mine, batch_dims=1)
    own_classes = tf.where(matched, tf.gather(classes, mine, batch_dims=1), -1)
    offsets = tf.where(matched[..., None], _offsets(own_boxes, anchors), 0.0)
    one_hot = tf.one_hot(own_classes, spec.classes)
    everywhere = tf.ones_like(positive) / count
    return (
        tf.concat([offsets, (positive / count)[..., None]], axis=-1),
        tf.concat([one_hot, everywhere[..., None]], axis=-1),
    )


def losses(settings: TrainingSettings) -> Sequence[Callable[[Any, Any], Any]]:
    """Of offsets, and of scores."""
    return smooth_l1, focal


def figures() -> Sequence[Any]:
    """None: a score for each anchor says little of boxes."""
    return ()


def smooth_l1(truth: Any, offsets: Any) -> Any:
    """[N]: the squared half up to 1, the absolute value less one half beyond, summed."""
    error = tf.abs(offsets - truth[..., :4])
    each = tf.where(error < 1, error**2 / 2, error - 0.5)
    return tf.reduce_sum(truth[..., 4] * tf.reduce_sum(each, axis=-1), axis=-1)


def focal(truth: Any, scores: Any) -> Any:
    """[N]: -w (1 - p)^2 log p of what is there, -(1 - w) p^2 log (1 - p) of what is not, summed."""
    there = truth[..., :-1]
    p = tf.clip_by_value(scores, _LEAST, 1 - _LEAST)
    right = tf.where(there > 0, p, 1 - p)
    weight = tf.where(there > 0, WEIGHT, 1 - WEIGHT)
    each = -weight * (1 - right) ** FOCUS * tf.math.log(right)
    return tf.reduce_sum(truth[..., -1] * tf.reduce_sum(each, axis=-1), axis=-1)


def _corners(anchors: Anchors) -> Any:
    """float32 [A, 4]: left, top, right and bottom of each anchor."""
    y, x, height, width = anchors_.table(anchors).T
    sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return np.stack(sides, axis=1).astype(np.float32)


def _overlaps(boxes: Any, classes: Any, anchors: Anchors) -> Any:
    """[N, A, M]: the IoU of each anchor with each box, 0 where there is no box."""
    own = _corners(anchors)[None, :, None]
    low = tf.maximum(own[..., :2], boxes[:, None, :, :2])
    high = tf.minimum(own[..., 2:], boxes[:, None, :, 2:])
    both = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
    areas = [
        tf.reduce_prod(sides[..., 2:] - sides[..., :2], axis=-1) for sides in (own, boxes[:, None])
    ]
    overlap = both / tf.maximum(areas[0] + areas[1] - both, _TINY)
    return overlap * tf.cast(classes >= 0, tf.float32)[:, None]


def _offsets(boxes: Any, anchors: Anchors) -> Any:
    """[N, A, 4] (ty, tx, th, tw) of the box [N, A, 4] that each anchor learns."""
    table = anchors_.table(anchors).astype(np.float32)
    y, x, height, width = (table[:, side] for side in range(4))
    sides = [tf.maximum(boxes[..., side + 2] - boxes[..., side], _TINY) for side in range(2)]
    changes = (
        ((boxes[..., 1] + boxes[..., 3]) / 2 - y) / height,
        ((boxes[..., 0] + boxes[..., 2]) / 2 - x) / width,
        tf.math.log(sides[1] / height),
        tf.math.log(sides[0] / width),
    )
    return tf.stack(changes, axis=-1) * np.array(anchors.scales, np.float32)
