"""Objects: a box, a class and a score for each.

The outputs are either of two forms.

- **raw**: boxes [N, 4] and scores [N, C], in any order (if C is 4, boxes first). The boxes are
  offsets from the anchors that the output has (`analysis.anchors`), or, without anchors, decoded:
  those of `core.types.Box` (left, top, right, bottom, as fractions of the input). The scores are
  from 0 to 1, without a class for the background. Non-maximum suppression is done here.
- **TFLite_Detection_PostProcess**: boxes [N, 4] (top, left, bottom, right), classes [N], scores [N]
  and their number [1], in the order of that operator, which did the suppression. Classes count from
  0, without the background.

Boxes are matched with annotations by pycocotools. Its own sums over all images take a second, and
a bootstrap needs thousands of them; so the sums are done here, from what it matched.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from mobiledeploy.analysis import anchors as anchors_
from mobiledeploy.core import plugins, units
from mobiledeploy.core.ports import Array, Corpus
from mobiledeploy.core.types import (
    Anchors,
    Annotation,
    AnnotationField,
    Gate,
    Metric,
    ModelOutput,
    Prediction,
)
from mobiledeploy.tasks import _ends

SUMMARY = "objects with boxes"
ANNOTATION: AnnotationField = "boxes"
METRICS: tuple[Metric, ...] = (
    Metric("map", "mAP@[.5:.95]", "share"),
    Metric("ap50", "AP50", "share"),
)
GATE: Gate = "corpus"
ONE_UNIT = False
MOST = 100
"""Boxes of one image, as COCO counts them."""
OVERLAP = 0.6
"""Of two boxes of one class with a larger IoU only the better one stays: the value of the SSDs of
TensorFlow's Object Detection API."""
SURE = 0.5
"""A box of this score or more is an answer; weaker ones only rank."""
SAME = 0.5
"""Boxes of one class and this IoU or more are the same one."""
_CHUNK = 1000
_FORMS = "boxes [N, 4] and scores [N, C], or the four outputs of TFLite_Detection_PostProcess"


