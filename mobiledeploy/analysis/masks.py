"""Masks as runs of equal classes, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Mask

MOST_PIXELS = 100_000_000
"""A mask of more would fill the memory: runs of a few bytes can name any number of pixels."""


def encode(classes: ArrayLike) -> Mask:
    """The mask of `classes` [H, W], whole numbers; -1 for pixels that nobody annotated."""
    table = np.asarray(classes)
    flat = table.ravel().astype(np.int64)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] - 1))
    lengths = np.diff(starts, append=flat.size)
    runs = np.stack([flat[starts], lengths], axis=1).ravel()
    return Mask((table.shape[0], table.shape[1]), tuple(runs.tolist()))


def differing(one: Mask, other: Mask) -> float:
    """The share of pixels with other classes; 1 for masks of other sizes."""
    mine, theirs = decode(one), decode(other)
    return float(np.mean(mine != theirs)) if mine.shape == theirs.shape and mine.size else 1.0


def decode(mask: Mask) -> NDArray[np.int64]:
    """[H, W]: the class of each pixel; InputError where the runs do not fill the size."""
    runs = np.asarray(mask.runs, np.int64)
    height, width = mask.size
    lengths = runs[1::2]
    sound = len(runs) % 2 == 0 and min(height, width) >= 0 and height * width <= MOST_PIXELS
    sound = sound and bool(((lengths >= 0) & (lengths <= MOST_PIXELS)).all())
    if not sound or lengths.sum() != height * width:
        raise InputError(
            f"the runs of a mask do not fill its {height} × {width} pixels",
            "make the mask anew",
        )
    return np.repeat(runs[::2], lengths).reshape(height, width)
