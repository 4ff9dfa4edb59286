"""Leaves out the channels that no answer depends on: filters that answer a constant, or nobody.

Networks lose filters in training: weight decay and the ReLU drive all weights of some to zero (D.
Mehta et al. 2019, On implicit filter level sparsity in convolutional neural networks,
https://arxiv.org/abs/1811.12495). Such a filter answers a constant, and what its reader makes of a
constant is a part of the reader's bias.

Each channel has a lower and an upper bound, by interval arithmetic from the extents of the inputs:
for weights w and inputs from l to h the sums lie between b + sum(w+ l + w- h) and
b + sum(w+ h + w- l), where w+ and w- are the positive and negative parts of w. A filter behind ReLU
whose upper bound is not above 0 is 0 for every image, one behind ReLU6 whose lower bound is 6 or
above is 6. A channel is constant if its bounds are no further from their middle than `CONSTANT`
times the largest amplitude of a channel of its tensor. That is measured with noise at the inputs,
and is no more than the tensor's largest magnitude. A window over the border also sees zeros, so
another constant is a pattern behind a depthwise layer with SAME padding, and is kept there.

Channels that an operator relates one to one are tied: those of both sides of a depthwise filter, a
residual sum, a product with the factors of a squeeze-excite, a concatenation, a pool. A set of tied
channels is left out if every layer that weighs one of them (a convolution or a dense layer) has
only zeros for it, or sees a constant there, which goes into its bias. What layers that are left out
would weigh does not count, nor what constant filters weigh. Inputs and outputs of the model stay as
they are, and so do the channels of operators that are not listed here: a grouped convolution, a
channel shuffle, a softmax or a normalisation over channels.

Kernels work on 8 channels at once, and an odd rest costs more than it saves: the number that is
kept in a tensor is rounded up to a multiple of 8, constants other than zero first. That is a rule
of thumb: `export --for` counts both numbers on a core (`steps/target_core.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mobiledeploy.core.batches import Images
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array, Progress, quiet
from mobiledeploy.core.types import QuantizedGraph, ShrunkLayer
from mobiledeploy.graphs import execution, matrices, ranges
from mobiledeploy.graphs.graph import Graph

PRESERVES = True

CONSTANT = 1e-6
"""A channel that varies by no more of what the channels of its tensor vary by is constant."""
MULTIPLE = 8
"""Channels that are kept in a tensor: a multiple of this, or all, unless a core was counted."""
_LARGEST = float(np.finfo(np.float32).max)
_CLIPS = {
    "NONE": (-np.inf, np.inf),
    "RELU": (0.0, np.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}
_PROBES, _SEED = 2, 0
_LOWEST_SWISH = -1.5
"""Where x relu6(x + 3) / 6 is smallest: it falls before and rises behind."""
_SAME_VALUES = (
    *("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
    *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "PAD", "MIRROR_PAD"),
)
"""Operators whose values lie between those of their input's channel; PAD adds zeros."""
_PAIRWISE = ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "PRELU")

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph without channels that are dead whatever its inputs are."""
    floats, layers = simplify(quantized_graph.floats, ())
    if not layers:
        return quantized_graph
    new_ranges = ranges.extents(ranges.channels(floats, images))
    return dataclasses.replace(quantized_graph, floats=floats, ranges=new_ranges, integers=None)


def simplify(
    floats: bytes, extents: Sequence[tuple[float, float] | None], multiple: int = MULTIPLE
) -> tuple[bytes, tuple[ShrunkLayer, ...]]:
    """A float TFLite without dead channels, and the layers that lost filters; as it was if none.

    `extents` are the smallest and the largest value of each input, None where they are unknown. A
    tensor keeps a `multiple` of channels, or all.
    """
    lost: dict[int, ShrunkLayer] = {}
    while True:
        graph = Graph(floats)
        channels = _Channels(graph, extents)
        dead = _dead(channels)
        left_out = _rounded(channels, dead, multiple)
        if not left_out.any():
            return floats, tuple(lost.values())
        for index, layer in _shrink(graph, channels, dead, left_out).items():
            whole = lost.get(index, dataclasses.replace(layer, left_out=0))
            lost[index] = dataclasses.replace(whole, left_out=whole.left_out + layer.left_out)
        # What was nearly constant is constant now, and so is more of what reads it.
        floats = graph.pack()


@dataclass(frozen=True)
class _Reader:
    """A layer that weighs the channels of its input.

    `weighs` [O, I] says where its weights are not all zero; `columns` are the input channels of its
    weights' last axis; `borders` says whether its windows see zeros around the image.
    """

    op: Any
    source: int
    target: int
    weighs: Flags
    columns: Integers
    borders: bool


class _Channels:
    """The channels of a graph's float tensors: their bounds, what ties them, who reads them.

    The channels of a tensor lie along its last axis. Each has a number of its own in the graph;
    `slots` are those of a tensor, and `low` and `high` [slots] their bounds. `set_of` [slots]
    numbers the sets of channels that are tied, and `permanent` [sets] says which of these stay.
    """

    def __init__(self, graph: Graph, extents: Sequence[tuple[float, float] | None]) -> None:
        self.graph = graph
        self.slots: dict[int, Integers] = {}
        self.readers: list[_Reader] = []
        self._pairs: list[tuple[Integers, Integers]] = []
        count = 0
        computed = (int(i) for op in graph.ops for i in op.outputs)
        for index in dict.fromkeys((*graph.inputs, *computed)):
            shape = graph.shape(index)
            if shape and graph.dtype(index) == np.float32:
                self.slots[index] = np.arange(count, count + shape[-1])
                count += shape[-1]
        self.low, self.high = np.full(count, -_LARGEST), np.full(count, _LARGEST)
        self._stays = np.zeros(count, bool)
        for index in (*graph.inputs, *graph.outputs):
            self._keep(index)
        for index, extent in zip(graph.inputs, extents, strict=False):
            if extent is not None and index in self.slots:
                low, high = extent
                self._bound(index, np.asarray(low), np.asarray(high))
        for op in graph.ops:
            if not self._visit(op):
                for index in (*op.inputs, *op.outputs):
                    self._keep(int(index))
        self.set_of, sets = self._sets(count)
        self.permanent = np.zeros(sets, bool)
        self.permanent[self.set_of[self._stays]] = True
        self.middle = (self.low + self.high) / 2
        self.within = self._tolerance()
        self.constant = self.high - self.low <= 2 * self.within
        self.zero = np.maximum(np.abs(self.low), np.abs(self.high)) <= self.within

    def _keep(self, index: int) -> None:
        if index in self.slots:
            self._stays[self.slots[index]] = True

    def _bound(self, index: int, low: Doubles, high: Doubles, activation: str = "NONE") -> None:
        """Sets the bounds of a tensor's channels; no float32 lies outside the largest ones."""
        least, most = _CLIPS[activation]
        slots = self.slots[index]
        # Not a number: nothing is known.
        with np.errstate(invalid="ignore"):
            self.low[slots] = np.clip(np.nan_to_num(low, nan=-_LARGEST), least, most)
            self.high[slots] = np.clip(np.nan_to_num(high, nan=_LARGEST), least, most)
        self.low[slots] = np.clip(self.low[slots], -_LARGEST, _LARGEST)
        self.high[slots] = np.clip(self.high[slots], -_LARGEST, _LARGEST)

    def bounds(self, index: int) -> tuple[Doubles, Doubles]:
        """The bounds of a tensor's channels."""
        return self.low[self.slots[index]], self.high[self.slots[index]]

    def _sets(self, count: int) -> tuple[Integers, int]:
        """The set of each channel, and how many there are."""
        ends = [np.concatenate(side) for side in zip(*self._pairs, strict=True)] or [
            np.empty(0, np.int64)
        ] * 2
        links = coo_array((np.ones(len(ends[0]), bool), (ends[0], ends[1])), shape=(count, count))
        sets, numbers = connected_components(links, directed=False)
        return numbers.astype(np.int64), int(sets)

    # Operators.

    def _visit(self, op: Any) -> bool:
        """Bounds and ties of an operator's channels; False for one that is not known here."""
        kind, target = self.graph.kind(op), int(op.outputs[0]) if len(op.outputs) else -1
        if len(op.outputs) != 1 or target not in self.slots or not len(op.inputs):
            return False
        if self.graph.activation(op) not in _CLIPS:
            return False
        if kind == "CONCATENATION":
            return self._concatenation(op, target)
        if kind in _PAIRWISE:
            return self._pairwise(op, kind, target)
        source = int(op.inputs[0])
        if source not in self.slots:
            return False
        if kind in ("CONV_2D", "FULLY_CONNECTED"):
            return self._weighted(op, source, target)
        if kind == "DEPTHWISE_CONV_2D":
            return self._depthwise(op, source, target)
        if kind in _SAME_VALUES:
            return self._same_values(op, kind, source, target)
        return self._single(op, kind, source, target)

    def _weighted(self, op: Any, source: int, target: int) -> bool:
        """A convolution or a dense layer, which weighs channels."""
        weights, bias = self._weights(op, target)
        channels = len(self.slots[source])
        if weights is None or weights.shape[0] != len(self.slots[target]):
            return False
        dense = self.graph.kind(op) == "FULLY_CONNECTED"
        if weights.shape[-1] != channels and not (dense and weights.shape[-1] % channels == 0):
            # The other convolutions have groups.
            return False
        borders = not dense and matrices.pads(op, weights.shape[1:3])
        low, high = self._around(source, borders)
        columns = np.arange(weights.shape[-1]) % channels
        up, down = _signed_sums(weights.reshape(len(weights), -1, channels))
        with np.errstate(invalid="ignore", over="ignore"):
            self._bound(
                target,
                bias + up @ low + down @ high,
                bias + up @ high + down @ low,
                self.graph.activation(op),
            )
        weighs = (up != 0) | (down != 0)
        self.readers.append(_Reader(op, source, target, weighs, columns, borders))
        return True

    def _depthwise(self, op: Any, source: int, target: int) -> bool:
        """Each filter reads one channel and is tied to it."""
        weights, bias = self._weights(op, target)
        outputs, channels = len(self.slots[target]), len(self.slots[source])
        if weights is None or weights.shape[-1] != outputs or outputs % channels:
            return False
        times = outputs // channels
        low, high = (
            side.repeat(times)
            for side in self._around(source, matrices.pads(op, weights.shape[1:3]))
        )
        up, down = (side[0] for side in _signed_sums(weights.reshape(1, -1, outputs)))
        self._bound(
            target,
            bias + up * low + down * high,
            bias + up * high + down * low,
            self.graph.activation(op),
        )
        self._pairs.append((self.slots[source].repeat(times), self.slots[target]))
        return True

    def _weights(self, op: Any, target: int) -> tuple[Array | None, Doubles]:
        """The weights and the bias [O], zeros without one; no weights if either is computed."""
        bias = np.zeros(len(self.slots[target]))
        place = int(op.inputs[2]) if len(op.inputs) > 2 else -1
        weights = self.graph.constant(int(op.inputs[1]))
        if weights is None or weights.dtype != np.float32:
            return None, bias
        if place >= 0:
            values = self.graph.constant(place)
            if values is None or values.shape != bias.shape:
                return None, bias
            bias = values.astype(np.float64)
        return weights, bias

    def _around(self, source: int, borders: bool) -> tuple[Doubles, Doubles]:
        """The bounds of what a window sees."""
        low, high = self.bounds(source)
        return (np.minimum(low, 0), np.maximum(high, 0)) if borders else (low, high)

    def _same_values(self, op: Any, kind: str, source: int, target: int) -> bool:
        """Channel by channel, with values between those of the input."""
        before, after = self.graph.shape(source), self.graph.shape(target)
        rest = [self.graph.constant(int(i)) for i in op.inputs[1:]]
        if any(values is None for values in rest):
            return False
        # A dense layer may read [height * width * channels]: each channel is there many times.
        times = after[-1] // before[-1] if kind == "RESHAPE" and before[-1] else 1
        if after[-1] != times * before[-1] or not times:
            return False
        if kind == "MEAN":
            axes = {int(axis) % len(before) for axis in np.reshape(rest[0], -1)}  # type: ignore[arg-type]
            if len(before) - 1 in axes:
                return False
        if kind in ("SQUEEZE", "EXPAND_DIMS") and before[-1] == 1:
            return False
        low, high = self._around(source, kind == "PAD")
        self._bound(target, np.tile(low, times), np.tile(high, times), self.graph.activation(op))
        self._pairs.append((np.tile(self.slots[source], times), self.slots[target]))
        return True

    def _single(self, op: Any, kind: str, source: int, target: int) -> bool:
        """An activation by itself."""
        low, high = self.bounds(source)
        if len(low) != len(self.slots[target]):
            return False
        if kind in _CLIPS:
            self._bound(target, low, high, kind)
        elif kind in ("LOGISTIC", "TANH"):
            low, high = (np.clip(side, -700, 700) for side in (low, high))
            if kind == "TANH":
                self._bound(target, np.tanh(low), np.tanh(high))
            else:
                self._bound(target, 1 / (1 + np.exp(-low)), 1 / (1 + np.exp(-high)))
        elif kind == "HARD_SWISH":
            ends = _swish(low), _swish(high)
            dip = (low < _LOWEST_SWISH) & (high > _LOWEST_SWISH)
            least = np.where(dip, _swish(np.float64(_LOWEST_SWISH)), np.minimum(*ends))
            self._bound(target, least, np.maximum(*ends))
        elif kind == "LEAKY_RELU":
            slope = float(op.builtinOptions.alpha)
            ends = _leaky(low, slope), _leaky(high, slope)
            crosses = (low < 0) & (high > 0)
            least, most = np.minimum(*ends), np.maximum(*ends)
            self._bound(target, np.where(crosses, np.minimum(least, 0), least), most)
        else:
            return False
        self._pairs.append((self.slots[source], self.slots[target]))
        return True

    def _pairwise(self, op: Any, kind: str, target: int) -> bool:
        """Two tensors, or one and a constant, value by value."""
        slots = self.slots[target]
        sides = []
        for index in map(int, op.inputs):
            values = self.graph.constant(index)
            if values is not None:
                if values.dtype != np.float32:
                    return False
                own = values.reshape(-1, values.shape[-1] if values.ndim else 1).astype(np.float64)
                low, high = own.min(axis=0), own.max(axis=0)
            elif index in self.slots:
                low, high = self.bounds(index)
            else:
                return False
            if len(low) == 1 and len(slots) > 1:
                # One value for all channels.
                self._keep(index)
            elif len(low) != len(slots):
                return False
            elif values is None:
                self._pairs.append((self.slots[index], slots))
            sides.append((low, high))
        (a, b), (c, d) = sides
        if kind == "ADD":
            low, high = a + c, b + d
        elif kind == "SUB":
            low, high = a - d, b - c
        elif kind == "MUL":
            ends = np.broadcast_arrays(a * c, a * d, b * c, b * d)
            low, high = np.min(ends, axis=0), np.max(ends, axis=0)
        elif kind == "PRELU":
            ends = np.broadcast_arrays(*(_leaky(x, slope) for x in (a, b) for slope in (c, d)))
            low, high = np.min(ends, axis=0), np.max(ends, axis=0)
            crosses = (a < 0) & (b > 0)
            low, high = (
                np.where(crosses, of(x, 0), x) for of, x in ((np.minimum, low), (np.maximum, high))
            )
        else:
            of = np.maximum if kind == "MAXIMUM" else np.minimum
            low, high = of(a, c), of(b, d)
        self._bound(target, low, high, self.graph.activation(op))
        return True

    def _concatenation(self, op: Any, target: int) -> bool:
        """Along the channels one input after the other; along another axis all of them together."""
        inputs = [int(i) for i in op.inputs]
        if any(index not in self.slots for index in inputs):
            return False
        rank = len(self.graph.shape(target))
        own = [self.slots[index] for index in inputs]
        if op.builtinOptions.axis % rank == rank - 1:
            before = np.concatenate(own)
            low, high = self.low[before], self.high[before]
            self._pairs.append((before, self.slots[target]))
        else:
            low = np.min([self.low[slots] for slots in own], axis=0)
            high = np.max([self.high[slots] for slots in own], axis=0)
            self._pairs += [(slots, self.slots[target]) for slots in own]
        self._bound(target, low, high, self.graph.activation(op))
        return True

    # Constants.

    def _tolerance(self) -> Doubles:
        """[slots]: by how much a channel may differ from a constant, `CONSTANT` of its tensor."""
        amplitude, most = np.zeros(len(self.low)), np.zeros(len(self.low))
        for slots in self.slots.values():
            if len(slots):
                most[slots] = np.maximum(-self.low[slots], self.high[slots]).max()
        width = (self.high - self.low) / 2
        if ((width > 0) & (width <= CONSTANT * most)).any():
            for index, value in self._amplitudes().items():
                amplitude[self.slots[index]] = value
        tolerance: Doubles = CONSTANT * amplitude
        return tolerance

    def _amplitudes(self) -> dict[int, float]:
        """By how much the channels of each tensor vary for noise at the inputs, at most."""
        random = np.random.default_rng(_SEED)
        ends: dict[int, tuple[Doubles, Doubles]] = {}
        try:
            engine = execution.interpreter(self.graph.pack(), every_tensor=True)
            for _ in range(_PROBES):
                for index in self.graph.inputs:
                    engine.set_tensor(index, self._noise(index, random))
                execution.invoke(engine)
                for index, slots in self.slots.items():
                    values = engine.get_tensor(index).reshape(-1, len(slots)).astype(np.float64)
                    low, high = ends.get(index, (np.inf, -np.inf))
                    ends[index] = (
                        np.minimum(low, values.min(axis=0)),
                        np.maximum(high, values.max(axis=0)),
                    )
        except InputError:
            # Other inputs may have to fit together; then only what is constant by itself counts.
            return {}
        halves = {index: float((high - low).max()) / 2 for index, (low, high) in ends.items()}
        return {index: half for index, half in halves.items() if np.isfinite(half)}

    def _noise(self, index: int, random: np.random.Generator) -> Array:
        """Values of an input: within its extents, or from -1 to 1 if they are unknown."""
        values = np.zeros(self.graph.shape(index), self.graph.dtype(index))
        if index in self.slots:
            low, high = self.bounds(index)
            bounded = high < _LARGEST
            low, high = np.where(bounded, low, -1), np.where(bounded, high, 1)
            values[...] = random.uniform(low, high, values.shape)
        return values


