"""A graph at another size of its input, as LiteRT resizes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledeploy.graphs import execution
from mobiledeploy.graphs.graph import Graph


def resize(graph: Graph, shape: Sequence[int]) -> None:
    """Gives the only input this shape, and all other tensors the shapes that follow from it.

    Integers that follow from shapes alone become constant. No side of a tensor is open afterwards.
    InputError where an operator cannot take the shape that follows for it.
    """
    (source,) = graph.inputs
    engine = execution.interpreter(graph.packed(), every_tensor=True, shapes={source: shape})
    # Some shapes are known only once the operators before have run.
    execution.invoke(engine)
    for detail in engine.get_tensor_details():
        # Tensors past these are the interpreter's own.
        if detail["index"] < len(graph.subgraph.tensors):
            tensor = graph.subgraph.tensors[detail["index"]]
            tensor.shape, tensor.shapeSignature = list(map(int, detail["shape"])), None
    kept: list[Any] = []
    fixed: set[int] = set()
    for op in graph.ops:
        reads = {int(i) for i in op.inputs if i >= 0 and graph.bytes_of(int(i)) is None}
        makes = {int(i) for i in op.outputs}
        integers = all(graph.dtype(i) in (np.int32, np.int64) for i in makes)
        if integers and (graph.kind(op) == "SHAPE" or reads <= fixed):
            fixed |= makes - set(graph.outputs)
        if not makes <= fixed:
            kept.append(op)
    graph.subgraph.operators = kept
    for index in fixed & {int(i) for op in kept for i in op.inputs}:
        graph.make_constant(index, engine.get_tensor(index))