class MatchedBoxes:
    """The boxes of all samples as COCO matches them, at ten thresholds of the IoU.

    A box that matches an annotation is right, one that matches none is wrong, and one within a
    crowd is neither. Of boxes with equal scores in different images, those of the image whose
    sample name comes first in the alphabet rank first.

    Raises:
        MissingError: there is no pycocotools.
    """

    def __init__(
        self, predictions: Sequence[Prediction], annotations: Sequence[Annotation]
    ) -> None:
        evaluator, classes = _evaluate(predictions, annotations)
        index = {name: k for k, name in enumerate(classes)}
        self.classes = tuple(classes)
        self.worth = np.ones(len(classes))
        # Boxes, without crowds.
        self.annotated = np.zeros((len(predictions), len(classes)), np.int64)
        rows = []
        for found in filter(None, evaluator.evalImgs):
            image, k = found["image_id"], index[found["category_id"]]
            self.annotated[image, k] += np.count_nonzero(found["gtIgnore"] == 0)
            size = len(found["dtScores"])
            rows.append(
                (
                    np.full(size, image),
                    np.full(size, k),
                    np.asarray(found["dtScores"], np.float64),
                    np.arange(size),
                    found["dtMatches"] > 0,
                    np.asarray(found["dtIgnore"], bool),
                )
            )
        self._thresholds = len(evaluator.params.iouThrs)
        self._recalls = np.asarray(evaluator.params.recThrs)
        self._rank(rows, [p.sample for p in predictions])

    def _rank(self, rows: Sequence[tuple[Array, ...]], names: Sequence[str]) -> None:
        """Ranks all boxes, and lists for each class and threshold (a group) those that are right.

        The precision is highest at a right box, so that the others only need to be counted.
        """
        if rows:
            image, of_class, score, place = (
                np.concatenate([row[i] for row in rows]) for i in range(4)
            )
            matched, ignored = (np.concatenate([row[i] for row in rows], axis=1) for i in (4, 5))
        else:
            image, of_class, score, place = (np.zeros(0, np.int64) for _ in range(4))
            matched = ignored = np.zeros((self._thresholds, 0), bool)
        alphabetical = np.unique(names, return_inverse=True)[1].reshape(-1)
        order = np.lexsort((place, alphabetical[image], -score, of_class))
        self._image, of_class = image[order], of_class[order]
        matched, ignored = matched[:, order], ignored[:, order]
        size, classes = len(order), self.annotated.shape[1]
        first_of_class = np.searchsorted(of_class, np.arange(classes))

        threshold, self._right = np.nonzero(matched & ~ignored)
        self._class = of_class[self._right]
        self._group = threshold * classes + self._class
        self._starts = np.diff(self._group, prepend=-1) != 0
        self._class_start = first_of_class[self._class]
        # How many of the ignored boxes come before each right one, of all and of its group.
        ignored_threshold, self._ignored = np.nonzero(ignored)
        keys = ignored_threshold * size + self._ignored
        self._ignored_until = np.searchsorted(keys, threshold * size + self._right)
        self._ignored_from = np.searchsorted(keys, threshold * size + self._class_start)

    def precisions(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """[thresholds, classes] the average precision; NaN for a class that no counted image has.

        The mean, over the recalls 0, 0.01, ..., 1, of the highest precision with this recall or
        more, as COCO defines it.
        """
        annotated = counts @ self.annotated
        groups = self._thresholds * len(annotated)
        weights = counts[self._image[self._right]]
        until = np.cumsum(weights)
        group_start = np.maximum.accumulate(np.where(self._starts, np.arange(len(weights)), 0))
        right = until - (until - weights)[group_start]
        before = np.concatenate([[0], np.cumsum(counts[self._image])])
        ignored = np.concatenate([[0], np.cumsum(counts[self._image[self._ignored]])])
        all_boxes = before[self._right + 1] - before[self._class_start]
        all_boxes -= ignored[self._ignored_until] - ignored[self._ignored_from]
        precision = right / np.maximum(all_boxes, 1)
        # The highest precision from here to the end of the group: earlier groups are lifted.
        lift = 2.0 * (groups - self._group)
        highest = np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift
        # How many of the recalls are reached here, and were not before.
        recall = right / np.maximum(annotated[self._class], 1)
        nearest = np.rint(recall * (len(self._recalls) - 1)).astype(np.int64)
        reached = nearest + (self._recalls[nearest] <= recall)
        newly = reached - np.where(self._starts, 0, np.roll(reached, 1))
        sums = np.bincount(self._group, highest * newly, minlength=groups)
        table = sums.reshape(self._thresholds, -1) / len(self._recalls)
        return np.where(annotated > 0, table, np.nan)

    def of_classes(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """[C] the mean over the thresholds; NaN for a class that no counted image has."""
        return np.asarray(self.precisions(counts).mean(axis=0))

    def metric(self, counts: NDArray[np.int64]) -> float:
        """The mean over the thresholds and over the classes that a counted image has."""
        return _mean(self.precisions(counts))


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why these are no boxes with scores."""
    shapes = [output.shape for output in outputs]
    match shapes:
        case [(n, 4), (m, _)] | [(n, _), (m, 4)] if n == m:
            counts = [end.anchors.count for end in outputs if end.anchors is not None]
            if any(count != n for count in counts):
                return f"it has {n} boxes, and its anchors are {counts[0]}"
            return ""
        case [(n, 4), (m,), (k,), () | (1,)] if n == m == k:
            return ""
    told = ", ".join(_ends.shape_text(output) for output in outputs) or "none"
    return f"its outputs have the shapes {told}; detection reads {_FORMS}"


def classes(outputs: Sequence[ModelOutput]) -> int | None:
    """One for each score of a raw box; the operator's outputs do not say."""
    if len(outputs) != 2:
        return None
    boxes_first = outputs[0].shape[-1] == 4
    return outputs[boxes_first].shape[-1]


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """The best hundred boxes, best first, each with its class and score.

    Boxes with a score of 0 or with numbers that are not finite are left out.
    """
    if len(outputs) == 2:
        raw_boxes, raw_scores = _parts(outputs, ends)
        boxes, classes, scores = _suppressed(
            _decoded(raw_boxes, ends), np.asarray(raw_scores, np.float64)
        )
        if _anchors(ends) is not None:
            # An object ends where the image does, which offsets from anchors do not know.
            boxes = np.clip(boxes, 0, 1)
    else:
        # The operator leaves whatever was in memory behind that number.
        count = int(np.clip(np.nan_to_num(np.ravel(outputs[3])[0]), 0, len(outputs[2])))
        boxes = _upright(np.asarray(outputs[0])[:count, [1, 0, 3, 2]])
        numbers = np.asarray(outputs[1][:count], np.float64)
        scores = np.asarray(outputs[2][:count], np.float64)
        finite = np.isfinite(boxes).all(axis=1) & np.isfinite(numbers)
        usable = np.flatnonzero((scores > 0) & finite)
        order = usable[np.argsort(-scores[usable], kind="stable")][:MOST]
        boxes, scores = boxes[order], scores[order]
        classes = np.rint(numbers[order]).astype(np.int64)
    return Prediction(
        "",
        classes=tuple(classes.tolist()),
        scores=tuple(scores.tolist()),
        boxes=tuple((left, top, right, bottom) for left, top, right, bottom in boxes.tolist()),
    )


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """The mean average precision of COCO over the IoU 0.5, 0.55, ..., 0.95, and at 0.5.

    Means over the classes that are annotated, of boxes of all sizes.
    """
    every = np.ones(len(predictions), np.int64)
    table = MatchedBoxes(predictions, annotations).precisions(every)
    figures = {"map": _mean(table), "ap50": _mean(table[:1])}
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: the mAP of each sample alone; NaN where it has no box but crowds."""
    one = np.ones(1, np.int64)
    return np.array(
        [MatchedBoxes([p], [a]).metric(one) for p, a in zip(predictions, annotations, strict=True)],
        np.float64,
    )


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """The matched boxes."""
    return MatchedBoxes(predictions, annotations)


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: how much of the float model's objects an image lost, moved or gained.

    Raw: the sum over the boxes and classes of KL(p || q) of the scores, and over the boxes of the
    float model's best score x (1 - IoU of both boxes). The scores say which boxes are objects, so a
    coordinate of a box that is none costs nothing, while one of a sure box costs up to 1, in
    proportion to what the metric sees of it. The KL is small for the many boxes that are surely
    none, and about 1 for an object that appears or disappears. The boxes need no matching, for
    each has its place in the output.

    After suppression boxes have no place of their own. Each box costs its score x (1 - the share of
    it that the other side has), where that share is the largest IoU with a box of its class, times
    that box's score over its own, at most 1.
    """
    if len(ends) == 2:
        return _raw_divergence(reference, outputs, ends)
    pairs = zip(zip(*reference, strict=True), zip(*outputs, strict=True), strict=True)
    answers = ((decode(one, ends), decode(other, ends)) for one, other in pairs)
    return np.array([_lost(one, other) + _lost(other, one) for one, other in answers], np.float64)


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether both have the same sure boxes: one to one, of one class, with an IoU of `SAME`."""
    (mine, my_classes), (theirs, their_classes) = (_sure(p) for p in (one, other))
    if sorted(my_classes) != sorted(their_classes):
        return False
    same = (_ious(mine, theirs) >= SAME) & (my_classes[:, None] == their_classes)
    pairs = linear_sum_assignment(same, maximize=True)
    return bool(same[pairs].all())


def _evaluate(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> tuple[Any, Sequence[int]]:
    """pycocotools' evaluator after its matching, and the annotated classes.

    An image is named by its place among the samples.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise plugins.missing("pycocotools") from error

    truth: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for n, (p, a) in enumerate(zip(predictions, annotations, strict=True)):
        if len(a.labels) != len(a.boxes) or (a.crowd and len(a.crowd) != len(a.boxes)):
            raise _ends.unfit(
                p.sample,
                f"has {units.several(len(a.boxes), 'box')}, "
                f"{units.several(len(a.labels), 'class')} and "
                f"{units.several(len(a.crowd), 'crowd flag')}",
                "give each box one of each",
            )
        crowds = a.crowd or (False,) * len(a.boxes)
        for box, label, crowd in zip(a.boxes, a.labels, crowds, strict=True):
            truth.append(_entry(len(truth), n, box, label) | {"iscrowd": int(crowd)})
        for box, label, score in zip(p.boxes, p.classes, p.scores, strict=True):
            answers.append(_entry(len(answers), n, box, label) | {"score": score})
    classes = sorted({entry["category_id"] for entry in truth})
    # It prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for entries in (truth, answers):
            side = COCO()
            side.dataset = {
                "images": [{"id": n} for n in range(len(predictions))],
                "categories": [{"id": name} for name in classes],
                "annotations": entries,
            }
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="bbox")
        evaluator.params.areaRng = evaluator.params.areaRng[:1]
        evaluator.params.maxDets = [MOST]
        evaluator.evaluate()
    return evaluator, classes


def _entry(place: int, image: int, box: Sequence[float], label: int) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {
        # 0 means unmatched in its results.
        "id": place + 1,
        "image_id": image,
        "category_id": label,
        "bbox": [left, top, width, height],
        "area": width * height,
    }


def _parts(arrays: Sequence[Array], ends: Sequence[ModelOutput]) -> tuple[Array, Array]:
    """Boxes and scores of the raw form."""
    boxes_first = ends[0].shape[-1] == 4
    return (arrays[0], arrays[1]) if boxes_first else (arrays[1], arrays[0])


def _decoded(boxes: ArrayLike, ends: Sequence[ModelOutput]) -> NDArray[np.float64]:
    """Boxes [..., 4] of the raw form."""
    anchors = _anchors(ends)
    return _upright(boxes) if anchors is None else anchors_.decoded(boxes, anchors)


def _anchors(ends: Sequence[ModelOutput]) -> Anchors | None:
    return next((end.anchors for end in ends if end.anchors is not None), None)


def _upright(boxes: ArrayLike) -> NDArray[np.float64]:
    """Boxes whose right and bottom are not before their left and top."""
    table = np.asarray(boxes, np.float64)
    return np.concatenate([table[..., :2], np.maximum(table[..., :2], table[..., 2:])], axis=-1)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1), np.float64)


