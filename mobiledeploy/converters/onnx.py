"""Model -> ONNX: tf2onnx for a float graph; int8 holds the integers of the int8 TFLite."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

import numpy as np
import onnx
import tf2onnx
from onnx import helper, numpy_helper

from mobiledeploy.converters import _qdq
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import InputOutput, Model, Output, QuantizedGraph, Recipe
from mobiledeploy.frameworks import loading, recipe_check, tracing

# From 18 on tf2onnx writes the global pool as a ReduceMean.
OPSET = 17

_NUMBERS = ((32, 32, None),)


def source(recipe: Recipe) -> Literal["model", "tflite"]:
    """Floats from the model; integers from the TFLite, which has decided them."""
    return "tflite" if recipe.full_integer else "model"


def convert(
    source: Model | QuantizedGraph | bytes,
    recipe: Recipe,
    *,
    resolution: tuple[int, int],
    io: InputOutput,
    output: Output,
) -> bytes:
    """An ONNX model, NCHW throughout, its input included.

    `source` is what `source(recipe)` says: the model, or the finished TFLite of the same recipe and
    ends, whose ranges are in it already. InputError for what has no form in ONNX.
    """
    if isinstance(source, bytes):
        model = _qdq.from_tflite(source, OPSET)
    elif isinstance(source, QuantizedGraph):
        raise TypeError("ONNX is made from the model or from its TFLite")
    else:
        recipe_check.refuse_other(recipe, "onnx", _NUMBERS)
        model = _translate(source, resolution, output)
    model.producer_name = "mobiledeploy"
    _check(model)
    return bytes(model.SerializeToString(deterministic=True))


def _translate(source: Model, resolution: tuple[int, int], output: Output) -> onnx.ModelProto:
    frozen = tracing.freeze(source, resolution).flat(output)
    (image,), (scores,) = frozen.inputs, frozen.outputs
    try:
        model, _ = tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=[image.name],
            output_names=[scores.name],
            inputs_as_nchw=[image.name],
            opset=OPSET,
        )
    except (ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise InputError(f"tf2onnx cannot translate the model: {str(error)[:200]}") from error
    model = _fold_through_reshapes(model)
    _refuse_unknown(model.graph)
    _fold_batchnorms(model.graph)
    _shuffle_channels_first(model.graph)
    _absorb_pads(model.graph)
    _rename(model.graph)
    return model


def _refuse_unknown(graph_: onnx.GraphProto) -> None:
    """InputError naming the operators that ONNX does not have, or has since a later opset only."""
    unknown = {
        node.op_type
        for node in graph_.node
        if node.domain not in ("", "ai.onnx.ml")
        or not onnx.defs.has(node.op_type, max_inclusive_version=OPSET, domain=node.domain)
    }
    if unknown:
        raise InputError(f"ONNX has no operator for {', '.join(sorted(unknown))} in opset {OPSET}")


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = loading.first_line(error)
        raise InputError(f"tf2onnx made an ONNX model that is not valid: {reason}") from error


def _fold_through_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out Reshape nodes that keep the shape, and has tf2onnx fold what they stood between.

    Where a picture has shrunk to 1x1, tf2onnx leaves one in the place of two transposes, between a
    Conv and its BatchNormalization, which would then be computed in float.
    """
    values = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*values.input, *values.value_info, *values.output)
    }
    ends = {value.name for value in model.graph.output}
    idle = [
        node
        for node in model.graph.node
        if node.op_type == "Reshape"
        and node.output[0] not in ends
        and 0 not in shapes.get(node.input[0], [0])
        and shapes.get(node.input[0]) == shapes.get(node.output[0])
    ]
    if not idle:
        return model
    for node in idle:
        for reader in model.graph.node:
            reader.input[:] = [
                node.input[0] if name == node.output[0] else name for name in reader.input
            ]
        model.graph.node.remove(node)
    return tf2onnx.graph.GraphUtil.optimize_model_proto(model)


def _fold_batchnorms(graph_: onnx.GraphProto) -> None:
    """Folds a BatchNormalization into the Conv before it, where tf2onnx has not.

    It has not where that Conv reads another Conv, as in a separable convolution.
    """
    constants = {t.name: t for t in graph_.initializer}
    makers = {node.output[0]: node for node in graph_.node}
    readers = Counter(name for node in graph_.node for name in node.input)
    ends = {value.name for value in graph_.output}
    for norm in [n for n in graph_.node if n.op_type == "BatchNormalization"]:
        conv = makers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or readers[norm.input[0]] != 1:
            continue
        read = [*conv.input[1:], *norm.input[1:]]
        if norm.input[0] in ends or not constants.keys() >= set(read):
            continue
        weights, *bias, gamma, beta, mean, variance = (
            numpy_helper.to_array(constants[name]) for name in read
        )
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = gamma / np.sqrt(variance + epsilon)
        folded = {
            "weights": weights * factor[:, None, None, None],
            "bias": beta + ((bias[0] if bias else 0) - mean) * factor,
        }
        del conv.input[1:]
        for role, value in folded.items():
            name = f"{norm.output[0]}/{role}"
            conv.input.append(name)
            graph_.initializer.append(numpy_helper.from_array(value.astype(weights.dtype), name))
        conv.output[0] = norm.output[0]
        graph_.node.remove(norm)
    _drop_unread(graph_)


