"""Random windows of images for the training, half of them mirrored."""

from __future__ import annotations

import tensorflow as tf


def random_windows(images: tf.Tensor, dice: tf.Tensor, smallest: float) -> tf.Tensor:
    """A window of each image [N, H, W, 3], resized to [H, W], float32; see `places` and `cut`."""
    return cut(images, places(dice, smallest))


def places(dice: tf.Tensor, smallest: float) -> tf.Tensor:
    """Random windows [N, 4]: top, left, bottom, right, in fractions of an image.

    Left is beyond right in a mirrored one.

    Args:
        dice: numbers from 0 to 1 [4, N]: size, top and left of the window, and whether to mirror.
        smallest: the smallest share of either side that a window has.
    """
    sides = 1 - (1 - smallest) * dice[0]
    top, left = (1 - sides) * dice[1], (1 - sides) * dice[2]
    is_mirrored = dice[3] < 0.5
    ends = (tf.where(is_mirrored, left + sides, left), tf.where(is_mirrored, left, left + sides))
    return tf.stack([top, ends[0], top + sides, ends[1]], axis=1)


def cut(images: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """The window of each image [N, H, W, C], uint8 or float32, resized to [H, W], float32."""
    numbers = tf.range(tf.shape(images)[0])
    return tf.image.crop_and_resize(images, windows, numbers, images.shape[1:3])
