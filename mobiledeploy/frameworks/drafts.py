"""Post-training quantization on the flatbuffer: a float TFLite, its ranges, its integers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert import ConverterError, mlir_quantize

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Images
from mobiledeploy.core.types import Draft, InputOutput, Recipe
from mobiledeploy.frameworks import loading, ranges
from mobiledeploy.frameworks.flat import Flat, Floats, Walk


def start(floats: bytes, recipe: Recipe, io: InputOutput, images: Images) -> Draft:
    """The draft of a float TFLite, with the least and greatest values over `images` as ranges."""
    with loading.refusing("the model cannot be calibrated", RuntimeError):
        return Draft(recipe, io, floats, ranges.measured(floats, images))


def integers(draft: Draft) -> bytes:
    """The draft's integers, by TensorFlow's quantizer where no pass has made them yet."""
    if draft.integers is not None:
        return draft.integers
    flat = Flat(draft.floats)
    for index, tensor in enumerate(flat.graph.tensors):
        extent = draft.ranges.get(flat.name(index))
        if extent is not None and flat.constant(index) is None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.min = [np.float32(extent[0])]
            tensor.quantization.max = [np.float32(extent[1])]
    ends = tf.int8 if draft.io == "int8" else tf.float32
    try:
        return bytes(
            mlir_quantize(
                flat.packed(),
                disable_per_channel=draft.recipe.granularity == "per-tensor",
                input_data_type=ends,
                output_data_type=ends,
            )
        )
    except ConverterError as error:
        raise InputError(f"the quantizer refused the model: {loading.first_line(error)}") from error


def logits(content: bytes, images: Images) -> Floats:
    """What a TFLite answers, in real values and before a closing softmax: [N, classes]."""
    flat = Flat(content)
    ops = flat.ops
    last = len(ops)
    while last and flat.kind(ops[last - 1]) in ("SOFTMAX", "DEQUANTIZE", "QUANTIZE"):
        last -= 1
    walk = Walk(flat, images)
    walk.before(last)
    (target,) = {int(i) for i in ops[last - 1].outputs}
    return flat.real(target, walk.value(target))
