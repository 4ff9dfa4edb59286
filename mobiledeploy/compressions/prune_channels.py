"""Structured pruning: the least important channels become zero during further training.

Silenced channels answer zero to every image. So a file without them has the same answers, and an
export leaves them out (`passes/dead_channels.py`).

How important a channel is: L. Theis et al. 2018, Faster gaze prediction with dense networks and
Fisher pruning, https://arxiv.org/abs/1801.05787. With a mask m of ones behind a batch
normalisation, the loss grows without channel c in proportion to ``sum_n (dL_n / dm_c)^2`` over
images n, about. Tied channels go together (`training/channel_sets.py`), and the importance is
divided by the cost that is saved, as in L. Liu et al. 2021, Group Fisher Pruning for Practical
Network Compression, https://arxiv.org/abs/2108.00708. Ours differs in two points: of tied batch
normalisations the largest sum counts, where that paper adds their gradients, and channels go by
eights. Where instructions are the budget, the last part looks for the mult-adds that keep to it,
by counting networks of such shapes. The scale of a normalisation, by which network slimming chooses
(Z. Liu et al. 2017, https://arxiv.org/abs/1708.06519), needs a long training with a penalty to tell
layers apart.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import Model
from mobiledeploy.training import channel_sets
from mobiledeploy.training.channel_sets import ChannelSets, Masks

PRESERVES = False

# All channels are silenced after this share of the steps; the rest of the training recovers
# accuracy.
_RAMP_SHARE = 0.5
# In so many parts, each after as many steps as the others: importance changes with the network.
_PARTS = 16
# Of the interval of mult-adds in which a number of instructions is looked for.
_HALVINGS = 12


def wrap(
    model: Model, amount: float, steps: int, instructions: Callable[[Model], int] | None = None
) -> Model:
    """The model with masks behind the batch normalisations whose channels can be silenced.

    Args:
        model: of tf_keras; its layers go into the new model and share their weights with it.
        amount: below 1 the share of all such channels that is zero at the end; else the mult-adds
            that the network has without zeros, at most.
        steps: batches of the training that follows; after half of them all channels are zero.
        instructions: those of a plain model's int8 file; then `amount` is their largest number.

    Raises:
        UsageError: an amount that cannot be, or a network without such channels.
    """
    sets = channel_sets.of(model.handle)
    counter = None
    if instructions is not None:
        counter = _Counter(model, sets, instructions, amount)
        amount = counter.first_mult_adds()
    else:
        _check(sets, amount, model.handle.name)
    end = max(1, round(steps * _RAMP_SHARE))
    parts = min(_PARTS, end)
    ends = tuple(math.ceil(end * (i + 1) / parts) for i in range(parts))
    plan = _Plan(sets, amount, ends, counter)

    def wrap_layer(layer: Any) -> Any:
        return _MaskedChannels(layer, plan) if layer.name in sets.set_of else layer

    handle = tf_keras.models.clone_model(model.handle, clone_function=wrap_layer)
    return Model(model.framework, handle)


def callbacks() -> Sequence[Any]:
    """The callbacks that Keras needs during the training."""
    return (_Silencing(),)


def strip(model: Model) -> Model:
    """The plain model again, with zeros in the normalisations of silenced channels."""

    def plain(layer: Any) -> Any:
        return layer.silenced() if isinstance(layer, _MaskedChannels) else layer

    handle = tf_keras.models.clone_model(model.handle, clone_function=plain)
    return Model(model.framework, handle)


@dataclass(frozen=True)
class _Plan:
    """Which channels, how many of them, and after which steps a part of them is silenced."""

    sets: ChannelSets
    amount: float
    ends: tuple[int, ...]
    counter: _Counter | None = None

    def excess(self, kept: Sequence[int]) -> float:
        """By how many channels, or mult-adds, such numbers of channels are too many at the end."""
        if self.amount < 1:
            # An integer, so that no rounding takes eight channels more.
            return sum(kept) - math.floor(sum(self.sets.sizes) * (1 - self.amount) + 1e-6)
        return self.sets.mult_adds(kept) - self.amount


class _Counter:
    """Counts the instructions of a network with fewer channels, once for each shape.

    They do not depend on weights, so a copy with other weights is counted: channels that are kept
    have a scale and a shift of one there, the others of zero.
    """

    def __init__(
        self, model: Model, sets: ChannelSets, instructions: Callable[[Model], int], most: float
    ) -> None:
        _need_sets(sets, model.handle.name)
        self._copy = Model(model.framework, tf_keras.models.clone_model(model.handle))
        self._sets, self._instructions, self._most = sets, instructions, most
        self._counts: dict[tuple[int, ...], int] = {}

    def first_mult_adds(self) -> float:
        """The mult-adds to begin with: the same share of all as of instructions.

        These are too many, since other instructions than those of mult-adds stay. UsageError for a
        number of instructions that the network cannot have.
        """
        masks = [np.ones(size, bool) for size in self._sets.sizes]
        whole = self(masks)
        what = f"--max-instructions {self._most:,.0f}"
        name = self._copy.handle.name
        if self._most >= whole:
            raise UsageError(
                f"{name} takes {whole:,}, no more than {what}", "give a smaller number"
            )
        least = self(self._sets.silence(masks, masks, sum))
        if self._most < least:
            raise UsageError(
                f"{what} cannot be reached: of tied channels {channel_sets.MULTIPLE} stay",
                f"{least:,} at least",
            )
        return self._sets.mult_adds(self._sets.sizes) * self._most / whole

    def within(self, masks: Masks, importance: Sequence[NDArray[np.floating[Any]]]) -> Masks:
        """The masks with more channels silenced, of the most mult-adds that keep to the number."""
        if self(masks) <= self._most:
            return masks
        best = self._sets.silence(masks, importance, sum)
        low, high = (
            float(self._sets.mult_adds([int(mask.sum()) for mask in some]))
            for some in (best, masks)
        )
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            excess = _Plan(self._sets, middle, ()).excess
            fewer = self._sets.silence(masks, importance, excess)
            if self(fewer) <= self._most:
                best, low = fewer, middle
            else:
                high = middle
        return best

    def __call__(self, masks: Masks) -> int:
        """The instructions of the network with these channels."""
        kept = tuple(int(mask.sum()) for mask in masks)
        if kept not in self._counts:
            for layer in self._copy.handle.layers:
                if layer.name in self._sets.set_of:
                    mask = masks[self._sets.set_of[layer.name]].astype(np.float32)
                    layer.gamma.assign(mask)
                    layer.beta.assign(mask)
            self._counts[kept] = self._instructions(self._copy)
        return self._counts[kept]


def _need_sets(sets: ChannelSets, name: str) -> None:
    """UsageError for a network without channels that can be silenced."""
    if not sets.sizes:
        raise UsageError(
            f"{name} has no channels that can be silenced",
            "that takes a batch normalisation, and channels that nothing but activations, "
            "depthwise convolutions and sums ties",
        )


def _check(sets: ChannelSets, amount: float, name: str) -> None:
    """UsageError for an amount that this network cannot have."""
    _need_sets(sets, name)
    if not amount > 0:
        raise UsageError(f"--prune-channels {amount:g} is not above 0", "try --prune-channels 0.5")
    whole = sets.mult_adds(sets.sizes)
    if amount >= max(1, whole):
        raise UsageError(
            f"{name} has {whole / 1e6:.4g} M mult-adds, no more than --max-mult-adds "
            f"{amount / 1e6:.4g}M",
            "give a smaller number",
        )
    masks = [np.ones(size, bool) for size in sets.sizes]
    fewest = [int(mask.sum()) for mask in sets.silence(masks, masks, sum)]
    if _Plan(sets, amount, ()).excess(fewest) <= 0:
        return
    why = f"cannot be reached: of tied channels {channel_sets.MULTIPLE} stay"
    if amount < 1:
        most = math.floor(100 * (1 - sum(fewest) / sum(sets.sizes))) / 100
        raise UsageError(f"--prune-channels {amount:g} {why}", f"{most:.2f} at most")
    least = math.ceil(sets.mult_adds(fewest) / 1e3) / 1e3
    raise UsageError(f"--max-mult-adds {amount / 1e6:.4g}M {why}", f"{least:.3f}M at least")


class _MaskedChannels(tf_keras.layers.Wrapper):
    """A batch normalisation whose silenced channels are zero.

    `mask` [C] is 1 for a channel that is kept and 0 for a silenced one. `importance` [C] sums
    squared gradients by the mask, over all images since it was last set to zero.
    """

    def __init__(self, layer: Any, plan: _Plan) -> None:
        super().__init__(layer, name=f"masked_{layer.name}")
        self.plan = plan

    def build(self, input_shape: Any) -> None:
        """The mask and the sums, which a checkpoint keeps too."""
        super().build(input_shape)
        for name, value in (("mask", "ones"), ("importance", "zeros")):
            weight = self.add_weight(name, (input_shape[-1],), initializer=value, trainable=False)
            setattr(self, name, weight)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The normalised inputs [N, ..., C], zero where the mask is."""
        return self._weighed(self.layer(inputs, training=training) * self.mask)

    def _weighed(self, x: tf.Tensor) -> tf.Tensor:
        """`x`; its gradient [N, ..., C] adds to the importance."""

        @tf.custom_gradient
        def identity(values: tf.Tensor) -> tuple[tf.Tensor, Any]:
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                inner = list(range(1, len(values.shape) - 1))
                by_image = tf.reduce_sum(upstream * values, inner) if inner else upstream * values
                self.importance.assign_add(tf.reduce_sum(tf.square(by_image), 0))
                return upstream

            return tf.identity(values), gradient

        return identity(x)

    def silenced(self) -> Any:
        """The normalisation, with zeros for the scale and the shift of silenced channels."""
        for weight in (self.layer.gamma, self.layer.beta):
            weight.assign(weight * self.mask)
        return self.layer


