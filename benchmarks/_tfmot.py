"""Quantization-aware training by tensorflow-model-optimization.

`quantize_model` wraps the layers of a Keras 2 model, `fit` trains it, and TFLiteConverter makes it
int8, as the tool's guide shows it. It gets what int8_qat gets: the same images, random windows and
mirrored ones, as many steps, and batches of the same size. Its learning rate falls along a cosine,
and BatchNorms keep their statistics, which a hundred images would spoil.

By default the ranges of activations start from -6 to 6, and move by a thousandth in a step
(https://github.com/tensorflow/model-optimization/issues/368). Here they start from the ranges of
the float network on the training images, or so few steps would leave most codes unused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy

PACKAGE = "tensorflow-model-optimization"
BATCH = 32
STEPS = 256
"""As four applications of int8_qat's training have."""
SMALLEST_WINDOW = 0.875


@dataclass(frozen=True)
class Training:
    """What is learned, and the learning rate of the first step."""

    is_soft: bool
    """Whether it learns the float network's answers, at int8_qat's temperature, or the labels."""
    rate: float

    @property
    def settings(self) -> str:
        """As text."""
        target = "answers of the float network" if self.is_soft else "labels"
        return (
            f"{target}, Adam at {self.rate:g}, {STEPS} steps of {BATCH} images, calibrated ranges, "
            "BatchNorms frozen, int8 ends"
        )


TRAININGS = {
    "tfmot QAT, labels": Training(is_soft=False, rate=1e-4),
    "tfmot QAT, soft labels": Training(is_soft=True, rate=1e-4),
}


def quantize(
    model: Any, images: NDArray[np.float32], labels: NDArray[np.int64], training: Training
) -> bytes:
    """The int8 TFLite of a Keras 2 model that ends in logits, its ends in int8.

    `images` [N, H, W, 3] are as the model takes them, `labels` [N] are numbers of its classes.
    """
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from mobiledeploy.training import windows

    tf_keras.utils.set_random_seed(0)
    trained = tfmot.quantization.keras.quantize_model(model)
    set_ranges(trained, model, images)
    for wrapper in trained.layers:
        if isinstance(getattr(wrapper, "layer", None), tf_keras.layers.BatchNormalization):
            wrapper.trainable = False
    warm = accuracy.temperature(model.predict(images, verbose=0)) if training.is_soft else 1.0

    def batch(pixels: Any, classes: Any) -> tuple[Any, Any]:
        dice = tf.random.uniform((4, BATCH))
        seen = windows.random_windows(pixels, dice, SMALLEST_WINDOW)
        if training.is_soft:
            return seen, tf.nn.softmax(model(seen, training=False) / warm)
        return seen, tf.one_hot(classes, model.output_shape[-1])

    def loss(target: Any, logits: Any) -> Any:
        return tf_keras.losses.categorical_crossentropy(target, logits / warm, from_logits=True)

    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).repeat()
    decay = tf_keras.optimizers.schedules.CosineDecay(training.rate, STEPS)
    trained.compile(tf_keras.optimizers.Adam(decay), loss)
    trained.fit(data.batch(BATCH).map(batch), steps_per_epoch=STEPS, verbose=0)

    converter = tf.lite.TFLiteConverter.from_keras_model(trained)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def set_ranges(trained: Any, model: Any, images: NDArray[np.float32]) -> None:
    """Sets the ranges of activations to those that the float network has on the images."""
    import tf_keras

    outputs, ranges = [], []
    for wrapper in trained.layers:
        ends = {
            end: weight
            for weight in wrapper.weights
            for end in ("min", "max")
            # The other ranges are those of weights.
            if weight.name.endswith((f"output_{end}:0", f"activation_{end}:0"))
        }
        if ends:
            outputs.append(model.get_layer(wrapper.name.removeprefix("quant_")).output)
            ranges.append(ends)
    answers = tf_keras.Model(model.input, outputs).predict(images, verbose=0)
    for ends, values in zip(ranges, answers, strict=True):
        ends["min"].assign(min(float(values.min()), 0.0))
        ends["max"].assign(max(float(values.max()), 0.0))