def _dead(channels: _Channels) -> Flags:
    """[sets]: which sets of tied channels no answer depends on."""
    dead = np.zeros(len(channels.permanent), bool)
    while True:
        needed = channels.permanent.copy()
        for reader in channels.readers:
            slots, answers = channels.slots[reader.source], channels.slots[reader.target]
            # A constant needs no weights.
            counts = ~dead[channels.set_of[answers]] & ~channels.constant[answers]
            weighed = reader.weighs[counts].any(axis=0)
            absorbed = channels.zero if reader.borders else channels.constant
            needed[channels.set_of[slots[weighed & ~absorbed[slots]]]] = True
        if (dead == ~needed).all():
            return dead
        dead = ~needed


def _rounded(channels: _Channels, dead: Flags, multiple: int) -> Flags:
    """[sets]: those of `dead` that go if each tensor keeps a `multiple` of channels, or all."""
    left_out = dead.copy()
    # Constants other than zero stay before others: they need no place in a bias then.
    values = np.zeros(len(dead), bool)
    for reader in channels.readers:
        slots = channels.slots[reader.source]
        values[channels.set_of[slots[channels.constant[slots] & ~channels.zero[slots]]]] = True
    tensors = [own for own in (channels.set_of[s] for s in channels.slots.values()) if len(own)]
    changes = True
    while changes:
        changes = False
        for own in tensors:
            while (gone := left_out[own]).any():
                count = len(own) - int(gone.sum())
                if count == max(multiple, -(-count // multiple) * multiple):
                    break
                candidates = own[gone]
                first = candidates[np.argmax(values[candidates])]
                left_out[first], changes = False, True
    return left_out


def _shrink(
    graph: Graph, channels: _Channels, dead: Flags, left_out: Flags
) -> dict[int, ShrunkLayer]:
    """Changes the graph; returns the layers that weigh channels and lost filters, by output."""
    masks = {index: ~left_out[channels.set_of[slots]] for index, slots in channels.slots.items()}
    readers = {id(reader.op): reader for reader in channels.readers}
    layers: dict[int, ShrunkLayer] = {}
    for op in graph.ops:
        reader = readers.get(id(op))
        if reader is not None:
            _shrink_weights(graph, channels, reader, masks, dead)
            stay = masks[reader.target]
            if not stay.all():
                name = graph.name(reader.target)
                layers[reader.target] = ShrunkLayer(name, len(stay), int((~stay).sum()))
            continue
        stay = masks.get(int(op.outputs[0])) if len(op.outputs) else None
        if stay is None or stay.all():
            continue
        kind = graph.kind(op)
        if kind == "RESHAPE":
            _reshape(graph, op, int(stay.sum()))
        elif kind == "DEPTHWISE_CONV_2D" or kind in _PAIRWISE:
            for place, index in enumerate(map(int, op.inputs)):
                values = graph.constant(index)
                if values is not None and values.ndim and values.shape[-1] == len(stay):
                    _replace(graph, op, place, values[..., stay])
    for index, stay in masks.items():
        if not stay.all():
            graph.set_shape(index, (*graph.shape(index)[:-1], int(stay.sum())))
    return layers


def _shrink_weights(
    graph: Graph, channels: _Channels, reader: _Reader, masks: dict[int, Flags], dead: Flags
) -> None:
    """Leaves out filters of a layer, and what it weighs of channels that are left out."""
    op, target, source = reader.op, reader.target, reader.source
    answers, slots = channels.slots[target], channels.slots[source]
    inputs, outputs = masks[source], masks[target]
    idle = channels.constant[answers] | dead[channels.set_of[answers]]
    if inputs.all() and outputs.all() and not idle.any():
        return
    weights = graph.constant_values(int(op.inputs[1]))
    place = int(op.inputs[2]) if len(op.inputs) > 2 else -1
    bias = np.zeros(len(answers)) if place < 0 else graph.constant_values(place).astype(np.float64)
    absorbed = ~inputs & channels.constant[slots] & ~channels.zero[slots]
    if absorbed.any():
        places = np.flatnonzero(absorbed[reader.columns])
        own = weights[..., places].astype(np.float64).reshape(len(bias), -1, len(places))
        bias = bias + own.sum(axis=1) @ channels.middle[slots][reader.columns[places]]
    # What answers a constant, or nobody, may stay, with that or any other value that it can have.
    low, high = channels.bounds(target)
    answer = np.where(channels.constant[answers], channels.middle[answers], np.clip(0, low, high))
    bias = np.where(idle, answer, bias)[outputs]
    weights = np.where(idle.reshape(-1, *[1] * (weights.ndim - 1)), 0, weights)
    _replace(graph, op, 1, weights[outputs][..., inputs[reader.columns]])
    if place >= 0:
        _replace(graph, op, 2, bias)
    elif bias.any():
        index = graph.add_constant(f"{graph.name(target)}/bias", bias.astype(np.float32))
        op.inputs = [*op.inputs[:2], index]


def _replace(graph: Graph, op: Any, place: int, values: Array) -> None:
    graph.replace_constant(op, place, values)
    graph.set_shape(int(op.inputs[place]), values.shape)


def _reshape(graph: Graph, op: Any, channels: int) -> None:
    """Makes the last axis of a reshape's output one of so many channels."""
    if len(op.inputs) > 1:
        shape = graph.constant_values(int(op.inputs[1])).copy()
        if shape[-1] != -1:
            shape[-1] = channels
            graph.replace_constant(op, 1, shape)
    new_shape = getattr(op.builtinOptions, "newShape", None)
    if new_shape is not None and len(new_shape) and new_shape[-1] != -1:
        op.builtinOptions.newShape = [*new_shape[:-1], channels]


def _signed_sums(weights: Array) -> tuple[Doubles, Doubles]:
    """[O, K, C] -> the sums over K of the positive and of the negative weights, [O, C] each."""
    # Filter by filter: a dense layer may have a hundred million weights.
    up, down = (
        np.stack([side(one, 0).sum(axis=0, dtype=np.float64) for one in weights])
        for side in (np.maximum, np.minimum)
    )
    return up, down


def _swish(x: Any) -> Any:
    return x * np.clip(x + 3, 0, 6) / 6


def _leaky(x: Doubles, slope: float | Doubles) -> Doubles:
    return np.where(x < 0, slope * x, x)
