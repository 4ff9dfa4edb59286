"""The sets of tied channels of a Keras network, and what it costs with fewer of them.

A channel that becomes zero behind its batch normalisation stays zero through activations, depthwise
convolutions and pools, up to the layers that weigh it. What relates channels one to one ties them:
both sides of a depthwise convolution, the summands of a residual sum, a product with the factors of
a squeeze-excite. The channels of tied tensors are silenced together, so that no layer needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from mobiledeploy.frameworks.hard_activations import HardSigmoid, HardSwish

MULTIPLE = 8
"""Kernels work on 8 channels at once: a multiple of this many is kept, or all."""

_LAYERS = tf_keras.layers
_WEIGHING = (_LAYERS.Conv2D, GroupedConv2D, _LAYERS.Dense, _LAYERS.SeparableConv2D)
_ZERO_STAYS = (
    *(_LAYERS.ReLU, _LAYERS.LeakyReLU, _LAYERS.PReLU, HardSwish, _LAYERS.Dropout),
    *(_LAYERS.MaxPooling2D, _LAYERS.AveragePooling2D, _LAYERS.GlobalAveragePooling2D),
    *(_LAYERS.GlobalMaxPooling2D, _LAYERS.ZeroPadding2D, _LAYERS.Resizing, _LAYERS.UpSampling2D),
)
_RESHAPING = (_LAYERS.Flatten, _LAYERS.Reshape)
_ZERO_STAYS_FUNCTIONS = ("linear", "relu", "relu6", "elu", "gelu", "selu", "swish", "silu", "tanh")

Masks = Sequence[NDArray[np.bool_]]
"""For each set [C]: which of its channels are kept."""


@dataclass(frozen=True)
class _Product:
    """A layer's mult-adds at one channel in and one out; `source` and `target` are sets.

    -1 stands for `inputs` or `outputs` channels that stay. A depthwise layer has no `target`.
    """

    each: int
    source: int
    inputs: int
    target: int | None
    outputs: int = 1

    def mult_adds(self, kept: Sequence[int]) -> int:
        inputs = self.inputs if self.source < 0 else kept[self.source]
        if self.target is None:
            return self.each * inputs
        return self.each * inputs * (self.outputs if self.target < 0 else kept[self.target])


@dataclass(frozen=True)
class ChannelSets:
    """The sets of tied channels that can be silenced.

    `sizes` are the channels of each, and `set_of` says which set a batch normalisation is of.
    """

    sizes: tuple[int, ...]
    set_of: Mapping[str, int]
    _products: tuple[_Product, ...]

    def mult_adds(self, kept: Sequence[int]) -> int:
        """Of convolutions and dense layers, with so many channels of each set."""
        return sum(product.mult_adds(kept) for product in self._products)

    def silence(
        self,
        masks: Masks,
        importance: Sequence[NDArray[np.floating[Any]]],
        excess: Callable[[Sequence[int]], float],
        until: float = 0.0,
    ) -> Masks:
        """The masks with more channels silenced, until `excess` is at most `until`, or no more can.

        Of all sets the one is next whose least important channels, down to the next multiple of
        `MULTIPLE`, have the smallest sum of `importance` for each mult-add that is saved. What is
        saved beyond an excess of zero does not count.

        Args:
            masks: those silenced before stay so.
            importance: of each channel of each set, [C].
            excess: by how much such numbers of channels are too many, in any unit.
            until: an excess to stop at.
        """
        masks = [mask.copy() for mask in masks]
        kept = [int(mask.sum()) for mask in masks]
        while (too_many := excess(kept)) > until:
            before = self.mult_adds(kept)
            best: tuple[float, int, NDArray[np.int64]] | None = None
            for index, count in enumerate(kept):
                fewer = (count - 1) // MULTIPLE * MULTIPLE
                if fewer < MULTIPLE:
                    continue
                alive = np.flatnonzero(masks[index])
                order = np.argsort(importance[index][alive], kind="stable")
                least = alive[order[: count - fewer]]
                then = [*kept[:index], fewer, *kept[index + 1 :]]
                saved = float(before - self.mult_adds(then))
                if (rest := excess(then)) < 0:
                    saved *= too_many / (too_many - rest)
                price = float(importance[index][least].sum()) / max(1.0, saved)
                if best is None or price < best[0]:
                    best = price, index, least
            if best is None:
                break
            _, index, least = best
            masks[index][least] = False
            kept[index] -= len(least)
        return masks


def of(network: tf_keras.Model) -> ChannelSets:
    """The sets of a functional network.

    A set can be silenced if its batch normalisations can make all that is weighed of it zero. Left
    alone are the channels of the network's inputs and outputs, of concatenations along them, of
    grouped convolutions and of layers that are not known here.
    """
    return _Walk(network).sets()


class _Walk:
    """The tensors of a network in the order of computation; each has a number.

    `zero` says of each tensor whether it is zero if all batch normalisations answer zero.
    """

    def __init__(self, network: tf_keras.Model) -> None:
        self._numbers: dict[int, int] = {}
        self._channels: list[int] = []
        self._zero: list[bool] = []
        self._ties: list[tuple[int, int]] = []
        self._stay: set[int] = set()
        self._weighed: list[int] = []
        self._normalised: dict[str, int] = {}
        self._products: list[tuple[int, int, int | None]] = []
        nodes = network._nodes_by_depth
        calls = [node for depth in sorted(nodes, reverse=True) for node in nodes[depth]]
        layers = [id(node.layer) for node in calls]
        for node in calls:
            sources = [self._numbers[id(tensor)] for tensor in node.keras_inputs]
            outputs = _flat(node.outputs)
            targets = [self._number(tensor) for tensor in outputs]
            known = len(targets) == 1 and layers.count(id(node.layer)) == 1
            if not (known and self._visit(node.layer, sources, targets[0], node)):
                self._stay.update((*sources, *targets))
        self._stay.update(self._numbers[id(tensor)] for tensor in network.outputs)

    def _number(self, tensor: Any) -> int:
        self._numbers[id(tensor)] = len(self._channels)
        self._channels.append(tensor.shape[-1] or 0)
        self._zero.append(False)
        return len(self._channels) - 1

    def sets(self) -> ChannelSets:
        count = len(self._channels)
        ends = np.array(self._ties, np.int64).reshape(-1, 2).T
        links = coo_array((np.ones(ends.shape[1], bool), (ends[0], ends[1])), shape=(count, count))
        sets, labels = connected_components(links, directed=False)
        usable = np.zeros(sets, bool)
        usable[labels[list(self._normalised.values())]] = True
        usable[labels[sorted(self._stay)]] = False
        usable[labels[[number for number in self._weighed if not self._zero[number]]]] = False
        numbers = np.where(usable, np.cumsum(usable) - 1, -1)[labels]
        sizes = [0] * int(usable.sum())
        for number, channels in zip(numbers, self._channels, strict=True):
            if number >= 0:
                sizes[number] = channels
        products = [
            _Product(
                each,
                int(numbers[source]),
                self._channels[source],
                None if target is None else int(numbers[target]),
                1 if target is None else self._channels[target],
            )
            for each, source, target in self._products
        ]
        set_of = {name: int(numbers[number]) for name, number in self._normalised.items()}
        usable_set_of = {name: number for name, number in set_of.items() if number >= 0}
        return ChannelSets(tuple(sizes), usable_set_of, tuple(products))

    def _visit(self, layer: Any, sources: Sequence[int], target: int, node: Any) -> bool:
        """Ties and zeros of a layer; False for one that is not known here."""
        kind = type(layer)
        if kind in (_LAYERS.Add, _LAYERS.Multiply):
            if {self._channels[source] for source in sources} != {self._channels[target]}:
                return False
            each = [self._zero[source] for source in sources]
            self._tie(sources, target, all(each) if kind is _LAYERS.Add else any(each))
            return True
        if len(sources) != 1:
            return False
        (source,) = sources
        if kind in _WEIGHING:
            return self._weigh(layer, source, target, node)
        if self._channels[source] != self._channels[target]:
            return False
        if kind is _LAYERS.DepthwiseConv2D:
            self._products.append((_positions(node) * math.prod(layer.kernel_size), source, None))
            zero = self._zero[source] and not layer.use_bias and _keeps_zero(layer)
        elif kind is _LAYERS.BatchNormalization:
            if not (layer.scale and layer.center) or list(layer.axis) != [
                len(node.outputs.shape) - 1
            ]:
                return False
            self._normalised[layer.name] = target
            zero = True
        elif kind in _ZERO_STAYS:
            zero = self._zero[source] and not getattr(layer, "threshold", 0)
        elif kind in _RESHAPING:
            (before,) = node.keras_inputs
            if math.prod(before.shape[1:]) != self._channels[source]:
                return False
            zero = self._zero[source]
        elif kind is _LAYERS.Activation:
            if layer.activation is tf_keras.activations.softmax:
                return False
            zero = self._zero[source] and _keeps_zero(layer)
        elif kind is HardSigmoid:
            zero = False
        else:
            return False
        self._tie(sources, target, zero)
        return True

    def _tie(self, sources: Sequence[int], target: int, zero: bool) -> None:
        self._ties += [(source, target) for source in sources]
        self._zero[target] = bool(zero)

    def _weigh(self, layer: Any, source: int, target: int, node: Any) -> bool:
        if getattr(layer, "groups", 1) != 1 or getattr(layer, "depth_multiplier", 1) != 1:
            return False
        self._weighed.append(source)
        positions = _positions(node)
        area = math.prod(getattr(layer, "kernel_size", ()))
        if type(layer) is _LAYERS.SeparableConv2D:
            self._products.append((positions * area, source, None))
            area = 1
        self._products.append((positions * area, source, target))
        return True


def _flat(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _positions(node: Any) -> int:
    """The places at which a layer answers, for one image."""
    return math.prod(node.outputs.shape[1:-1])


def _keeps_zero(layer: Any) -> bool:
    return getattr(layer.activation, "__name__", "") in _ZERO_STAYS_FUNCTIONS
