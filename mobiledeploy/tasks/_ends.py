"""What several tasks ask of a model's outputs and of annotations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, kl_div, logit

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import ModelOutput, Prediction

LEAST = 1 / 512
"""A probability below half a step of int8's 256 counts as so much: that int8 writes it as 0 is no
loss, and the logarithm of 0 would outweigh everything else."""


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


def class_divergences(
    reference: ArrayLike, values: ArrayLike, end: ModelOutput
) -> NDArray[np.float64]:
    """KL(p || q) of softmaxes p of the reference and q of the values, [..., classes] gives [...].

    Of an output that ends in a softmax, the classes that both give less than `LEAST` are one class
    together. Its numbers need not sum to 1, for int8 rounds them: the terms are p log(p / q) - p +
    q, whose sum is the same where they do.
    """
    if end.activation != "softmax":
        return accuracy.divergences(reference, values)
    p, q = (np.asarray(x, np.float64) for x in (reference, values))
    large = np.maximum(p, q) >= LEAST
    rest = (1 - np.sum(np.where(large, x, 0), axis=-1) for x in (p, q))
    terms = np.where(large, kl_div(np.maximum(p, LEAST), np.maximum(q, LEAST)), 0)
    return np.asarray(terms.sum(axis=-1) + kl_div(*(np.maximum(x, LEAST) for x in rest)))


def yes_divergences(
    reference: ArrayLike, values: ArrayLike, end: ModelOutput
) -> NDArray[np.float64]:
    """KL(p || q) of yes and no with the sigmoids p of the reference and q of the values."""
    one, other = (np.asarray(x, np.float64) for x in (reference, values))
    if end.activation == "sigmoid":
        one, other = (logit(np.clip(x, LEAST, 1 - LEAST)) for x in (one, other))
    return accuracy.bernoulli_divergences(one, other)


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
    return InputError(f"sample {sample} {reason}" if sample else f"a sample {reason}", hint)
