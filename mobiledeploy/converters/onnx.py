"""TFLite -> ONNX: floats and integers as the TFLite file has them, images NCHW."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from mobiledeploy.converters import _onnx_operators
from mobiledeploy.converters._onnx_graph import Writer
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import InputOutput, Model, Output, QuantizedGraph, Recipe
from mobiledeploy.graphs.graph import Graph

OPSET = 17
"""Old enough for the runtimes that phones have, and all that is written here is in it."""
_WEIGHT_BITS = (8, 32)


def source(recipe: Recipe) -> Literal["tflite"]:
    """The TFLite of the same recipe, which has decided all numbers."""
    return "tflite"


def convert(
    source: Model | QuantizedGraph | bytes,
    recipe: Recipe,
    *,
    resolution: tuple[int, int],
    io: InputOutput,
    output: Output,
) -> bytes:
    """An ONNX model, NCHW throughout, its ends included.

    `source` is the finished TFLite of the same recipe and ends. InputError for a recipe that is not
    for ONNX, and for what has no form in it.
    """
    if not isinstance(source, bytes):
        raise TypeError("ONNX is made from a TFLite file")
    if recipe.weight_bits not in _WEIGHT_BITS or (
        recipe.weight_bits == 8 and not recipe.full_integer
    ):
        raise InputError(
            f"recipe {recipe.name} for onnx: weights of {recipe.weight_bits} bits with activations "
            f"of {recipe.activation_bits} bits cannot be made"
        )
    return write(Graph(source))


def write(graph: Graph) -> bytes:
    """The ONNX file of a TFLite graph; InputError for what has no form in ONNX."""
    writer = _writer_of(graph, np.int8)
    if not writer.is_paired():
        writer = _writer_of(graph, np.uint8)
    return writer.file(OPSET, "mobiledeploy")


def _writer_of(graph: Graph, stored: type[np.integer[Any]]) -> Writer:
    writer = Writer(graph, stored)
    for op in graph.ops:
        if id(op) not in writer.merged_ops:
            _onnx_operators.write(writer, op)
    writer.close()
    return writer
