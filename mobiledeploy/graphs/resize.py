"""Resizes the inputs of a graph, as LiteRT does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobiledeploy.graphs import execution
from mobiledeploy.graphs.graph import Graph


def resize(graph: Graph, shapes: Mapping[int, Sequence[int]]) -> None:
    """Gives inputs these shapes, and all other tensors the shapes that follow from them.

    Integers that depend on shapes alone become constants. Afterwards no side of a tensor is
    dynamic. InputError if an operator does not accept its new shape.
    """
    engine = execution.interpreter(graph.pack(), every_tensor=True, shapes=shapes)
    # Some shapes are known only after the operators before have run.
    execution.invoke(engine)
    for detail in engine.get_tensor_details():
        # Later tensors are the interpreter's own.
        if detail["index"] < len(graph.subgraph.tensors):
            tensor = graph.subgraph.tensors[detail["index"]]
            tensor.shape, tensor.shapeSignature = list(map(int, detail["shape"])), None
    remaining: list[Any] = []
    constants: set[int] = set()
    for op in graph.ops:
        inputs = {int(i) for i in op.inputs if i >= 0 and graph.bytes_of(int(i)) is None}
        outputs = {int(i) for i in op.outputs}
        integers = all(graph.dtype(i) in (np.int32, np.int64) for i in outputs)
        if integers and (graph.kind(op) == "SHAPE" or inputs <= constants):
            constants |= outputs - set(graph.outputs)
        if not outputs <= constants:
            remaining.append(op)
    graph.subgraph.operators = remaining
    for index in constants & {int(i) for op in remaining for i in op.inputs}:
        graph.make_constant(index, engine.get_tensor(index))
