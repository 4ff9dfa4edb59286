"""Full-integer quantization, trained to give the answers of the float network.

First the longest sequence of passes of int8_best, then quantization-aware training on the training
images of the data set (see training/qat.py). It takes minutes, the others take seconds. It can be
interrupted and resumed without loss.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="int8_qat",
    summary="full int8, trained on your images to give the answers of the float model",
    weight_bits=8,
    activation_bits=8,
    formats=("tflite", "onnx"),
    granularity="per-channel",
    symmetry="symmetric",
    calibration="min-max",
    passes=(("quiet_channels", "global_pool", "equalize", "headroom", "adaround"),),
    training=("qat",) * 4,
)
