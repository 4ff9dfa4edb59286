"""Loads wrapped models of TensorFlow's optimization toolkit, and removes the wrappers.

Quantization-aware training, pruning and clustering wrap each layer. Each has its own function for
removing the wrappers; for quantization there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import tf_keras

_WRAPPERS = ("QuantizeWrapper", "PruneLowMagnitude", "ClusterWeights")


def wrappers(configuration: str) -> tuple[str, ...]:
    """The toolkit's wrappers that a model's configuration names."""
    return tuple(name for name in _WRAPPERS if name in configuration)


@contextmanager
def scope(names: Sequence[str]) -> Iterator[None]:
    """A context in which Keras can load a model with these wrappers."""
    with ExitStack() as stack:
        if names:
            # Imported only if needed, since it takes seconds.
            import tensorflow_model_optimization as tfmot

            scopes = {
                "QuantizeWrapper": tfmot.quantization.keras.quantize_scope,
                "PruneLowMagnitude": tfmot.sparsity.keras.prune_scope,
                "ClusterWeights": tfmot.clustering.keras.cluster_scope,
            }
            for name in names:
                stack.enter_context(scopes[name]())
        yield


def strip(model: Any, names: Sequence[str]) -> Any:
    """The model without these wrappers, with its trained weights."""
    if not names:
        return model
    import tensorflow_model_optimization as tfmot

    if "PruneLowMagnitude" in names:
        model = tfmot.sparsity.keras.strip_pruning(model)
    if "ClusterWeights" in names:
        model = tfmot.clustering.keras.strip_clustering(model)
    if "QuantizeWrapper" in names:
        model = _without_fake_quantization(model)
    return model


def _without_fake_quantization(model: Any) -> Any:
    """A model of quantization-aware training in floats.

    The weights are the unrounded ones of the training; activations are no longer rounded.
    """

    def plain(layer: Any) -> Any:
        kind = type(layer).__name__
        if kind == "QuantizeLayer":
            return tf_keras.layers.Activation("linear", name=layer.name)
        if not kind.startswith("QuantizeWrapper"):
            return layer.__class__.from_config(layer.get_config())
        inner = layer.layer
        # The wrapper has replaced it by its own.
        activation: Any = getattr(inner, "activation", None)
        if type(activation).__name__ == "QuantizeAwareActivation":
            inner.activation = activation.activation
        return inner.__class__.from_config(inner.get_config())

    clone = tf_keras.models.clone_model(model, clone_function=plain)
    sources = [layer for layer in model.layers if not _is_input(layer)]
    targets = [layer for layer in clone.layers if not _is_input(layer)]
    for source, target in zip(sources, targets, strict=True):
        weights_by_role = {_role(weight): weight for weight in source.weights}
        target.set_weights([weights_by_role[_role(weight)].numpy() for weight in target.weights])
    return clone


def _is_input(layer: Any) -> bool:
    return isinstance(layer, tf_keras.layers.InputLayer)


def _role(weight: Any) -> str:
    """The role of a weight in its layer: kernel, bias, moving_mean."""
    return str(weight.name.rpartition("/")[2])
