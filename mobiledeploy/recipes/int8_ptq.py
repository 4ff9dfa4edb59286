"""Full-integer post-training quantization with ranges by minimum and maximum.

Per-channel symmetric weights, per-tensor asymmetric activations: Jacob et al. 2018,
arXiv:1712.05877, and Krishnamoorthi 2018, arXiv:1806.08342, section 3.
"""

from mobiledeploy.core.types import Recipe

RECIPE = Recipe(
    name="int8_ptq",
    summary="full int8, per-channel weights, activation ranges from calibration images",
    weight_bits=8,
    activation_bits=8,
    formats=("tflite", "onnx"),
    granularity="per-channel",
    symmetry="symmetric",
    calibration="min-max",
)
