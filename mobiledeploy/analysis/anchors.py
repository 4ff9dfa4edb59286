"""Boxes as offsets from anchors, and back.

S. Ren et al. 2015, Faster R-CNN, section 3.1.2, https://arxiv.org/abs/1506.01497, with the scales
of TensorFlow's Object Detection API (faster_rcnn_box_coder): for an anchor with the centre (ya, xa)
and the size (ha, wa)

    ty = scale_y (y - ya) / ha        th = scale_h log(h / ha)
    tx = scale_x (x - xa) / wa        tw = scale_w log(w / wa)

Boxes are those of `core.types.Box`: left, top, right and bottom, as fractions of the input.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobiledeploy.core.types import Anchors

_LARGEST = 10.0
"""An anchor grows by e to this power at most: a logarithm that overflows is no box."""


@functools.lru_cache(maxsize=4)
def table(anchors: Anchors) -> NDArray[np.float64]:
    """[A, 4]: centre y, centre x, height and width of each anchor, in their order."""
    levels = []
    for level in anchors.levels:
        rows, columns = level.grid
        y, x, size = np.meshgrid(
            (np.arange(rows) + 0.5) / rows,
            (np.arange(columns) + 0.5) / columns,
            np.arange(len(level.sizes)),
            indexing="ij",
        )
        sizes = np.array(level.sizes, np.float64)[size]
        levels.append(np.stack([y, x, sizes[..., 0], sizes[..., 1]], axis=-1).reshape(-1, 4))
    whole = np.asarray(np.concatenate(levels), np.float64)
    whole.setflags(write=False)
    return whole


def decoded(offsets: ArrayLike, anchors: Anchors) -> NDArray[np.float64]:
    """[..., A, 4] boxes of the offsets [..., A, 4] (ty, tx, th, tw)."""
    t = np.asarray(offsets, np.float64) / np.array(anchors.scales)
    y, x, height, width = table(anchors).T
    center_y, center_x = t[..., 0] * height + y, t[..., 1] * width + x
    half_height, half_width = (
        side * np.exp(np.minimum(change, _LARGEST)) / 2
        for side, change in ((height, t[..., 2]), (width, t[..., 3]))
    )
    return np.stack(
        [
            center_x - half_width,
            center_y - half_height,
            center_x + half_width,
            center_y + half_height,
        ],
        axis=-1,
    )
