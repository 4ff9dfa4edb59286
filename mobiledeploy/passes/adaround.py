"""Weights onto their integer grid so that a layer's answer changes least, not each weight.

The objective is AdaRound's (M. Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training
Quantization, https://arxiv.org/abs/2004.10568, equation 21): over the calibration images,

    minimise  E || W x - S Q x^ ||^2   over integers Q,

with W the float weights, x the float input, x^ the input as the quantized network delivers it, and
S the scales. It is quadratic in Q: its whole dependence on the images is G = Cov(x^, x^) and
C = Cov(W x, x^), the bias taking up the means. So it is solved without gradients: first the
real-valued optimum near W,

    V = (C + d W) (G + d I)^-1,   d = RIDGE * mean(diag G),

then GPTQ's sweep, which rounds column by column and lets the columns to come make up for the error
(E. Frantar et al. 2022, GPTQ, https://arxiv.org/abs/2210.17323), then single codes are moved as
long as that helps; of this and of plain rounding, moved likewise, each row takes the better. The
bias becomes E[W x + b] - S Q E[x^], which is the bias correction of M. Nagel et al. 2019
(https://arxiv.org/abs/1906.04721, section 4.2) with measured means.

Weights that are zero stay zero, so that pruning is kept, and layers of clustered weights are
rounded as they would be without; the bias makes up for them too.

Layer follows layer, each with the inputs that the layers before it, already rounded, deliver.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.ports import Images, Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import matrices, quantized
from mobiledeploy.graphs.execution import Walk
from mobiledeploy.graphs.graph import Graph

PRESERVES = False
"""It works on integers, which are not the float function."""

RIDGE = 0.3
FEW_SAMPLES = 8
"""Samples for each input below which the ridge grows: too few tell little of inputs together.
Both were chosen on a MobileNet v1 0.75 and photographs, by fresh ones."""
_SWEEPS = 4
_WIDEST = 6000
"""Inputs of one output beyond which the matrices would take gigabytes: rounding stays plain."""

Doubles = NDArray[np.float64]


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with integers rounded anew; `images` [N, H, W, 3] float32 calibrate."""
    floats, integers = Graph(quantized_graph.floats), Graph(quantized.integers(quantized_graph))
    real, coarse = Walk(floats, images), Walk(integers, images)
    for ours, theirs in matrices.pairs(integers, floats):
        coarse.before(ours.number)
        real.before(theirs.number)
        sampled = matrices.sample(ours, theirs, coarse, real)
        weights = theirs.blocks(floats.stored(theirs.weights))
        scale = ours.blocked(ours.scales)
        x, answers = sampled.inputs, sampled.answers
        mean, wanted = x.mean(axis=1, keepdims=True), answers.mean(axis=1, keepdims=True)
        if ours.bias < 0:
            # Nothing will make up for a shift: it is an error like all others.
            mean, wanted = np.zeros_like(mean), np.zeros_like(wanted)
        codes = ours.blocks(integers.stored(ours.weights))
        if weights.shape[-1] <= _WIDEST and not theirs.clustered:
            centred = x - mean
            count = x.shape[1]
            gram = (centred.transpose(0, 2, 1) @ centred).astype(np.float64) / count
            cross = ((answers - wanted).transpose(0, 2, 1) @ centred).astype(np.float64) / count
            ridge = RIDGE * max(1.0, FEW_SAMPLES * weights.shape[-1] / count)
            limit = matrices.largest_code(ours, quantized_graph.recipe)
            codes = rounded(weights, scale, gram, cross, ridge, limit).astype(np.float64)
            ours.put_weights(codes)
        made = np.einsum("boi,bi->bo", codes * scale[..., None], mean[:, 0])
        ours.put_bias(wanted[:, 0] - made)
    return dataclasses.replace(quantized_graph, integers=integers.packed())


def rounded(
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
        ridge: pulls towards W; a share of the mean of diag G.
        limit: the largest code.
    """
    inputs = gram.shape[-1]
    mean = np.trace(gram, axis1=1, axis2=2) / inputs
    # An input that never changes leaves its weights to plain rounding.
    damping = np.maximum(ridge * mean, np.finfo(float).tiny ** 0.25)
    objective = gram + damping[:, None, None] * np.eye(inputs)
    pulled = cross + damping[:, None, None] * weights
    best = np.linalg.solve(objective, pulled.transpose(0, 2, 1)).transpose(0, 2, 1)
    best = np.clip(best / scale[..., None], -limit, limit)
    # From here on in units of the scale: the rows of Q are independent of each other.
    kept = weights == 0
    swept, plain = _swept(best, objective, kept, limit), np.where(kept, 0, np.round(best))
    for codes in (swept, plain):
        _polish(codes, best, objective, kept, limit)
    better = loss(plain, best, objective) < loss(swept, best, objective)
    return np.where(better[..., None], plain, swept).astype(np.int8)


def loss(codes: Doubles, best: Doubles, objective: Doubles) -> Doubles:
    """(q - v) G (q - v)^T of each row, [B, O]."""
    error = codes - best
    return np.asarray(np.sum((error @ objective) * error, axis=-1))


def _swept(best: Doubles, objective: Doubles, kept: NDArray[np.bool_], limit: int) -> Doubles:
    """GPTQ: the inputs of most energy first; `kept` ones are zero."""
    order = np.argsort(-np.einsum("bii->bi", objective), axis=1)
    rows = np.arange(len(order))[:, None, None]
    ordered = objective[rows, order[:, :, None], order[:, None, :]]
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)
    left = np.take_along_axis(best, order[:, None, :], axis=2)
    zero = np.take_along_axis(kept, order[:, None, :], axis=2)
    codes = np.zeros_like(left)
    for column in range(left.shape[2]):
        value = left[:, :, column]
        nearest = np.clip(np.round(value), -limit, limit)
        codes[:, :, column] = np.where(zero[:, :, column], 0, nearest)
        error = (value - codes[:, :, column]) / upper[:, None, column, column]
        left[:, :, column + 1 :] -= error[..., None] * upper[:, None, column, column + 1 :]
    unsorted = np.empty_like(codes)
    np.put_along_axis(unsorted, np.broadcast_to(order[:, None, :], codes.shape), codes, axis=2)
    return unsorted


def _polish(
    codes: Doubles, best: Doubles, objective: Doubles, kept: NDArray[np.bool_], limit: int
) -> None:
    """Moves single codes, but not `kept` ones, in place to where their row's loss is least."""
    slope = (codes - best) @ objective
    for _ in range(_SWEEPS):
        moved = False
        for column in range(codes.shape[2]):
            curve = objective[:, column, column][:, None]
            target = np.clip(codes[..., column] - slope[..., column] / curve, -limit, limit)
            step = np.where(kept[..., column], 0, np.round(target) - codes[..., column])
            if np.any(step):
                moved = True
                codes[..., column] += step
                slope += step[..., None] * objective[:, None, column, :]
        if not moved:
            return
