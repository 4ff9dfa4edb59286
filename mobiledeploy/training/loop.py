"""The training loop: labelled uint8 images and a network in, trained weights out.

It is tf_keras's own `fit`, over tf.data, under a tf.distribute strategy. What is added: every epoch
ends in a checkpoint that a later process goes on from; order, augmentation and dropout of an epoch
depend on the seed and its number only, so that a run that was broken off ends where an unbroken one
does; and the network is judged by the weights that would be kept, averaged ones where asked for.

`build` makes the network that is trained, `finish` what is kept of it.
"""

from __future__ import annotations

import math
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from mobiledeploy.core import inputs, records, runs
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import ARCHITECTURES, COMPRESSIONS, source_of
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    Epoch,
    Model,
    ModelSpec,
    Preprocessing,
    Schedule,
    Source,
    TrainingSettings,
)
from mobiledeploy.frameworks import loading, tracing
from mobiledeploy.frameworks import tf_keras as keras2
from mobiledeploy.training import windows

INIT_STDDEV = 0.09
"""Of the truncated normal that fresh kernels are drawn from, as in TF-slim's MobileNets."""

SMALLEST_CROP = 0.875
"""Training sees a random window of each image, at least this share of either side."""

JITTER = 0.125
"""Brightness and contrast change by at most this share."""

MEMORY_SHARE = 0.005
LEAST_MEMORY = 10
"""Moving averages remember this share of the run at most, and at least so many steps, or a tenth
of a run that is shorter still: what an average started from, it must forget.

A momentum m remembers 1 / (1 - m) steps. The paper's 0.9997, made for a million of them, remembers
more than 3,000: a short run would be judged by statistics that it has long left behind. (On
the built-in images at 64, with a memory of 780 steps, v1 0.25 named 36 % rightly in
training and 15 % in validation after epoch 8; with 250 steps it was 31 %.)
"""

EMA_MOMENTUM = 0.9999
"""Of the average of the weights, as TF-slim has it; bounded by the run's length like the others."""

WARMUP_SHARE = 0.05
"""Share of a cosine schedule's steps in which the learning rate rises."""

TEMPERATURE = 4.0
SOFT_SHARE = 0.9
"""Distillation: (1 - SOFT_SHARE) * H(label, p) + SOFT_SHARE * T^2 * KL(q_T || p_T), where p_T and
q_T are student and teacher softened by the temperature T. G. Hinton et al. 2015, Distilling the
Knowledge in a Neural Network, section 2, https://arxiv.org/abs/1503.02531."""

DEAD_RANGE = 1e-4
DEAD_IMAGES = 256
"""A channel whose values lie this close together (relative to the larger of 1 and the largest),
over all positions of so many images, is dead."""

JUDGED_AT_ONCE = 50
SECONDS_BETWEEN_NEWS = 0.2


@dataclass(frozen=True)
class LabelledImages:
    """uint8 [N, H, W, 3] in the model's channel order (memory-mapped or not), int64 labels [N]."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What is trained on what.

    Args:
        spec: the network, and how pixels are scaled.
        settings: how it is trained.
        train: images that it is fitted to.
        validation: images that it is judged by after each epoch.
        init: Keras 2 HDF5 weights to start from, None for fresh ones.
        teacher: the model to be distilled, None for none.
        state: folder that checkpoints are written to.
        resume: folder that they are read from, where another process writes them.
        tensorboard: folder of event files, None for none.
    """

    spec: ModelSpec
    settings: TrainingSettings
    train: LabelledImages
    validation: LabelledImages
    init: Path | None
    teacher: Source | None
    state: Path
    resume: Path
    tensorboard: Path | None


