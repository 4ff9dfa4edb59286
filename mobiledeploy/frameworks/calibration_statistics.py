"""Compares the statistics of a network's training images with those of other images.

A BatchNorm keeps the mean and the variance, for each channel, of its input in training (S. Ioffe
and C. Szegedy 2015, Batch Normalization, https://arxiv.org/abs/1502.03167, algorithm 2). The first
one of a network is only a linear layer behind the image: pixels of another range give it inputs
with another mean and variance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mobiledeploy.core.types import Preprocessing
from mobiledeploy.frameworks import tracing

USUAL = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
"""The usual ranges of scaled pixels."""
ENOUGH = 24
"""The number of images used; each has thousands of places for mean and variance."""
_STRANGE = 0.2
"""In nats; above this the images differ from those of the training.

The demo network's own have 0.02.
"""
_BETTER = 4.0
"""How many times closer another range must be."""


def likelier_range(
    frozen_model: tracing.FrozenModel, pre: Preprocessing, images: NDArray[np.float32]
) -> tuple[float, float] | None:
    """An input range that makes the images far more like those of the training.

    None if the range of `pre`, by which `images` [N, H, W, 3] float32 were prepared, fits as well
    as any, and if the network has no BatchNorm or an untrained one.

    The measure is the median over the channels of the first BatchNorm of

        KL(images || training) = (v / V + (m - M)^2 / V - 1 + log(V / v)) / 2

    with m, v the mean and variance of its input, M, V those of the training.
    """
    first_norm = _first_norm(frozen_model.logits)
    if first_norm is None:
        return None
    norm_input, mean, variance = first_norm
    if not mean.any() and (variance == 1).all():
        return None
    low, high = pre.input_range
    sample = images[:: max(1, len(images) // ENOUGH)][:ENOUGH]
    unit = (
        sample * np.asarray(pre.std, np.float32) + np.asarray(pre.mean, np.float32) - low
    ) / np.float32(high - low)

    def strangeness(range_: tuple[float, float]) -> float:
        other = dataclasses.replace(pre, input_range=range_)
        below, above = other.input_range
        pixels = unit * np.float32(above - below) + np.float32(below)
        pixels = (pixels - np.asarray(pre.mean, np.float32)) / np.asarray(pre.std, np.float32)
        values = [norm_input(tf.constant(image[None]))[0].numpy() for image in pixels]
        rows = np.concatenate([v.reshape(-1, v.shape[-1]) for v in values]).astype(np.float64)
        m, v = rows.mean(axis=0), rows.var(axis=0) + 1e-12
        trained_variance = variance + 1e-12
        terms = (
            v / trained_variance
            + (m - mean) ** 2 / trained_variance
            - 1
            + np.log(trained_variance / v)
        )
        return float(np.median(terms)) / 2

    present = strangeness(pre.input_range)
    if present < _STRANGE:
        return None
    measures = {r: strangeness(r) for r in USUAL if r != tuple(pre.input_range)}
    best = min(measures, key=lambda r: measures[r])
    return best if measures[best] * _BETTER < present else None


def _first_norm(frozen_model: Any) -> tuple[Any, Any, Any] | None:
    """(images -> input of the first BatchNorm, its mean [C], its variance [C])."""
    for input_, mean, variance in _norms(frozen_model):
        numbers = frozen_model.prune([], [mean, variance])()
        mean, variance = (np.asarray(n.numpy(), np.float64).reshape(-1) for n in numbers)
        if mean.shape == variance.shape == (input_.shape[-1],):
            return frozen_model.prune(frozen_model.inputs[:1], [input_]), mean, variance
    return None


def _norms(frozen_model: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(x, mean, variance) of each BatchNorm: fused (Keras 2) or separate operators (Keras 3).

    The latter is x * inv + (offset - mean * inv) with inv = rsqrt(variance + epsilon) * scale.
    """
    constant_names = {op.name for op in _constant_ops(frozen_model.graph)}
    for op in frozen_model.graph.get_operations():
        if op.type == "FusedBatchNormV3" and op.inputs[0].op.name not in constant_names:
            yield op.inputs[0], op.inputs[3], op.inputs[4]
        elif op.type == "Rsqrt" and op.name in constant_names and op.inputs[0].op.type == "AddV2":
            inverse = op.outputs[0]
            for reader in inverse.consumers():
                if (
                    reader.type == "Mul"
                    and reader.name in constant_names
                    and not _reads_mean(reader, constant_names)
                ):
                    inverse = reader.outputs[0]
                    break
            factors = [
                (
                    next((t for t in reader.inputs if t is not inverse), None),
                    reader.name in constant_names,
                )
                for reader in inverse.consumers()
                if reader.type == "Mul"
            ]
            mean = next((t for t, is_constant in factors if is_constant and t is not None), None)
            input_ = next(
                (t for t, is_constant in factors if not is_constant and t is not None), None
            )
            if mean is not None and input_ is not None:
                yield input_, mean, op.inputs[0].op.inputs[0]


def _reads_mean(product: Any, constant_names: set[str]) -> bool:
    """Whether a product of constants is the mean's, which is subtracted, and not the scale's."""
    return any(
        reader.type in ("Sub", "Neg") or (reader.type == "AddV2" and reader.name in constant_names)
        for reader in product.outputs[0].consumers()
    )


def _constant_ops(graph_: Any) -> Iterator[Any]:
    """The operators that do not depend on the image."""
    constant_names = {inner.op.name for _, inner in graph_.captures}
    for op in graph_.get_operations():
        if (
            op.type == "Const"
            or op.name in constant_names
            or (op.inputs and all(t.op.name in constant_names for t in op.inputs))
        ):
            constant_names.add(op.name)
            yield op
