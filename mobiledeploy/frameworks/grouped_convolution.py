"""A grouped convolution that trains on a CPU and stays one convolution in every file.

`tf_keras.layers.Conv2D(groups=...)` compiles the convolution with XLA: converters cannot read the
resulting call, and its gradient is up to thirty times slower than TensorFlow's own.
"""

from typing import Any

import tensorflow as tf
import tf_keras


@tf_keras.saving.register_keras_serializable(package="mobiledeploy")
class GroupedConv2D(tf_keras.layers.Conv2D):
    """`Conv2D` with the same arguments and weights, `groups` included, without XLA.

    Input [N, H, W, C], kernel [kh, kw, C / groups, filters].
    """

    def call(self, inputs: Any) -> Any:
        """[N, H, W, C] -> [N, H', W', filters]."""
        x = self.convolution_op(inputs, self.kernel)
        if self.use_bias:
            x = tf.nn.bias_add(x, self.bias)
        return x if self.activation is None else self.activation(x)
