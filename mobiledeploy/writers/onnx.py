"""TFLite -> ONNX: floats and integers as the TFLite file has them, images NCHW."""

from __future__ import annotations

from typing import Any

import numpy as np

from mobiledeploy.graphs.graph import Graph
from mobiledeploy.writers import _onnx_operators
from mobiledeploy.writers._onnx_graph import OnnxGraph

OPSET = 17
"""Old enough for the runtimes that phones have, and all that is written here is in it."""


def write(content: bytes) -> bytes:
    """The ONNX file of a TFLite file, NCHW throughout, its ends included.

    InputError for what has no form in ONNX.
    """
    graph = Graph(content)
    writer = _writer_of(graph, np.int8)
    if not writer.is_paired():
        writer = _writer_of(graph, np.uint8)
    return writer.file(OPSET, "mobiledeploy")


def _writer_of(graph: Graph, stored: type[np.integer[Any]]) -> OnnxGraph:
    writer = OnnxGraph(graph, stored)
    for op in graph.ops:
        if id(op) not in writer.merged_ops:
            _onnx_operators.write(writer, op)
    writer.close()
    return writer
