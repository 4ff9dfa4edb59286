"""A class for each pixel: cross-entropy of the softmax of its logits.

The mean is over the annotated pixels of an image, so that an image with few of them counts as much
as another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mobiledeploy.analysis import masks
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import ModelSpec, TrainingSettings

NOT_ANNOTATED = 255
_MOST_CLASSES = 255


def targets(examples: Any, spec: ModelSpec) -> tuple[Array, ...]:
    """The class of each pixel, uint8 [N, H, W, 1] at the model's resolution; 255 for none.

    InputError for more classes than a byte holds, for a class that the model lacks, and where no
    pixel is annotated.
    """
    if spec.classes > _MOST_CLASSES:
        raise InputError(f"{spec.classes} classes are more than {_MOST_CLASSES}")
    truth = examples.truth()
    tables = np.full((len(truth), *spec.resolution, 1), NOT_ANNOTATED, np.uint8)
    for number, one in enumerate(truth):
        if one.mask is not None:
            classes = masks.decode(one.mask)
            if classes.max(initial=-1) >= spec.classes:
                raise InputError(
                    f"a mask has class {classes.max()}, and there are {spec.classes} classes",
                    "name every class in classes.txt or --labels",
                )
            tables[number, ..., 0] = np.where(classes < 0, NOT_ANNOTATED, classes)
    if (tables == NOT_ANNOTATED).all():
        raise InputError("no pixel has a class to learn", "give masks with classes")
    return (tables,)


def moved(targets: tuple[Any, ...], windows: Any) -> tuple[Any, ...]:
    """The part of each mask in its window, resized by the nearest pixel: classes never mix."""
    (tables,) = targets
    numbers = tf.range(tf.shape(tables)[0])
    size = tables.shape[1:3]
    seen = tf.image.crop_and_resize(tables, windows, numbers, size, method="nearest")
    return (tf.cast(tf.round(seen), tf.uint8),)


def encoded(targets: tuple[Any, ...], spec: ModelSpec) -> Any:
    """The masks, [N, H, W, 1]."""
    return targets[0]


def losses(settings: TrainingSettings) -> Sequence[Callable[[Any, Any], Any]]:
    """One, of the only output."""
    return (cross_entropy,)


def figures() -> Sequence[Any]:
    """None: nearly all pixels are background, and a share of right ones says little."""
    return ()


def cross_entropy(truth: Any, logits: Any) -> Any:
    """[N]: the mean of -log p of the pixels' classes [N, H, W, 1], logits [N, H, W, C]."""
    classes = tf.cast(truth[..., 0], tf.int32)
    known = classes != NOT_ANNOTATED
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(known, classes, 0), logits)
    weight = tf.cast(known, each.dtype)
    total = tf.reduce_sum(each * weight, axis=(1, 2))
    return total / tf.maximum(tf.reduce_sum(weight, axis=(1, 2)), 1.0)
