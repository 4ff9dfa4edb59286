"""One class of several: cross-entropy of the softmax, with or without smoothed labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import ModelSpec, TrainingSettings


def targets(examples: Any, spec: ModelSpec) -> tuple[Array, ...]:
    """The labels, int64 [N]."""
    return (examples.labels,)


def moved(targets: tuple[Any, ...], windows: Any) -> tuple[Any, ...]:
    """The same labels: a window shows what its image shows."""
    return targets


def encoded(targets: tuple[Any, ...], spec: ModelSpec) -> Any:
    """float32 [N, classes]: 1 for the label."""
    return tf.one_hot(targets[0], spec.classes)


def losses(settings: TrainingSettings) -> Sequence[Callable[[Any, Any], Any]]:
    """Cross-entropy; `label_smoothing` of each label is spread over all classes."""
    smoothing = settings.label_smoothing

    def loss(truth: Any, scores: Any) -> Any:
        return tf_keras.losses.categorical_crossentropy(truth, scores, label_smoothing=smoothing)

    return (loss,)


def figures() -> Sequence[Any]:
    """The share of right answers."""
    return (tf_keras.metrics.CategoricalAccuracy(name="accuracy"),)
