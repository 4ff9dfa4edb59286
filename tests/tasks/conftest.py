"""Random answers and annotations of each task, and models that fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mobiledeploy.analysis import anchors, masks
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.types import AnchorLevel, Anchors, Annotation, ModelOutput, Prediction

Dice = np.random.Generator


def end(*shape: int, activation="none", name="answer") -> ModelOutput:
    return ModelOutput(name, shape, activation)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def boxes(dice: Dice, *shape: int) -> np.ndarray:
    low = dice.uniform(0, 0.7, (*shape, 2))
    return np.concatenate([low, low + dice.uniform(0.05, 0.3, (*shape, 2))], axis=-1)


@dataclass(frozen=True)
class Example:
    """A model of a task: its outputs, random numbers of them, and annotations.

    `perfect` are the outputs that agree with the annotations.
    """

    task: str
    ends: tuple[ModelOutput, ...]
    draw: Callable[[Dice, int], list[np.ndarray]]
    annotate: Callable[[Dice, int], list[Annotation]]
    perfect: Callable[[list[Annotation]], list[np.ndarray]]

    @property
    def id(self) -> str:
        return f"{self.task}-{self.ends[0].activation}-{len(self.ends)}"

    def answers(self, outputs: list[np.ndarray]) -> list[Prediction]:
        """The decoded answers, each with a sample's name."""
        task = TASKS.load(self.task)
        decoded = [task.decode(row, self.ends) for row in zip(*outputs, strict=True)]
        return [replace(p, sample=f"s{n:04}") for n, p in enumerate(decoded)]


def _labels(classes: int):
    def annotate(dice: Dice, n: int) -> list[Annotation]:
        # Each class twice at least, so that each sample of an embedding can be found.
        labels = np.concatenate([np.repeat(np.arange(classes), 2), dice.integers(0, classes, n)])
        return [Annotation(label=int(label)) for label in dice.permutation(labels[:n])]

    return annotate


def _label_row(classes: int, scale: float):
    def perfect(annotations: list[Annotation]) -> list[np.ndarray]:
        return [(scale * np.eye(classes)[[a.label for a in annotations]]).astype(np.float32)]

    return perfect


def _random(shape, activation=None):
    def draw(dice: Dice, n: int) -> list[np.ndarray]:
        numbers = dice.normal(0, 2, (n, *shape))
        return [(activation(numbers) if activation else numbers).astype(np.float32)]

    return draw


def _several(dice: Dice, n: int) -> list[Annotation]:
    return [
        Annotation(labels=tuple(np.flatnonzero(row).tolist())) for row in dice.random((n, 4)) < 0.4
    ]


def _several_perfect(annotations: list[Annotation]) -> list[np.ndarray]:
    return [np.array([[c in a.labels for c in range(4)] for a in annotations], np.float32)]


def _values(dice: Dice, n: int) -> list[Annotation]:
    return [Annotation(values=tuple(row)) for row in dice.normal(3, 2, (n, 2)).tolist()]


def _values_perfect(annotations: list[Annotation]) -> list[np.ndarray]:
    return [np.array([a.values for a in annotations])]


def _masks(classes: int):
    def annotate(dice: Dice, n: int) -> list[Annotation]:
        return [Annotation(mask=masks.encode(row)) for row in dice.integers(-1, classes, (n, 5, 6))]

    return annotate


def _masks_perfect(classes: int):
    def perfect(annotations: list[Annotation]) -> list[np.ndarray]:
        table = np.array([masks.decode(a.mask) for a in annotations])
        if classes == 1:
            return [(table[..., None] == 1).astype(np.float32)]
        return [np.eye(classes, dtype=np.float32)[np.maximum(table, 0)]]

    return perfect


ANCHORS = 12


def _boxes(dice: Dice, n: int) -> list[Annotation]:
    annotations = []
    for _ in range(n):
        count = int(dice.integers(1, 5))
        # Far apart, so that a perfect answer keeps them all.
        places = dice.permutation(9)[:count]
        left, top = places % 3 / 3, places // 3 / 3
        size = dice.uniform(0.1, 0.3, (count, 2))
        rows = np.stack([left, top, left + size[:, 0], top + size[:, 1]], axis=1).tolist()
        labels = tuple(dice.integers(0, 3, count).tolist())
        annotations.append(Annotation(labels=labels, boxes=tuple(map(tuple, rows))))
    return annotations


def _raw_draw(dice: Dice, n: int) -> list[np.ndarray]:
    return [boxes(dice, n, ANCHORS), sigmoid(dice.normal(-1, 2, (n, ANCHORS, 3)))]


def _raw_perfect(annotations: list[Annotation]) -> list[np.ndarray]:
    table, scores = (np.zeros((len(annotations), ANCHORS, size)) for size in (4, 3))
    for n, a in enumerate(annotations):
        table[n, : len(a.boxes)] = a.boxes
        scores[n, np.arange(len(a.labels)), list(a.labels)] = 0.9
    return [table, scores]


