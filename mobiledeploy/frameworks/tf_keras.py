"""Architectures as Keras 2 networks, and weights by layer name, as in Keras Applications."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tf_keras

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.types import Activation, Model, ModelOutput, ModelSpec
from mobiledeploy.frameworks import loading
from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from mobiledeploy.frameworks.hard_activations import HardSigmoid, HardSwish
from mobiledeploy.frameworks.response_normalization import LocalResponseNormalization

_SEED = 1
OWN = (GroupedConv2D, HardSigmoid, HardSwish, LocalResponseNormalization)
"""Our own layers; core/untrusted.py lists them too."""


def build(spec: ModelSpec, weights: Path | None) -> Model:
    """The architecture of `spec` with the weights of a Keras 2 HDF5 file, or random ones for None.

    Random weights are the same in every run and keep the size of activations (He et al. 2015,
    arXiv:1502.01852), so that quantization has useful ranges. InputError: see `load_weights`.
    """
    handle = ARCHITECTURES.load(spec.architecture).build(
        **spec.arguments, resolution=spec.resolution, classes=spec.classes
    )
    if weights is None:
        _randomise(handle)
    else:
        load_weights(
            handle,
            weights,
            alpha=spec.alpha,
            sha256=spec.weights.sha256 or None,
        )
    return Model("tf_keras", handle)


def _randomise(handle: tf_keras.Model) -> None:
    random = np.random.Generator(np.random.PCG64(_SEED))
    for layer in handle.layers:
        for weight in layer.weights:
            role = weight.name.rpartition("/")[2]
            if "kernel" not in role:
                continue
            # [height, width, channels, filters], [channels, filters] of a fully connected layer.
            depthwise = role.startswith("depthwise")
            fan_in = math.prod(weight.shape[:2] if depthwise else weight.shape[:-1])
            # The pointwise part of a separable convolution reads its depthwise part.
            gain = 2 if _reads_activations(layer) and not role.startswith("pointwise") else 1
            weight.assign(random.normal(0, (gain / fan_in) ** 0.5, weight.shape))


def _reads_activations(layer: tf_keras.layers.Layer) -> bool:
    """Whether a ReLU has halved the input of `layer`, which is not so after a linear bottleneck.

    Images count as halved, since their values are small.
    """
    while layer.inbound_nodes and not isinstance(layer, tf_keras.layers.InputLayer):
        before = layer.inbound_nodes[0].inbound_layers
        layer = before[0] if isinstance(before, list) else before
        if isinstance(layer, tf_keras.layers.ReLU | HardSwish):
            return True
        if hasattr(layer, "activation"):
            return layer.activation is not tf_keras.activations.linear
    return True


def load_weights(
    model: Model | Any, path: Path, *, alpha: float | None = None, sha256: str | None = None
) -> None:
    """Sets the weights of a Keras 2 model from a Keras 2 HDF5 file, layer by name.

    If the file has other names, as those of Keras Applications for MobileNet v2 and Xception,
    weights are assigned in the order of layers, if all shapes match: that is Keras's own rule.

    Args:
        model: a Model of Keras 2, or the tf_keras model itself. Unchanged on an error.
        path: weights, or a whole model whose weights are used.
        alpha: the width multiplier that `model` was built with, so that an error can name the one
            of the file.
        sha256: that of the file when it was checked, None if it was not.

    Raises:
        InputError: not such a file, a layer that is missing on either side, another shape, NaN, or
            a file that has changed since it was checked.
    """
    handle = model.handle if isinstance(model, Model) else model
    content = inputs.read(path, inputs.MODEL)
    if sha256 is not None:
        loading.require_same_hash(records.sha256(content), sha256, str(path))
    arrays_by_layer = _read(content, path)
    layers = {layer.name: layer for layer in handle.layers if layer.weights}
    if arrays_by_layer.keys() != layers.keys():
        arrays_by_layer = _match_by_order(arrays_by_layer, layers) or arrays_by_layer
    hint = _hint(arrays_by_layer, layers, alpha)
    for name, layer in layers.items():
        if name not in arrays_by_layer:
            raise InputError(f"{path} has no weights for layer {name}", hint)
        present = [list(array.shape) for array in arrays_by_layer[name]]
        needed_shapes = [list(weight.shape) for weight in layer.weights]
        if present != needed_shapes:
            raise InputError(
                f"{path}: layer {name} has weights {_row(present)}, "
                f"the model needs {_row(needed_shapes)}",
                hint,
            )
        loading.require_finite([(name, array) for array in arrays_by_layer[name]], str(path))
    unused = [name for name in arrays_by_layer if name not in layers]
    if unused:
        raise InputError(
            f"{path} has weights for a layer {unused[0]}, which the model does not have"
        )
    for name, layer in layers.items():
        layer.set_weights(arrays_by_layer[name])


def load_shared(model: Any, path: Path, *, alpha: float | None = None) -> frozenset[str]:
    """Sets the weights of the layers that the file has too, by name, with equal shapes.

    So a detector starts from the weights of a classifier, whose layers its backbone has.

    Args:
        model: the tf_keras model. Unchanged on an error.
        path: weights, or a whole model whose weights are used.
        alpha: the width multiplier that `model` was built with.

    Returns:
        The names of these layers.

    Raises:
        InputError: not such a file, NaN, or a first layer that is not of the model.
    """
    arrays_by_layer = _read(inputs.read(path, inputs.MODEL), path)
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    shared = [
        name
        for name, arrays in arrays_by_layer.items()
        if name in layers
        and [list(array.shape) for array in arrays] == [list(w.shape) for w in layers[name].weights]
    ]
    first = next(iter(layers), "")
    if first not in shared:
        raise InputError(
            f"{path} has no such layer {first} as the model", _hint(arrays_by_layer, layers, alpha)
        )
    for name in shared:
        loading.require_finite([(name, array) for array in arrays_by_layer[name]], str(path))
    for name in shared:
        layers[name].set_weights(arrays_by_layer[name])
    return frozenset(shared)


def outputs(model: Any) -> tuple[ModelOutput, ...]:
    """The outputs of a tf_keras model: names and activations are those of its last layers."""
    found = []
    for tensor in model.outputs:
        layer = tensor._keras_history.layer
        name = getattr(getattr(layer, "activation", None), "__name__", "")
        activation: Activation = "none"
        if name == "softmax":
            activation = "softmax"
        elif name == "sigmoid":
            activation = "sigmoid"
        found.append(ModelOutput(layer.name, tuple(tensor.shape[1:]), activation))
    return tuple(found)


def _read(content: bytes, path: Path) -> dict[str, list[Any]]:
    """The arrays of each layer that has weights, by its name."""
    with loading.refusing(f"{path} cannot be read"), h5py.File(io.BytesIO(content), "r") as file:
        root = file.get("model_weights", file)
        if "layer_names" not in root.attrs:
            raise InputError(f"{path} holds no weights by layer name, as Keras 2 saves them")
        arrays_by_layer = {
            name: [np.asarray(root[name][w]) for w in loading.names(root[name], "weight_names")]
            for name in loading.names(root, "layer_names")
        }
    return {name: arrays for name, arrays in arrays_by_layer.items() if arrays}


def _match_by_order(
    arrays_by_layer: dict[str, Any], layers: dict[str, Any]
) -> dict[str, Any] | None:
    """The file's layers by the model's names, in their order; None if a shape differs."""
    shapes = [[list(array.shape) for array in arrays] for arrays in arrays_by_layer.values()]
    if shapes != [[list(w.shape) for w in layer.weights] for layer in layers.values()]:
        return None
    return dict(zip(layers, arrays_by_layer.values(), strict=True))


def _hint(arrays_by_layer: dict[str, Any], layers: dict[str, Any], alpha: float | None) -> str:
    """A hint that names the alpha of the file, from the width of its first convolution."""
    first = next(iter(layers), "")
    if alpha is None or first not in arrays_by_layer:
        return "check that it is of this architecture"
    file_width, model_width = (
        arrays_by_layer[first][0].shape[-1],
        layers[first].weights[0].shape[-1],
    )
    if file_width == model_width:
        return "check that it is of this architecture, with as many classes"
    return f"the file's width is that of --alpha {alpha * file_width / model_width:g}"


def _row(shapes: list[list[int]]) -> str:
    return " ".join(map(str, shapes))