def train(
    task: Task,
    history: tuple[Epoch, ...],
    *,
    reporter: Reporter,
    commit: Callable[[tuple[Epoch, ...]], None],
) -> dict[str, int]:
    """Trains to the last epoch of the settings.

    Args:
        task: see `Task`.
        history: the epochs that lie behind a checkpoint in `task.resume`.
        reporter: is told of steps and epochs.
        commit: takes the history after each epoch, when its checkpoint (`checkpoint_name`) and, if
            it is the best so far, its weights (`best_name`) stand in `task.state`; what it has
            written, a later call goes on from.

    Returns:
        Dead channels of the kept weights, see `dead_channels`.

    Raises:
        InputError: weights or a teacher that do not fit, or a loss that is no longer finite.
        UsageError: a batch that the replicas cannot share.
        DeployError: another worker is gone.
    """
    settings = task.settings
    strategy = _strategy(settings, len(task.train.labels))
    tf_keras.utils.set_random_seed(settings.seed)
    steps = steps_per_epoch(len(task.train.labels), settings.batch)
    try:
        _begin_together(strategy, len(history))
        with strategy.scope():
            network = compressed(task, build(task, steps, reporter), steps)
            learner = _learner(task, network, steps)
        keeper = _Keeper(task, network, learner.optimizer, history, reporter, commit, steps)
        _fit(task, learner, keeper, strategy, steps)
        return finish(task, keeper.history)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise DeployError(
            f"the training broke off: {loading.first_line(error)}",
            "is another worker gone? start the same command on every worker again",
        ) from error