def _shuffle_channels_first(graph_: onnx.GraphProto) -> None:
    """Shuffles channels where they stand, without a transpose to channels last and one back.

    [1, H, W, C] as [1, H, W, g, n], to [1, H, W, n, g], is [1, C, H, W] as [1, g, n, H, W], to
    [1, n, g, H, W].
    """
    constants = {t.name: t for t in graph_.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph_.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ends = {value.name for value in graph_.output}

    def permutation(node: onnx.NodeProto) -> list[int]:
        return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])

    for last in [n for n in graph_.node if permutation(n) == [0, 2, 3, 1]]:
        chain = [last]
        while len(chain) < 5 and len(readers.get(chain[-1].output[0], [])) == 1:
            chain += readers[chain[-1].output[0]]
        if [n.op_type for n in chain[1:]] != ["Reshape", "Transpose", "Reshape", "Transpose"]:
            continue
        _, split, swap, merge, first = chain
        if permutation(swap) != [0, 1, 2, 4, 3] or permutation(first) != [0, 3, 1, 2]:
            continue
        if split.input[1] not in constants or ends & {node.output[0] for node in chain[:-1]}:
            continue
        shape = numpy_helper.to_array(constants[split.input[1]])
        if shape.size != 5 or (shape[1:] <= 0).any():
            continue
        batch, height, width, groups, each = shape.tolist()
        shapes = ([batch, groups, each, height, width], [batch, groups * each, height, width])
        for node, sides in zip((split, merge), shapes, strict=True):
            name = f"{node.output[0]}/shape"
            value = np.array(sides, np.int64)
            graph_.initializer.append(numpy_helper.from_array(value, name))
            node.input[1] = name
        swap.attribute[0].CopyFrom(helper.make_attribute("perm", [0, 2, 1, 3, 4]))
        split.input[0] = last.input[0]
        merge.output[0] = first.output[0]
        graph_.node.remove(last)
        graph_.node.remove(first)
    _drop_unread(graph_)


def _drop_unread(graph_: onnx.GraphProto) -> None:
    used = {name for node in graph_.node for name in node.input}
    kept = [tensor for tensor in graph_.initializer if tensor.name in used]
    del graph_.initializer[:]
    graph_.initializer.extend(kept)


def _absorb_pads(graph_: onnx.GraphProto) -> None:
    """Moves the zeros of a Pad node into the `pads` of the one Conv that reads it.

    Keras Applications pads before each stride of two; in ONNX that is a node and a copy more.
    """
    constants = {t.name: numpy_helper.to_array(t) for t in graph_.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph_.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for pad in [n for n in graph_.node if n.op_type == "Pad"]:
        users = readers.get(pad.output[0], [])
        mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
        value = constants.get(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else 0
        widths = constants.get(pad.input[1])
        plain = mode == b"constant" and value is not None and not np.any(value)
        if widths is None or not plain or len(pad.input) > 3 or len(users) != 1:
            continue
        (conv,) = users
        attributes = {a.name: a for a in conv.attribute}
        automatic = attributes.get("auto_pad")
        if conv.op_type != "Conv" or len(widths) != 8 or conv.input[0] != pad.output[0]:
            continue
        outside = np.any(widths[[0, 1, 4, 5]]) or np.any(widths < 0)
        if outside or (automatic and automatic.s != b"NOTSET"):
            continue
        own = attributes.get("pads")
        before = list(own.ints) if own else [0, 0, 0, 0]
        if own:
            conv.attribute.remove(own)
        pads = [int(a + b) for a, b in zip(before, widths[[2, 3, 6, 7]], strict=True)]
        conv.attribute.append(helper.make_attribute("pads", pads))
        conv.input[0] = pad.input[0]
        graph_.node.remove(pad)


def _rename(graph_: onnx.GraphProto) -> None:
    """Names tensors after the layer that makes them, or that reads them first.

    tf2onnx numbers its names on from one conversion to the next and merges equal constants in no
    fixed order; the same model shall give the same bytes.
    """
    names = {value.name: value.name for value in (*graph_.input, *graph_.output)}
    constants = {tensor.name for tensor in graph_.initializer}
    layers: set[str] = set()
    taken = set(names)
    for node in graph_.node:
        node.name = _untaken(re.sub(r"__\d+$", "", node.name), layers)
        for index, name in enumerate(node.input):
            if name in constants and name not in names:
                roles = {1: "weights", 2: "bias"} if node.op_type == "Conv" else {}
                names[name] = _untaken(f"{node.name}/{roles.get(index, str(index))}", taken)
        for index, name in enumerate(node.output):
            if name and name not in names:
                names[name] = _untaken(f"{node.name}:{index}", taken)
        for row in (node.input, node.output):
            row[:] = [names[name] if name else "" for name in row]
    for tensor in graph_.initializer:
        tensor.name = names.get(tensor.name) or _untaken(tensor.name, taken)
    ordered = sorted(graph_.initializer, key=lambda tensor: tensor.name)
    del graph_.initializer[:]
    graph_.initializer.extend(ordered)
    del graph_.value_info[:]


def _untaken(name: str, taken: set[str]) -> str:
    """`name`, or the first of name_2, name_3, ... that is free; it is `taken` from now on."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
