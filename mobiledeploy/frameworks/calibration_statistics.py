"""What a network remembers of the images that it was trained on, beside those that it is given.

A BatchNorm keeps the mean and the variance, for each channel, of what it saw in training (S. Ioffe
and C. Szegedy 2015, Batch Normalization, https://arxiv.org/abs/1502.03167, algorithm 2). The first
one of a network stands a linear layer behind the image: given pixels of another range, it sees
values of another mean and variance than it knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from mobiledeploy.core.ports import Images
from mobiledeploy.core.types import Preprocessing
from mobiledeploy.frameworks import tracing

USUAL = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
"""Ranges that pixels are scaled to."""
ENOUGH = 24
"""Images tell mean and variance of thousands of places each."""
_STRANGE = 0.2
"""Nats from which the images are not those of the training; the demo network's own are 0.02."""
_BETTER = 4.0
"""How many times nearer another range must be."""


def likelier_range(
    frozen: tracing.FrozenModel, pre: Preprocessing, images: Images
) -> tuple[float, float] | None:
    """The input range by which the images are far more like those of the training.

    None where the range of `pre`, by which `images` [N, H, W, 3] float32 were prepared, fits as
    well as any, and where the network remembers nothing: it has no BatchNorm, or one that was never
    trained. Median over the channels of the first BatchNorm of

        KL(seen || remembered) = (v / V + (m - M)^2 / V - 1 + log(V / v)) / 2

    with m, v mean and variance of what it is given, M, V those that it knows.
    """
    found = _first_norm(frozen.logits)
    if found is None:
        return None
    see, mean, variance = found
    if not mean.any() and (variance == 1).all():
        return None
    low, high = pre.input_range
    taken = images[:: max(1, len(images) // ENOUGH)][:ENOUGH]
    unit = (
        taken * np.asarray(pre.std, np.float32) + np.asarray(pre.mean, np.float32) - low
    ) / np.float32(high - low)

    def strangeness(range_: tuple[float, float]) -> float:
        other = dataclasses.replace(pre, input_range=range_)
        below, above = other.input_range
        prepared = unit * np.float32(above - below) + np.float32(below)
        prepared = (prepared - np.asarray(pre.mean, np.float32)) / np.asarray(pre.std, np.float32)
        values = [see(tf.constant(image[None]))[0].numpy() for image in prepared]
        rows = np.concatenate([v.reshape(-1, v.shape[-1]) for v in values]).astype(np.float64)
        m, v = rows.mean(axis=0), rows.var(axis=0) + 1e-12
        known = variance + 1e-12
        terms = v / known + (m - mean) ** 2 / known - 1 + np.log(known / v)
        return float(np.median(terms)) / 2

    said = strangeness(pre.input_range)
    if said < _STRANGE:
        return None
    others = {r: strangeness(r) for r in USUAL if r != tuple(pre.input_range)}
    best = min(others, key=lambda r: others[r])
    return best if others[best] * _BETTER < said else None


def _first_norm(frozen: Any) -> tuple[Any, Any, Any] | None:
    """(images -> what the first BatchNorm reads, its mean [C], its variance [C])."""
    for read, mean, variance in _norms(frozen):
        numbers = frozen.prune([], [mean, variance])()
        mean, variance = (np.asarray(n.numpy(), np.float64).reshape(-1) for n in numbers)
        if mean.shape == variance.shape == (read.shape[-1],):
            return frozen.prune(frozen.inputs[:1], [read]), mean, variance
    return None


def _norms(frozen: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(x, mean, variance) of each BatchNorm: fused as Keras 2 has it, or spelled as Keras 3 does.

    The latter is x * inv + (offset - mean * inv) with inv = rsqrt(variance + epsilon) * scale.
    """
    fixed = {op.name for op in _fixed(frozen.graph)}
    for op in frozen.graph.get_operations():
        if op.type == "FusedBatchNormV3" and op.inputs[0].op.name not in fixed:
            yield op.inputs[0], op.inputs[3], op.inputs[4]
        elif op.type == "Rsqrt" and op.name in fixed and op.inputs[0].op.type == "AddV2":
            inverse = op.outputs[0]
            for reader in inverse.consumers():
                if reader.type == "Mul" and reader.name in fixed and not _reads_mean(reader, fixed):
                    inverse = reader.outputs[0]
                    break
            factors = [
                (next((t for t in reader.inputs if t is not inverse), None), reader.name in fixed)
                for reader in inverse.consumers()
                if reader.type == "Mul"
            ]
            mean = next((t for t, known in factors if known and t is not None), None)
            read = next((t for t, known in factors if not known and t is not None), None)
            if mean is not None and read is not None:
                yield read, mean, op.inputs[0].op.inputs[0]


def _reads_mean(product: Any, fixed: set[str]) -> bool:
    """Whether a product of constants is the mean's, which is subtracted, and not the scale's."""
    return any(
        reader.type in ("Sub", "Neg") or (reader.type == "AddV2" and reader.name in fixed)
        for reader in product.outputs[0].consumers()
    )


def _fixed(graph_: Any) -> Iterator[Any]:
    """The operators that no image reaches."""
    known = {inner.op.name for _, inner in graph_.captures}
    for op in graph_.get_operations():
        if (
            op.type == "Const"
            or op.name in known
            or (op.inputs and all(t.op.name in known for t in op.inputs))
        ):
            known.add(op.name)
            yield op
