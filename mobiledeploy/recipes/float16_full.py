"""Weights and arithmetic in half precision: faster on cores that have it.

As float16, with the permission to compute in float16. XNNPACK uses it on cores with ARMv8.2 FP16,
and computes in float32 on others. Values above 65504 do not fit, so such networks are refused.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="float16_full",
    summary="weights and arithmetic in float16 on cores that have it, else as float16",
    weight_bits=16,
    activation_bits=16,
    formats=("tflite",),
)
