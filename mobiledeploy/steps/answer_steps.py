"""How far two answers of one file are apart, and how far other kernels of it may be.

Kernels round otherwise, and so an honest delegate gives another answer than the built-in kernels
do. `docs/phones.md` has the figures that the limits follow from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import ModelOutput

LEVELS = 255
"""The steps of the whole range of an output."""
TOLERATED = 16.0
"""The steps that the kernels of another delegate may be away."""
TOLERATED_SHARE = LEVELS / 10
"""The same for probabilities: a step before a softmax or sigmoid can be several behind it."""
TOLERATED_BOXES = 0.15 * LEVELS
"""The same for the boxes that a file chose: so much of their scores."""
TOLERATED_ELSEWHERE = 2.0
"""The steps of the same delegate on another machine."""
# Steps are quotients of rounded numbers.
_ROUNDING = 1e-3
_PROBABILITIES = ("softmax", "sigmoid")
_CHOSEN = 4


@dataclass(frozen=True)
class AnswerDistance:
    """How far two answers are apart: at the output that is farthest, by its limit.

    `of_boxes` says that `steps` are 255ths of the scores of all boxes.
    """

    steps: float
    tolerated: float
    of_boxes: bool

    @property
    def within(self) -> bool:
        """Whether it is no more than the limit."""
        return self.steps <= self.tolerated + _ROUNDING

    @property
    def text(self) -> str:
        """The distance in words."""
        return self._text(self.steps, "quantization steps")

    @property
    def limit(self) -> str:
        """The limit in words."""
        return self._text(self.tolerated, "steps")

    def _text(self, steps: float, unit: str) -> str:
        if self.of_boxes:
            return f"{100 * steps / LEVELS:.3g} % of the boxes' scores"
        return f"{steps:.3g} {unit}"


def chooses_boxes(task: str, ends: Sequence[ModelOutput]) -> bool:
    """Whether a file with these outputs chooses its boxes, so that none has a place of its own."""
    return task == "detection" and len(ends) == _CHOSEN


def rows_of_boxes_apart(one: Array, other: Array, ends: Sequence[ModelOutput]) -> float | None:
    """`boxes_apart` of the rows [N, values] that are farthest; None if the rows are cut short."""
    counts = [math.prod(end.shape) for end in ends]
    if sum(counts) != one.shape[1]:
        return None
    edges = np.cumsum(counts)[:-1]

    def parts(row: Array) -> list[Array]:
        pairs = zip(np.split(row, edges), ends, strict=True)
        return [part.reshape(end.shape) for part, end in pairs]

    return max(boxes_apart(parts(a), parts(b), ends) for a, b in zip(one, other, strict=True))


def boxes_apart(one: Sequence[Array], other: Sequence[Array], ends: Sequence[ModelOutput]) -> float:
    """255ths of the scores of all boxes of two answers that the other answer lacks.

    Each array is one output for one sample. Boxes of nearly the same score change places, so they
    are matched by class and overlap (`tasks.detection.divergence`).
    """
    task = TASKS.load("detection")
    (lost,) = task.divergence([x[None] for x in one], [x[None] for x in other], ends)
    whole = sum(sum(task.decode(answer, ends).scores) for answer in (one, other))
    return float(LEVELS * lost / whole) if whole else 0.0


def farthest(
    apart: Sequence[float],
    ends: Sequence[ModelOutput],
    *,
    same_delegate: bool = False,
    tolerated: float | None = None,
) -> AnswerDistance:
    """The distance of answers whose outputs are so many steps `apart`.

    `same_delegate` says that only the machine is another. `tolerated` replaces all limits. One
    number for several outputs is that of chosen boxes.
    """
    of_boxes = len(apart) != len(ends)

    def limit(end: ModelOutput) -> float:
        if tolerated is not None:
            return tolerated
        if of_boxes:
            return TOLERATED_BOXES
        if same_delegate:
            return TOLERATED_ELSEWHERE
        return TOLERATED_SHARE if end.activation in _PROBABILITIES else TOLERATED

    pairs = [(steps, limit(end)) for steps, end in zip(apart, ends, strict=False)]
    return AnswerDistance(*max(pairs, key=lambda pair: pair[0] / pair[1]), of_boxes)
