"""Quantization-aware training: the integers learn the answers of the float network.

The int8 network is computed in real values with every tensor rounded to its grid (see
`training/fake_quantization.py`), BatchNorms folded and frozen as in the file, and its weights and
biases follow the gradient of

    KL(softmax(z / T) || softmax(z^ / T))   over images, windows of them and mirrored ones,

where z are the logits of the float network, z^ those of the integers, and T a temperature that
softens the float network's answers (see `analysis.accuracy.temperature`): distillation from the
network itself (G. Hinton et al. 2015, https://arxiv.org/abs/1503.02531; A. Mishra, D. Marr 2017,
Apprentice, https://arxiv.org/abs/1711.05852; quantization-aware training as in B. Jacob et al.
2018, https://arxiv.org/abs/1712.05877, section 3). No labels are needed, and the network learns
only from the float one.

It starts from the integers of the earlier passes, with calibrated ranges instead of +-6, so a few
hundred steps are enough. Scales stay the same. Weights change in units of their own codes, biases
in those of their layer's output, so one learning rate fits every layer. Zero weights of the float
network stay zero, and layers of clustered weights keep their weights: only their biases are
trained.

It works on the file and not on Keras layers: every network that converts to int8 can be trained,
whatever its framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import execution, matrices, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.graphs.matrices import WeightedOp
from mobiledeploy.training import windows
from mobiledeploy.training.fake_quantization import FakeQuantization, on_grid

PRESERVES = False

STEPS = 64
"""The number of batches of one application."""
BATCH = 32
LEARNING_RATE = 0.01
"""Adam's learning rate in codes per step, in the first application; it falls along a cosine."""
FALL = 0.4
"""The learning rate of each further application, relative to the one before."""
SMALLEST_WINDOW = 0.875
_EPSILON = 1e-14
_TEMPERATURE_IMAGES = 256
"""The number of images for the temperature."""
_SEED = 20171215


def apply(
    quantized_graph: QuantizedGraph, images: NDArray[np.float32], progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph after `STEPS` steps on `images` [N, H, W, 3] float32, shuffled."""
    floats, integers = Graph(quantized_graph.floats), Graph(quantized.integers(quantized_graph))
    layers = [
        _TrainedLayer(
            integers,
            ours,
            theirs,
            matrices.largest_code(ours, quantized_graph.recipe),
            quantized_graph.latent,
        )
        for ours, theirs in matrices.pairs(integers, floats)
    ]
    if not layers:
        raise InputError("the model has no int8 weights to train")
    rate = LEARNING_RATE * FALL**quantized_graph.trained
    warm = accuracy.temperature(
        execution.logits(quantized_graph.floats, np.asarray(images[:_TEMPERATURE_IMAGES]))
    )
    step = _stepper(FakeQuantization(floats), FakeQuantization(integers), layers, rate, warm)
    for number, batch in enumerate(_batches(images, quantized_graph.trained)):
        loss = float(step(batch, tf.constant([_SEED + quantized_graph.trained, number], tf.int64)))
        if not np.isfinite(loss):
            raise InputError("the loss of quantization-aware training is not finite")
        progress("quantization-aware training", number + 1, STEPS)
    latent = {layer.name: layer.write() for layer in layers}
    return dataclasses.replace(
        quantized_graph,
        integers=integers.pack(),
        trained=quantized_graph.trained + 1,
        latent=latent,
    )


class _TrainedLayer:
    """One operator's weights in codes, and the change of its bias in codes of its output."""

    def __init__(
        self,
        graph: Graph,
        ours: WeightedOp,
        theirs: WeightedOp,
        limit: int,
        latent: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self._graph, self._ours, self._limit = graph, ours, limit
        self.name = ours.name
        codes = graph.constant_values(ours.weights)
        floats = theirs.graph.constant_values(theirs.weights)
        self._scales = graph.broadcast_scales(ours.weights).astype(np.float32)
        self._free = np.broadcast_to(0.0 if theirs.is_clustered else floats != 0, codes.shape)
        # A weight starts in the middle of its code and needs many steps in one direction to leave
        # it: the noise of a short training does not change good codes.
        self._codes = tf.Variable(latent.get(ours.name, codes.astype(np.float32)))
        self._bias: NDArray[np.float64] | None = None
        if ours.bias >= 0:
            self._bias = graph.constant_values(ours.bias) * graph.scale(ours.bias)[0]
            self._step = np.float32(graph.scale(int(ours.op.outputs[0]))[0][0])
        self._shift = tf.Variable(np.zeros(ours.outputs, np.float32))

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """The trained variables."""
        return (self._codes, self._shift) if self._bias is not None else (self._codes,)

    def gradients(self, gradients_: Sequence[Any]) -> list[Any]:
        """The gradients of the variables; those of fixed weights are zero."""
        return [gradients_[0] * tf.constant(self._free, tf.float32), *gradients_[1:]]

    def values(self) -> dict[tuple[int, int], Any]:
        """The operator's constants, by number and place: real values on their grid."""
        number = self._ours.number
        values_ = {(number, 1): on_grid(self._codes, 1.0, -self._limit, self._limit) * self._scales}
        if self._bias is not None:
            values_[number, 2] = self._bias.astype(np.float32) + self._shift * self._step
        return values_

    def write(self) -> NDArray[np.float32]:
        """Writes weights and bias into the file; returns the unrounded weights."""
        codes = np.clip(np.round(self._codes.numpy()), -self._limit, self._limit)
        self._graph.replace_constant(self._ours.op, 1, codes.astype(np.int8))
        if self._bias is not None:
            bias = self._bias + self._shift.numpy().astype(np.float64) * self._step
            self._ours.put_bias(self._ours.blocked(bias))
        return np.asarray(self._codes.numpy(), np.float32)


def _stepper(
    teacher: FakeQuantization,
    student: FakeQuantization,
    layers: Sequence[_TrainedLayer],
    rate: float,
    warm: float,
) -> Any:
    """(images [B, H, W, 3], seed [2]) -> divergence in nats: one step of the training."""
    decay = tf_keras.optimizers.schedules.CosineDecay(rate, STEPS)
    # Gradients with respect to codes are as small as the product of scales and divergences.
    optimizer = tf_keras.optimizers.Adam(decay, epsilon=_EPSILON)
    variables = [variable for layer in layers for variable in layer.variables]

    @tf.function
    def step(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        dice = tf.random.stateless_uniform((4, tf.shape(images)[0]), seed)
        windows_ = windows.random_windows(images, dice, SMALLEST_WINDOW)
        target = tf.nn.log_softmax(teacher.logits(windows_, {}) / warm)
        with tf.GradientTape() as tape:
            values = {place: value for layer in layers for place, value in layer.values().items()}
            answer = tf.nn.log_softmax(student.logits(windows_, values) / warm)
            each = tf.reduce_sum(tf.exp(target) * (target - answer), axis=-1)
            loss = tf.reduce_mean(each)
        nested = [layer.variables for layer in layers]
        gradients = [
            gradient
            for layer, own in zip(layers, tape.gradient(loss, nested), strict=True)
            for gradient in layer.gradients(own)
        ]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return step


def _batches(images: NDArray[np.float32], turn: int) -> Iterator[NDArray[np.float32]]:
    """`STEPS` batches in an order for this turn; no image is repeated before all were used."""
    dice = np.random.Generator(np.random.PCG64([_SEED, turn]))
    order: list[int] = []
    for _ in range(STEPS):
        while len(order) < BATCH:
            order += dice.permutation(len(images)).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        yield np.asarray(images[np.sort(batch)])
