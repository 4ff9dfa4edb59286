"""TensorFlow's own quantizer, which graphs/integers.py is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.compiler.mlir.lite import types_pb2
from tensorflow.lite.python.convert import mlir_quantize

from mobiledeploy.graphs.graph import Graph


def integers(
    content: bytes,
    ranges: Mapping[str, tuple[float, float]],
    *,
    kept: Sequence[str] = (),
    per_channel: bool = True,
) -> bytes:
    """A float TFLite in int8, by the ranges of its tensors."""
    graph = Graph(content)
    for index, tensor in enumerate(graph.subgraph.tensors):
        extent = ranges.get(graph.name(index))
        if extent is not None and graph.constant(index) is None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.min = [np.float32(extent[0])]
            tensor.quantization.max = [np.float32(extent[1])]
    return bytes(
        mlir_quantize(
            graph.pack(),
            disable_per_channel=not per_channel,
            inference_type=types_pb2.QUANTIZED_INT8,
            denylisted_nodes=set(kept),
            input_data_type=tf.int8,
            output_data_type=tf.int8,
        )
    )


def pairs(ours: bytes, theirs: bytes) -> list[tuple[Any, Any]]:
    """The tensors of two files that operators read and write alike, as (index, index).

    AssertionError where the operators are others.
    """
    one, other = Graph(ours), Graph(theirs)
    assert [one.kind(op) for op in one.ops] == [other.kind(op) for op in other.ops]
    found: dict[tuple[int, int], None] = {}
    for left, right in zip(one.ops, other.ops, strict=True):
        for name in ("inputs", "outputs"):
            rows = [list(map(int, getattr(op, name))) for op in (left, right)]
            found |= dict.fromkeys(zip(*rows, strict=True))
    return [pair for pair in found if -1 not in pair]
