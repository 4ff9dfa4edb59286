"""Constants that a TFLite file stores without their zeros.

The layout is that of TACO (F. Kjolstad et al. 2017, http://tensor-compiler.org), as the schema of
TFLite describes it (SparsityParameters): one level for each dimension in the order of traversal,
then one for each dimension that has blocks. A level is dense, or compressed: then it lists, for
each position of the level before, the coordinates that are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

Array = NDArray[Any]

# A few bytes may stand for many zeros.
_MOST_VALUES = 1 << 27


def dense(parameters: Any, shape: Sequence[int], values: Array) -> Array:
    """The constant with its zeros.

    Args:
        parameters: SparsityParametersT of the tensor.
        shape: of the tensor; its blocks divide it.
        values: those that are stored, in the order of traversal.

    Raises:
        ValueError: the parameters do not fit the shape or the values.
    """
    order = [int(i) for i in _list(parameters.traversalOrder)]
    blocks = [int(i) for i in _list(parameters.blockMap)]
    levels = list(parameters.dimMetadata or ())
    rank, size = len(shape), math.prod(shape)
    _check(size <= _MOST_VALUES, f"more than {_MOST_VALUES} values")
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        raise ValueError("the order of traversal is not one of the dimensions")
    if len(set(blocks)) < len(blocks) or not set(blocks) <= set(range(rank)):
        raise ValueError("a block of no dimension")
    size_of = {
        place: int(level.denseSize)
        for place, level in zip(order, levels, strict=True)
        if level.format == schema.DimensionType.DENSE
    }
    block_sizes = dict.fromkeys(range(rank), 1)
    for number, dimension in enumerate(blocks):
        # A block is stored whole.
        block_sizes[dimension] = size_of.get(rank + number, 0)
    sides = [side // max(block_sizes[d], 1) for d, side in enumerate(shape)]
    if any(block_sizes[d] * side != shape[d] for d, side in enumerate(sides)):
        raise ValueError("blocks that do not divide the shape")
    sides += [block_sizes[dimension] for dimension in blocks]
    # Before any list of places is made: a level is as long as what the file stores behind it.
    count = 1
    for place, level in zip(order, levels, strict=True):
        if place in size_of:
            _check(size_of[place] == sides[place], "a dense level of another size")
            count *= sides[place]
            _check(count <= size, "more places than the shape has")
        else:
            segments = _indices(level.arraySegments)
            _check(len(segments) == count + 1 and segments[0] == 0, "segments of another number")
            count = len(_indices(level.arrayIndices))
    _check(count == values.size, "values of another number")
    coordinates: dict[int, Array] = {}
    count = 1
    for place, level in zip(order, levels, strict=True):
        if place in size_of:
            parents = np.repeat(np.arange(count), sides[place])
            own = np.tile(np.arange(sides[place]), count)
        else:
            segments, own = _indices(level.arraySegments), _indices(level.arrayIndices)
            lengths = np.diff(segments)
            _check(bool((lengths >= 0).all()) and segments[-1] == len(own), "broken segments")
            _check(bool(((own >= 0) & (own < sides[place])).all()), "an index beyond its dimension")
            parents = np.repeat(np.arange(count), lengths)
        coordinates = {outer: numbers[parents] for outer, numbers in coordinates.items()}
        coordinates[place] = own
        count = len(own)
    for number, dimension in enumerate(blocks):
        outer = coordinates[dimension] * block_sizes[dimension]
        coordinates[dimension] = outer + coordinates[rank + number]
    places = np.ravel_multi_index(tuple(coordinates[d] for d in range(rank)), tuple(shape))
    _check(np.unique(places).size == count, "two values at one place")
    filled = np.zeros(size, values.dtype)
    filled[places] = values
    return filled.reshape(shape)


def _indices(vector: Any) -> NDArray[np.int64]:
    return np.asarray(_list(getattr(vector, "values", None)), np.int64)


def _list(values: Any) -> Any:
    return () if values is None else values


def _check(fits: bool, reason: str) -> None:
    if not fits:
        raise ValueError(reason)
