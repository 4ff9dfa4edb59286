"""Integers throughout, trained to answer as the float network does.

As int8_best's fullest order of passes, then quantization-aware training on the images that a
network of this data is trained on (see training/qat.py). It takes minutes where the others take
seconds, and is broken off and taken up again without loss.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="int8_qat",
    summary="int8 throughout, trained on your images to answer as the float model does",
    weight_bits=8,
    activation_bits=8,
    formats=("tflite", "onnx"),
    granularity="per-channel",
    symmetry="symmetric",
    calibration="min-max",
    passes=(("quiet_channels", "global_pool", "equalize", "headroom", "adaround"),),
    training=("qat",) * 4,
)
