"""Which runtime runs a format, with which delegate, and in which version it is here."""

from __future__ import annotations

from importlib import metadata

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import Artifact, Target

RUNTIMES_OF = {"tflite": ("litert", "tflite_runtime"), "onnx": ("onnxruntime",)}
"""The runtimes of a format, first the one that is taken where none is named.

To ask a runtime itself is to import its engine, which only a runner does.
"""
DELEGATE_OF = {"litert": "xnnpack", "tflite_runtime": "xnnpack", "onnxruntime": "none"}
"""The delegate of a runtime where none is named, the first of its own list."""
PACKAGE_OF = {
    "litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "tflite_runtime": "tflite-runtime",
}
"""The package that a runtime's version is that of."""


def target(artifact: Artifact, runtime: str | None = None) -> Target:
    """Where an artifact is evaluated, as its record will say.

    The delegate is "" for the runtime of another package: it is known when it has run.

    Raises:
        InputError: nothing here runs the artifact's format.
        UsageError: `runtime` runs other formats.
    """
    chosen = runtime or default_runtime(artifact)
    formats = [name for name, runtimes in RUNTIMES_OF.items() if chosen in runtimes]
    if formats and artifact.format not in formats:
        raise UsageError(
            f"{chosen} runs .{formats[0]} files, not {artifact.path}",
            f"--runtime {default_runtime(artifact)}, or none for the default of each file",
        )
    return Target("host", "python", chosen, 1, DELEGATE_OF.get(chosen, ""))


def runtime_version(runtime: str) -> str:
    """The version of a runtime that is installed here; "" for another package's, or none.

    What its own `version` would say, without importing it.
    """
    try:
        return metadata.version(PACKAGE_OF.get(runtime, ""))
    except (metadata.PackageNotFoundError, ValueError):
        return ""


def default_runtime(artifact: Artifact) -> str:
    """The runtime where none is named; InputError for a format that nothing here runs."""
    if artifact.format not in RUNTIMES_OF:
        raise InputError(
            f"{artifact.path} is a {artifact.format!r}, which nothing here runs",
            f"there are {', '.join(RUNTIMES_OF)}",
        )
    return RUNTIMES_OF[artifact.format][0]
