"""Weights in int8, activations in int16: for models that lose too much with 8-bit activations.

Symmetric 16-bit activations, weights as in int8_ptq: LiteRT's 16x8 quantization,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quant_16x8. Its
CPU kernels are plain loops, many times slower than float. So it shows what activations cost, or is
for an accelerator that has such kernels.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="int16x8_ptq",
    summary="weights in int8, activations in int16: accurate, and slow on a CPU",
    weight_bits=8,
    activation_bits=16,
    formats=("tflite",),
    granularity="per-channel",
    symmetry="symmetric",
    calibration="min-max",
)
