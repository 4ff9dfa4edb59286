"""Recurrent layers as the operators of their steps: no loop is left that integers cannot enter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOST_STEPS = 64
"""Each step becomes operators of its own; a layer of more steps stays a loop."""


def unroll(model: Any) -> None:
    """Has the recurrent layers of a Keras model, of Keras 2 or 3, traced step by step.

    A TFLite loop computes in float, and ONNX has no form for it. Layers whose number of steps is
    not fixed, or is above `MOST_STEPS`, keep their loop.
    """
    for layer, shape in _recurrent(model):
        if shape is None or len(shape) < 2 or shape[1] is None or shape[1] > MOST_STEPS:
            continue
        layer.unroll = True
        if hasattr(layer, "_could_use_gpu_kernel"):
            # Keras 2 would trace a function with two implementations, each a loop.
            layer._could_use_gpu_kernel = False


def _recurrent(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each recurrent layer with the shape of its input [N, steps, ...]; None if it is not known."""
    for layer in model._flatten_layers():
        if hasattr(layer, "forward_layer") and hasattr(layer, "backward_layer"):
            # The layers of a bidirectional one have no input of their own.
            for inner in (layer.forward_layer, layer.backward_layer):
                if hasattr(inner, "unroll"):
                    yield inner, _input_shape(layer)
        elif hasattr(layer, "unroll"):
            yield layer, _input_shape(layer)


def _input_shape(layer: Any) -> Any:
    try:
        return tuple(layer.input.shape)
    # Not called yet, or called with inputs of several shapes.
    except (AttributeError, ValueError):
        return None
