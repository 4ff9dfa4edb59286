"""A float TFLite as an opened model, for sources that need no framework in our process."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Model, Output, Preprocessing
from mobiledeploy.graphs import ends, execution
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources._inputs import ShapedInput, inputs_of, require_scores


class Lite:
    """A float TFLite as `ports.OpenedModel`."""

    network: Model | None = None

    def __init__(self, graph: Graph, resolution: tuple[int, int] | None) -> None:
        declared = [
            ShapedInput(graph.name(index), _declared(graph, index), graph.type_name(index))
            for index in graph.inputs
        ]
        inputs = inputs_of(declared, resolution)
        sizes = {}
        for index, one in zip(graph.inputs, inputs, strict=True):
            height, width, channels = one.end.shape if one.end.kind == "image" else (0, 0, 0)
            if one.channels_first:
                sizes[index] = (1, channels, height, width)
            elif one.end.kind == "image":
                sizes[index] = (1, height, width, channels)
        ends.single_batch(graph, sizes)
        ends.without_casts(graph)
        for place, one in enumerate(inputs):
            if one.channels_first:
                ends.channels_last(graph, place)
        for index in graph.outputs:
            if graph.type_name(index) not in ("float32", "int32", "int64", "bool"):
                raise InputError(
                    f"the model gives {graph.name(index)} as {graph.type_name(index)}; "
                    "float32 is needed"
                )
        self.inputs = tuple(one.end for one in inputs)
        self.output_names = tuple(graph.name(index) for index in graph.outputs)
        ends.own_outputs(graph)
        self._graph = graph

    def floats(self, output: Output) -> bytes:
        """See `ports.OpenedModel`."""
        graph = Graph(self._graph.pack())
        graph.model.metadata = []
        require_scores(output, [len(graph.shape(index)) for index in graph.outputs])
        if output == "logits" and self.ends_in_softmax():
            (last,) = _makers(graph, graph.outputs[0])
            graph.subgraph.outputs = [int(last.inputs[0])]
            graph.subgraph.operators = [op for op in graph.ops if op is not last]
        elif output == "softmax" and not self.ends_in_softmax():
            (scores,) = graph.outputs
            output_tensor = graph.add_tensor("softmax", graph.shape(scores), "float32")
            graph.subgraph.operators = [*graph.ops, _softmax(graph, scores, output_tensor)]
            graph.subgraph.outputs = [output_tensor]
        graph.model.signatureDefs = []
        return graph.pack()

    def answers(self, samples: Batch) -> tuple[NDArray[np.float32], ...]:
        """See `ports.OpenedModel`."""
        return execution.answers(self._graph.pack(), samples)

    def ends_in_softmax(self) -> bool:
        """See `ports.OpenedModel`."""
        if len(self._graph.outputs) != 1:
            return False
        makers = _makers(self._graph, self._graph.outputs[0])
        return any(self._graph.kind(op) == "SOFTMAX" for op in makers)

    def likelier_range(self, pre: Preprocessing, images: Batch) -> tuple[float, float] | None:
        """None: a TFLite has no batch normalization left that could show the range."""
        del pre, images
        return None


def _declared(graph: Graph, index: int) -> list[int | None]:
    """The shape of an input, None for a dynamic side."""
    shape = graph.shape(index)
    signature = graph.subgraph.tensors[index].shapeSignature
    sides = shape if signature is None or len(signature) != len(shape) else tuple(signature)
    return [None if side < 0 else int(side) for side in sides]


def _softmax(graph: Graph, source: int, target: int) -> Any:
    op = graph.add_op("SOFTMAX", [source], [target])
    op.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
    op.builtinOptions = schema.SoftmaxOptionsT()
    op.builtinOptions.beta = 1.0
    return op


def _makers(graph: Graph, index: int) -> list[Any]:
    return [op for op in graph.ops if index in map(int, op.outputs)]
