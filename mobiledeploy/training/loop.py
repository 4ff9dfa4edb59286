"""The training loop: annotated uint8 images and a network in, trained weights out.

It is tf_keras's own `fit` over tf.data under a tf.distribute strategy. What a network of a task
learns from, and by which loss, says the task's file of `objectives/`; how good it is, that of
`tasks/`.

It adds three things: every epoch ends in a checkpoint, from which a later process can resume;
order, augmentation and dropout of an epoch depend only on the seed and its number, so that a
resumed run ends like an uninterrupted one; and the network is evaluated with the weights that would
be kept, averaged ones if requested. `build` makes the network for the training, `finish` checks the
kept weights.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras

from mobiledeploy.core import detectors, inputs, records, runs
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import ARCHITECTURES, COMPRESSIONS, OBJECTIVES, TASKS, source_of
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    Annotation,
    Epoch,
    Model,
    ModelSpec,
    Prediction,
    Preprocessing,
    Schedule,
    Source,
    TrainingSettings,
)
from mobiledeploy.frameworks import loading, tracing
from mobiledeploy.frameworks import tf_keras as keras2
from mobiledeploy.training import windows

INIT_STDDEV = 0.09
"""The standard deviation of the truncated normal for new kernels, as in TF-slim's MobileNets."""

SMALLEST_CROP = 0.875
"""Training sees a random window of each image, at least this share of either side."""

JITTER = 0.125
"""Brightness and contrast change by at most this share."""

MEMORY_SHARE = 0.005
LEAST_MEMORY = 10
"""The memory of moving averages: at most this share of the run, and at least so many steps, or a
tenth of a run that is shorter still; an average must forget its initial value.

A momentum m remembers 1 / (1 - m) steps. The paper's 0.9997, chosen for a million steps, remembers
more than 3,000: a short run would be evaluated with outdated statistics. (On the built-in images at
64, with a memory of 780 steps, v1 0.25 reached 36 % in training and 15 % in validation after epoch
8; with 250 steps 31 %.)
"""

EMA_MOMENTUM = 0.9999
"""The momentum of the weights' average, as in TF-slim.

Bounded by the run's length like the others.
"""

WARMUP_SHARE = 0.05
"""Share of a cosine schedule's steps in which the learning rate rises."""

TEMPERATURE = 4.0
SOFT_SHARE = 0.9
"""Distillation: (1 - SOFT_SHARE) * H(label, p) + SOFT_SHARE * T^2 * KL(q_T || p_T), where p_T and
q_T are student and teacher softened by the temperature T. G. Hinton et al. 2015, Distilling the
Knowledge in a Neural Network, section 2, https://arxiv.org/abs/1503.02531."""

DEAD_RANGE = 1e-4
DEAD_IMAGES = 256
"""A channel is dead if its values over all positions of so many images differ by at most this
(relative to the larger of 1 and the largest value)."""

JUDGED_AT_ONCE = 50
SECONDS_BETWEEN_NEWS = 0.2


@dataclass(frozen=True)
class LabelledImages:
    """uint8 [N, H, W, 3] in the model's channel order (memory-mapped or not), int64 labels [N].

    `annotations` are those of the images as the model sees them, for a task that needs more than
    labels; else they are empty.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    annotations: tuple[Annotation, ...] = ()

    def truth(self) -> tuple[Annotation, ...]:
        """What is true of each image."""
        return self.annotations or tuple(Annotation(int(label)) for label in self.labels)


@dataclass(frozen=True)
class TrainingTask:
    """A training: the network, its settings and its images.

    Args:
        spec: the network, and how pixels are scaled.
        settings: how it is trained.
        train: the training images.
        validation: the images for the evaluation after each epoch.
        init: Keras 2 HDF5 weights to start from, None for new ones.
        teacher: the teacher for distillation, None for none.
        state: folder for writing checkpoints.
        resume: folder for reading them, which differs if another process writes them.
        tensorboard: folder of event files, None for none.
        instructions: those of a plain network's int8 file, if they limit its channels.
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
    instructions: Callable[[Model], int] | None = None


