"""SavedModels by their signature `serving_default`: a graph, not a revived Keras model.

TensorFlow's own loader knows no Keras: what Keras notes of its layers, Lambdas among them, is
neither read nor built again. It does run functions of the file (creators and initializers of
resources, what restores them), all of which formats/saved_model.py has looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from mobiledeploy.core.types import Model, ModelFile
from mobiledeploy.frameworks import loading


@dataclass(frozen=True)
class Served:
    """A loaded signature. `owner` holds its variables, which live as long as it does."""

    path: str
    owner: Any
    signature: Any


def load(file: ModelFile) -> Model:
    """The signature `serving_default`; InputError where TensorFlow cannot load it."""
    with (
        loading.under_its_format(file, "") as path,
        loading.refusing(f"TensorFlow cannot load {file.path}", tf.errors.OpError),
    ):
        owner = tf.saved_model.load(str(path), tags=["serve"])
        signature = owner.signatures["serving_default"]
    variables = [(v.name, v.numpy()) for v in signature.variables]
    loading.finite(variables, file.path)
    return Model("saved_model", Served(file.path, owner, signature))


def shapes(model: Model) -> tuple[loading.Shape, loading.Shape]:
    """([N, H, W, 3], [N, classes]) with None where open.

    InputError for a signature with two inputs or outputs, or with others than float32 pictures in
    and a row of scores out.
    """
    served = model.handle
    inputs = list(served.signature.structured_input_signature[1].values())
    image = loading.only("input", inputs, served.path)
    outputs = list(served.signature.structured_outputs.values())
    scores = loading.only("output", outputs, served.path)
    return loading.checked((_shape(image), image.dtype.name), _shape(scores), served.path)


def inference(model: Model) -> tuple[Callable[[Any], Any], Sequence[Any]]:
    """images [N, H, W, 3] float32 -> [N, classes]; its variables."""
    served = model.handle
    (image,) = served.signature.structured_input_signature[1]
    (scores,) = served.signature.structured_outputs

    def call(images: Any) -> Any:
        return served.signature(**{image: images})[scores]

    return call, served.signature.variables


def _shape(tensor: Any) -> list[int | None] | None:
    return None if tensor.shape.rank is None else tensor.shape.as_list()
