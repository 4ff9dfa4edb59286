"""Weights in int8, activations quantized at run time: no calibration data is needed."""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="dynamic_int8",
    summary="weights in int8, activations quantized at run time",
    weight_bits=8,
    activation_bits=32,
    formats=("tflite",),
    granularity="per-channel",
    symmetry="symmetric",
)
