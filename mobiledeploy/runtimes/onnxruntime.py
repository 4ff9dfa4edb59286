"""ONNX Runtime on its CPU kernels."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.analysis import layer_counts
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import NativeLibrary

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Engine, LoadedSubgraph

FORMATS: tuple[str, ...] = ("onnx",)
DELEGATES: tuple[str, ...] = ("none",)
PACKAGE = "onnxruntime"
PREFERRED = True
PUBLISHED_AS: tuple[str, ...] = ("onnxruntime",)
# Its profiler adds up to 45,000 instructions to each operator: it shows which kernels ran, but
# gives no counts per layer.
NATIVE: NativeLibrary | None = NativeLibrary(
    "onnxruntime/capi/libonnxruntime.so.*", layer_counts.of_onnxruntime, by_layer=False
)


def version() -> str:
    """The version of onnxruntime."""
    return metadata.version(PACKAGE)


def open(path: Path, *, threads: int, delegate: str) -> Engine:
    """The model at `path` with `threads` threads within an operator, one operator at a time.

    Its session does not know the scales of integer tensors, so they are empty.

    Raises:
        UsageError: a delegate other than none, or a file name that is not of an ONNX file.
        InputError: the engine rejects the model, or it has more than one input or output.
    """
    if delegate not in DELEGATES:
        raise UsageError(f"onnxruntime has no delegate {delegate!r}", "there is none")
    if path.suffix != ".onnx":
        raise UsageError(f"onnxruntime runs .onnx files, not {path.name}")
    from mobiledeploy.runtimes import _session

    return _session.SessionEngine(path, threads)


def part(path: Path, *, threads: int) -> LoadedSubgraph:
    """The subgraph of a model at `path`; InputError if the engine rejects it."""
    from mobiledeploy.runtimes import _session

    return _session.SessionPart(path, threads)
