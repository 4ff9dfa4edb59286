"""TFLite -> ONNX: floats and integers as in the TFLite file, images NCHW.

Of a TFLite with weights in float16, the ONNX file computes in float16 too (`_onnx_half`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mobiledeploy.graphs import float16
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.writers import _onnx_operators
from mobiledeploy.writers._onnx_graph import OnnxGraph

OPSET = 17
"""Old enough for the runtimes on phones, and it has all operators that are written here."""


def write(content: bytes) -> bytes:
    """The ONNX file of a TFLite file; all tensors are NCHW, inputs and outputs included.

    Inputs and outputs of a float16 file are float32.

    InputError for anything that ONNX cannot express.
    """
    graph = Graph(content)
    half = float16.widen(graph)
    writer = _writer_of(graph, np.int8)
    if not writer.is_paired():
        writer = _writer_of(graph, np.uint8)
    return writer.file(OPSET, "mobiledeploy", half)


def _writer_of(graph: Graph, code_type: type[np.integer[Any]]) -> OnnxGraph:
    writer = OnnxGraph(graph, code_type)
    for op in graph.ops:
        if id(op) not in writer.merged_ops:
            _onnx_operators.write(writer, op)
    writer.close()
    return writer
