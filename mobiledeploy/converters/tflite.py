"""Model -> TFLite, by TensorFlow's converter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Images
from mobiledeploy.core.types import InputOutput, Model, Output, Recipe
from mobiledeploy.frameworks import graph, loading, recipe_check, tflite_calibration

_NUMBERS = ((32, 32, None), (16, 32, None), (8, 32, None), (8, 8, "min-max"))


def source(recipe: Recipe) -> Literal["model", "tflite"]:
    """Every TFLite is made from the model."""
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
    """A TFLite flatbuffer with the signature serving_default (image -> scores).

    `calibration` [N, H, W, 3] float32 gives the activation ranges of a full-integer recipe.
    InputError for a model or a recipe that the converter cannot do.
    """
    if isinstance(source, bytes):
        raise TypeError("TFLite is made from the model")
    recipe_check.refuse_other(recipe, "tflite", _NUMBERS)
    frozen = graph.freeze(source, resolution)
    with loading.temporary_folder() as folder:
        frozen.save(output, folder)
        with loading.refusing("TFLiteConverter cannot read the model", tf.errors.OpError):
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        _configure(converter, recipe, calibration, io)
        try:
            # Calibration runs the model, which may fail in ways of its own.
            with (
                loading.refusing("TFLiteConverter refused the model", tf.errors.OpError),
                tflite_calibration.keeping_every_tensor(),
            ):
                return bytes(converter.convert())
        except ConverterError as error:
            raise InputError(_reason(str(error))) from error


def _configure(converter: Any, recipe: Recipe, calibration: Images, io: InputOutput) -> None:
    if recipe.weight_bits < 32:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if recipe.granularity == "per-tensor":
        # The converter has no public switch for it.
        converter._experimental_disable_per_channel = True
    if recipe.weight_bits == 16:
        converter.target_spec.supported_types = [tf.float16]
    if recipe.full_integer:
        converter.representative_dataset = lambda: _representative(calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if io == "int8":
            converter.inference_input_type = converter.inference_output_type = tf.int8


def _representative(calibration: Images) -> Iterator[dict[str, Any]]:
    for image in calibration:
        yield {"image": image[None]}


def _reason(text: str) -> str:
    """The converter's pages of text, as the operators that it could not place."""
    ops = sorted(
        set(re.findall(r"'?(?:tf|tfl)\.(\w+)'? op is neither|error: '(tf\.\w+)' op", text))
    )
    names = sorted({name for pair in ops for name in pair if name})
    flex = re.search(r"(?:Flex|Select TF|Custom) ops: ([\w, ]+)", text)
    if flex:
        names = [name.strip() for name in flex[1].split(",")]
    if names:
        return f"TFLite has no operator for {', '.join(names)}"
    first = next((line for line in text.splitlines() if line.strip()), "no reason given")
    return f"TFLiteConverter refused the model: {first[:200]}"
