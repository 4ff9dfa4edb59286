"""Architectures as Keras 2 networks, and weights by layer name, as Keras Applications has them."""

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
from mobiledeploy.core.types import Model, ModelSpec
from mobiledeploy.frameworks import loading
from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from mobiledeploy.frameworks.hard_activations import HardSigmoid, HardSwish
from mobiledeploy.frameworks.response_normalization import LocalResponseNormalization

_SEED = 1
OWN = (GroupedConv2D, HardSigmoid, HardSwish, LocalResponseNormalization)
"""The layers that our networks bring with them; core/untrusted.py names them too."""


def build(spec: ModelSpec, weights: Path | None) -> Model:
    """The architecture of `spec`, with the weights of a Keras 2 HDF5 file or, for None, random.

    Random weights are the same from run to run and keep the size of activations (He et al. 2015,
    arXiv:1502.01852), so that a quantized copy has something to quantize. InputError: see
    `load_weights`.
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
            # A separable convolution's own pointwise reads its depthwise.
            gain = 2 if _reads_activations(layer) and not role.startswith("pointwise") else 1
            weight.assign(random.normal(0, (gain / fan_in) ** 0.5, weight.shape))


def _reads_activations(layer: tf_keras.layers.Layer) -> bool:
    """Whether a ReLU has halved what `layer` reads: not so behind a linear bottleneck.

    Images count as halved: their values are small.
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

    Where the file has other names, as Keras Applications' of MobileNet v2 and Xception have, it is
    layer by layer in their order, if every shape is the model's: Keras's own rule.

    Args:
        model: a Model of Keras 2, or the tf_keras model itself. Unchanged on an error.
        path: weights, or a whole model, of which the weights are taken.
        alpha: the width multiplier that `model` was built with, so that an error can name the one
            of the file.
        sha256: that of the file when it was looked into, None where nobody did.

    Raises:
        InputError: not such a file, a layer that is missing on either side, another shape, NaN,
            or a file that was changed since it was looked into.
    """
    handle = model.handle if isinstance(model, Model) else model
    content = inputs.read(path, inputs.MODEL)
    if sha256 is not None:
        loading.unchanged(records.sha256(content), sha256, str(path))
    with loading.refusing(f"{path} cannot be read"), h5py.File(io.BytesIO(content), "r") as file:
        root = file.get("model_weights", file)
        if "layer_names" not in root.attrs:
            raise InputError(f"{path} holds no weights by layer name, as Keras 2 saves them")
        stored = {
            name: [np.asarray(root[name][w]) for w in loading.names(root[name], "weight_names")]
            for name in loading.names(root, "layer_names")
        }
    stored = {name: arrays for name, arrays in stored.items() if arrays}
    wanted = {layer.name: layer for layer in handle.layers if layer.weights}
    if stored.keys() != wanted.keys():
        stored = _renamed(stored, wanted) or stored
    hint = _hint(stored, wanted, alpha)
    for name, layer in wanted.items():
        if name not in stored:
            raise InputError(f"{path} has no weights for layer {name}", hint)
        has = [list(array.shape) for array in stored[name]]
        needs = [list(weight.shape) for weight in layer.weights]
        if has != needs:
            raise InputError(
                f"{path}: layer {name} has weights {_row(has)}, the model needs {_row(needs)}", hint
            )
        loading.finite([(name, array) for array in stored[name]], str(path))
    surplus = [name for name in stored if name not in wanted]
    if surplus:
        raise InputError(f"{path} has weights for a layer {surplus[0]}, which the model has not")
    for name, layer in wanted.items():
        layer.set_weights(stored[name])


def _renamed(stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The file's layers by the model's names, in their order; None where a shape is another."""
    shapes = [[list(array.shape) for array in arrays] for arrays in stored.values()]
    if shapes != [[list(w.shape) for w in layer.weights] for layer in wanted.values()]:
        return None
    return dict(zip(wanted, stored.values(), strict=True))


def _hint(stored: dict[str, Any], wanted: dict[str, Any], alpha: float | None) -> str:
    """Which alpha the file is of, told by the width of its first convolution."""
    first = next(iter(wanted), "")
    if alpha is None or first not in stored:
        return "is it of this architecture?"
    has, built = stored[first][0].shape[-1], wanted[first].weights[0].shape[-1]
    if has == built:
        return "is it of this architecture, and of as many classes?"
    return f"the file's width is that of --alpha {alpha * has / built:g}"


def _row(shapes: list[list[int]]) -> str:
    return " ".join(map(str, shapes))
