"""Weights stored in half precision: half the size.

A CPU computes the TFLite file in float32, and the ONNX file in float16 where the core can.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="float16",
    summary="weights in float16; ONNX computes in float16 too, TFLite in float32 on a CPU",
    weight_bits=16,
    activation_bits=32,
    formats=("tflite", "onnx"),
    plain=("tflite",),
)
