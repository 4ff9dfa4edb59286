"""Weights and activations as trained."""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="float32",
    summary="weights and activations in float32",
    weight_bits=32,
    activation_bits=32,
    formats=("tflite", "onnx"),
    plain=("tflite", "onnx"),
)
