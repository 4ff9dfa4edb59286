"""Train the demo weights: MobileNet v1 on the built-in data.

`python tools/demo_weights.py --alpha 0.5 --alpha 0.25` is what `make train-demo` runs. It is a
course made for these images, which a fresh network hardly learns otherwise, and not what
`mobiledeploy train` does.

Networks that are convolutional up to their global pooling keep the same weights at every
resolution. Training makes use of it: each batch has one of several resolutions, so that one
file of weights serves them all, and the cheap small ones bear most of the work.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from PIL import Image

from mobiledeploy.architectures import mobilenet_v1
from mobiledeploy.datasets import shapes
from mobiledeploy.training.loop import save_weights

RESOLUTIONS = (96, 128, 160, 192, 224)
"""Square resolutions in pixels for which one file of weights is trained and measured."""

EASY_RESOLUTION = 64
EASY_LEVELS = 4
"""The first phase: easy images, small. On the whole data a fresh network stays at chance for
thousands of batches; from easy images it gets a start within some hundreds."""

MAIN_MIX = {96: 0.8, 128: 0.2}
LAST_MIX = {96: 0.3, 128: 0.25, 160: 0.25, 192: 0.12, 224: 0.08}
"""Share of the batches per resolution, in the second and in the third phase."""

STEPS = 6_500
EASY_SHARE, LAST_SHARE = 0.22, 0.14
"""Batches of a training, and the shares of its first and its last phase."""

SETTLE_SHARE = 0.08
SETTLE_RATE = 5e-4
SETTLE_MIX = {96: 0.35, 128: 0.2, 160: 0.2, 192: 0.13, 224: 0.12}
"""Batches after the training (as a share of it), their learning rate and their resolutions.

Statistics differ from resolution to resolution, and batch normalisation keeps one moving average
for all. So the network is settled on it: trained on with the statistics that it will have."""

Pool = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images [N, H, W, 3] and their labels [N]."""


@dataclass(frozen=True)
class Trained:
    """One file of weights and what it scores."""

    alpha: float
    path: Path
    sha256: str
    top1: dict[int, float]
    """Resolution in pixels -> share of the validation split that is named rightly."""


@dataclass(frozen=True)
class Images:
    """What the trainings share: the data set, drawn once."""

    easy: Pool
    train: dict[int, Pool]
    validation: dict[int, Pool]


def train(
    alphas: Sequence[float], *, out: Path, steps: int, workers: int, say: Callable[[str], None]
) -> Iterator[Trained]:
    """Train MobileNet v1 on the demo data, once per width multiplier.

    Writes `out`/mobilenet_v1_<alpha>.h5, first while the training goes on and then for good.

    Args:
        alphas: width multipliers.
        out: folder of the weights.
        steps: batches per training.
        workers: processes that draw images.
        say: takes lines about the progress.
    """
    say("drawing the training and the validation images")
    images = draw(workers)
    for alpha in alphas:
        path = out / f"mobilenet_v1_{alpha}.h5"
        yield _trained(alpha, path, steps, images, say)


def _trained(
    alpha: float, path: Path, steps: int, images: Images, say: Callable[[str], None]
) -> Trained:
    first, last = round(steps * EASY_SHARE), round(steps * LAST_SHARE)
    phases = [
        Phase(first, [(images.easy, 1.0)]),
        Phase(steps - first - last, [(images.train[r], share) for r, share in MAIN_MIX.items()]),
        Phase(last, [(images.train[r], share) for r, share in LAST_MIX.items()]),
    ]
    classes = len(shapes.CLASSES)
    smallest = RESOLUTIONS[0]
    seed(Settings().seed)
    model = mobilenet_v1.build(alpha=alpha, resolution=(smallest, smallest), classes=classes)

    settling = Phase(
        round(steps * SETTLE_SHARE), [(images.train[r], share) for r, share in SETTLE_MIX.items()]
    )

    def progress(done: int, loss: float, accuracy: float) -> None:
        save_weights(model, path)
        say(f"alpha {alpha} step {done}/{steps} loss {loss:.3f} accuracy {accuracy:.3f}")

    def settled(done: int, loss: float, accuracy: float) -> None:
        save_weights(model, path)
        say(
            f"alpha {alpha} settling, step {done}/{settling.steps} loss {loss:.3f} "
            f"accuracy {accuracy:.3f}"
        )

    fit(model, phases, Settings(), on_progress=progress)
    frozen = Settings(peak_rate=SETTLE_RATE, frozen_statistics=True)
    fit(model, [settling], frozen, on_progress=settled)
    top1 = {}
    for resolution in RESOLUTIONS:
        sized = mobilenet_v1.build(
            alpha=alpha, resolution=(resolution, resolution), classes=classes
        )
        sized.load_weights(path, by_name=True)
        top1[resolution] = accuracy(sized, images.validation[resolution])
    return Trained(alpha, path, hashlib.sha256(path.read_bytes()).hexdigest(), top1)


