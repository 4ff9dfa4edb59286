"""Model -> ONNX: tf2onnx for the graph, ONNX Runtime's quantizer for int8 (QDQ form)."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import tf2onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Images
from mobiledeploy.core.types import InputOutput, Model, Output, Recipe
from mobiledeploy.frameworks import graph

# From 18 on tf2onnx writes the global pool as a ReduceMean, which the quantizer leaves in float.
OPSET = 17


def source(recipe: Recipe) -> Literal["model", "tflite"]:
    """Every ONNX file is made from the model."""
    return "model"


def convert(
    source: Model | bytes,
    recipe: Recipe,
    calibration: Images,
    *,
    resolution: tuple[int, int],
    io: InputOutput,
    output: Output,
) -> bytes:
    """An ONNX model, NCHW throughout, its input included.

    `calibration` [N, H, W, 3] float32 gives the activation ranges of a full-integer recipe.
    """
    if isinstance(source, bytes):
        raise TypeError("ONNX is made from the model")
    model = _translate(source, resolution, output)
    if recipe.full_integer:
        model = _quantize(model, calibration)
        if io == "int8":
            _expose_integers(model.graph)
    model.producer_name = "mobiledeploy"
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _translate(source: Model, resolution: tuple[int, int], output: Output) -> onnx.ModelProto:
    frozen = graph.freeze(source, resolution).flat(output)
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
    foreign = sorted({n.op_type for n in model.graph.node if n.domain not in ("", "ai.onnx.ml")})
    unknown = sorted(
        {n.op_type for n in model.graph.node if not onnx.defs.has(n.op_type, n.domain)}
    )
    if foreign or unknown:
        raise InputError(f"ONNX has no operator for {', '.join(dict.fromkeys(foreign + unknown))}")
    _absorb_pads(model.graph)
    _rename(model.graph)
    return model


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
        outside = np.any(widths[[0, 1, 4, 5]]) or np.any(widths < 0)
        if conv.op_type != "Conv" or outside or (automatic and automatic.s != b"NOTSET"):
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
    taken: Counter[str] = Counter()
    for node in graph_.node:
        layer = re.sub(r"__\d+$", "", node.name)
        taken[layer] += 1
        node.name = layer if taken[layer] == 1 else f"{layer}_{taken[layer]}"
        for index, name in enumerate(node.input):
            if name in constants:
                roles = {1: "weights", 2: "bias"} if node.op_type == "Conv" else {}
                role = roles.get(index, str(index))
                names.setdefault(name, f"{node.name}/{role}")
        for index, name in enumerate(node.output):
            names.setdefault(name, f"{node.name}:{index}")
        for row in (node.input, node.output):
            row[:] = [names[name] if name else "" for name in row]
    for tensor in graph_.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    ordered = sorted(graph_.initializer, key=lambda tensor: tensor.name)
    del graph_.initializer[:]
    graph_.initializer.extend(ordered)
    del graph_.value_info[:]


class _Reader(CalibrationDataReader):
    """Calibration images, one at a time, as the ONNX input wants them."""

    def __init__(self, name: str, images: Images) -> None:
        self._feeds: Iterator[dict[str, Any]] = (
            {name: image.transpose(2, 0, 1)[None]} for image in images
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _quantize(model: onnx.ModelProto, calibration: Images) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="mobiledeploy-") as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            _Reader(model.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        return onnx.load(path)


def _expose_integers(graph_: onnx.GraphProto) -> None:
    """Takes the float ends off: the input's QuantizeLinear and the output's DequantizeLinear."""
    first = next(n for n in graph_.node if n.input[0] == graph_.input[0].name)
    last = next(n for n in graph_.node if n.output[0] == graph_.output[0].name)
    if first.op_type != "QuantizeLinear" or last.op_type != "DequantizeLinear":
        raise InputError(
            "the quantizer left the ONNX model's ends in float", "--io float keeps them so"
        )
    for value, name in ((graph_.input[0], first.output[0]), (graph_.output[0], last.input[0])):
        value.type.tensor_type.elem_type = onnx.TensorProto.INT8
        value.name = name
    graph_.node.remove(first)
    graph_.node.remove(last)
