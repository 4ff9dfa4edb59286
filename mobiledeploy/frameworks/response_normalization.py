"""Local response normalisation across channels, made of operators that TFLite has in int8."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

BAND = "response_normalization"
"""The name of the sum over channels, a convolution, in every file: see analysis/cost."""


@tf_keras.saving.register_keras_serializable(package="mobiledeploy")
class LocalResponseNormalization(tf_keras.layers.Layer):
    """x / (bias + alpha * sum of x^2 over the `size` nearest channels) ^ beta.

    Krizhevsky et al. 2012, section 3.3, with its n, alpha, beta and k. [N, H, W, C] to the same
    shape; missing channels at the ends count as zero.

    TFLite's own operator for it computes in float and is slow. Here the sum over channels is a 1x1
    convolution with a band matrix, and the power is exp(-beta * log(sum)): both are tables in int8,
    where RSQRT, the other operator for it, takes about 50 ns a number. An int8 file needs LiteRT;
    tflite_runtime 2.14 has no LOG in int8. ONNX Runtime has no integer Log and Exp at all.
    """

    def __init__(
        self, *, size: int, alpha: float, beta: float, bias: float, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def call(self, inputs: Any) -> Any:
        """[N, H, W, C] -> [N, H, W, C]."""
        channels = inputs.shape[-1]
        position = np.arange(channels)
        near = abs(position[:, None] - position) <= self.size // 2
        band = tf.constant((near * self.alpha)[None, None], inputs.dtype)
        # Not tf.square, which TFLite does not have in int8.
        total = tf.nn.conv2d(inputs * inputs, band, 1, "VALID", name=BAND)
        total = tf.nn.bias_add(
            total, tf.fill((channels,), tf.cast(self.bias, inputs.dtype)), name=BAND
        )
        return inputs * tf.exp(tf.math.log(total) * -self.beta)

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras saves."""
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.bias}
        return super().get_config() | own
