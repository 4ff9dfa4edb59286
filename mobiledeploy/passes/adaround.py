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

The fit is closer on the calibration images than on others. So fewer than 160 photographs are joined
by their mirror images, up to 160 in all.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.batches import Batch, Images, batch
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import matrices, quantized
from mobiledeploy.graphs.execution import Walk
from mobiledeploy.graphs.graph import Graph

PRESERVES = False
"""It changes integers, not the float function."""

RIDGE = 0.3
FEW_SAMPLES = {8: 80, 4: 8}
"""With fewer samples per input than this the ridge grows, by the bits of the weights: few say
little of inputs jointly, and places of one image are alike. With 4 bits rounding is the larger
error. The values were chosen on a MobileNet v1 0.75 and photographs, with fresh photographs."""
MIRRORED = 160
"""The number of images up to which mirrored ones join the given ones."""
_SWEEPS = 4
_BLOCK = 16
"""Columns whose effects on all others are computed together."""
_WIDEST = 6000
"""With more inputs per output than this the matrices would take gigabytes: rounding is plain."""

Doubles = NDArray[np.float64]
_Values = TypeVar("_Values", np.float64, np.bool_)


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with its integers rounded again; `images` are [N, H, W, 3] float32."""
    images = quantized_graph.measurements.get(
        "with mirrored", quantized_graph.floats, images, lambda: with_mirrored(images)
    )
    floats, integers = Graph(quantized_graph.floats), Graph(quantized.integers(quantized_graph))
    float_answers = quantized_graph.measurements.get(
        "float answers",
        quantized_graph.floats,
        images,
        lambda: matrices.float_answers(quantized_graph.floats, images),
    )
    coarse = Walk(integers, images)
    for ours, theirs in matrices.pairs(integers, floats):
        coarse.before(ours.number)
        sample = matrices.sample(ours, theirs, coarse, float_answers[theirs.name])
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
            limit = matrices.largest_code(ours, quantized_graph.recipe)
            few = FEW_SAMPLES[quantized_graph.recipe.weight_bits]
            ridge = RIDGE * max(1.0, few * weights.shape[-1] / count)
            codes = round_weights(weights, scale, gram, cross, ridge, limit).astype(np.float64)
            ours.put_weights(codes)
        present_mean = np.einsum("boi,bi->bo", codes * scale[..., None], mean[:, 0])
        ours.put_bias(answer_mean[:, 0] - present_mean)
    return dataclasses.replace(quantized_graph, integers=integers.pack())


def with_mirrored(images: Images) -> Batch:
    """The images, and those of the first ones mirrored that fit into `MIRRORED`.

    A model with other inputs than one image [H, W, 1 or 3] gets its own samples alone.
    """
    samples = batch(images)
    (first, *others), missing = samples.arrays, MIRRORED - len(samples)
    if others or missing <= 0 or first.ndim != 4 or first.shape[-1] not in (1, 3):
        return samples
    return Batch((np.concatenate([first, first[:missing, :, ::-1]]),))


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
    plain_codes = np.where(zeros, 0, np.round(best))
    sweep_codes = _sweep(best, objective, zeros, limit)
    both = np.concatenate([plain_codes, sweep_codes], axis=1)
    twice = np.concatenate([best, best], axis=1)
    _polish(both, twice, objective, np.concatenate([zeros, zeros], axis=1), limit)
    plain_codes, sweep_codes = np.split(both, 2, axis=1)
    plain_loss, sweep_loss = np.split(loss(both, twice, objective), 2, axis=1)
    better = plain_loss < sweep_loss
    return np.where(better[..., None], plain_codes, sweep_codes).astype(np.int8)


def loss(codes: Doubles, best: Doubles, objective: Doubles) -> Doubles:
    """(q - v) G (q - v)^T of each row, [B, O]."""
    error = codes - best
    return np.asarray(np.sum((error @ objective) * error, axis=-1))


def _sweep(best: Doubles, objective: Doubles, zeros: NDArray[np.bool_], limit: int) -> Doubles:
    """GPTQ: inputs of most energy come first; weights of the mask `zeros` stay zero.

    As in the paper's section 3.3, the columns behind a block are corrected once for all its errors.
    """
    order = np.argsort(-np.einsum("bii->bi", objective), axis=1)
    blocks = np.arange(len(order))[:, None, None]
    ordered = objective[blocks, order[:, :, None], order[:, None, :]]
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)
    remaining = _columns(np.take_along_axis(best, order[:, None, :], axis=2))
    zero = _columns(np.take_along_axis(zeros, order[:, None, :], axis=2))
    codes, errors = np.zeros_like(remaining), np.zeros_like(remaining)
    for first, stop in _blocks(len(codes)):
        for column in range(first, stop):
            value = remaining[column]
            nearest = np.clip(np.round(value), -limit, limit)
            codes[column] = np.where(zero[column], 0, nearest)
            errors[column] = (value - codes[column]) / upper[:, None, column, column]
            factors = _factors(upper[:, column, column + 1 : stop])
            remaining[column + 1 : stop] -= factors * errors[column]
        if stop < len(codes):
            remaining[stop:] -= _product(upper[:, first:stop, stop:], errors[first:stop])
    unsorted = np.empty_like(best)
    np.put_along_axis(
        unsorted, np.broadcast_to(order[:, None, :], best.shape), codes.transpose(1, 2, 0), axis=2
    )
    return unsorted


def _polish(
    codes: Doubles, best: Doubles, objective: Doubles, zeros: NDArray[np.bool_], limit: int
) -> None:
    """Changes single codes in place to reduce their row's loss; those of `zeros` stay.

    The slopes outside a block of columns are corrected once for all its changes. A row that a sweep
    leaves as it is is finished.
    """
    slope, fixed = _columns((codes - best) @ objective), _columns(zeros)
    present, rows = _columns(codes), np.arange(codes.shape[1])
    curve = np.einsum("bii->ib", objective)[..., None]
    for _ in range(_SWEEPS):
        before = present.copy()
        for first, stop in _blocks(len(present)):
            inner = slope[first:stop]
            for column in range(first, stop):
                target = present[column] - slope[column] / curve[column]
                target = np.round(np.minimum(np.maximum(target, -limit), limit))
                step = np.where(fixed[column], 0, target - present[column])
                if step.any():
                    present[column] += step
                    inner += _factors(objective[:, column, first:stop]) * step
            steps = present[first:stop] - before[first:stop]
            if (first or stop < len(present)) and steps.any():
                slope[:first] += _product(objective[:, first:stop, :first], steps)
                slope[stop:] += _product(objective[:, first:stop, stop:], steps)
        codes[:, rows] = present.transpose(1, 2, 0)
        has_changed = (present != before).any(axis=(0, 1))
        if not has_changed.any():
            return
        rows = rows[has_changed]
        present, slope = present[..., has_changed], slope[..., has_changed]
        fixed = fixed[..., has_changed]


def _blocks(columns: int) -> list[tuple[int, int]]:
    return [(first, min(first + _BLOCK, columns)) for first in range(0, columns, _BLOCK)]


def _columns(values: NDArray[_Values]) -> NDArray[_Values]:
    """[B, O, I] -> [I, B, O], contiguous: what is done column by column is fast."""
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _factors(values: Doubles) -> Doubles:
    """[B, n] -> [n, B, 1]."""
    return values.T[..., None]


def _product(matrix: Doubles, values: Doubles) -> Doubles:
    """[B, w, n] and [w, B, O] -> the sums over w, [n, B, O]."""
    products: Doubles = np.matmul(matrix.transpose(0, 2, 1), values.transpose(1, 0, 2))
    return products.transpose(1, 0, 2)
