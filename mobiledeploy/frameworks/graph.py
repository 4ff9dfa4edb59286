"""Any framework's model as one frozen TensorFlow graph with a static batch of 1."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FRAMEWORKS
from mobiledeploy.core.types import Model, Output

tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", module=r"tensorflow|tf_keras|keras|tf2onnx")


@dataclass(frozen=True)
class Graph:
    """Frozen functions, images [1, H, W, 3] float32 -> [1, classes].

    `logits` is cut before the softmax; `scores` ends in the model's own, None where it has none.
    """

    logits: Any
    scores: Any | None

    def ending(self, output: Output) -> Any:
        """A ConcreteFunction image -> {"scores"} that ends as an artifact shall."""
        frozen = self.logits if output == "logits" else self.scores

        def serve(image: Any) -> dict[str, Any]:
            if frozen is None:
                return {"scores": tf.nn.softmax(self.logits(image)[0])}
            return {"scores": frozen(image)[0]}

        spec = tf.TensorSpec(self.logits.inputs[0].shape, tf.float32, name="image")
        return tf.function(serve).get_concrete_function(spec)

    def flat(self, output: Output) -> Any:
        """The same without a function call around it, for converters that read GraphDefs."""
        frozen = self.logits if output == "logits" else self.scores
        return frozen or convert_variables_to_constants_v2(self.ending(output))

    def save(self, output: Output, folder: Path) -> None:
        """A SavedModel with the signature serving_default, image -> scores.

        A bare module is saved instead of the Keras model: TFLiteConverter's own way has every
        layer of it traced again, which takes most of the time of a conversion.
        """
        tf.saved_model.save(
            tf.Module(), str(folder), signatures={"serving_default": self.ending(output)}
        )

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [N, classes] of preprocessed images [N, H, W, 3]: the float reference."""
        rows = [self.logits(tf.constant(image[None]))[0].numpy()[0] for image in images]
        return np.asarray(rows, np.float32)


@functools.lru_cache(maxsize=2)
def freeze(model: Model, resolution: tuple[int, int]) -> Graph:
    """The model as constants, at `resolution` (height, width)."""
    call, variables = FRAMEWORKS.load(model.framework).inference(model)
    spec = tf.TensorSpec((1, *resolution, 3), tf.float32, name="image")
    concrete = tf.function(lambda image: call(image)).get_concrete_function(spec)
    del variables  # They live in the graph's captures until it is frozen, and as constants after.
    frozen = convert_variables_to_constants_v2(concrete)
    if len(frozen.outputs) != 1:
        raise InputError(f"the model has {len(frozen.outputs)} outputs; one is needed")
    last = frozen.outputs[0].op
    while last.type == "Identity":
        last = last.inputs[0].op
    if last.type == "Sigmoid":
        raise InputError(
            "the model ends in a sigmoid; a softmax over two or more classes is needed",
            "end it in a Dense(2) and a softmax",
        )
    # Fetched as lists, so that every pruned function answers with one.
    if last.type == "Softmax":
        return Graph(
            frozen.prune(frozen.inputs, [last.inputs[0]]),
            frozen.prune(frozen.inputs, [last.outputs[0]]),
        )
    return Graph(frozen.prune(frozen.inputs, [frozen.outputs[0]]), None)
