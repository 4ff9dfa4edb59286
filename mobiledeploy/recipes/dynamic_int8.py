"""Weights in int8, activations quantized as they come: no calibration data needed."""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="dynamic_int8",
    summary="weights in int8, activations quantized as they come",
    weight_bits=8,
    activation_bits=32,
    formats=("tflite",),
    granularity="per-channel",
    symmetry="symmetric",
)