ANCHORED = Anchors(
    (AnchorLevel((2, 2), ((0.3, 0.3), (0.2, 0.4))), AnchorLevel((1, 1), ((0.8, 0.7),) * 4)),
    (10.0, 10.0, 5.0, 5.0),
)


def _offsets(table: np.ndarray) -> np.ndarray:
    """Boxes [N, 12, 4] as offsets from the anchors; a box of no size stays the anchor."""
    y, x, height, width = anchors.table(ANCHORED).T
    low, size = table[..., :2], table[..., 2:] - table[..., :2]
    center = low + size / 2
    change = np.log(np.where(size > 0, size, 1) / np.stack([width, height], axis=1))
    offsets = [
        10 * (center[..., 1] - y) / height,
        10 * (center[..., 0] - x) / width,
        5 * change[..., 1],
        5 * change[..., 0],
    ]
    return np.where(size[..., :1] > 0, np.stack(offsets, axis=-1), 0)


def _anchored_draw(dice: Dice, n: int) -> list[np.ndarray]:
    table, scores = _raw_draw(dice, n)
    return [_offsets(table), scores]


def _anchored_perfect(annotations: list[Annotation]) -> list[np.ndarray]:
    table, scores = _raw_perfect(annotations)
    return [_offsets(table), scores]


def _processed_draw(dice: Dice, n: int) -> list[np.ndarray]:
    table = boxes(dice, n, ANCHORS)[..., [1, 0, 3, 2]]
    classes = dice.integers(0, 3, (n, ANCHORS)).astype(np.float32)
    scores = np.sort(dice.random((n, ANCHORS)))[:, ::-1]
    return [table, classes, scores, np.full((n, 1), ANCHORS, np.float32)]


def _processed_perfect(annotations: list[Annotation]) -> list[np.ndarray]:
    table, scores = _raw_perfect(annotations)
    classes = scores.argmax(axis=2).astype(np.float32)
    counts = np.array([[len(a.boxes)] for a in annotations], np.float32)
    return [table[..., [1, 0, 3, 2]], classes, scores.max(axis=2), counts]


def _reference(dice: Dice, n: int) -> list[Annotation]:
    return [Annotation(values=tuple(row)) for row in dice.normal(0, 2, (n, 5)).tolist()]


def _tensors_draw(dice: Dice, n: int) -> list[np.ndarray]:
    return [dice.normal(0, 2, (n, 3)), dice.normal(0, 2, (n, 2, 1))]


def _tensors_perfect(annotations: list[Annotation]) -> list[np.ndarray]:
    table = np.array([a.values for a in annotations])
    return [table[:, :3], table[:, 3:, None]]


EXAMPLES = [
    Example(
        "classification",
        (end(7, activation="softmax"),),
        _random((7,), softmax),
        _labels(7),
        _label_row(7, 1),
    ),
    Example("classification", (end(1, 1, 7),), _random((1, 1, 7)), _labels(7), _label_row(7, 9)),
    Example(
        "binary",
        (end(1, activation="sigmoid"),),
        _random((1,), sigmoid),
        _labels(2),
        lambda annotations: [np.array([[a.label] for a in annotations], np.float32)],
    ),
    Example(
        "binary",
        (end(1),),
        _random((1,)),
        _labels(2),
        lambda annotations: [np.array([[4 * a.label - 2] for a in annotations], np.float32)],
    ),
    Example(
        "multilabel",
        (end(4, activation="sigmoid"),),
        _random((4,), sigmoid),
        _several,
        _several_perfect,
    ),
    Example(
        "multilabel",
        (end(4),),
        _random((4,)),
        _several,
        lambda annotations: [8 * _several_perfect(annotations)[0] - 4],
    ),
    Example("regression", (end(2),), _random((2,)), _values, _values_perfect),
    Example("embedding", (end(6),), _random((6,)), _labels(6), _label_row(6, 3)),
    Example(
        "segmentation",
        (end(5, 6, 3, activation="softmax"),),
        _random((5, 6, 3), softmax),
        _masks(3),
        _masks_perfect(3),
    ),
    Example("segmentation", (end(5, 6, 3),), _random((5, 6, 3)), _masks(3), _masks_perfect(3)),
    Example(
        "segmentation",
        (end(5, 6, 1, activation="sigmoid"),),
        _random((5, 6, 1), sigmoid),
        _masks(2),
        _masks_perfect(1),
    ),
    Example(
        "detection",
        (end(ANCHORS, 4, name="boxes"), end(ANCHORS, 3, activation="sigmoid", name="scores")),
        _raw_draw,
        _boxes,
        _raw_perfect,
    ),
    Example(
        "detection",
        (
            replace(end(ANCHORS, 4, name="boxes"), anchors=ANCHORED),
            end(ANCHORS, 3, activation="sigmoid", name="scores"),
        ),
        _anchored_draw,
        _boxes,
        _anchored_perfect,
    ),
    Example(
        "detection",
        (end(ANCHORS, 4), end(ANCHORS), end(ANCHORS), end(1)),
        _processed_draw,
        _boxes,
        _processed_perfect,
    ),
    Example("tensors", (end(3), end(2, 1)), _tensors_draw, _reference, _tensors_perfect),
]
