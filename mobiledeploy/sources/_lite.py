"""A float TFLite as an opened model, for sources that need no framework in our process."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import Images
from mobiledeploy.core.types import Model, Output, Preprocessing
from mobiledeploy.graphs import execution, resize
from mobiledeploy.graphs.graph import Graph


class Lite:
    """A float TFLite as `ports.OpenedModel`."""

    network: Model | None = None

    def __init__(self, graph: Graph, resolution: tuple[int, int] | None) -> None:
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise InputError(
                f"the model has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
                "one image in and one row of scores out are needed"
            )
        image = graph.shape(graph.inputs[0])
        if len(image) != 4 or image[3] != 3:
            raise InputError(f"the model takes {list(image)}; an RGB image [1, H, W, 3] is needed")
        if image[0] != 1:
            raise InputError(
                f"the model has a fixed batch of {image[0]}; 1 is needed", "convert it with 1"
            )
        sides = _resize(graph, resolution)
        scores = graph.shape(graph.outputs[0])
        types = [graph.type_name(index) for index in (*graph.inputs, *graph.outputs)]
        if types != ["float32", "float32"]:
            raise InputError(f"the model takes {types[0]} and gives {types[1]}; float32 is needed")
        if len(scores) != 2 or scores[0] != 1:
            raise InputError(f"the model gives {list(scores)}; scores [1, classes] are needed")
        if scores[1] < 2:
            raise InputError(
                "the model gives one score; a classifier of two or more classes is needed"
            )
        self.resolution = sides
        self.classes = scores[1]
        for tensor in graph.subgraph.tensors:
            tensor.shapeSignature = None
        self._graph = graph

    def floats(self, output: Output) -> bytes:
        """See `ports.OpenedModel`."""
        graph = Graph(self._graph.pack())
        graph.model.metadata = []
        if output == "logits" and self.ends_in_softmax():
            (last,) = _makers(graph, graph.outputs[0])
            graph.subgraph.outputs = [int(last.inputs[0])]
            graph.subgraph.operators = [op for op in graph.ops if op is not last]
        elif output == "softmax" and not self.ends_in_softmax():
            (scores,) = graph.outputs
            output_tensor = graph.add_tensor("softmax", graph.shape(scores), "float32")
            graph.subgraph.operators = [*graph.ops, _softmax(graph, scores, output_tensor)]
            graph.subgraph.outputs = [output_tensor]
        graph.model.signatureDefs = [_signature(graph)]
        return graph.pack()

    def answers(self, images: Images) -> NDArray[np.float32]:
        """See `ports.OpenedModel`."""
        return execution.logits(self._graph.pack(), images)

    def ends_in_softmax(self) -> bool:
        """See `ports.OpenedModel`."""
        makers = _makers(self._graph, self._graph.outputs[0])
        return any(self._graph.kind(op) == "SOFTMAX" for op in makers)

    def likelier_range(self, pre: Preprocessing, images: Images) -> tuple[float, float] | None:
        """None: a TFLite has no batch normalization left that could show the range."""
        del pre, images
        return None


def _resize(graph: Graph, resolution: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the image; dynamic ones are set to `resolution` in the whole graph."""
    (source,) = graph.inputs
    _, height, width, channels = graph.shape(source)
    signature = graph.subgraph.tensors[source].shapeSignature
    # A side of -1 is dynamic.
    open_shape = (1, height, width, channels) if signature is None else tuple(map(int, signature))
    if -1 not in open_shape or len(open_shape) != 4:
        open_shape = (1, height, width, channels)
    if resolution is None and -1 in open_shape[1:3]:
        raise InputError("the model takes any height and width", "choose one: --res 224")
    sides = resolution or (height, width)
    if any(
        side not in (-1, requested) for side, requested in zip(open_shape[1:3], sides, strict=True)
    ):
        raise UsageError(f"the model takes {height}x{width} only", "omit --res")
    if -1 in open_shape:
        try:
            resize.resize(graph, (1, *sides, channels))
        except InputError as error:
            raise InputError(
                f"the model cannot take {sides[0]}x{sides[1]}: {error.message}", "another --res"
            ) from error
    return sides


def _softmax(graph: Graph, source: int, target: int) -> Any:
    op = graph.add_op("SOFTMAX", [source], [target])
    op.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
    op.builtinOptions = schema.SoftmaxOptionsT()
    op.builtinOptions.beta = 1.0
    return op


def _signature(graph: Graph) -> Any:
    """serving_default, image -> scores."""
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    ends = []
    for name, index in (("image", graph.inputs[0]), ("scores", graph.outputs[0])):
        end = schema.TensorMapT()
        end.name, end.tensorIndex = name, index
        ends.append([end])
    signature.inputs, signature.outputs = ends
    return signature


def _makers(graph: Graph, index: int) -> list[Any]:
    return [op for op in graph.ops if index in map(int, op.outputs)]
