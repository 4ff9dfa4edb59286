"""The inputs and outputs of a float TFLite: their order, batch, types and meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Activation, ModelInput, ModelOutput, Signature
from mobiledeploy.graphs import resize
from mobiledeploy.graphs.graph import CASTS, Graph

_ACTIVATIONS: dict[str, Activation] = {
    "SOFTMAX": "softmax",
    "LOGISTIC": "sigmoid",
}
_SHAPING = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", *CASTS)


def in_order(content: bytes) -> bytes:
    """The file with its inputs and outputs in the order of their keys in its signature.

    TFLiteConverter orders them as it likes.
    """
    graph = Graph(content)
    (signature,) = graph.model.signatureDefs
    for attribute in ("inputs", "outputs"):
        keyed = sorted(getattr(signature, attribute) or (), key=lambda end: bytes(end.name))
        order = [int(end.tensorIndex) for end in keyed]
        if sorted(order) == sorted(getattr(graph, attribute)):
            setattr(graph.subgraph, attribute, order)
    return graph.pack()


def single_batch(graph: Graph, sizes: Mapping[int, Sequence[int]] | None = None) -> None:
    """Gives every input a batch of 1, and those in `sizes` that shape.

    InputError if the model cannot take one sample.
    """
    shapes = {index: (1, *graph.shape(index)[1:]) for index in graph.inputs}
    shapes |= {index: tuple(shape) for index, shape in (sizes or {}).items()}
    batches = {graph.shape(index)[0] for index in graph.inputs if graph.shape(index)} - {1}
    dynamic = any(
        -1 in tuple(graph.subgraph.tensors[index].shapeSignature)
        for index in graph.inputs
        if graph.subgraph.tensors[index].shapeSignature is not None
    )
    if batches:
        _forget_batch(graph, batches)
    if batches or dynamic:
        try:
            resize.resize(graph, shapes)
        except InputError as error:
            if batches:
                raise InputError(
                    f"the model has a fixed batch of {max(batches)}, and cannot take one sample: "
                    f"{error.message}",
                    "convert it with a batch of 1",
                ) from error
            shape = max(shapes.values(), key=len)
            raise InputError(
                f"the model cannot take {list(shape)}: {error.message}", "another --res"
            ) from error
    for tensor in graph.subgraph.tensors:
        tensor.shapeSignature = None


def _forget_batch(graph: Graph, batches: set[int]) -> None:
    """Lets a RESHAPE to a fixed batch find the batch itself."""
    for op in graph.ops:
        if graph.kind(op) != "RESHAPE" or len(op.inputs) < 2:
            continue
        sides = graph.constant(int(op.inputs[1]))
        if sides is not None and sides.size and int(sides[0]) in batches and -1 not in sides:
            graph.replace_constant(op, 1, np.concatenate([[-1], sides[1:]]).astype(sides.dtype))
            if op.builtinOptions is not None:
                op.builtinOptions.newShape = [-1, *map(int, sides[1:])]


def own_outputs(graph: Graph) -> None:
    """Gives an output that is an input, or another output too, a tensor of its own.

    ONNX has no two names for one tensor, and integers need an operator between both ends.
    """
    taken = set(graph.inputs)
    outputs: list[int] = []
    operators = list(graph.ops)
    for index in graph.outputs:
        own = index
        if index in taken:
            shape = graph.shape(index)
            name = f"{graph.name(index)}/output_{len(outputs)}"
            own = graph.add_tensor(name, shape, graph.type_name(index))
            sides = graph.add_constant(f"{name}/shape", np.array(shape, np.int32))
            operators.append(graph.add_op("RESHAPE", [index, sides], [own], version=1))
        taken.add(own)
        outputs.append(own)
    graph.subgraph.operators, graph.subgraph.outputs = operators, outputs


def without_casts(graph: Graph) -> None:
    """Takes an image of uint8 as float32: the CAST behind it is removed."""
    for place, index in enumerate(graph.inputs):
        if graph.type_name(index) != "uint8" or graph.scale(index)[0].size:
            continue
        readers = [op for op in graph.ops if index in map(int, op.inputs)]
        casts = [op for op in readers if graph.kind(op) == "CAST"]
        outputs = {int(op.outputs[0]) for op in casts}
        if len(casts) < len(readers) or any(graph.dtype(i) != np.float32 for i in outputs):
            continue
        first = min(outputs)
        graph.set_name(first, graph.name(index))
        graph.set_name(index, f"{graph.name(index)}/uint8")
        graph.subgraph.operators = [op for op in graph.ops if op not in casts]
        for op in graph.ops:
            op.inputs = [first if int(i) in outputs else int(i) for i in op.inputs]
        graph.subgraph.inputs = [
            first if place == number else old for number, old in enumerate(graph.inputs)
        ]
        for signature in graph.model.signatureDefs or ():
            for end in signature.inputs or ():
                end.tensorIndex = first if int(end.tensorIndex) == index else end.tensorIndex


def channels_last(graph: Graph, place: int) -> None:
    """Makes input number `place`, [1, C, H, W], an image [1, H, W, C] that is transposed first.

    A TRANSPOSE of the model's own that undoes this is removed with it.
    """
    index = graph.inputs[place]
    batch, channels, height, width = graph.shape(index)
    image = graph.add_tensor(graph.name(index), (batch, height, width, channels), "float32")
    graph.set_name(index, f"{graph.name(index)}/channels_first")
    undone = [op for op in graph.ops if _undoes(graph, op, index)]
    for op in undone:
        result = int(op.outputs[0])
        for reader in graph.ops:
            reader.inputs = [image if int(i) == result else int(i) for i in reader.inputs]
    operators = [op for op in graph.ops if op not in undone]
    if any(index in map(int, op.inputs) for op in operators) or index in graph.outputs:
        order = graph.add_constant("channels_first_order", np.array([0, 3, 1, 2], np.int32))
        operators = [graph.add_op("TRANSPOSE", [image, order], [index]), *operators]
    graph.subgraph.operators = operators
    graph.subgraph.inputs = [
        image if number == place else old for number, old in enumerate(graph.inputs)
    ]
    for signature in graph.model.signatureDefs or ():
        for end in signature.inputs or ():
            end.tensorIndex = image if int(end.tensorIndex) == index else end.tensorIndex


def _undoes(graph: Graph, op: Any, index: int) -> bool:
    if graph.kind(op) != "TRANSPOSE" or int(op.inputs[0]) != index:
        return False
    order = graph.constant(int(op.inputs[1]))
    is_output = int(op.outputs[0]) in graph.outputs
    return order is not None and list(order) == [0, 2, 3, 1] and not is_output


def activation(graph: Graph, index: int) -> Activation:
    """The activation that a tensor ends in, behind changes of its shape and type."""
    makers = {int(i): op for op in graph.ops for i in op.outputs}
    while index in makers and graph.kind(makers[index]) in _SHAPING:
        index = int(makers[index].inputs[0])
    return _ACTIVATIONS.get(graph.kind(makers[index]), "none") if index in makers else "none"


def signature(graph: Graph, inputs: Sequence[ModelInput], output_names: Sequence[str]) -> Signature:
    """The signature of a float graph whose inputs and outputs have these ends and names.

    An output with the name of an input, or of another output, gets a number behind it.
    """
    used = {end.name for end in inputs}
    outputs = []
    for name, index in zip(output_names, graph.outputs, strict=True):
        number, free = 1, name
        while free in used:
            number += 1
            free = f"{name}_{number}"
        used.add(free)
        outputs.append(ModelOutput(free, graph.shape(index)[1:], activation(graph, index)))
    return Signature(tuple(inputs), tuple(outputs))
