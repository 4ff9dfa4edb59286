"""Keras 3 models, loaded by Keras 3 itself on TensorFlow, beside Keras 2 in one process."""

from __future__ import annotations

import os

# Before the import: Keras reads it once.
os.environ["KERAS_BACKEND"] = "tensorflow"

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.core.types import Model, ModelFile
from mobiledeploy.frameworks import loading

_SUFFIX = {"h5": ".h5", "keras": ".keras"}


def load(file: ModelFile) -> Model:
    """The whole model in `file`, not compiled; InputError where Keras 3 cannot rebuild it.

    A file with `code` in it runs that code: the caller has asked whether it may.
    """
    if keras.backend.backend() != "tensorflow":
        raise MissingError(
            f"Keras runs on {keras.backend.backend()} in this process; TensorFlow is needed",
            "import mobiledeploy before keras, or set KERAS_BACKEND=tensorflow",
        )
    if file.content != "model":
        raise InputError(f"{file.path} holds Keras 3 weights, no model", "save the whole model")
    with (
        loading.for_inference(file, _SUFFIX[file.format]) as path,
        loading.refusing(f"Keras cannot load {file.path}", tf.errors.OpError),
    ):
        handle = keras.models.load_model(path, compile=False, safe_mode=not file.code)
    loading.need_model(handle, keras.Model, file.path)
    loading.finite([(w.path, w.numpy()) for w in handle.weights], file.path)
    return Model("keras3", handle)


def shapes(model: Model) -> tuple[loading.Shape, loading.Shape]:
    """([N, H, W, 3], [N, classes]) with None where open.

    InputError for a model with two inputs or outputs, or with others than float32 pictures in and
    a row of scores out.
    """
    handle = model.handle
    where = f"the model {handle.name}"
    if not getattr(handle, "inputs", None):
        raise InputError(f"{where} was saved without the shape of its input")
    image = loading.only("input", handle.inputs, where)
    scores = loading.only("output", handle.outputs, where)
    return loading.checked((image.shape, image.dtype), scores.shape, where)


def inference(model: Model) -> tuple[Callable[[Any], Any], Sequence[Any]]:
    """images [N, H, W, 3] float32 -> [N, classes], without dropout and the like; its variables."""
    handle = model.handle
    variables = [variable.value for variable in handle.variables]
    return lambda images: handle(images, training=False), variables
