"""What the operators that read a tensor can tell of its values.

A tensor needs codes only for the values that its readers tell apart. A hard swish is 0 up to -3 (A.
Howard et al. 2019, Searching for MobileNetV3, https://arxiv.org/abs/1905.02244, section 5.2). So
the range of a tensor that hard swishes alone read begins at -3: values below are clipped, and the
answers of the float network stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.graphs.graph import Graph

Range = tuple[float, float]
Doubles = NDArray[np.float64]

_ALL = (-np.inf, np.inf)
_FROM_HARD_SWISH = (-3.0, np.inf)
_CLIPS = {
    "NONE": _ALL,
    "RELU": (0.0, np.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}
_SAME_VALUES = ("MAX_POOL_2D", "RESHAPE", "SQUEEZE", "TRANSPOSE")
"""Operators whose values are those of their input: they may be clipped before or behind."""


def telling(graph: Graph) -> dict[str, Range]:
    """The smallest and the largest value that the readers of a tensor tell apart, by tensor name.

    To each reader all values below are one, and so are all above. The model's outputs stay the same
    if the tensor is clipped to them. A tensor of which a reader tells all values is left out.
    """
    spans: dict[int, Range] = dict.fromkeys(graph.outputs, _ALL)
    # An operator stands behind those whose outputs it reads.
    for op in reversed(graph.ops):
        computed = [int(i) for i in op.inputs if i >= 0 and graph.bytes_of(int(i)) is None]
        for index in computed:
            low, high = _told(graph, op, computed, spans)
            least, most = spans.get(index, (low, high))
            spans[index] = min(low, least), max(high, most)
    return {graph.name(index): span for index, span in spans.items() if span != _ALL}


def _told(graph: Graph, op: Any, computed: Sequence[int], spans: Mapping[int, Range]) -> Range:
    """What an operator tells apart of its only computed input; everything if it has several."""
    kind = graph.kind(op)
    if kind == "HARD_SWISH":
        return _FROM_HARD_SWISH
    clip = _CLIPS.get(kind if kind in _CLIPS else graph.activation(op))
    if len(computed) != 1 or clip is None or kind not in ("ADD", *_CLIPS, *_SAME_VALUES):
        return _ALL
    ends = np.clip(spans.get(int(op.outputs[0]), _ALL), *clip)
    least = most = 0.0
    if kind == "ADD":
        (other,) = (int(i) for i in op.inputs if int(i) != computed[0])
        constant = graph.constant_values(other)
        least, most = float(constant.min()), float(constant.max())
    return float(ends[0]) - most, float(ends[1]) - least


def swished(graph: Graph) -> set[str]:
    """The tensors that hard swishes alone read."""
    kinds: dict[int, set[str]] = {index: {"an output"} for index in graph.outputs}
    for op in graph.ops:
        for index in map(int, op.inputs):
            kinds.setdefault(index, set()).add(graph.kind(op))
    return {graph.name(index) for index, readers in kinds.items() if readers == {"HARD_SWISH"}}


def identity(x: Doubles) -> Doubles:
    """x itself."""
    return x


def hard_swish(x: Doubles) -> Doubles:
    """x relu6(x + 3) / 6."""
    return x * np.clip(x + 3, 0, 6) / 6
