"""The outputs of the model as an answer, by its task.

Outputs are real values, float32, without the batch and with channels last. An answer is an object
as the app prints it: `classes` and `scores`, best first; `boxes` (left, top, right, bottom, as
fractions of the image that the model saw), `values`, or a `mask` of a class for each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answer = dict[str, Any]
Values = NDArray[np.float32]
BEST = 5
MOST_BOXES = 100
OVERLAP = 0.6  # of two boxes of one class that overlap by more (IoU), the better one stays
LARGEST_GROWTH = 10.0


def real(raw: NDArray[Any], tensor: dict[str, Any], layout: str) -> Values:
    """The real values of a raw output [1, ...]."""
    values = raw[0]
    if layout == "NCHW" and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if not tensor["scale"]:
        return np.asarray(values, np.float32)
    steps = values.astype(np.int32) - tensor["zero_point"][0]
    return np.asarray(steps * np.float64(tensor["scale"][0]), np.float32)


def decode(outputs: Sequence[Values], contract: dict[str, Any]) -> Answer:
    """The answer of the contract's task."""
    shaped = [
        values.reshape(end["shape"]) for values, end in zip(outputs, contract["ends"], strict=True)
    ]
    return DECODERS[contract["task"]](shaped, contract["ends"])


def best(scores: NDArray[Any]) -> Answer:
    """The best five classes; of equal scores the class with the lower index comes first."""
    order = np.argsort(-scores.astype(np.float64), kind="stable")[:BEST]
    return {"classes": order.tolist(), "scores": scores[order].tolist()}


def probabilities(outputs: Sequence[Values], ends: Sequence[Answer]) -> NDArray[np.float64]:
    """Sigmoids of the only output, unless it ends in them."""
    values = np.ravel(outputs[0]).astype(np.float64)
    if ends[0]["activation"] == "sigmoid":
        return values
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1, small) / (1 + small))


def classification(outputs: Sequence[Values], ends: Sequence[Answer]) -> Answer:
    """One class of several: the best five, with the scores as the model gives them."""
    return best(np.ravel(outputs[0]))


def binary(outputs: Sequence[Values], ends: Sequence[Answer]) -> Answer:
    """No (class 0) or yes (class 1), the answer first; `values` is the probability of yes."""
    chance = float(probabilities(outputs, ends)[0])
    return best(np.array([1 - chance, chance])) | {"values": [chance]}


def multilabel(outputs: Sequence[Values], ends: Sequence[Answer]) -> Answer:
    """The probability of each class as `values`, and the best five classes."""
    chances = probabilities(outputs, ends)
    return best(chances) | {"values": chances.tolist()}


def numbers(outputs: Sequence[Values], ends: Sequence[Answer]) -> Answer:
    """The numbers of a regression, or the vector of an embedding."""
    return {"values": np.ravel(outputs[0]).tolist()}


def segmentation(outputs: Sequence[Values], ends: Sequence[Answer]) -> Answer:
    """A class for each pixel: rows of runs, each a class and how many pixels have it."""
    table = outputs[0]
    if table.shape[2] == 1:
        classes = (table[..., 0] > (0.5 if ends[0]["activation"] == "sigmoid" else 0)).astype(int)
    else:
        classes = table.argmax(axis=2)
    flat = classes.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] - 1))
    runs = np.stack([flat[starts], np.diff(starts, append=flat.size)], axis=1)
    return {"mask": {"size": list(classes.shape), "runs": runs.ravel().tolist()}}


def detection(outputs: Sequence[Values], ends: Sequence[Answer]) -> Answer:
    """Boxes of objects, best first, at most a hundred."""
    if len(outputs) == 4:
        return _chosen_by_the_model(outputs)
    places = (0, 1) if ends[0]["shape"][-1] == 4 else (1, 0)
    boxes, scores = (outputs[place].astype(np.float64) for place in places)
    anchors = next((end["anchors"] for end in ends if end["anchors"]), None)
    if anchors:
        boxes = from_anchors(boxes, anchors)
    boxes = _upright(boxes)
    kept = _suppress(boxes, scores)
    if anchors:
        boxes = boxes.clip(0, 1)
    rows, classes = [row for row, _ in kept], [class_ for _, class_ in kept]
    return _boxes(boxes[rows], classes, scores[rows, classes])


def _chosen_by_the_model(outputs: Sequence[Values]) -> Answer:
    """The outputs of TFLite_Detection_PostProcess: boxes, classes, scores, and their number."""
    # What is behind that number is whatever was in memory.
    count = int(np.clip(np.nan_to_num(np.ravel(outputs[3])[0]), 0, len(outputs[2])))
    boxes = _upright(outputs[0][:count, [1, 0, 3, 2]].astype(np.float64))
    classes, scores = (outputs[place][:count].astype(np.float64) for place in (1, 2))
    usable = np.flatnonzero((scores > 0) & np.isfinite(boxes).all(axis=1) & np.isfinite(classes))
    order = usable[np.argsort(-scores[usable], kind="stable")][:MOST_BOXES]
    return _boxes(boxes[order], np.rint(classes[order]).astype(int).tolist(), scores[order])


def from_anchors(offsets: NDArray[np.float64], anchors: Answer) -> NDArray[np.float64]:
    """[N, 4] boxes of the offsets (ty, tx, th, tw) from anchors."""
    rows = [
        ((y + 0.5) / level["grid"][0], (x + 0.5) / level["grid"][1], *size)
        for level in anchors["levels"]
        for y in range(level["grid"][0])
        for x in range(level["grid"][1])
        for size in level["sizes"]
    ]
    y, x, height, width = np.array(rows).T
    ty, tx, th, tw = (offsets / np.array(anchors["scales"])).T
    y, x = ty * height + y, tx * width + x
    half_height, half_width = (
        side * np.exp(np.minimum(growth, LARGEST_GROWTH)) / 2
        for side, growth in ((height, th), (width, tw))
    )
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def _upright(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes whose right and bottom are not before their left and top."""
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)


def _suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(row, class) of the boxes that stay, best first: non-maximum suppression for each class."""
    flat = np.where(np.isfinite(boxes).all(axis=1)[:, np.newaxis], scores, 0).ravel()
    order = np.flatnonzero(flat > 0)
    order = order[np.argsort(-flat[order], kind="stable")]
    kept: list[tuple[int, int]] = []
    for row, class_ in zip(*np.divmod(order, scores.shape[1]), strict=True):
        rivals = [r for r, c in kept if c == class_]
        if not (iou(boxes[row], boxes[rivals]) > OVERLAP).any():
            kept.append((int(row), int(class_)))
        if len(kept) == MOST_BOXES:
            break
    return kept


def iou(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The intersection over union of a box with others [N, 4]; 1 for equal ones."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = (high - low).clip(0).prod(axis=1)
    either = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - both
    share: NDArray[np.float64] = both / np.where(either > 0, either, 1)
    return np.where((box == others).all(axis=1), 1.0, share)


def _boxes(
    boxes: NDArray[np.float64], classes: Sequence[int], scores: NDArray[np.float64]
) -> Answer:
    return {"classes": list(classes), "scores": scores.tolist(), "boxes": boxes.tolist()}


DECODERS = {
    "binary": binary,
    "classification": classification,
    "detection": detection,
    "embedding": numbers,
    "multilabel": multilabel,
    "regression": numbers,
    "segmentation": segmentation,
}
