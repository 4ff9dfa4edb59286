"""Model -> TFLite, by TensorFlow's converter."""

from __future__ import annotations

import re
from typing import Literal

import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import InputOutput, Model, Output, QuantizedGraph, Recipe
from mobiledeploy.frameworks import loading, recipe_check, tracing

_NUMBERS = ((32, 32, None),)


def source(recipe: Recipe) -> Literal["model"]:
    """Floats from the model."""
    return "model"


def convert(
    source: Model | QuantizedGraph | bytes,
    recipe: Recipe,
    *,
    resolution: tuple[int, int],
    io: InputOutput,
    output: Output,
) -> bytes:
    """A TFLite flatbuffer with the signature serving_default (image -> scores).

    InputError for a model or a recipe that the converter cannot do.
    """
    recipe_check.refuse_other(recipe, "tflite", _NUMBERS)
    if not isinstance(source, Model):
        raise TypeError("the float TFLite is made from the model")
    frozen = tracing.freeze(source, resolution)
    with loading.temporary_folder() as folder:
        frozen.save(output, folder)
        with loading.refusing("TFLiteConverter cannot read the model", tf.errors.OpError):
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        try:
            return bytes(converter.convert())
        except ConverterError as error:
            raise InputError(_reason(str(error))) from error


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
