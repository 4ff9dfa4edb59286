"""LiteRT, TensorFlow Lite's successor: TFLite files, on XNNPACK unless told otherwise."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from ai_edge_litert import interpreter

from mobiledeploy.core.ports import Engine, Part
from mobiledeploy.runtimes import _interpreter

FORMATS = _interpreter.FORMATS
DELEGATES = _interpreter.DELEGATES


def version() -> str:
    """The version of ai-edge-litert."""
    return metadata.version("ai-edge-litert")


def open(path: Path, *, threads: int, delegate: str) -> Engine:
    """The model at `path` with `threads` CPU threads.

    `delegate` none means the builtin kernels, without XNNPACK.

    Raises:
        UsageError: another delegate, or not a TFLite file's name.
        InputError: the engine refuses the model, or it has more than one input or output.
    """
    return _interpreter.InterpreterEngine(
        interpreter, "litert", path, threads=threads, delegate=delegate
    )


def part(path: Path, *, threads: int) -> Part:
    """The subgraph of a model at `path`; InputError where the engine refuses it."""
    return _interpreter.InterpreterPart(interpreter, "litert", path, threads=threads)
