"""Any framework's model as one frozen TensorFlow graph with a static batch of 1."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
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
from mobiledeploy.frameworks import loading

tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", module=r"tensorflow|tf_keras|keras|tf2onnx")

_SHAPING = ("Reshape", "Squeeze", "ExpandDims")


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
        layer of it traced again, which takes most of the time of a conversion. UsageError where
        `folder`, a temporary one, cannot be written.
        """
        ending = self.ending(output)
        with loading.writing_temporary(tf.errors.OpError):
            tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": ending})

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [N, classes] of preprocessed images [N, H, W, 3]: the float reference.

        InputError where TensorFlow cannot compute them.
        """
        with loading.refusing("TensorFlow cannot run the model", tf.errors.OpError):
            rows = [self.logits(tf.constant(image[None]))[0].numpy()[0] for image in images]
        return np.asarray(rows, np.float32)


def check_logits(graph: Graph, rows: NDArray[np.float32]) -> None:
    """InputError where `rows` [N, classes], which `graph.run` gave, are probabilities already.

    For an artifact that shall end in a softmax: a model that ends in one of its own making would
    get a second one. A row of probabilities has no number below 0, and sums to 1 within 1e-3.
    """
    if graph.scores is None and (rows >= 0).all() and (abs(rows.sum(axis=1) - 1) <= 1e-3).all():
        raise InputError(
            "the model's answers are probabilities already, but no softmax stands at its end",
            "use --output logits, which leaves its answers as they are",
        )


@functools.lru_cache(maxsize=2)
def freeze(model: Model, resolution: tuple[int, int]) -> Graph:
    """The model as constants, at `resolution` (height, width).

    InputError where TensorFlow cannot trace it there, and for an end that is none of a classifier.
    """
    height, width = resolution
    with loading.refusing(
        f"TensorFlow cannot run the model on one {height}x{width} picture", tf.errors.OpError
    ):
        call, variables = FRAMEWORKS.load(model.framework).inference(model)
        spec = tf.TensorSpec((1, height, width, 3), tf.float32, name="image")
        concrete = tf.function(lambda image: call(image)).get_concrete_function(spec)
        del variables  # They live in the graph's captures until it is frozen, then as constants.
        frozen = convert_variables_to_constants_v2(concrete)
    if len(frozen.outputs) != 1:
        raise InputError(f"the model has {len(frozen.outputs)} outputs; one is needed")
    last = frozen.outputs[0].op
    shaped = False
    while _keeps_values(last):
        shaped |= last.type != "Identity"
        last = last.inputs[0].op
    if last.type == "Sigmoid":
        raise InputError(
            "the model ends in a sigmoid; a softmax over two or more classes is needed",
            "end it in a Dense(2) and a softmax",
        )
    # Fetched as lists, so that every pruned function answers with one.
    own = frozen.prune(frozen.inputs, [frozen.outputs[0]])
    if last.type != "Softmax":
        return Graph(own, None)
    before = frozen.prune(frozen.inputs, [last.inputs[0]])
    if not shaped:
        return Graph(before, frozen.prune(frozen.inputs, [last.outputs[0]]))
    inner = last.inputs[0].shape
    if inner.num_elements() is None or inner.num_elements() != inner[-1]:
        return Graph(own, None)  # A softmax over something else than the classes.
    # What shapes the scores shapes the logits instead, so that the softmax stands at the very end.
    logits = _refrozen(
        lambda image: tf.cast(tf.reshape(before(image)[0], (1, -1)), tf.float32), spec
    )
    return Graph(logits, _refrozen(lambda image: tf.nn.softmax(logits(image)[0]), spec))


def _keeps_values(op: Any) -> bool:
    """Whether `op` hands its input on, in another shape or float type."""
    if op.type == "Cast":
        return bool(op.inputs[0].dtype.is_floating and op.outputs[0].dtype.is_floating)
    return op.type == "Identity" or op.type in _SHAPING


def _refrozen(call: Callable[[Any], Any], spec: Any) -> Any:
    frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(spec))
    return frozen.prune(frozen.inputs, [frozen.outputs[0]])
