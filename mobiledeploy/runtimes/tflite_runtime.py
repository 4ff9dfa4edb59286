"""tflite_runtime 2.14, the last of its line: Python 3.11 and numpy 1 only.

It must have its process to itself: after TensorFlow was imported it fails in strange ways. It does
not verify the file that it maps: a truncated one can crash it, and the caller hears that it died.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
from tflite_runtime import interpreter

from mobiledeploy.core.errors import MissingError
from mobiledeploy.core.ports import Engine, Part
from mobiledeploy.runtimes import _interpreter

FORMATS = _interpreter.FORMATS
DELEGATES = _interpreter.DELEGATES


def version() -> str:
    """The version of tflite-runtime."""
    return metadata.version("tflite-runtime")


def open(path: Path, *, threads: int, delegate: str) -> Engine:
    """The model at `path` with `threads` CPU threads; its XNNPACK leaves int8 operators out.

    Raises:
        MissingError: numpy is version 2, for which it was not built.
        UsageError: another delegate, or not a TFLite file's name.
        InputError: the engine refuses the model, or it has more than one input or output.
    """
    if int(np.__version__.partition(".")[0]) >= 2:
        raise MissingError(
            f"tflite_runtime {version()} was built for numpy 1, here is {np.__version__}",
            "pip install 'numpy<2', or take --runtime litert",
        )
    return _interpreter.InterpreterEngine(
        interpreter, "tflite_runtime", path, threads=threads, delegate=delegate
    )


def part(path: Path, *, threads: int) -> Part:
    """The subgraph of a model at `path`; InputError where the engine refuses it."""
    return _interpreter.InterpreterPart(interpreter, "tflite_runtime", path, threads=threads)
