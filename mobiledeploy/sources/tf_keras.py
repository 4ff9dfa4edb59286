"""Keras 2 models: whole .h5 and .keras files, and the architectures, which are Keras 2 too."""

from __future__ import annotations

from pathlib import Path

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import OpenedModel
from mobiledeploy.core.types import Model, ModelFile, Source
from mobiledeploy.sources import _keras_files

NEEDS: tuple[str, ...] = ("tensorflow", "tf_keras", "h5py")
_SUFFIX = {"h5": ".h5", "keras": ".keras"}


def detect(path: Path) -> ModelFile | None:
    """A Keras 2 file, which may hold weights alone; see `_keras_files.detect`."""
    return _keras_files.detect(path, "tf_keras")


def open(source: Source) -> OpenedModel:
    """The model, or the architecture with its weights."""
    from mobiledeploy.frameworks import tf_keras as networks
    from mobiledeploy.sources import _tensorflow

    if source.file is not None:
        return _tensorflow.open_model(load(source.file, source.custom_objects), source)
    weights = None if source.weights is None else Path(source.weights)
    model = networks.build(source.spec, weights)
    return _tensorflow.open_model(model, source)


def load(file: ModelFile, custom: str | None = None) -> Model:
    """The whole model in `file`, not compiled; InputError if Keras 2 cannot load it.

    A trusted file with `code` in it runs that code: the caller has allowed it. `custom` is the
    user's own Python file with the other classes and functions that it names. Wrappers of
    quantization-aware training, pruning and clustering are removed.
    """
    import tensorflow as tf
    import tf_keras
    from tf_keras.src.applications.convnext import LayerScale

    from mobiledeploy.frameworks import loading, optimized, recurrent
    from mobiledeploy.frameworks.tf_keras import OWN

    if file.content != "model":
        raise InputError(f"{file.path} holds weights, not a model", "name the architecture: --arch")
    name_of = tf_keras.saving.get_registered_name
    theirs = None if custom is None else loading.custom_objects(Path(custom), name_of)
    with (
        loading.for_inference(file, _SUFFIX[file.format], theirs) as path,
        loading.refusing(f"Keras cannot load {file.path}", tf.errors.OpError),
    ):
        wrappers = optimized.wrappers(_keras_files.configuration(path))
        with optimized.scope(wrappers):
            handle = tf_keras.models.load_model(
                path,
                compile=False,
                safe_mode=not file.trusted,
                # The inner name of tf.nn.log_softmax, and a layer of Keras's own ConvNeXt.
                custom_objects={"log_softmax_v2": tf.nn.log_softmax, "LayerScale": LayerScale}
                | {f"mobiledeploy>{own.__name__}": own for own in OWN}
                | (theirs or {}),
            )
            loading.need_model(handle, tf_keras.Model, file.path)
            handle = optimized.strip(handle, wrappers)
    recurrent.unroll(handle)
    loading.require_finite([(w.name, w.numpy()) for w in handle.weights], file.path)
    return Model("tf_keras", handle)
