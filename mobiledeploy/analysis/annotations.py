"""What is annotated on a whole image, as a model sees it: after the crop, at its output's size.

A data set annotates images as they are. A model's preprocessing cuts off the same margin on two
opposite sides and then changes the size, so boxes and masks have to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobiledeploy.analysis import masks
from mobiledeploy.core.preprocessing import crop_margins
from mobiledeploy.core.types import Annotation, Box


def as_seen(
    annotation: Annotation,
    image: tuple[int, int],
    crop: float,
    output: tuple[int, int] | None = None,
) -> Annotation:
    """The annotation of what a model gets to see of an image.

    Args:
        annotation: that of the whole image. Its labels of the image as a whole stay as they are.
        image: (height, width) of the image in pixels.
        crop: the `crop` of the model's preprocessing.
        output: (height, width) of the model's masks; None leaves the mask at the crop's size.

    Returns:
        Boxes in fractions of the crop, with their labels and their marks of crowds; those outside
        of it are left out. The mask is that of the crop, resized to `output`.
    """
    if annotation.boxes:
        boxes = crop_boxes(annotation.boxes, image, crop)
        kept = [index for index, box in enumerate(boxes) if box is not None]
        crowd = tuple(annotation.crowd[index] for index in kept) if annotation.crowd else ()
        annotation = replace(
            annotation,
            boxes=tuple(box for box in boxes if box is not None),
            labels=tuple(annotation.labels[index] for index in kept),
            crowd=crowd,
        )
    if annotation.mask is not None:
        table = crop_mask(masks.decode(annotation.mask), crop)
        if output is not None:
            table = resize_mask(table, output)
        annotation = replace(annotation, mask=masks.encode(table))
    return annotation


def crop_boxes(boxes: Sequence[Box], image: tuple[int, int], crop: float) -> tuple[Box | None, ...]:
    """Each box in fractions of the crop of an image of (height, width) pixels.

    A box that is partly outside of the crop is clipped; of one that has nothing inside there is
    None. A crop that cuts off less than a pixel changes nothing.
    """
    margins = crop_margins(image, crop)
    if not any(margins):
        return tuple(boxes)
    (top, bottom), (left, right) = (
        (margin / side, 1 - margin / side) for margin, side in zip(margins, image, strict=True)
    )
    cropped: list[Box | None] = []
    for box in boxes:
        horizontal = _within(box[0], box[2], left, right)
        vertical = _within(box[1], box[3], top, bottom)
        if horizontal is None or vertical is None:
            cropped.append(None)
        else:
            cropped.append((horizontal[0], vertical[0], horizontal[1], vertical[1]))
    return tuple(cropped)


def crop_mask(table: ArrayLike, crop: float) -> NDArray[np.int64]:
    """The part of a mask [H, W] that a central crop keeps."""
    whole = np.asarray(table, np.int64)
    height, width = whole.shape
    top, left = crop_margins((height, width), crop)
    return whole[top : height - top, left : width - left]


def resize_mask(table: ArrayLike, size: tuple[int, int]) -> NDArray[np.int64]:
    """A mask [H, W] at another (height, width): of each pixel the class at its centre.

    Classes are never mixed, so no pixel gets a class that is not there (nearest neighbour; centres
    are half a pixel from the border, as Pillow has them).
    """
    whole = np.asarray(table, np.int64)
    rows, columns = (
        ((2 * np.arange(new) + 1) * old // (2 * new))
        for new, old in zip(size, whole.shape, strict=True)
    )
    resized: NDArray[np.int64] = whole[np.ix_(rows, columns)]
    return resized


def _within(start: float, end: float, low: float, high: float) -> tuple[float, float] | None:
    """The part of an interval in [low, high], as fractions of that; None if there is none."""
    inside_start, inside_end = max(start, low), min(end, high)
    if inside_end < inside_start or (inside_end == inside_start and end > start):
        return None
    length = high - low
    # Rounding may leave the ends by the last digit.
    return max((inside_start - low) / length, 0.0), min((inside_end - low) / length, 1.0)
