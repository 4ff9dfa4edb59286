"""A class for each pixel: scores or logits of each class, or one sigmoid for the second of two.

Pixels that nobody annotated (-1) are left out everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import masks
from mobiledeploy.core.ports import Array, Corpus
from mobiledeploy.core.types import (
    Annotation,
    AnnotationField,
    Gate,
    Metric,
    ModelOutput,
    Prediction,
)
from mobiledeploy.tasks import _ends

SUMMARY = "a class for each pixel"
ANNOTATION: AnnotationField = "mask"
METRICS: tuple[Metric, ...] = (
    Metric("miou", "mIoU", "share"),
    Metric("pixel_accuracy", "pixel accuracy", "share"),
)
GATE: Gate = "corpus"
ONE_UNIT = True
SAME = 0.95
"""Masks of which this share of pixels is equal are the same answer."""


class PixelCounts:
    """The pixels of each sample and annotated class: annotated, answered, and both; [N, C] each."""

    def __init__(
        self, predictions: Sequence[Prediction], annotations: Sequence[Annotation]
    ) -> None:
        pairs = [_pixels(p, a) for p, a in zip(predictions, annotations, strict=True)]
        classes = 1 + max((int(max(t.max(), v.max())) for t, v in pairs if t.size), default=0)
        tables = np.zeros((3, len(pairs), classes), np.int64)
        for n, (truth, answer) in enumerate(pairs):
            for table, values in zip(tables, (truth, answer, truth[truth == answer]), strict=True):
                table[n] = np.bincount(values, minlength=classes)
        columns = np.flatnonzero(tables[0].any(axis=0))
        self.classes = tuple(columns.tolist())
        self.annotated, self.answered, self.both = tables[:, :, columns]
        whole = self.of_classes(np.ones(len(pairs), np.int64))
        # What is covered instead of a lost pixel is wrong too.
        self.worth = whole * (1 + whole)

    def of_classes(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """[C] the IoU: pixels that are both / either; NaN where no counted sample has the class."""
        annotated, answered, both = (
            counts @ table for table in (self.annotated, self.answered, self.both)
        )
        either = annotated + answered - both
        return np.where(annotated > 0, both / np.maximum(either, 1), np.nan)

    def metric(self, counts: NDArray[np.int64]) -> float:
        """The mean of the overlaps over the classes that a counted sample has."""
        overlaps = self.of_classes(counts)
        known = overlaps[np.isfinite(overlaps)]
        return float(known.mean()) if known.size else float("nan")


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why these are not the scores of each pixel."""
    if len(outputs) != 1:
        return f"it has {len(outputs)} outputs; segmentation reads one"
    output = outputs[0]
    if len(output.shape) != 3 or output.shape[0] * output.shape[1] < 2:
        return (
            f"its output has the shape {_ends.shape_text(output)}; "
            "segmentation reads height × width × classes"
        )
    if output.shape[2] == 1 and output.activation == "softmax":
        return "the softmax of one number is always 1; segmentation of one class needs a sigmoid"
    if output.shape[2] > 1 and output.activation == "sigmoid":
        return (
            f"each pixel has {output.shape[2]} sigmoids of its own; "
            "segmentation needs a softmax or logits of the classes, or one sigmoid"
        )
    return ""


def classes(outputs: Sequence[ModelOutput]) -> int:
    """One for each number of a pixel; one number tells two apart."""
    return max(2, outputs[0].shape[-1])


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """The mask: of each pixel the class with the highest score, of equal ones the lower index."""
    table = np.asarray(outputs[0])
    if table.shape[2] == 1:
        threshold = 0.5 if ends[0].activation == "sigmoid" else 0.0
        return Prediction("", mask=masks.encode(table[..., 0] > threshold))
    return Prediction("", mask=masks.encode(table.argmax(axis=2)))


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """mIoU, and the share of annotated pixels that are right.

    The IoU of a class is its right pixels over the pixels that have it in the annotation or in the
    answer, counted over all samples. mIoU is the mean over the classes that are annotated at all.
    """
    counts = PixelCounts(predictions, annotations)
    pixels = int(counts.annotated.sum())
    if not pixels:
        return {}
    whole = counts.metric(np.ones(len(predictions), np.int64))
    return {"miou": whole, "pixel_accuracy": int(counts.both.sum()) / pixels}


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: the mIoU of each sample alone; NaN where no pixel is annotated."""
    counts = PixelCounts(predictions, annotations)
    either = counts.annotated + counts.answered - counts.both
    present = counts.annotated > 0
    total = np.sum(np.where(present, counts.both / np.maximum(either, 1), 0), axis=1)
    classes = present.sum(axis=1)
    return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """The pixel counts of each sample."""
    return PixelCounts(predictions, annotations)


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: the mean over the pixels of KL(p || q), in nats.

    p and q are the softmax of the classes, or of one score its sigmoid.
    """
    of_each = _ends.yes_divergences if ends[0].shape[2] == 1 else _ends.class_divergences
    # One sample at a time: a mask of many classes is large.
    pairs = zip(reference[0], outputs[0], strict=True)
    return np.array([np.mean(of_each(one, other, ends[0])) for one, other in pairs], np.float64)


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether at least `SAME` of the pixels have the same class."""
    assert one.mask and other.mask
    mine, theirs = masks.decode(one.mask), masks.decode(other.mask)
    return mine.shape == theirs.shape and float(np.mean(mine == theirs)) >= SAME


def _pixels(
    prediction: Prediction, annotation: Annotation
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes of the annotated pixels, in the annotation and in the answer.

    InputError where both masks differ in size.
    """
    if annotation.mask is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    assert prediction.mask
    if annotation.mask.size != prediction.mask.size:
        own, model = (" × ".join(map(str, m.size)) for m in (annotation.mask, prediction.mask))
        raise _ends.unfit(
            prediction.sample,
            f"has a mask of {own} pixels, and the model answers {model}",
            "give masks of the size of the model's output",
        )
    truth, answer = masks.decode(annotation.mask).ravel(), masks.decode(prediction.mask).ravel()
    return truth[truth >= 0], answer[truth >= 0]
