"""Constants in half precision: half the file size, computed in float32 on a CPU.

Each constant is stored in float16, followed by one DEQUANTIZE. Half-precision kernels skip it,
other kernels run it once (LiteRT's float16 quantization,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_float16_quant).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mobiledeploy.graphs.graph import Graph


def halve(content: bytes) -> bytes:
    """A float TFLite with its float32 constants in float16.

    A constant with a value above 65504, the largest float16, stays as it is.
    """
    graph = Graph(content)
    largest = np.finfo(np.float16).max
    casts: list[Any] = []
    inputs = {int(i) for op in graph.ops for i in op.inputs if i >= 0}
    for index in sorted(inputs):
        values = graph.constant(index)
        if values is None or values.dtype != np.float32 or np.abs(values).max(initial=0) > largest:
            continue
        half = graph.add_constant(f"{graph.name(index)}/float16", values.astype(np.float16))
        graph.make_computed(index)
        casts.append(graph.add_op("DEQUANTIZE", [half], [index], version=3))
    graph.subgraph.operators = [*casts, *graph.ops]
    return graph.pack()


def widen(graph: Graph) -> None:
    """Replaces float16 constants and their DEQUANTIZE by float32 constants of the same values."""
    ops = []
    for op in graph.ops:
        values = graph.constant(int(op.inputs[0])) if len(op.inputs) else None
        if graph.kind(op) == "DEQUANTIZE" and values is not None and values.dtype == np.float16:
            graph.make_constant(int(op.outputs[0]), values.astype(np.float32))
            # Nothing reads the halves any more, and unused values are not packed.
            graph.make_computed(int(op.inputs[0]))
        else:
            ops.append(op)
    graph.subgraph.operators = ops
