"""Magnitude pruning: the smallest weights become zero during further training.

M. Zhu, S. Gupta 2017, To prune, or not to prune, https://arxiv.org/abs/1710.01878: after t of n
steps the share of zeros is ``s_t = s * (1 - (1 - t / n) ** 3)``, with s the share at the end.
First step of S. Han et al. 2015, Deep Compression, https://arxiv.org/abs/1510.00149.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow_model_optimization as tfmot

from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import Model
from mobiledeploy.training import wrapping

PRESERVES = False

# All zeros are reached after this share of the steps; the rest of the training recovers accuracy.
_RAMP_SHARE = 0.7
# Masks are updated at most this often, in steps.
_EVERY = 100


def wrap(
    model: Model, amount: float, steps: int, instructions: Callable[[Model], int] | None = None
) -> Model:
    """The model with its convolutions and fully connected layers wrapped for pruning.

    Depthwise kernels stay dense: they have few weights, and all of them matter.

    Args:
        model: of tf_keras; its layers go into the new model and share their weights with it.
        amount: share of zeros at the end, above 0 and below 1, in each layer.
        steps: batches of the training that follows, n = 0.7 * steps of the formula.
        instructions: never given, since zeros among the weights save none.
    """
    del instructions
    if not 0 < amount < 1:
        raise UsageError(f"--prune {amount:g} is not above 0 and below 1", "try --prune 0.5")
    end = max(1, round(steps * _RAMP_SHARE))
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=amount,
        begin_step=0,
        end_step=end,
        power=3,
        frequency=max(1, min(_EVERY, end // 10)),
    )
    return wrapping.each_weighted_layer(
        model, lambda layer: tfmot.sparsity.keras.prune_low_magnitude(layer, schedule)
    )


def callbacks() -> Sequence[Any]:
    """The callbacks that Keras needs during the training."""
    return (tfmot.sparsity.keras.UpdatePruningStep(),)


def strip(model: Model) -> Model:
    """The plain model again, with the zeros of the training."""
    return Model(model.framework, tfmot.sparsity.keras.strip_pruning(model.handle))