def steps_per_epoch(images: int, batch: int) -> int:
    """Full batches of an epoch; the images of a last, smaller one have their turn another time.

    Order changes from epoch to epoch. A small batch would spoil the moving statistics.
    """
    return max(1, images // batch)


def checkpoint_name(epoch: int) -> str:
    """Stem of the files that hold network and optimizer after an epoch."""
    return f"epoch-{epoch:04}"


def best_name(epoch: int) -> str:
    """File of the weights to be kept, by the epoch that they are of."""
    return f"best-{epoch:04}.h5"


def build(task: Task, steps: int, reporter: Reporter) -> tf_keras.Model:
    """The network as it will be trained: its first weights, frozen parts, moving statistics."""
    network = _architecture(task.spec, task.spec.classes)
    if task.init is None:
        _initialise(network, task.settings.seed)
    else:
        load(network, task.spec, task.init, reporter)
    if task.settings.frozen:
        for layer in network.layers:
            # A frozen batch normalisation normalises as in inference.
            layer.trainable = layer is _classifier(network)
    momentum = bounded(task.settings.schedule.bn_momentum, task.settings.epochs * steps)
    for layer in network.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = momentum
    return network


def compressed(task: Task, network: tf_keras.Model, steps: int) -> tf_keras.Model:
    """The network in the wrappers of a compression, where the settings ask for one."""
    if task.settings.compression is None:
        return network
    name, amount = task.settings.compression
    model = Model("tf_keras", network)
    return COMPRESSIONS.load(name).wrap(model, amount, task.settings.epochs * steps).handle


def _plain(task: Task, network: tf_keras.Model) -> tf_keras.Model:
    """The network without such wrappers."""
    if task.settings.compression is None:
        return network
    name, _ = task.settings.compression
    return COMPRESSIONS.load(name).strip(Model("tf_keras", network)).handle


def finish(task: Task, history: Sequence[Epoch]) -> dict[str, int]:
    """Looks at the weights that are kept: see `dead_channels`."""
    network = _architecture(task.spec, task.spec.classes)
    network.load_weights(best_file(task, history))
    return dead_channels(network, task.validation, task.spec.preprocessing)


def best_file(task: Task, history: Sequence[Epoch]) -> Path:
    """The weights that are kept, where this process wrote them or went on from them."""
    name = best_name(runs.best(history, task.settings).number)
    own = task.state / name
    return own if own.is_file() else task.resume / name


def bounded(momentum: float, steps: int) -> float:
    """A moving average's momentum in a run of so many steps: see `MEMORY_SHARE`."""
    memory = max(2, min(LEAST_MEMORY, steps / 10), steps * MEMORY_SHARE)
    return min(momentum, 1 - 1 / memory)


def load(network: tf_keras.Model, spec: ModelSpec, path: Path, reporter: Reporter) -> None:
    """Sets `network`'s weights from a Keras 2 HDF5 file, layer by name.

    The classifier stays as it is where the file is of another number of classes, which is said.
    InputError where anything else does not fit.
    """
    classes = _classes(path)
    if classes in (None, spec.classes):
        keras2.load_weights(network, path, alpha=spec.alpha)
        return
    twin = _architecture(spec, classes)
    keras2.load_weights(twin, path, alpha=spec.alpha)
    for layer in network.layers:
        if layer is not _classifier(network):
            layer.set_weights(twin.get_layer(layer.name).get_weights())
    reporter.say(
        f"{path.name} knows {classes} classes, the data {spec.classes}: "
        f"{_classifier(network).name} starts fresh"
    )


def dead_channels(
    network: tf_keras.Model, examples: LabelledImages, preprocessing: Preprocessing
) -> dict[str, int]:
    """Channels per depthwise layer that answer the same to everything; layers without are left out.

    They are looked at behind the layer's batch normalisation and activation, over
    `DEAD_PICTURES` images. Where a depthwise kernel has decayed to nothing, or its
    activation never leaves zero, the channel costs time and scales in int8, and does nothing.
    """
    layers = [x for x in network.layers if isinstance(x, tf_keras.layers.DepthwiseConv2D)]
    if not layers:
        return {}
    ends = tf_keras.Model(network.inputs, [_behind(layer).output for layer in layers])

    @tf.function
    def extremes(batch: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        answers = ends(batch, training=False)
        answers = answers if isinstance(answers, list) else [answers]
        return [(tf.reduce_min(a, [0, 1, 2]), tf.reduce_max(a, [0, 1, 2])) for a in answers]

    lows: list[Any] = [np.inf] * len(layers)
    highs: list[Any] = [-np.inf] * len(layers)
    few = LabelledImages(examples.images[:DEAD_IMAGES], examples.labels[:DEAD_IMAGES])
    for batch, _ in judged(few, preprocessing, network.output_shape[-1]):
        for index, (low, high) in enumerate(extremes(batch)):
            lows[index] = np.minimum(lows[index], low)
            highs[index] = np.maximum(highs[index], high)
    dead = {
        layer.name: int(np.sum(high - low <= DEAD_RANGE * np.maximum(1, np.abs(high))))
        for layer, low, high in zip(layers, lows, highs, strict=True)
    }
    return {name: count for name, count in dead.items() if count}


def _behind(layer: Any) -> Any:
    """The last of the normalisations and activations that follow `layer` and nothing else does."""
    kinds = (
        tf_keras.layers.BatchNormalization,
        tf_keras.layers.ReLU,
        tf_keras.layers.Activation,
    )
    while True:
        following = {id(node.outbound_layer): node.outbound_layer for node in layer.outbound_nodes}
        if len(following) != 1 or not isinstance(following[next(iter(following))], kinds):
            return layer
        layer = next(iter(following.values()))


# --- images -----------------------------------------------------------------------------


def batches(
    examples: LabelledImages,
    preprocessing: Preprocessing,
    classes: int,
    settings: TrainingSettings,
    *,
    first: int = 0,
    pipeline: tuple[int, int] = (0, 1),
    replicas: int = 1,
) -> tf.data.Dataset:
    """Augmented batches of the epochs from `first` (counted from 0) to the last, end to end.

    Args:
        examples: all of them, on every worker.
        preprocessing: how pixels are scaled.
        classes: width of the one-hot labels.
        settings: seed, batch and number of epochs.
        first: the epoch that is begun with.
        pipeline: (which, of how many) input pipelines this is: a worker's own.
        replicas: of the network, over all pipelines; each gets its part of a batch.

    Returns:
        (float32 [batch / replicas, H, W, 3], float32 [batch / replicas, classes]).
    """
    count = len(examples.labels)
    batch = min(settings.batch, count)
    steps = steps_per_epoch(count, batch)
    own = replicas // pipeline[1]
    begin = pipeline[0] * own

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(settings.seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), key)
        parts = tf.reshape(order[: steps * batch], (steps, replicas, batch // replicas))
        parts = tf.reshape(parts[:, begin : begin + own], (steps * own, batch // replicas))
        turns = tf.range(steps, dtype=tf.int64)[:, None] * replicas + tf.range(
            begin, begin + own, dtype=tf.int64
        )
        keys = number * steps * replicas + tf.reshape(turns, [-1])
        return tf.data.Dataset.from_tensor_slices((parts, keys))

    def augmented(indices: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _fetch(examples, indices)
        seed = tf.stack([tf.constant(settings.seed, tf.int64), key])
        images = _augmented(images, seed, batch // replicas)
        return _scaled(images, preprocessing), tf.one_hot(labels, classes)

    epochs = tf.data.Dataset.range(first, settings.epochs)
    return _alone(
        epochs.flat_map(epoch)
        .map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def judged(examples: LabelledImages, preprocessing: Preprocessing, classes: int) -> tf.data.Dataset:
    """All images once, in their order, as `core.preprocessing.prepare` scales them."""

    def plain(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _fetch(examples, indices)
        return _scaled(tf.cast(images, tf.float32), preprocessing), tf.one_hot(labels, classes)

    indices = tf.data.Dataset.range(len(examples.labels)).batch(JUDGED_AT_ONCE)
    return _alone(indices.map(plain, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2))


def _fetch(examples: LabelledImages, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """uint8 [B, H, W, 3] and int64 [B] out of the mapped file."""
    images = tf.numpy_function(
        lambda chosen: np.asarray(examples.images[chosen]), [indices], tf.uint8, stateful=False
    )
    images.set_shape((indices.shape[0], *examples.images.shape[1:]))
    return images, tf.gather(tf.constant(examples.labels), indices)


def _augmented(images: tf.Tensor, seed: tf.Tensor, count: int) -> tf.Tensor:
    """Windows of the images, half of them mirrored, in another light: float32 in [0, 255]."""
    dice = tf.random.stateless_uniform((6, count), seed)
    pixels = windows.drawn(images, dice[:4], SMALLEST_CROP)
    light = (2 * dice[4:] - 1)[:, :, None, None, None] * JITTER
    return tf.clip_by_value(pixels * (1 + light[0]) + light[1] * 255, 0, 255)


def _scaled(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Pixels 0..255 as `core.preprocessing.prepare` scales them, to the last bit or two."""
    low, high = preprocessing.input_range
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    factor, shift = (high - low) / 255 / std, (low - mean) / std
    return pixels * factor.astype(np.float32) + shift.astype(np.float32)


def _alone(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Shards are cut by hand: TensorFlow cannot look into a mapped file."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


# --- the network and its optimizer --------------------------------------------------------


def _begin_together(strategy: tf.distribute.Strategy, done: int) -> None:
    """UsageError where the workers have not the same number of epochs behind them."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    own = strategy.run(lambda: tf.constant([done]))
    begun = strategy.gather(own, axis=0).numpy()
    if len(set(begun.tolist())) > 1:
        raise UsageError(
            f"the workers have different epochs behind them ({', '.join(map(str, begun))})",
            "give all of them the same --out, in a folder that they share",
        )


def _strategy(settings: TrainingSettings, images: int) -> tf.distribute.Strategy:
    if settings.strategy == "none":
        return tf.distribute.get_strategy()
    kinds = {
        "mirrored": tf.distribute.MirroredStrategy,
        "multiworker": tf.distribute.MultiWorkerMirroredStrategy,
    }
    strategy = kinds[settings.strategy]()
    replicas = strategy.num_replicas_in_sync
    batch = min(settings.batch, images)
    if batch % replicas:
        what = f"--batch {batch}" if batch == settings.batch else f"a batch of all {batch} images"
        raise UsageError(
            f"{what} cannot be shared by {replicas} replicas",
            f"give a --batch that is a multiple of {replicas}, and no more than the images",
        )
    return strategy


_CONVOLUTIONS = (
    tf_keras.layers.Conv2D,
    tf_keras.layers.DepthwiseConv2D,
    tf_keras.layers.SeparableConv2D,
)
"""None of them is a subclass of another."""


def _architecture(spec: ModelSpec, classes: int | None) -> tf_keras.Model:
    return ARCHITECTURES.load(spec.architecture).build(
        **spec.arguments, resolution=spec.resolution, classes=classes
    )


def _initialise(network: tf_keras.Model, seed: int) -> None:
    """Kernels that batch normalisation follows, which have no bias, are drawn as TF-slim does."""
    index = 0
    for layer in network.layers:
        if isinstance(layer, _CONVOLUTIONS) and not layer.use_bias:
            # One for a convolution, depthwise or not, two for a separable one.
            for kernel in layer.weights:
                drawn = tf.random.stateless_truncated_normal(
                    kernel.shape, (seed, index), stddev=INIT_STDDEV
                )
                kernel.assign(drawn)
                index += 1


def _classifier(network: tf_keras.Model) -> Any:
    """The last layer with weights."""
    return [layer for layer in network.layers if layer.weights][-1]


def _classes(path: Path) -> int | None:
    """How many classes the last layer of a weights file ends in, None where that is not to see."""
    with (
        inputs.open_file(path) as stream,
        loading.refusing(f"{path} cannot be read"),
        h5py.File(stream, "r") as file,
    ):
        root = file.get("model_weights", file)
        layers = [root[name] for name in loading.names(root, "layer_names")]
        last = [layer for layer in layers if loading.names(layer, "weight_names")][-1:]
        if not last:
            return None
        weights = last[0][loading.names(last[0], "weight_names")[-1]]
        if not isinstance(weights, h5py.Dataset) or not weights.shape:
            raise InputError(f"{path} cannot be read: its last layer has no weights")
        return int(weights.shape[-1])


class _SteadyDropout(tf_keras.layers.Layer):
    """Dropout whose choice depends on seed, step, layer and replica only.

    Keras's own would choose otherwise in a process that goes on than in one that was not broken
    off.
    """

    def __init__(self, layer: Any, seed: int, optimizer: tf_keras.optimizers.Optimizer) -> None:
        super().__init__(name=layer.name)
        self._rate, self._seed = layer.rate, seed
        self._own = zlib.crc32(layer.name.encode())

        # Not the variable, which Keras would take for a weight of this layer.
        def step() -> tf.Tensor:
            return optimizer.iterations.read_value()

        self._step: Callable[[], tf.Tensor] = step

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """`inputs`, some of them zero while training."""
        if not training:
            return inputs
        key = tf.stack([tf.constant(self._seed, tf.int64), self._step()])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for more in (self._own, replica):
            key = tf.random.experimental.stateless_fold_in(key, more)
        return tf.nn.experimental.stateless_dropout(inputs, self._rate, key)


def decayed_kernels(network: tf_keras.Model) -> list[tf.Variable]:
    """Kernels that weight decay is for: all that are trained, but for depthwise ones."""
    found = []
    for layer in network.submodules:
        if isinstance(layer, tf_keras.layers.SeparableConv2D):
            kernel = layer.pointwise_kernel
        elif isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense):
            kernel = layer.kernel
        else:
            continue
        # Clustered weights are computed: what is trained is their centroids.
        if layer.trainable and isinstance(kernel, tf.Variable):
            found.append(kernel)
    return found


class _Learner(tf_keras.Model):
    """The network while it is trained: its loss has weight decay and a teacher in it."""

    kernels: Sequence[tf.Variable] = ()
    decay = 0.0
    ask: Callable[[tf.Tensor], tf.Tensor] | None = None

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None
    ) -> tf.Tensor:
        more = [self.decay * tf.nn.l2_loss(kernel) for kernel in self.kernels]
        if self.ask is not None:
            more.append(SOFT_SHARE * distance(self.ask(x), y_pred))
        return self.compiled_loss(y, y_pred, sample_weight, regularization_losses=more)


def distance(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """T^2 * KL(q_T || p_T), mean over a batch of softmax outputs [N, classes].

    Logits are known from a softmax up to a constant, which softening takes out again.
    """
    least = tf_keras.backend.epsilon()
    soft_q, soft_p = (
        tf.nn.log_softmax(tf.math.log(tf.maximum(scores, least)) / TEMPERATURE)
        for scores in (teacher, student)
    )
    divergence = tf.reduce_sum(tf.exp(soft_q) * (soft_q - soft_p), axis=-1)
    return TEMPERATURE**2 * tf.reduce_mean(divergence)


def _learner(task: Task, network: tf_keras.Model, steps: int) -> _Learner:
    settings = task.settings
    kernels = decayed_kernels(network)
    optimizer = _optimizer(settings, kernels, network, steps)

    def steady(layer: Any) -> Any:
        plain = type(layer) is tf_keras.layers.Dropout
        return _SteadyDropout(layer, settings.seed, optimizer) if plain else layer

    graph = tf_keras.models.clone_model(network, clone_function=steady)
    learner = _Learner(graph.inputs, graph.outputs)
    if settings.schedule.optimizer == "rmsprop":
        learner.kernels, learner.decay = kernels, settings.schedule.weight_decay
    hard = 1.0
    if task.teacher:
        learner.ask = _teacher(task.teacher, task.spec)
        hard = 1 - SOFT_SHARE
    learner.compile(
        optimizer,
        loss=tf_keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
        loss_weights=[hard],
        metrics=[tf_keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    return learner


def _teacher(teacher: Source, spec: ModelSpec) -> Callable[[tf.Tensor], tf.Tensor]:
    found = source_of(teacher).open(teacher)
    name = teacher.spec.name
    if found.network is None:
        raise InputError(f"the teacher {name} is no model of TensorFlow's", "give the Keras file")
    if found.classes != spec.classes:
        raise InputError(
            f"the teacher {name} knows {found.classes} classes, the data {spec.classes}",
            "a teacher must have learnt the same classes, in the same order",
        )
    if found.resolution != spec.resolution:
        height, width = found.resolution
        raise InputError(f"the teacher {name} takes {height}x{width} images only")
    ask, _ = tracing.inference(found.network)
    return ask


def _optimizer(
    settings: TrainingSettings,
    kernels: Sequence[tf.Variable],
    network: tf_keras.Model,
    steps: int,
) -> tf_keras.optimizers.Optimizer:
    schedule = settings.schedule
    rate = _rate(schedule, settings, steps)
    average = {
        "use_ema": settings.ema,
        "ema_momentum": bounded(EMA_MOMENTUM, settings.epochs * steps),
        "ema_overwrite_frequency": None,
    }
    if schedule.optimizer == "rmsprop":
        # As TF-slim trains MobileNets. Keras has epsilon beneath the root too, as TensorFlow 1 had.
        optimizer = tf_keras.optimizers.RMSprop(rate, rho=0.9, momentum=0.9, epsilon=1.0, **average)
    else:
        optimizer = tf_keras.optimizers.AdamW(rate, weight_decay=schedule.weight_decay, **average)
        decayed = {kernel.ref() for kernel in kernels}
        others = [v for v in network.trainable_variables if v.ref() not in decayed]
        optimizer.exclude_from_weight_decay(var_list=others)
    optimizer.build(network.trainable_variables)
    return optimizer


def _rate(schedule: Schedule, settings: TrainingSettings, steps: int) -> Any:
    peak = schedule.learning_rate * settings.batch / schedule.batch
    if schedule.decay_epochs:
        return tf_keras.optimizers.schedules.ExponentialDecay(
            peak, max(1, round(schedule.decay_epochs * steps)), schedule.decay, staircase=True
        )
    total = settings.epochs * steps
    warmup = round(total * WARMUP_SHARE)
    return tf_keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=total - warmup,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )


# --- the loop -----------------------------------------------------------------------------


def _fit(
    task: Task, learner: _Learner, keeper: _Keeper, strategy: tf.distribute.Strategy, steps: int
) -> None:
    done = len(keeper.history)
    if done >= task.settings.epochs:
        return

    def pipeline(context: Any) -> tf.data.Dataset:
        return batches(
            task.train,
            task.spec.preprocessing,
            task.spec.classes,
            task.settings,
            first=done,
            pipeline=(context.input_pipeline_id, context.num_input_pipelines),
            replicas=context.num_replicas_in_sync,
        )

    if task.settings.strategy == "none":
        data = pipeline(tf.distribute.InputContext())
    else:
        data = strategy.distribute_datasets_from_function(pipeline)
    name, _ = task.settings.compression or ("", 0)
    # Before the keeper, which wants the weights as they are to stay.
    own = COMPRESSIONS.load(name).callbacks() if name else ()
    learner.fit(
        data,
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=task.settings.epochs,
        callbacks=[*own, keeper, tf_keras.callbacks.TerminateOnNaN()],
        verbose=0,
    )


class _Keeper(tf_keras.callbacks.Callback):
    """Judges the network after each epoch, and keeps what a later process goes on from."""

    def __init__(
        self,
        task: Task,
        network: tf_keras.Model,
        optimizer: tf_keras.optimizers.Optimizer,
        history: tuple[Epoch, ...],
        reporter: Reporter,
        commit: Callable[[tuple[Epoch, ...]], None],
        steps: int,
    ) -> None:
        super().__init__()
        self.history = history
        self._task, self._network, self._optimizer = task, network, optimizer
        self._reporter, self._commit, self._steps = reporter, commit, steps
        self._checkpoint = tf.train.Checkpoint(network=network, optimizer=optimizer)
        # With variables of its own: outside of a strategy, every worker can read and save them.
        self._kept = _architecture(task.spec, task.spec.classes)
        self._judge = tf.function(_judgement(self._kept))
        self._validation = judged(task.validation, task.spec.preprocessing, task.spec.classes)
        folder = task.tensorboard
        self._events = tf.summary.create_file_writer(str(folder)) if folder else None
        self._started = self._told = 0.0
        if history:
            self._restore(task.resume / checkpoint_name(len(history)))

    def _restore(self, path: Path) -> None:
        with loading.refusing(f"the checkpoint {path} cannot be read", tf.errors.OpError):
            self._checkpoint.read(str(path)).assert_existing_objects_matched()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Takes the time."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tells of steps, now and then."""
        now = time.perf_counter()
        if now - self._told > SECONDS_BETWEEN_NEWS or batch + 1 == self._steps:
            self._told = now
            what = f"epoch {len(self.history) + 1} of {self._task.settings.epochs}"
            self._reporter.progress(what, batch + 1, self._steps)

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        """Judges, keeps, and only then commits."""
        seconds = time.perf_counter() - self._started
        number = epoch + 1
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"the loss is no longer finite in epoch {number}",
                "train with a smaller --batch, which has a smaller learning rate, "
                "or --schedule finetune",
            )
        self._take()
        sums = np.zeros(2)
        for images, labels in self._validation:
            sums += np.asarray(self._judge(images, labels))
        validation_loss, top1 = sums / len(self._task.validation.labels)
        seen = self._steps * min(self._task.settings.batch, len(self._task.train.labels))
        result = Epoch(
            number=number,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]),
            validation_loss=float(validation_loss),
            top1=float(top1),
            learning_rate=float(tf_keras.backend.get_value(self._optimizer.learning_rate)),
            seconds=seconds,
            images_per_second=seen / seconds,
        )
        history = (*self.history, result)
        if runs.best(history, self._task.settings) is result:
            save_weights(self._kept, self._task.state / best_name(number))
        self._checkpoint.write(str(self._task.state / checkpoint_name(number)))
        self._commit(history)
        self.history = history
        self._clear()
        if self._events:
            _write_events(self._events, result)

    def _take(self) -> None:
        """The weights as they would be kept: averaged ones, where the optimizer has an average."""
        variables = self._network.trainable_variables
        trained = [variable.numpy() for variable in variables]
        self._optimizer.finalize_variable_values(variables)
        self._kept.set_weights(_plain(self._task, self._network).get_weights())
        if self._task.settings.ema:
            for variable, value in zip(variables, trained, strict=True):
                variable.assign(value)

    def _clear(self) -> None:
        """Removes what the last commit made superfluous."""
        best = runs.best(self.history, self._task.settings)
        kept = (checkpoint_name(len(self.history)), best_name(best.number))
        for path in self._task.state.iterdir():
            ours = path.name.startswith(("epoch-", "best-"))
            if ours and not path.name.startswith(kept):
                path.unlink()


def _judgement(network: tf_keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """(images, one-hot labels) -> sums over the batch: [cross-entropy, number named rightly]."""

    def judge(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        scores = network(images, training=False)
        losses = tf_keras.losses.categorical_crossentropy(labels, scores)
        hits = tf_keras.metrics.categorical_accuracy(labels, scores)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(hits)])

    return judge


def _write_events(writer: tf.summary.SummaryWriter, epoch: Epoch) -> None:
    """The epoch's numbers for TensorBoard; Keras's own callback would need it installed."""
    scalars = tf.compat.v1.SummaryMetadata(
        plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
    )
    with writer.as_default(step=epoch.number):
        for name, value in vars(epoch).items():
            if isinstance(value, float):
                tf.summary.write(name, tf.constant(value), metadata=scalars)
    writer.flush()


def save_weights(network: tf_keras.Model, path: Path) -> None:
    """Write the weights, without the optimizer's state, as Keras HDF5 that loads by name.

    The file is written aside and then renamed: `path` never holds half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
        part = Path(aside) / "weights.h5"
        network.save_weights(part, save_format="h5")
        records.put(part, path)
