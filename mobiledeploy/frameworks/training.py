"""The training loop: a built model and labelled uint8 images in, the trained model out.

Networks that are convolutional up to their global pooling keep the same weights at every
resolution. Training makes use of it: each batch has one of several resolutions, so that one
file of weights serves them all, and the cheap small ones bear most of the work.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

Pool = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Images [N, H, W, 3] and their labels [N]."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the mix of images stays the same."""

    steps: int
    """Batches."""
    mix: Sequence[tuple[Pool, float]]
    """Pools, of one resolution each, and their shares of the batches."""


@dataclass(frozen=True)
class Settings:
    """How to train. The defaults suit some tens of epochs from fresh weights."""

    batch: int = 64
    """Images per batch."""
    peak_rate: float = 3e-3
    """Learning rate after the warm-up, from which a cosine leads to zero."""
    warmup: int = 200
    """Batches over which the learning rate rises to its peak."""
    weight_decay: float = 0.05
    """Share of a kernel that AdamW takes away per unit of learning rate; none is taken from
    depthwise kernels, which have so few parameters (Howard et al. 2017, section 3.2)."""
    bn_momentum: float = 0.98
    """Momentum of the moving statistics while training: Keras's 0.99 is slow for short runs."""
    frozen_statistics: bool = False
    """Normalise by the moving statistics, as inference does, and not by those of the batch."""
    jitter: float = 0.15
    """Brightness and contrast change by at most this share."""
    seed: int = 0


def seed(value: int) -> None:
    """Seed the fresh weights of models built from now on, and all that training draws."""
    tf_keras.utils.set_random_seed(value)


def fit(
    model: tf_keras.Model,
    phases: Sequence[Phase],
    settings: Settings,
    *,
    on_progress: Callable[[int, float, float], None],
    every: int = 200,
) -> None:
    """Train `model` in place.

    Args:
        model: from float32 [N, H, W, 3] in [-1, 1] to probabilities [N, classes], convolutional
            up to a global pooling.
        phases: run one after the other under one learning rate schedule.
        settings: how to train.
        on_progress: called with the number of steps done, and the mean loss and accuracy over
            the steps since the last call; at that moment `model` holds the weights so far.
        every: steps between two calls of `on_progress`.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    seed(settings.seed)
    total = sum(phase.steps for phase in phases)
    free = tf_keras.models.clone_model(model, input_tensors=tf_keras.Input((None, None, 3)))
    free.set_weights(model.get_weights())
    for layer in free.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = settings.bn_momentum
    optimizer = _optimizer(free, total, settings)
    loss_of = tf_keras.losses.SparseCategoricalCrossentropy()

    @tf.function(reduce_retracing=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            scores = free(images, training=not settings.frozen_statistics)
            loss = loss_of(labels, scores)
        variables = free.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        hits = tf.equal(tf.argmax(scores, axis=-1), labels)
        return loss, tf.reduce_mean(tf.cast(hits, tf.float32))

    losses: list[float] = []
    accuracies: list[float] = []
    for done, (images, labels) in enumerate(_batches(phases, settings), start=1):
        loss, accuracy = step(tf.constant(images), tf.constant(labels))
        losses.append(float(loss))
        accuracies.append(float(accuracy))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} after {done} steps")
        if done % every == 0 or done == total:
            model.set_weights(free.get_weights())
            on_progress(done, sum(losses) / len(losses), sum(accuracies) / len(accuracies))
            losses.clear()
            accuracies.clear()


def accuracy(model: tf_keras.Model, pool: Pool, *, batch: int = 50) -> float:
    """Share of images whose highest score is their label's (top-1), from 0 to 1.

    `pool` holds uint8 images at the model's resolution; they are scaled to [-1, 1] here.
    """
    images, labels = pool
    hits = 0
    for start in range(0, len(labels), batch):
        scores = model.predict_on_batch(_scaled(images[start : start + batch]))
        hits += int(np.sum(np.argmax(scores, axis=-1) == labels[start : start + batch]))
    return hits / len(labels)


def save_weights(model: tf_keras.Model, path: Path) -> None:
    """Write the weights, without the optimizer's state, as Keras HDF5 that loads by name.

    The file is written aside and then renamed: `path` never holds half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
        part = Path(aside) / "weights.h5"
        model.save_weights(part, save_format="h5")
        part.replace(path)


def _scaled(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pixels 0..255 to float32 in [-1, 1]."""
    return images.astype(np.float32) * np.float32(1.0 / 127.5) - np.float32(1.0)


def _optimizer(model: tf_keras.Model, total: int, settings: Settings) -> tf_keras.optimizers.AdamW:
    warmup = min(settings.warmup, total // 10)
    schedule = tf_keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.peak_rate / 100 if warmup else settings.peak_rate,
        decay_steps=total - warmup,
        warmup_target=settings.peak_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = tf_keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)
    decayed = [
        layer.kernel
        for layer in model.layers
        if isinstance(layer, tf_keras.layers.Conv2D)
        and not isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    ]
    kept = {variable.ref() for variable in decayed}
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if v.ref() not in kept]
    )
    return optimizer


def _batches(
    phases: Sequence[Phase], settings: Settings
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Augmented batches, scaled to [-1, 1]. Every pool is gone through in a shuffled order."""
    random = np.random.default_rng(settings.seed)
    for phase in phases:
        shares = np.array([share for _, share in phase.mix])
        orders = [np.empty(0, dtype=np.int64) for _ in phase.mix]
        for _ in range(phase.steps):
            turn = random.choice(len(shares), p=shares / shares.sum())
            images, labels = phase.mix[turn][0]
            while len(orders[turn]) < settings.batch:
                orders[turn] = np.concatenate([orders[turn], random.permutation(len(labels))])
            chosen, orders[turn] = np.split(orders[turn], [settings.batch])
            yield _augmented(images[chosen], random, settings.jitter), labels[chosen]


def _augmented(
    images: npt.NDArray[np.uint8], random: np.random.Generator, jitter: float
) -> npt.NDArray[np.float32]:
    """Mirrored, turned by quarters, and changed in brightness and contrast; in [-1, 1]."""
    images = images.copy()
    for turned in (images[:, :, ::-1], images[:, ::-1], images.transpose(0, 2, 1, 3)):
        picked = random.random(len(images)) < 0.5
        images[picked] = turned[picked]
    pixels = _scaled(images)
    contrast, brightness = random.uniform(-jitter, jitter, (2, len(images), 1, 1, 1))
    pixels *= (1.0 + contrast).astype(np.float32)
    pixels += brightness.astype(np.float32)
    return np.clip(pixels, -1.0, 1.0)
