"""The quantizer inside `ai_edge_litert`, which graphs/integers.py is held against, too.

It is an older quantizer than TensorFlow's of today, and private: no function of the package calls
it, and a later version may lack it. It keeps no layer in float by name, refuses one scale for all
weights of a layer, and its integers of SUM are wrong (2 dB where AI Edge Quantizer's have 37). A
constant that two operators read keeps one scale, and what a concatenation reads keeps a scale of
its own, with a cast behind it. `integers` prepares the file so that neither comes about.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import _pywrap_tensorflow_lite_calibration_wrapper as wrapper
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.graphs.graph import Graph

_INT8, _INT32 = np.dtype(np.int8).num, np.dtype(np.int32).num


def integers(content: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """A float TFLite in int8, by the ranges of its tensors; per-channel, and all of it."""
    graph = Graph(content)
    extents = dict(ranges)
    for op in graph.ops:
        if graph.kind(op) == "CONCATENATION":
            extents |= dict.fromkeys(map(graph.name, op.inputs), ranges[graph.name(op.outputs[0])])
        for place, index in enumerate(op.inputs):
            values = graph.constant(index)
            if values is not None:
                graph.replace_constant(op, place, values)
    for index, tensor in enumerate(graph.subgraph.tensors):
        extent = extents.get(graph.name(index))
        if extent is not None and graph.constant(index) is None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.min = [np.float32(extent[0])]
            tensor.quantization.max = [np.float32(extent[1])]
    # It takes ranges from the file for all tensors that were not calibrated.
    quantizer = wrapper.CalibrationWrapper(graph.pack(), [], [])
    return bytes(quantizer.QuantizeModel(_INT8, _INT8, False, _INT8, _INT32, False, False))