def train(
    task: TrainingTask,
    history: tuple[Epoch, ...],
    *,
    reporter: Reporter,
    commit: Callable[[tuple[Epoch, ...]], None],
) -> dict[str, int]:
    """Trains to the last epoch of the settings.

    Args:
        task: see `TrainingTask`.
        history: the epochs before the checkpoint in `task.resume`.
        reporter: receives steps and epochs.
        commit: called with the history after each epoch, once its checkpoint (`checkpoint_name`)
            and, if it is the best so far, its weights (`best_name`) are in `task.state`; a later
            call resumes from what it wrote.

    Returns:
        Dead channels of the kept weights, see `dead_channels`.

    Raises:
        InputError: weights or a teacher that do not fit, or a loss that is not finite.
        UsageError: a batch that the replicas cannot share.
        DeployError: another worker is gone.
    """
    settings = task.settings
    strategy = _strategy(settings, len(task.train.labels))
    tf_keras.utils.set_random_seed(settings.seed)
    steps = steps_per_epoch(len(task.train.labels), settings.batch)
    try:
        _check_same_start(strategy, len(history))
        with strategy.scope():
            network = wrap_for_compression(task, build(task, steps, reporter), steps)
            learner = _learner(task, network, steps)
        keeper = _Keeper(task, network, learner.optimizer, history, reporter, commit, steps)
        _fit(task, learner, keeper, strategy, steps)
        return finish(task, keeper.history)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise DeployError(
            f"the training broke off: {loading.first_line(error)}",
            "if another worker is gone, start the same command on every worker again",
        ) from error


