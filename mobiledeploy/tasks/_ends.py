"""What several tasks ask of a model's outputs and of annotations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import ModelOutput, Prediction

LEAST = 1e-6
"""A probability below it counts as so much: int8 has zeros, and float32 resolves no less near 1."""


def shape_text(output: ModelOutput) -> str:
    """The shape of an output for a sentence."""
    return " × ".join(map(str, output.shape)) or "1"


def width(output: ModelOutput) -> int:
    """How many numbers the output's one row has; 0 where it is no row."""
    longer = [size for size in output.shape if size != 1]
    return math.prod(output.shape) if len(longer) <= 1 else 0


def row_mismatch(outputs: Sequence[ModelOutput], task: str) -> str:
    """Why these outputs are not one row of numbers; "" if they are."""
    if len(outputs) != 1:
        return f"it has {len(outputs)} outputs; {task} reads one"
    if not width(outputs[0]):
        return f"its output has the shape {shape_text(outputs[0])}; {task} reads one row of numbers"
    return ""


def class_mismatch(outputs: Sequence[ModelOutput], task: str) -> str:
    """Why these outputs are not a row of two classes or more; "" if they are."""
    reason = row_mismatch(outputs, task)
    if not reason and width(outputs[0]) < 2:
        return f"it gives one number for each image; {task} needs two classes or more"
    return reason


def logits(values: ArrayLike, end: ModelOutput) -> NDArray[np.float64]:
    """The numbers of which the output is the softmax or the sigmoid; other outputs as they are."""
    table = np.asarray(values, np.float64)
    if end.activation == "softmax":
        return np.asarray(np.log(np.maximum(table, LEAST)))
    if end.activation == "sigmoid":
        return np.asarray(logit(np.clip(table, LEAST, 1 - LEAST)))
    return table


def probabilities(values: ArrayLike, end: ModelOutput) -> NDArray[np.float64]:
    """Sigmoids of the output; where it ends in them, the output itself."""
    table = np.asarray(values, np.float64)
    return table if end.activation == "sigmoid" else np.asarray(expit(table))


def rows(array: ArrayLike) -> NDArray[np.float64]:
    """[N, ...] as [N, numbers of one sample]."""
    table = np.asarray(array, np.float64)
    return table.reshape(len(table), -1)


def values(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """[N, values of one answer]."""
    count = len(predictions[0].values) if predictions else 1
    return np.array([p.values for p in predictions], np.float64).reshape(-1, count)


def unfit(sample: str, reason: str, hint: str) -> InputError:
    """The error for an annotation that does not fit the task."""
    return InputError(f"{sample or 'a sample'} {reason}", hint)
