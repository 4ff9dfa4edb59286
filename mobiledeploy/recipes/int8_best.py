"""Post-training quantization to integers throughout, by what keeps most of the float answers.

As int8_ptq, through one of several orders of passes, each of a paper (see passes/): that by which
the answers diverge least from those of the float model on calibration images held back for it, then
made with all of them. The first is int8_ptq's own, so that it is never behind that there.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="int8_best",
    summary="int8 throughout, by the passes that keep most of the float answers",
    weight_bits=8,
    activation_bits=8,
    formats=("tflite", "onnx"),
    plain=("tflite", "onnx"),
    granularity="per-channel",
    symmetry="symmetric",
    calibration="min-max",
    passes=(
        (),
        ("quiet_channels", "global_pool", "equalize", "headroom", "adaround"),
        ("quiet_channels", "global_pool", "equalize", "ranges_mse", "headroom", "adaround"),
        ("quiet_channels", "global_pool", "equalize", "ranges_percentile", "headroom", "adaround"),
    ),
)
