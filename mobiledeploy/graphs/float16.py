"""Constants in half precision: half the file size, computed in float32 on a CPU unless it is asked.

Each constant is stored in float16, followed by one DEQUANTIZE. Half-precision kernels skip it,
other kernels run it once (LiteRT's float16 quantization,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_float16_quant).

XNNPACK computes in float16 only if the file's metadata says that it may, and the core can
(LiteRT's tflite/tools/optimize/reduced_precision_metadata.h).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mobiledeploy.graphs.graph import Graph

REDUCED_PRECISION = (b"reduced_precision_support", b"fp16accfp16")
"""Name and content of the metadata: products and their sums may be in float16."""
LARGEST = float(np.finfo(np.float16).max)
"""65504; a larger number is infinite in float16."""


def halve(content: bytes, arithmetic: bool = False) -> bytes:
    """A float TFLite with its float32 constants in float16.

    A constant with a value above 65504, the largest float16, stays as it is. `arithmetic`: a core
    with half-precision arithmetic computes in float16 too.
    """
    graph = Graph(content)
    casts: list[Any] = []
    for index in _float_constants(graph):
        if _is_large(graph, index):
            continue
        values = graph.constant_values(index)
        half = graph.add_constant(f"{graph.name(index)}/float16", values.astype(np.float16))
        graph.make_computed(index)
        casts.append(graph.add_op("DEQUANTIZE", [half], [index], version=3))
    graph.subgraph.operators = [*casts, *graph.ops]
    if arithmetic:
        graph.add_metadata(*REDUCED_PRECISION)
    return graph.pack()


def large_constants(content: bytes) -> tuple[str, ...]:
    """The names of the float32 constants with a value that float16 cannot hold."""
    graph = Graph(content)
    return tuple(graph.name(index) for index in _float_constants(graph) if _is_large(graph, index))


def _float_constants(graph: Graph) -> list[int]:
    """The float32 constants that operators read."""
    read = {int(i) for op in graph.ops for i in op.inputs if i >= 0}
    constants = {index: graph.constant(index) for index in sorted(read)}
    return [
        i for i, values in constants.items() if values is not None and values.dtype == np.float32
    ]


def _is_large(graph: Graph, index: int) -> bool:
    return bool(np.abs(graph.constant_values(index)).max(initial=0) > LARGEST)


def widen(graph: Graph) -> bool:
    """Replaces float16 constants and their DEQUANTIZE by float32 constants of the same values.

    Returns whether there were any.
    """
    ops = []
    for op in graph.ops:
        values = graph.constant(int(op.inputs[0])) if len(op.inputs) else None
        if graph.kind(op) == "DEQUANTIZE" and values is not None and values.dtype == np.float16:
            graph.make_constant(int(op.outputs[0]), values.astype(np.float32))
            # Nothing reads the halves any more, and unused values are not packed.
            graph.make_computed(int(op.inputs[0]))
        else:
            ops.append(op)
    has_halves = len(ops) < len(graph.ops)
    graph.subgraph.operators = ops
    return has_halves
