"""Rounds weights so that the outputs of a layer change least, not the weights.

The objective is AdaRound's (M. Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training
Quantization, https://arxiv.org/abs/2004.10568, equation 21): over the calibration images,

    minimise  E || W x - S Q x^ ||^2   over integers Q,

with W the float weights, x the float input, x^ the input as the quantized network delivers it, and
S the scales. It is quadratic in Q and depends on the images only through G = Cov(x^, x^) and C =
Cov(W x, x^); the bias corrects the means. So it is solved without gradients: first the real-valued
optimum near W,

    V = (C + d W) (G + d I)^-1,   d = RIDGE * mean(diag G),

then GPTQ's sweep, which rounds column by column and corrects the error in the remaining columns (E.
Frantar et al. 2022, GPTQ, https://arxiv.org/abs/2210.17323). Then single codes are changed as long
as that reduces the loss. The same is done from plain rounding, and each row uses the better result.
The bias becomes E[W x + b] - S Q E[x^], which is the bias correction of M. Nagel et al. 2019
(https://arxiv.org/abs/1906.04721, section 4.2) with measured means.

Zero weights stay zero, which keeps pruning. Layers of clustered weights are rounded plainly; only
their bias is corrected.

Layers are rounded in order, each with the inputs from the rounded layers before it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import matrices, quantized
from mobiledeploy.graphs.execution import Walk
from mobiledeploy.graphs.graph import Graph

PRESERVES = False
"""It changes integers, not the float function."""

RIDGE = 0.3
FEW_SAMPLES = 8
"""With fewer samples per input than this the ridge grows: few say little of inputs jointly.
Both values were chosen on a MobileNet v1 0.75 and photographs, with fresh photographs."""
_SWEEPS = 4
_WIDEST = 6000
"""With more inputs per output than this the matrices would take gigabytes: rounding is plain."""

Doubles = NDArray[np.float64]


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with its integers rounded again; `images` are [N, H, W, 3] float32."""
    floats, integers = Graph(quantized_graph.floats), Graph(quantized.integers(quantized_graph))
    real, coarse = Walk(floats, images), Walk(integers, images)
    for ours, theirs in matrices.pairs(integers, floats):
        coarse.before(ours.number)
        real.before(theirs.number)
        sample = matrices.sample(ours, theirs, coarse, real)
        weights = theirs.blocks(floats.constant_values(theirs.weights))
        scale = ours.blocked(ours.scales)
        x, answers = sample.inputs, sample.answers
        mean, answer_mean = x.mean(axis=1, keepdims=True), answers.mean(axis=1, keepdims=True)
        if ours.bias < 0:
            # Without a bias a shift is an error like all others.
            mean, answer_mean = np.zeros_like(mean), np.zeros_like(answer_mean)
        codes = ours.blocks(integers.constant_values(ours.weights))
        if weights.shape[-1] <= _WIDEST and not theirs.is_clustered:
            deviations = x - mean
            count = x.shape[1]
            gram = (deviations.transpose(0, 2, 1) @ deviations).astype(np.float64) / count
            cross = ((answers - answer_mean).transpose(0, 2, 1) @ deviations).astype(
                np.float64
            ) / count
            ridge = RIDGE * max(1.0, FEW_SAMPLES * weights.shape[-1] / count)
            limit = matrices.largest_code(ours, quantized_graph.recipe)
            codes = round_weights(weights, scale, gram, cross, ridge, limit).astype(np.float64)
            ours.put_weights(codes)
        present_mean = np.einsum("boi,bi->bo", codes * scale[..., None], mean[:, 0])
        ours.put_bias(answer_mean[:, 0] - present_mean)
    return dataclasses.replace(quantized_graph, integers=integers.pack())


def round_weights(
    weights: Doubles,
    scale: Doubles,
    gram: Doubles,
    cross: Doubles,
    ridge: float = RIDGE,
    limit: int = 127,
) -> NDArray[np.int8]:
    """Codes [B, O, I] for the weights of B independent blocks (groups, depthwise channels).

    Args:
        weights: float weights W, [B, O, I].
        scale: of each output channel, [B, O].
        gram: G of the quantized input, [B, I, I].
        cross: C of the float answer with that input, [B, O, I].
        ridge: the weight of the pull towards W, as a share of the mean of diag G.
        limit: the largest code.
    """
    inputs = gram.shape[-1]
    mean = np.trace(gram, axis1=1, axis2=2) / inputs
    # The weights of an input that never changes are rounded plainly.
    damping = np.maximum(ridge * mean, np.finfo(float).tiny ** 0.25)
    objective = gram + damping[:, None, None] * np.eye(inputs)
    target = cross + damping[:, None, None] * weights
    best = np.linalg.solve(objective, target.transpose(0, 2, 1)).transpose(0, 2, 1)
    best = np.clip(best / scale[..., None], -limit, limit)
    # From here on values are in units of the scale: the rows of Q are independent of each other.
    zeros = weights == 0
    sweep_codes, plain_codes = (
        _sweep(best, objective, zeros, limit),
        np.where(zeros, 0, np.round(best)),
    )
    for codes in (sweep_codes, plain_codes):
        _polish(codes, best, objective, zeros, limit)
    better = loss(plain_codes, best, objective) < loss(sweep_codes, best, objective)
    return np.where(better[..., None], plain_codes, sweep_codes).astype(np.int8)


def loss(codes: Doubles, best: Doubles, objective: Doubles) -> Doubles:
    """(q - v) G (q - v)^T of each row, [B, O]."""
    error = codes - best
    return np.asarray(np.sum((error @ objective) * error, axis=-1))


def _sweep(best: Doubles, objective: Doubles, zeros: NDArray[np.bool_], limit: int) -> Doubles:
    """GPTQ: inputs of most energy come first; weights of the mask `zeros` stay zero."""
    order = np.argsort(-np.einsum("bii->bi", objective), axis=1)
    rows = np.arange(len(order))[:, None, None]
    ordered = objective[rows, order[:, :, None], order[:, None, :]]
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)
    remaining = np.take_along_axis(best, order[:, None, :], axis=2)
    zero = np.take_along_axis(zeros, order[:, None, :], axis=2)
    codes = np.zeros_like(remaining)
    for column in range(remaining.shape[2]):
        value = remaining[:, :, column]
        nearest = np.clip(np.round(value), -limit, limit)
        codes[:, :, column] = np.where(zero[:, :, column], 0, nearest)
        error = (value - codes[:, :, column]) / upper[:, None, column, column]
        remaining[:, :, column + 1 :] -= error[..., None] * upper[:, None, column, column + 1 :]
    unsorted = np.empty_like(codes)
    np.put_along_axis(unsorted, np.broadcast_to(order[:, None, :], codes.shape), codes, axis=2)
    return unsorted


def _polish(
    codes: Doubles, best: Doubles, objective: Doubles, zeros: NDArray[np.bool_], limit: int
) -> None:
    """Changes single codes in place to reduce their row's loss; those of `zeros` stay."""
    slope = (codes - best) @ objective
    for _ in range(_SWEEPS):
        has_changed = False
        for column in range(codes.shape[2]):
            curve = objective[:, column, column][:, None]
            target = np.clip(codes[..., column] - slope[..., column] / curve, -limit, limit)
            step = np.where(zeros[..., column], 0, np.round(target) - codes[..., column])
            if np.any(step):
                has_changed = True
                codes[..., column] += step
                slope += step[..., None] * objective[:, None, column, :]
        if not has_changed:
            return
