"""tflite_runtime 2.14, the last of its line: Python 3.11 and numpy 1 only.

It needs a process of its own: after an import of TensorFlow it fails in strange ways. It does not
verify the mapped file: a truncated one can crash it, and the caller gets that as an error.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mobiledeploy.core import plugins
from mobiledeploy.core.errors import MissingError
from mobiledeploy.core.types import NativeLibrary

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Engine, LoadedSubgraph

FORMATS: tuple[str, ...] = ("tflite",)
DELEGATES: tuple[str, ...] = ("xnnpack", "none")
PACKAGE = "tflite-runtime"
PREFERRED = False
PUBLISHED_AS: tuple[str, ...] = ("tflite", "xnnpack")
NATIVE: NativeLibrary | None = None


def version() -> str:
    """The version of tflite-runtime."""
    return metadata.version(PACKAGE)


def open(path: Path, *, threads: int, delegate: str) -> Engine:
    """The model at `path` with `threads` CPU threads; its XNNPACK does not run int8 operators.

    Raises:
        MissingError: it is not installed, or numpy is version 2, for which it was not built.
        UsageError: another delegate, or not a TFLite file's name.
        InputError: the engine rejects the model, or it has more than one input or output.
    """
    library = _library()
    numpy = metadata.version("numpy")
    if int(numpy.partition(".")[0]) >= 2:
        raise MissingError(
            f"tflite_runtime {version()} was built for numpy 1, numpy {numpy} is installed",
            "pip install 'numpy<2', or take --runtime litert",
        )
    from mobiledeploy.runtimes import _interpreter

    return _interpreter.InterpreterEngine(
        library, "tflite_runtime", path, threads=threads, delegate=delegate
    )


def part(path: Path, *, threads: int) -> LoadedSubgraph:
    """The subgraph of a model at `path`; InputError if the engine rejects it."""
    from mobiledeploy.runtimes import _interpreter

    return _interpreter.InterpreterPart(_library(), "tflite_runtime", path, threads=threads)


def _library() -> ModuleType:
    try:
        from tflite_runtime import interpreter
    except ModuleNotFoundError as error:
        raise plugins.missing("tflite_runtime", extra="tflite-runtime") from error
    library: ModuleType = interpreter
    return library