class _Silencing(tf_keras.callbacks.Callback):
    """Silences a part of the channels after each of the plan's steps."""

    def __init__(self) -> None:
        super().__init__()
        self._goes_on = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Updates the masks if a part is due; what is silenced stays so."""
        layers = [x for x in self.model.layers if isinstance(x, _MaskedChannels)]
        plan = layers[0].plan
        step = int(self.model.optimizer.iterations)
        # A training that goes on may have fewer epochs than before: then parts are overdue.
        if step not in plan.ends and not self._goes_on:
            return
        self._goes_on = False
        part = bisect.bisect_right(plan.ends, step) / len(plan.ends)
        if not part:
            return
        masks = [np.ones(size, bool) for size in plan.sets.sizes]
        importance = [np.zeros(size) for size in plan.sets.sizes]
        for layer in layers:
            index = plan.sets.set_of[layer.layer.name]
            masks[index] &= layer.mask.numpy() > 0
            importance[index] = np.maximum(importance[index], layer.importance.numpy())
        until = (1 - part) * plan.excess(plan.sets.sizes)
        fewer = plan.sets.silence(masks, importance, plan.excess, until)
        if part == 1 and plan.counter is not None:
            fewer = plan.counter.within(fewer, importance)
        for layer in layers:
            mask = fewer[plan.sets.set_of[layer.layer.name]]
            layer.mask.assign(mask.astype(np.float32))
            layer.importance.assign(np.zeros(len(mask), np.float32))