def _paired_ious(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The IoU of each box [..., 4] with the one in the same place; 1 for equal boxes."""
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    either = _areas(one) + _areas(other) - both
    overlap = both / np.where(either > 0, either, 1)
    equal = np.all(one == other, axis=-1)
    return np.asarray(np.where(equal, 1.0, overlap), np.float64)


def _ious(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """[M, N]: of each of the boxes [M, 4] with each of [N, 4]."""
    return _paired_ious(one[:, None], other[None])


def _suppressed(
    boxes: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Non-maximum suppression for each class: the best `MOST` of boxes [N, 4], scores [N, C].

    From the best score down, a box is left out whose IoU with one of its class that stays is above
    `OVERLAP`. Returns boxes, classes and scores.
    """
    flat = np.where(np.isfinite(boxes).all(axis=1)[:, None], scores, 0).ravel()
    candidates = np.flatnonzero(flat > 0)
    candidates = candidates[np.argsort(-flat[candidates], kind="stable")]
    places, classes = np.divmod(candidates, scores.shape[1])
    kept: list[int] = []
    # Most images have enough after the first thousand.
    for start in range(0, len(candidates), _CHUNK):
        part = np.arange(start, min(start + _CHUNK, len(candidates)))
        if kept:
            near = _ious(boxes[places[part]], boxes[places[kept]]) > OVERLAP
            part = part[~np.any(near & (classes[part][:, None] == classes[kept]), axis=1)]
        while len(part) and len(kept) < MOST:
            best, part = part[0], part[1:]
            kept.append(int(best))
            near = _paired_ious(boxes[places[part]], boxes[places[best]]) > OVERLAP
            part = part[~(near & (classes[part] == classes[best]))]
        if len(kept) == MOST:
            break
    return boxes[places[kept]], classes[kept], flat[candidates[kept]]


def _raw_divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    sigmoid = ModelOutput("", (), "sigmoid")
    result = []
    sides = (zip(*_parts(arrays, ends), strict=True) for arrays in (reference, outputs))
    for (boxes, scores), (other_boxes, other_scores) in zip(*sides, strict=True):
        nats = float(_ends.yes_divergences(scores, other_scores, sigmoid).sum())
        moved = 1 - _paired_ious(_decoded(boxes, ends), _decoded(other_boxes, ends))
        result.append(nats + float(np.sum(np.max(scores, axis=1) * moved)))
    return np.array(result, np.float64)


def _lost(one: Prediction, other: Prediction) -> float:
    """The sum over the boxes of `one` of score x (1 - the share of it that `other` has)."""
    boxes, others = (np.array(p.boxes, np.float64).reshape(-1, 4) for p in (one, other))
    scores, other_scores = np.array(one.scores), np.array(other.scores)
    of_class = np.array(one.classes)[:, None] == np.array(other.classes)
    shares = _ious(boxes, others) * np.minimum(1, other_scores / scores[:, None]) * of_class
    return float(np.sum(scores * (1 - shares.max(axis=1, initial=0))))


def _sure(prediction: Prediction) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sure = np.array(prediction.scores) >= SURE
    boxes = np.array(prediction.boxes, np.float64).reshape(-1, 4)
    return boxes[sure], np.array(prediction.classes, np.int64)[sure]


def _mean(table: NDArray[np.float64]) -> float:
    known = table[np.isfinite(table)]
    return float(known.mean()) if known.size else float("nan")