def steps_per_epoch(images: int, batch: int) -> int:
    """Full batches of an epoch; a last, smaller batch is left out.

    The order changes from epoch to epoch, so its images are used in another one. A small batch
    would disturb the moving statistics.
    """
    return max(1, images // batch)


def checkpoint_name(epoch: int) -> str:
    """Stem of the files that hold network and optimizer after an epoch."""
    return f"epoch-{epoch:04}"


def best_name(epoch: int) -> str:
    """The file name of the best weights, by their epoch."""
    return f"best-{epoch:04}.h5"


def build(task: TrainingTask, steps: int, reporter: Reporter) -> tf_keras.Model:
    """The network for the training: its initial weights, frozen parts, moving statistics."""
    network = _architecture(task.spec, task.spec.classes)
    loaded: Collection[str] = ()
    if task.init is None or task.spec.task != "classification":
        _initialise(network, task.settings.seed)
    if task.init is not None:
        loaded = load(network, task.spec, task.init, reporter)
    if task.settings.frozen:
        for layer in network.layers:
            # A frozen batch normalisation works as in inference.
            layer.trainable = layer.name not in loaded
    momentum = bounded_momentum(task.settings.schedule.bn_momentum, task.settings.epochs * steps)
    for layer in network.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = momentum
    return network


def wrap_for_compression(task: TrainingTask, network: tf_keras.Model, steps: int) -> tf_keras.Model:
    """The network in the wrappers of a compression, if the settings have one."""
    if task.settings.compression is None:
        return network
    name, amount = task.settings.compression
    shelf, model = COMPRESSIONS.load(name), Model("tf_keras", network)
    return shelf.wrap(model, amount, task.settings.epochs * steps, task.instructions).handle


def _plain(task: TrainingTask, network: tf_keras.Model) -> tf_keras.Model:
    """The network without such wrappers."""
    if task.settings.compression is None:
        return network
    name, _ = task.settings.compression
    return COMPRESSIONS.load(name).strip(Model("tf_keras", network)).handle


def finish(task: TrainingTask, history: Sequence[Epoch]) -> dict[str, int]:
    """Checks the kept weights: see `dead_channels`."""
    network = _architecture(task.spec, task.spec.classes)
    network.load_weights(best_file(task, history))
    return dead_channels(network, task.validation, task.spec.preprocessing)


def best_file(task: TrainingTask, history: Sequence[Epoch]) -> Path:
    """The file of the best weights, written by this process or by the one it resumed."""
    name = best_name(runs.best(history, task.settings).number)
    own = task.state / name
    return own if own.is_file() else task.resume / name


def bounded_momentum(momentum: float, steps: int) -> float:
    """A moving average's momentum in a run of `steps` steps: see `MEMORY_SHARE`."""
    memory = max(2, min(LEAST_MEMORY, steps / 10), steps * MEMORY_SHARE)
    return min(momentum, 1 - 1 / memory)


def load(
    network: tf_keras.Model, spec: ModelSpec, path: Path, reporter: Reporter
) -> frozenset[str]:
    """Sets `network`'s weights from a Keras 2 HDF5 file, by layer name.

    The classifier stays unchanged if the file has another number of classes; that is reported.
    A network of another task takes what the file has for its layers, as that of a classifier for a
    detector's backbone.

    Returns:
        The names of the layers that keep their weights where only the rest is trained: all but the
        classifier.

    Raises:
        InputError: the file does not fit.
    """
    if spec.task != "classification":
        return _load_shared(network, spec, path, reporter)
    kept = frozenset(x.name for x in network.layers if x is not _classifier(network))
    classes = _classes(path)
    if classes in (None, spec.classes):
        keras2.load_weights(network, path, alpha=spec.alpha)
        return kept
    twin = _architecture(spec, classes)
    keras2.load_weights(twin, path, alpha=spec.alpha)
    for layer in network.layers:
        if layer is not _classifier(network):
            layer.set_weights(twin.get_layer(layer.name).get_weights())
    reporter.say(
        f"{path.name} has {classes} classes, the data {spec.classes}: "
        f"{_classifier(network).name} starts from new weights"
    )
    return kept


def _load_shared(
    network: tf_keras.Model, spec: ModelSpec, path: Path, reporter: Reporter
) -> frozenset[str]:
    """Sets the weights of the layers that the file has too, with as many numbers."""
    loaded = keras2.load_shared(network, path, alpha=spec.alpha)
    new = [x.name for x in network.layers if x.weights and x.name not in loaded]
    if new:
        reporter.say(
            f"{len(loaded)} layers start from {path.name}, {len(new)} from new weights: "
            f"{', '.join(new[:3])}{' ...' if len(new) > 3 else ''}"
        )
    return loaded


def dead_channels(
    network: tf_keras.Model, examples: LabelledImages, preprocessing: Preprocessing
) -> dict[str, int]:
    """The number of channels with constant output, for each depthwise layer that has any.

    The output is that of the layer's batch normalisation and activation, over `DEAD_IMAGES` images.
    If a depthwise kernel has decayed to zero, or its activation is always zero, the channel costs
    time and int8 precision without any effect.
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
    few = examples.images[:DEAD_IMAGES]
    for start in range(0, len(few), JUDGED_AT_ONCE):
        pixels = tf.cast(np.asarray(few[start : start + JUDGED_AT_ONCE]), tf.float32)
        batch = _scale(pixels, preprocessing)
        for index, (low, high) in enumerate(extremes(batch)):
            lows[index] = np.minimum(lows[index], low)
            highs[index] = np.maximum(highs[index], high)
    dead = {
        layer.name: int(np.sum(high - low <= DEAD_RANGE * np.maximum(1, np.abs(high))))
        for layer, low, high in zip(layers, lows, highs, strict=True)
    }
    return {name: count for name, count in dead.items() if count}


def _behind(layer: Any) -> Any:
    """The last of the normalisations and activations that alone follow `layer`."""
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
    spec: ModelSpec,
    settings: TrainingSettings,
    *,
    first: int = 0,
    pipeline: tuple[int, int] = (0, 1),
    replicas: int = 1,
) -> tf.data.Dataset:
    """Augmented batches of the epochs from `first` (counted from 0) to the last, in sequence.

    Args:
        examples: all of them, on every worker.
        spec: the network, its task and how pixels are scaled.
        settings: seed, batch and number of epochs.
        first: the first epoch.
        pipeline: (index, number) of the input pipelines; each worker has its own.
        replicas: the number of replicas over all pipelines; each gets its part of a batch.

    Returns:
        (float32 [batch / replicas, H, W, 3], what the objective of the task compares the outputs
        with; for classification float32 [batch / replicas, classes]).
    """
    objective = OBJECTIVES.load(spec.task)
    fetch = _fetcher(examples, objective.targets(examples, spec))
    count = len(examples.labels)
    batch = min(settings.batch, count)
    steps = steps_per_epoch(count, batch)
    own = replicas // pipeline[1]
    start_replica = pipeline[0] * own

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(settings.seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), key)
        parts = tf.reshape(order[: steps * batch], (steps, replicas, batch // replicas))
        parts = tf.reshape(
            parts[:, start_replica : start_replica + own], (steps * own, batch // replicas)
        )
        turns = tf.range(steps, dtype=tf.int64)[:, None] * replicas + tf.range(
            start_replica, start_replica + own, dtype=tf.int64
        )
        keys = number * steps * replicas + tf.reshape(turns, [-1])
        return tf.data.Dataset.from_tensor_slices((parts, keys))

    def augment(indices: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, Any]:
        images, targets = fetch(indices)
        seed = tf.stack([tf.constant(settings.seed, tf.int64), key])
        pixels, places = _augment(images, seed, batch // replicas)
        truth = objective.encoded(objective.moved(targets, places), spec)
        return _scale(pixels, spec.preprocessing), truth

    epochs = tf.data.Dataset.range(first, settings.epochs)
    return _alone(
        epochs.flat_map(epoch)
        .map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_batches(examples: LabelledImages, spec: ModelSpec) -> tf.data.Dataset:
    """All images once, in their order, scaled as in `core.preprocessing.prepare`."""
    objective = OBJECTIVES.load(spec.task)
    fetch = _fetcher(examples, objective.targets(examples, spec))

    def plain(indices: tf.Tensor) -> tuple[tf.Tensor, Any]:
        images, targets = fetch(indices)
        pixels = _scale(tf.cast(images, tf.float32), spec.preprocessing)
        return pixels, objective.encoded(targets, spec)

    indices = tf.data.Dataset.range(len(examples.labels)).batch(JUDGED_AT_ONCE)
    return _alone(indices.map(plain, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2))


def _fetcher(
    examples: LabelledImages, targets: Sequence[npt.NDArray[Any]]
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tuple[tf.Tensor, ...]]]:
    """Indices [B] -> uint8 [B, H, W, 3] from the mapped file, and a part [B, ...] of each target.

    The arrays are read in Python: a graph holds 2 GB of constants at most.
    """
    arrays = (examples.images, *targets)

    def read(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        return [np.asarray(array[rows]) for array in arrays]

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        types = [tf.as_dtype(array.dtype) for array in arrays]
        images, *parts = tf.numpy_function(read, [indices], types, stateful=False)
        for part, array in zip((images, *parts), arrays, strict=True):
            part.set_shape((indices.shape[0], *array.shape[1:]))
        return images, tuple(parts)

    return fetch


def _augment(images: tf.Tensor, seed: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Windows of the images, half of them mirrored, with changed light, and where they are.

    float32 in [0, 255], and the windows as `windows.places` gives them.
    """
    dice = tf.random.stateless_uniform((6, count), seed)
    places = windows.places(dice[:4], SMALLEST_CROP)
    pixels = windows.cut(images, places)
    light = (2 * dice[4:] - 1)[:, :, None, None, None] * JITTER
    return tf.clip_by_value(pixels * (1 + light[0]) + light[1] * 255, 0, 255), places


def _scale(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Pixels 0..255 as `core.preprocessing.prepare` scales them, to the last bit or two."""
    low, high = preprocessing.input_range
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    factor, shift = (high - low) / 255 / std, (low - mean) / std
    return pixels * factor.astype(np.float32) + shift.astype(np.float32)


def _alone(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turns automatic sharding off: TensorFlow cannot split a mapped file."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


# --- the network and its optimizer --------------------------------------------------------


def _check_same_start(strategy: tf.distribute.Strategy, epochs: int) -> None:
    """UsageError if the workers have not finished the same number of epochs."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    own = strategy.run(lambda: tf.constant([epochs]))
    epochs_by_worker = strategy.gather(own, axis=0).numpy()
    if len(set(epochs_by_worker.tolist())) > 1:
        raise UsageError(
            "the workers have finished different numbers of epochs "
            f"({', '.join(map(str, epochs_by_worker))})",
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
    """Initialises kernels before a batch normalisation, which have no bias, as TF-slim does."""
    index = 0
    for layer in network.layers:
        if isinstance(layer, _CONVOLUTIONS) and not layer.use_bias:
            # One for a convolution, depthwise or not, two for a separable one.
            for kernel in layer.weights:
                values = tf.random.stateless_truncated_normal(
                    kernel.shape, (seed, index), stddev=INIT_STDDEV
                )
                kernel.assign(values)
                index += 1


def _classifier(network: tf_keras.Model) -> Any:
    """The last layer with weights."""
    return [layer for layer in network.layers if layer.weights][-1]


def _classes(path: Path) -> int | None:
    """The number of classes of the last layer of a weights file, None if that is not known."""
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
    """Dropout whose mask depends only on seed, step, layer and replica.

    Keras's own would choose other masks in a resumed process than in an uninterrupted one.
    """

    def __init__(self, layer: Any, seed: int, optimizer: tf_keras.optimizers.Optimizer) -> None:
        super().__init__(name=layer.name)
        self._rate, self._seed = layer.rate, seed
        self._own = zlib.crc32(layer.name.encode())

        # Not the variable itself, which Keras would count as a weight of this layer.
        def step() -> tf.Tensor:
            return optimizer.iterations.read_value()

        self._step: Callable[[], tf.Tensor] = step

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """`inputs`, some of them set to zero during training."""
        if not training:
            return inputs
        key = tf.stack([tf.constant(self._seed, tf.int64), self._step()])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for more in (self._own, replica):
            key = tf.random.experimental.stateless_fold_in(key, more)
        return tf.nn.experimental.stateless_dropout(inputs, self._rate, key)


def decayed_kernels(network: tf_keras.Model) -> list[tf.Variable]:
    """The kernels with weight decay: all trained ones except depthwise ones."""
    kernels = []
    for layer in network.submodules:
        if isinstance(layer, tf_keras.layers.SeparableConv2D):
            kernel = layer.pointwise_kernel
        elif isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense):
            kernel = layer.kernel
        else:
            continue
        # Clustered weights are computed from their centroids, which are trained.
        if layer.trainable and isinstance(kernel, tf.Variable):
            kernels.append(kernel)
    return kernels


class _Learner(tf_keras.Model):
    """The network during training: its loss includes weight decay and the teacher."""

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

    A softmax determines logits up to a constant, which the softening removes.
    """
    least = tf_keras.backend.epsilon()
    soft_q, soft_p = (
        tf.nn.log_softmax(tf.math.log(tf.maximum(scores, least)) / TEMPERATURE)
        for scores in (teacher, student)
    )
    divergence = tf.reduce_sum(tf.exp(soft_q) * (soft_q - soft_p), axis=-1)
    return TEMPERATURE**2 * tf.reduce_mean(divergence)


def _learner(task: TrainingTask, network: tf_keras.Model, steps: int) -> _Learner:
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
    objective = OBJECTIVES.load(task.spec.task)
    losses = list(objective.losses(settings))
    learner.compile(
        optimizer,
        loss=losses,
        loss_weights=[hard] * len(losses),
        metrics=list(objective.figures()),
    )
    return learner


def _teacher(teacher: Source, spec: ModelSpec) -> Callable[[tf.Tensor], tf.Tensor]:
    model = source_of(teacher).open(teacher)
    name = teacher.spec.name
    if model.network is None:
        raise InputError(f"the teacher {name} is not a TensorFlow model", "give the Keras file")
    image, *others = model.inputs
    if others or image.shape[2:] != (3,) or len(model.output_names) > 1:
        raise InputError(f"the teacher {name} is not a classifier of RGB images")
    if image.shape[:2] != spec.resolution:
        height, width = image.shape[:2]
        raise InputError(f"the teacher {name} takes {height}x{width} images only")
    ask, _ = tracing.inference(model.network)
    (answer,) = ask(tf.zeros((1, *image.shape)))
    if answer.shape != (1, spec.classes):
        raise InputError(
            f"the teacher {name} has {answer.shape[-1]} classes, the data {spec.classes}",
            "a teacher must have the same classes in the same order",
        )
    return lambda images: ask(images)[0]


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
        "ema_momentum": bounded_momentum(EMA_MOMENTUM, settings.epochs * steps),
        "ema_overwrite_frequency": None,
    }
    if schedule.optimizer == "rmsprop":
        # As TF-slim trains MobileNets. Keras adds epsilon inside the root too, as TensorFlow 1 did.
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
    task: TrainingTask,
    learner: _Learner,
    keeper: _Keeper,
    strategy: tf.distribute.Strategy,
    steps: int,
) -> None:
    first_epoch = len(keeper.history)
    if first_epoch >= task.settings.epochs:
        return

    def pipeline(context: Any) -> tf.data.Dataset:
        return batches(
            task.train,
            task.spec,
            task.settings,
            first=first_epoch,
            pipeline=(context.input_pipeline_id, context.num_input_pipelines),
            replicas=context.num_replicas_in_sync,
        )

    if task.settings.strategy == "none":
        data = pipeline(tf.distribute.InputContext())
    else:
        data = strategy.distribute_datasets_from_function(pipeline)
    name, _ = task.settings.compression or ("", 0)
    # Before the keeper, which needs the final weights of the epoch.
    own = COMPRESSIONS.load(name).callbacks() if name else ()
    learner.fit(
        data,
        steps_per_epoch=steps,
        initial_epoch=first_epoch,
        epochs=task.settings.epochs,
        callbacks=[*own, keeper, tf_keras.callbacks.TerminateOnNaN()],
        verbose=0,
    )


class _Keeper(tf_keras.callbacks.Callback):
    """Evaluates the network after each epoch, and saves the state for a later process."""

    def __init__(
        self,
        task: TrainingTask,
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
        # A copy with its own variables: outside of a strategy, every worker can read and save them.
        self._best_network = _architecture(task.spec, task.spec.classes)
        self._judge = _Judge(task, self._best_network)
        folder = task.tensorboard
        self._events = tf.summary.create_file_writer(str(folder)) if folder else None
        self._epoch_start = self._last_report = 0.0
        if history:
            self._restore(task.resume / checkpoint_name(len(history)))

    def _restore(self, path: Path) -> None:
        with loading.refusing(f"the checkpoint {path} cannot be read", tf.errors.OpError):
            self._checkpoint.read(str(path)).assert_existing_objects_matched()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._epoch_start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Reports steps now and then."""
        now = time.perf_counter()
        if now - self._last_report > SECONDS_BETWEEN_NEWS or batch + 1 == self._steps:
            self._last_report = now
            what = f"epoch {len(self.history) + 1} of {self._task.settings.epochs}"
            self._reporter.progress(what, batch + 1, self._steps)

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        """Evaluates, saves, and only then commits."""
        seconds = time.perf_counter() - self._epoch_start
        number = epoch + 1
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"the loss is no longer finite in epoch {number}",
                "train with a smaller --batch, which has a smaller learning rate, "
                "or --schedule finetune",
            )
        self._take()
        validation_loss, metrics = self._judge.figures()
        image_count = self._steps * min(self._task.settings.batch, len(self._task.train.labels))
        result = Epoch(
            number=number,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]) if "accuracy" in logs else None,
            validation_loss=validation_loss,
            top1=metrics.get("top1"),
            learning_rate=float(tf_keras.backend.get_value(self._optimizer.learning_rate)),
            seconds=seconds,
            images_per_second=image_count / seconds,
            metrics=metrics,
        )
        history = (*self.history, result)
        if runs.best(history, self._task.settings) is result:
            save_weights(self._best_network, self._task.state / best_name(number))
        self._checkpoint.write(str(self._task.state / checkpoint_name(number)))
        self._commit(history)
        self.history = history
        self._clear()
        if self._events:
            _write_events(self._events, result)

    def _take(self) -> None:
        """Copies the weights to keep: averaged ones if the optimizer has an average."""
        variables = self._network.trainable_variables
        values = [variable.numpy() for variable in variables]
        self._optimizer.finalize_variable_values(variables)
        self._best_network.set_weights(_plain(self._task, self._network).get_weights())
        if self._task.settings.ema:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _clear(self) -> None:
        """Removes files that the last commit made obsolete."""
        best = runs.best(self.history, self._task.settings)
        needed_names = (checkpoint_name(len(self.history)), best_name(best.number))
        for path in self._task.state.iterdir():
            is_ours = path.name.startswith(("epoch-", "best-"))
            if is_ours and not path.name.startswith(needed_names):
                path.unlink()


