"""The hard sigmoid and the hard swish of MobileNet v3 as single layers.

tf_keras only has them as chains of tensor operations, which QAT cannot wrap.
"""

from typing import Any

import tensorflow as tf
import tf_keras


@tf_keras.saving.register_keras_serializable(package="mobiledeploy")
class HardSigmoid(tf_keras.layers.Layer):
    """relu6(x + 3) / 6 (Howard et al. 2019, section 5.2); [..., C] to the same shape."""

    def call(self, inputs: Any) -> Any:
        """Element by element."""
        # One three for each channel: oneDNN takes a vector of a single three for a bias of the
        # convolution before, and fails.
        three = tf.fill((inputs.shape[-1],), tf.cast(3, inputs.dtype))
        return tf.nn.relu6(inputs + three) * (1 / 6)


@tf_keras.saving.register_keras_serializable(package="mobiledeploy")
class HardSwish(HardSigmoid):
    """x * relu6(x + 3) / 6 (Howard et al. 2019, section 5.2); [..., C] to the same shape.

    Written so that TFLite's converter recognizes its operator HARD_SWISH.
    """

    def call(self, inputs: Any) -> Any:
        """Element by element."""
        return inputs * super().call(inputs)
