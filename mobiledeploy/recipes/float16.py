"""Weights stored in half precision: half the size, computed in float32 on a CPU."""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="float16",
    summary="weights in float16, computed in float32 on a CPU",
    weight_bits=16,
    activation_bits=32,
    formats=("tflite",),
    plain=("tflite",),
)