class _Judge:
    """A network on the validation images: the plain loss, and the figures of its task."""

    def __init__(self, task: TrainingTask, network: tf_keras.Model) -> None:
        self._task = TASKS.load(task.spec.task)
        self._truth = task.validation.truth()
        self._batches = validation_batches(task.validation, task.spec)
        anchors = detectors.anchors_of(task.spec)
        self._ends = detectors.with_anchors(keras2.outputs(network), anchors)
        plain = dataclasses.replace(task.settings, label_smoothing=0.0)
        losses = OBJECTIVES.load(task.spec.task).losses(plain)

        def ask(images: tf.Tensor, truth: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
            outputs = tf.nest.flatten(network(images, training=False))
            pairs = zip(losses, tf.nest.flatten(truth), outputs, strict=True)
            return tf.add_n([tf.reduce_sum(loss(y, answer)) for loss, y, answer in pairs]), outputs

        self._ask = tf.function(ask)

    def figures(self) -> tuple[float, dict[str, float]]:
        """The mean loss of an image, and the task's metrics by name."""
        loss = 0.0
        predictions: list[Prediction] = []
        for images, truth in self._batches:
            part, outputs = self._ask(images, truth)
            loss += float(part)
            arrays = [output.numpy() for output in outputs]
            predictions += [
                dataclasses.replace(
                    self._task.decode(sample, self._ends), sample=str(number).zfill(9)
                )
                for number, sample in enumerate(zip(*arrays, strict=True), len(predictions))
            ]
        metrics = self._task.metrics(predictions, self._truth)
        # Without a single annotation of a class a mean is not a number.
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        return loss / len(self._truth), finite


def _write_events(writer: tf.summary.SummaryWriter, epoch: Epoch) -> None:
    """The epoch's numbers for TensorBoard; Keras's own callback would need it installed."""
    scalars = tf.compat.v1.SummaryMetadata(
        plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
    )
    with writer.as_default(step=epoch.number):
        for name, value in (vars(epoch) | dict(epoch.metrics)).items():
            if isinstance(value, float):
                tf.summary.write(name, tf.constant(value), metadata=scalars)
    writer.flush()


def save_weights(network: tf_keras.Model, path: Path) -> None:
    """Write the weights, without the optimizer's state, as Keras HDF5 that loads by name.

    The file is written under another name and then renamed: `path` is never incomplete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
        part = Path(aside) / "weights.h5"
        network.save_weights(part, save_format="h5")
        records.put(part, path)
