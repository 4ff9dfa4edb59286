"""Turns a Keras model object of this process into a file for a verb.

It is saved to a temporary folder, and a child process reads it like any other file. Its classes
show whether it is of Keras 2 or 3; no framework is imported here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError, UsageError, first_line
from mobiledeploy.steps.arguments import AnyPath

_KERAS = ("keras", "tf_keras")
# Hints for objects that are not of Keras, by the package of their class.
_WAYS = {
    "torch": "torch.export.save(torch.export.export(model.eval(), (image,)), 'model.pt2'), then "
    "give that path",
    "tensorflow": "tf.saved_model.save(model, 'folder'), then give that path",
}


class KerasModel(Protocol):
    """A model of Keras 2 (tf_keras) or Keras 3."""

    @property
    def name(self) -> str:
        """The model's own name, which names its output folder."""
        ...

    @property
    def save(self) -> object:
        """Writes the whole model to a path."""
        ...


@contextmanager
def as_file(model: AnyPath | KerasModel | None) -> Iterator[Path | None]:
    """The path of a model; the file of a model object exists as long as the context is open.

    Raises:
        UsageError: an object of another kind; the hint says how to export it.
        InputError: Keras cannot save the model.
    """
    if model is None or isinstance(model, str | os.PathLike):
        yield None if model is None else Path(model)
        return
    packages = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    save = getattr(model, "save", None)
    if not (packages & set(_KERAS) and callable(save)):
        way = next((way for package, way in _WAYS.items() if package in packages), "")
        raise UsageError(
            f"a {type(model).__name__} is not a Keras model",
            way or "give a Keras model, or the path of a file",
        )
    with artifacts.scratch() as folder:
        name = re.sub(r"[^\w.-]", "-", str(model.name)).lstrip(".") or "model"
        path = folder / f"{name}.keras"
        try:
            save(str(path))
        except (OSError, TypeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"Keras cannot save {name}: {first_line(error)}", "save it yourself, give the path"
            ) from error
        yield path
