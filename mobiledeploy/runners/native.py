"""The native runner: a C program that drives LiteRT or ONNX Runtime through their C APIs.

Built from android_bench/runner by `mobiledeploy doctor --emulator`; it speaks PROTOCOL.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mobiledeploy.core import native
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.ports import Process
from mobiledeploy.core.types import Target

RUNTIMES = tuple(native.LIBRARIES)


def files(machine: str, runtime: str) -> Mapping[str, Path]:
    """The program and the runtime's library for x86_64 or aarch64."""
    return {"runner": native.runner(machine), "library": native.library(machine, runtime)}


def bench(
    model: str, target: Target, sample: str | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """The argv that times `model` until its standard input closes."""
    argv: tuple[str, ...] = (
        files["runner"], "bench", "--model", model, "--runtime", target.runtime,
        "--threads", str(target.threads), "--library", files["library"],
        "--library-version", native.library_version(files["library"], target.runtime),
    )  # fmt: skip
    if target.delegate:
        argv = (*argv, "--delegate", target.delegate)
    return argv if sample is None else (*argv, "--sample", sample)


def hear(process: Process, target: Target) -> Process:
    """Itself: it speaks the protocol."""
    return process


def predict(model: str, target: Target) -> tuple[str, ...]:
    """UsageError: pictures are prepared by the Python runner."""
    raise UsageError("the native runner can only time", "--runner python")
