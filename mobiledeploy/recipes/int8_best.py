"""Full-integer post-training quantization with the passes that stay closest to the float model.

As int8_ptq, with one of several sequences of passes, each from a paper (see passes/). The sequence
with the least divergence from the float model on held-back calibration images is chosen, and then
applied with all of them. The first is that of int8_ptq, so the result is never worse on these
images.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="int8_best",
    summary="full int8, by the passes that stay closest to the float model",
    weight_bits=8,
    activation_bits=8,
    formats=("tflite", "onnx"),
    plain=("tflite", "onnx"),
    granularity="per-channel",
    symmetry="symmetric",
    calibration="min-max",
    passes=(
        (),
        ("float_ends", "quiet_channels", "global_pool", "equalize", "headroom", "adaround"),
        (
            "float_ends",
            "quiet_channels",
            "global_pool",
            "equalize",
            "ranges_mse",
            "headroom",
            "adaround",
        ),
        (
            "float_ends",
            "quiet_channels",
            "global_pool",
            "equalize",
            "ranges_percentile",
            "headroom",
            "adaround",
        ),
    ),
)
