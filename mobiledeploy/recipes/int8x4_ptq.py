"""Weights of convolutions in int4, everything else in int8: half the size of int8.

As int8_best, with codes from -7 to 7 for the weights of every convolution except the first and the
depthwise ones. LiteRT's own kernels support them, XNNPACK's do not: the file is smaller, not
faster. With so few values, weights must be rounded by each layer's outputs to be useful.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="int8x4_ptq",
    summary="activations in int8, weights of convolutions in int4: half the size of int8",
    weight_bits=4,
    activation_bits=8,
    formats=("tflite",),
    granularity="per-channel",
    symmetry="symmetric",
    calibration="min-max",
    passes=(
        (),
        ("quiet_channels", "global_pool", "headroom", "adaround"),
        ("quiet_channels", "global_pool", "equalize", "headroom", "adaround"),
    ),
)
