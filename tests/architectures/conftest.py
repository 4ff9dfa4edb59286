"""Counts, changes and comparisons of a Keras model of any architecture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from mobiledeploy.frameworks import tf_keras as framework


class Network:
    """A Keras model under test."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def parameters(self) -> int:
        """What training changes: moving statistics are not counted."""
        return sum(math.prod(weight.shape) for weight in self.model.trainable_weights)

    @property
    def mult_adds(self) -> int:
        """Weights of each kernel times the positions that it is applied at, without biases."""
        total = 0
        for layer in self.model.layers:
            kernels = [w for w in layer.weights if "kernel" in w.name.rpartition("/")[2]]
            positions = math.prod(layer.output_shape[1:-1]) if kernels else 0
            total += positions * sum(math.prod(kernel.shape) for kernel in kernels)
        return total

    @property
    def lambdas(self) -> list[str]:
        """Layers that hold a bare tensor operation, which QAT cannot wrap."""
        return [layer.name for layer in self.model.layers if "Lambda" in type(layer).__name__]

    def randomise(self) -> None:
        """Weights that keep the size of activations; batch statistics are not the identity."""
        random = np.random.default_rng(0)
        for weight in self.model.weights:
            shape = tuple(weight.shape)
            if "kernel" in weight.name:
                inputs = math.prod(shape[:2] if "depthwise_kernel" in weight.name else shape[:-1])
                weight.assign(random.normal(0, (2 / inputs) ** 0.5, shape))
            elif "variance" in weight.name or "gamma" in weight.name:
                weight.assign(random.uniform(0.8, 1.2, shape))
            else:
                weight.assign(random.normal(0, 0.1, shape))

    def images(self, count: int) -> np.ndarray:
        """Noise of the model's own size."""
        shape = (count, *self.model.input_shape[1:])
        return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def still_after_a_step(self) -> list[str]:
        """The kernels that one training step on a CPU does not change.

        Kernels alone: what batch normalisation adds before a linear layer and the next batch
        normalisation has no gradient but rounding.
        """
        self.randomise()
        kernels = [weight for weight in self.model.trainable_weights if "kernel" in weight.name]
        before = [kernel.numpy() for kernel in kernels]
        self.model.compile("sgd", "sparse_categorical_crossentropy")
        assert np.isfinite(self.model.train_on_batch(self.images(4), np.arange(4) % 2))
        return [
            kernel.name
            for kernel, old in zip(kernels, before, strict=True)
            if np.array_equal(kernel.numpy(), old)
        ]

    def takes_weights_of(self, published: Any, path: Path) -> None:
        """A file of the `published` model's weights loads by name, and gives its answers."""
        Network(published).randomise()
        published.save_weights(path)
        framework.load_weights(self.model, path)
        ours, theirs = self.logits(), Network(published).logits()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())

    def logits(self) -> np.ndarray:
        """The answers to two images before the softmax, computed layer by layer.

        A softmax hides a difference of large logits and is a hundred times as wide as one of small
        ones; and a compiled graph fuses layers by its own rules, so that two of one network round
        differently, by more or less on another CPU. What is left are equal operations in an equal
        order: room for the rounding of float32, relative to the largest logit, is enough.
        """
        last = self.model.layers[-1]
        softmax, last.activation = last.activation, tf_keras.activations.linear
        logits: np.ndarray = self.model(self.images(2), training=False).numpy()
        last.activation = softmax
        return logits


@pytest.fixture
def network() -> type[Network]:
    """The class, since tests cannot import each other's files."""
    return Network
