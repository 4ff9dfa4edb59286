"""LiteRT, TensorFlow Lite's successor: TFLite files, on XNNPACK by default."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.analysis import layer_counts
from mobiledeploy.core.types import NativeLibrary

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Engine, LoadedSubgraph

FORMATS: tuple[str, ...] = ("tflite",)
DELEGATES: tuple[str, ...] = ("xnnpack", "none")
PACKAGE = "ai-edge-litert"
PREFERRED = True
PUBLISHED_AS: tuple[str, ...] = ("tflite", "xnnpack", "litert")
NATIVE: NativeLibrary | None = NativeLibrary(
    "ai_edge_litert/libLiteRt.so",
    layer_counts.of_litert,
    by_layer=True,
    gpu="ai_edge_litert/libLiteRtWebGpuAccelerator.so",
)


def version() -> str:
    """The version of ai-edge-litert."""
    return metadata.version(PACKAGE)


def open(path: Path, *, threads: int, delegate: str) -> Engine:
    """The model at `path` with `threads` CPU threads.

    `delegate` none means the builtin kernels, without XNNPACK.

    Raises:
        UsageError: another delegate, or not a TFLite file's name.
        InputError: the engine rejects the model, or it has more than one input or output.
    """
    from ai_edge_litert import interpreter

    from mobiledeploy.runtimes import _interpreter

    return _interpreter.InterpreterEngine(
        interpreter, "litert", path, threads=threads, delegate=delegate
    )


def part(path: Path, *, threads: int) -> LoadedSubgraph:
    """The subgraph of a model at `path`; InputError if the engine rejects it."""
    from ai_edge_litert import interpreter

    from mobiledeploy.runtimes import _interpreter

    return _interpreter.InterpreterPart(interpreter, "litert", path, threads=threads)
