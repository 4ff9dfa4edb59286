"""Keras 3 models, loaded by Keras 3 itself on TensorFlow; Keras 2 may be in the same process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.core.ports import OpenedModel
from mobiledeploy.core.types import Model, ModelFile, Source
from mobiledeploy.sources import _keras_files

NEEDS: tuple[str, ...] = ("tensorflow", "keras", "h5py")
_SUFFIX = {"h5": ".h5", "keras": ".keras"}


def detect(path: Path) -> ModelFile | None:
    """A Keras 3 file, which may hold weights alone; see `_keras_files.detect`."""
    return _keras_files.detect(path, "keras3")


def open(source: Source) -> OpenedModel:
    """The model of `source.file`."""
    from mobiledeploy.sources import _tensorflow

    assert source.file is not None
    return _tensorflow.open_model(load(source.file, source.custom_objects), source)


def load(file: ModelFile, custom: str | None = None) -> Model:
    """The whole model in `file`, not compiled; InputError if Keras 3 cannot load it.

    A trusted file with `code` in it runs that code: the caller has allowed it. `custom` is the
    user's own Python file with the other classes and functions that it names.
    """
    keras = _keras()
    import tensorflow as tf

    from mobiledeploy.frameworks import loading, recurrent

    if file.content != "model":
        raise InputError(f"{file.path} holds Keras 3 weights, not a model", "save the whole model")
    name_of = keras.saving.get_registered_name
    theirs = None if custom is None else loading.custom_objects(Path(custom), name_of)
    with (
        loading.for_inference(file, _SUFFIX[file.format], theirs) as path,
        loading.refusing(f"Keras cannot load {file.path}", tf.errors.OpError),
    ):
        handle = keras.models.load_model(
            path, compile=False, safe_mode=not file.trusted, custom_objects=theirs
        )
    loading.need_model(handle, keras.Model, file.path)
    recurrent.unroll(handle)
    loading.require_finite([(w.path, w.numpy()) for w in handle.weights], file.path)
    return Model("keras3", handle)


def _keras() -> Any:
    """Keras 3 on TensorFlow; MissingError if another backend is already in use."""
    # Set before the import, since Keras reads it once.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    if keras.backend.backend() != "tensorflow":
        raise MissingError(
            f"Keras runs on {keras.backend.backend()} in this process; TensorFlow is needed",
            "import mobiledeploy before keras, or set KERAS_BACKEND=tensorflow",
        )
    return keras
