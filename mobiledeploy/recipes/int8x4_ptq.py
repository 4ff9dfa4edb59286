"""Weights of convolutions in int4, everything else in int8: half the size of int8.

As int8_best, with codes from -7 to 7 for the weights of every convolution but the first and the
depthwise ones. LiteRT's own kernels compute with them, XNNPACK's do not: a smaller file, not a
faster one. Sixteen values are few: it takes rounding by what each layer answers to be of use.
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
