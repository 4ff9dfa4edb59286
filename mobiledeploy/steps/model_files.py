"""Detects the kind of a user's model file, without a framework."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import SOURCES
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import ModelFile, NamedWarning


def detect(
    path: Path, *, unsafe: bool = False, custom: bool = False, reporter: Reporter = SILENT
) -> ModelFile:
    """What a model file of the user's is; no framework opens it.

    Args:
        path: the file, or the folder of a SavedModel.
        unsafe: the user trusts whoever made it, whatever it names.
        custom: what it names beyond the lists is looked for in the user's own code once that has
            run, and refused then.
        reporter: is told what `unsafe` lets through.

    Raises:
        InputError: missing, broken, of no known kind, or naming what is not known to be harmless
            when it is loaded, unless `unsafe` says that the user trusts it.
    """
    for source in map(SOURCES.load, SOURCES.names()):
        file = source.detect(path)
        if file is None:
            continue
        if file.code:
            more = f" and {len(file.code) - 1} more" if len(file.code) > 1 else ""
            message = f"{path} could run code of its own: {file.code[0]}{more}"
            if unsafe:
                reporter.warn(NamedWarning("unsafe", message, "--unsafe lets it, with your rights"))
            elif not (custom and file.format in ("h5", "keras")):
                raise InputError(message, _permission(file))
        return dataclasses.replace(file, trusted=unsafe)
    raise InputError(
        f"{path} is not a known kind of model",
        "a Keras .h5 or .keras file, a SavedModel folder, a float .tflite or a .pt2 is wanted",
    )


def need_layers(file: ModelFile, hint: str) -> None:
    """InputError with `hint` for a model that is opened without TensorFlow: no layers."""
    if "tensorflow" not in SOURCES.load(file.framework).NEEDS:
        raise InputError(f"{file.path} is not a network of Keras or TensorFlow", hint)


def _permission(file: ModelFile) -> str:
    trusting = "if you trust whoever made it, add --unsafe"
    if any(code.startswith("class ") for code in file.code):
        return f"{trusting}; a layer of your own: export --custom-objects FILE.py"
    return trusting
