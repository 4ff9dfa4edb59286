"""Cuts a float TFLite at its last global pooling, so that it gives the pooled features."""

from __future__ import annotations

from typing import Any

import numpy as np

from mobiledeploy.core.errors import InputError
from mobiledeploy.graphs.graph import CASTS, Graph

_REDUCED = ("MEAN", "REDUCE_MAX")
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
_MAP = 4
_MOVES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", *CASTS)
_ENDS = ("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", *_MOVES)
_WAY = "mobiledeploy export MODEL --task tensors takes it as it is"


def cut(content: bytes) -> bytes:
    """The graph up to its last global pooling: one output, the features [1, C].

    A global pooling is a mean or a maximum over height and width, or a pooling whose filter covers
    the map. Everything that the outputs need must go through it: those of squeeze and excite are
    none, since the map goes on beside them.

    Raises:
        InputError: there is none, or nothing but an activation is behind it, so that it pools the
            scores of classes.
    """
    graph = Graph(content)
    pool = next((op for op in reversed(graph.ops) if _is_passage(graph, op)), None)
    if pool is None:
        raise InputError(
            "no global pooling is found that all of the model goes through, where it could be cut "
            "into an embedding",
            _WAY,
        )
    end = int(pool.outputs[0])
    behind = graph.ops[graph.ops.index(pool) + 1 :]
    if all(graph.kind(op) in _ENDS for op in behind):
        raise InputError(
            "nothing is behind the last pooling of the model: it gives the scores of its classes",
            "--output logits takes these scores as the embedding",
        )
    features = graph.shape(end)[-1]
    flat = next((int(op.outputs[0]) for op in behind if _flattens(graph, op, end)), end)
    operators = list(graph.ops)
    if graph.shape(flat) != (1, features):
        flat = graph.add_tensor("embedding", (1, features), "float32")
        sides = graph.add_constant("embedding/shape", np.array([1, features], np.int32))
        operators.append(graph.add_op("RESHAPE", [end, sides], [flat], version=1))
    graph.subgraph.operators = _needed(operators, flat)
    graph.subgraph.outputs = [flat]
    graph.model.signatureDefs = []
    graph.drop_unused_tensors()
    return graph.pack()


def _is_passage(graph: Graph, op: Any) -> bool:
    """Whether it pools the whole map, and no output can be had without it."""
    if not _is_global(graph, op):
        return False
    others = [other for other in graph.ops if other is not op]
    known = set(graph.inputs)
    for other in others:
        if known.intersection(map(int, other.inputs)):
            known.update(map(int, other.outputs))
    return not known.intersection(graph.outputs)


def _is_global(graph: Graph, op: Any) -> bool:
    before = graph.shape(int(op.inputs[0])) if len(op.inputs) else ()
    if len(before) != _MAP or max(before[1:3]) < 2:
        return False
    if graph.kind(op) in _REDUCED:
        axes = graph.constant(int(op.inputs[1]))
        return axes is not None and sorted(int(a) % _MAP for a in axes.ravel()) == [1, 2]
    if graph.kind(op) in _POOLS:
        covers = (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth) >= before[1:3]
        return covers and graph.shape(int(op.outputs[0]))[1:3] == (1, 1)
    return False


def _flattens(graph: Graph, op: Any, end: int) -> bool:
    """Whether it makes a row of the pooled features."""
    moves = graph.kind(op) in ("RESHAPE", "SQUEEZE") and int(op.inputs[0]) == end
    return moves and graph.shape(int(op.outputs[0])) == (1, graph.shape(end)[-1])


def _needed(operators: list[Any], output: int) -> list[Any]:
    """The operators that an output is computed from."""
    needed = {output}
    kept = []
    for op in reversed(operators):
        if needed.intersection(map(int, op.outputs)):
            kept.append(op)
            needed.update(map(int, op.inputs))
    return kept[::-1]