def draw(workers: int) -> Images:
    """Draw the data set in `workers` processes, best before TensorFlow starts its threads."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        size = shapes.SPLITS["train"]
        easy = [index for index in range(size) if shapes.hardness(index) < EASY_LEVELS]
        # Every resolution may fill the memory that the whole split takes at the smallest one.
        counts = {r: size * RESOLUTIONS[0] ** 2 // r**2 for r in RESOLUTIONS}
        return Images(
            easy=_drawn(executor, "train", EASY_RESOLUTION, easy),
            train={r: _drawn(executor, "train", r, range(counts[r])) for r in RESOLUTIONS},
            validation={
                r: _drawn(executor, "validation", r, range(shapes.SPLITS["validation"]))
                for r in RESOLUTIONS
            },
        )


def contact_sheet(path: Path, *, resolution: int = 56) -> None:
    """Write an image of the training split: a row per class, easy on the left, hard on the right.

    Colours keep their five highest bits, which halves the file.
    """
    samples = shapes.open("demo", "train", resolution=(resolution, resolution))
    classes = len(samples.classes)
    rows = [
        np.concatenate([samples.image(label + classes * k) for k in range(shapes.LEVELS)], axis=1)
        for label in range(classes)
    ]
    sheet = np.concatenate(rows) & np.uint8(0xF8) | np.uint8(0x04)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True)


def _drawn(
    executor: ProcessPoolExecutor, split: str, resolution: int, indices: Sequence[int]
) -> Pool:
    """The given samples of a split."""
    chunk = 250
    parts = [indices[start : start + chunk] for start in range(0, len(indices), chunk)]
    images = np.empty((len(indices), resolution, resolution, 3), dtype=np.uint8)
    tasks = [(split, resolution, part) for part in parts]
    for number, drawn in enumerate(executor.map(_draw, tasks)):
        images[number * chunk : number * chunk + len(drawn)] = drawn
    samples = shapes.open("demo", split, resolution=(resolution, resolution))
    return images, np.array([samples.label(index) for index in indices], dtype=np.int64)


def _draw(task: tuple[str, int, Sequence[int]]) -> NDArray[np.uint8]:
    split, resolution, indices = task
    samples = shapes.open("demo", split, resolution=(resolution, resolution))
    return np.stack([samples.image(index) for index in indices])


# --- the loop ---------------------------------------------------------------------------


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


def _scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
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
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
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
    images: NDArray[np.uint8], random: np.random.Generator, jitter: float
) -> NDArray[np.float32]:
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


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python tools/demo_weights.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--alpha", type=float, action="append", default=[], help="width multiplier; repeatable"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="batches per training")
    parser.add_argument("--out", type=Path, default=Path("models/weights"), help="folder")
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="PATH",
        help="write an image of the data, one row per class",
    )
    options = parser.parse_args(arguments)
    if options.contact_sheet:
        contact_sheet(options.contact_sheet)
    if not options.alpha:
        return
    for result in train(
        options.alpha,
        out=options.out,
        steps=options.steps,
        workers=os.cpu_count() or 1,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    ):
        scores = ", ".join(f'"{resolution}" = {top1}' for resolution, top1 in result.top1.items())
        print("[[weights.demo.files]]")
        print(f"alpha = {result.alpha}")
        print(f'file = "{result.path.name}"')
        print(f'sha256 = "{result.sha256}"')
        print(f"top1 = {{ {scores} }}", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
