"""The native runner: a C program that drives LiteRT or ONNX Runtime through their C APIs.

Built from android_bench/runner by `mobiledeploy doctor --emulator`; it speaks PROTOCOL.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mobiledeploy.core import native, plugins
from mobiledeploy.core.errors import MissingError, UsageError
from mobiledeploy.core.ports import Process
from mobiledeploy.core.types import Target
from mobiledeploy.runners._samples import Answering

LOADER = "ld-linux-aarch64.so.1"
C_LIBRARIES = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
)
_LIBRARIES = "lib/aarch64-linux-gnu"
CLOCKS = "--clocks"
"""Its option for the kernel's file of how long a core ran at each clock (PROTOCOL.md)."""


def runtimes() -> tuple[str, ...]:
    """The runtimes that have a shared library for it."""
    return tuple(name for name, runtime in plugins.RUNTIMES.each() if runtime.NATIVE)


def files(machine: str, runtime: str, delegate: str = "") -> Mapping[str, Path]:
    """The program and the runtime's library for x86_64 or aarch64.

    Android has another C library than these programs need, and other systems may have an older one
    or none: for `android-aarch64` and `bare-aarch64`, theirs and its loader are included.

    Raises:
        MissingError: no runner is for this machine, or the parts are not installed.
        UsageError: no library drives this machine's GPU.
    """
    system, _, cpu = machine.rpartition("-")
    if cpu not in (("aarch64",) if system else ("aarch64", "x86_64")):
        raise MissingError(
            f"there is no native runner for {machine or 'such a machine'}",
            "--runner benchmark_model, with Google's build for it",
        )
    files = {"runner": native.runner(cpu), "library": native.library(cpu, *_library(runtime))}
    if delegate == "gpu":
        files["gpu"] = _gpu_library(cpu, system, runtime)
    if system:
        root = native.sysroot()
        for name in (LOADER, *C_LIBRARIES):
            candidates = (
                root / folder / name for folder in ("lib", _LIBRARIES, f"usr/{_LIBRARIES}")
            )
            files[name] = next(path for path in candidates if path.exists())
    return files


def _gpu_library(cpu: str, system: str, runtime: str) -> Path:
    engine = plugins.RUNTIMES.load(runtime)
    library = engine.NATIVE.gpu if engine.NATIVE else ""
    # The package is one of glibc's. Android's drivers of GPUs are of Android's own C library.
    if not library or system == "android":
        raise UsageError(
            f"{runtime} has no library for the GPU of {'Android' if library else 'any device'}",
            "--runner benchmark_model, which has LiteRT's GPU delegate for Android",
        )
    return native.library(cpu, engine.PACKAGE, library)


def bench(
    model: str, target: Target, sample: str | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """The argv that times `model` until its standard input closes."""
    argv = _argv("bench", model, target, files)
    return argv if sample is None else (*argv, "--sample", sample)


def cold(
    model: str, target: Target, sample: str | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """The argv that loads `model`, tells how long that took, and runs it once."""
    return (*bench(model, target, sample, files), "--cold", "--max-runs", "1")


def _argv(what: str, model: str, target: Target, files: Mapping[str, str]) -> tuple[str, ...]:
    argv: tuple[str, ...] = (
        files["runner"],
        what,
        "--model",
        model,
        "--runtime",
        target.runtime,
        "--threads",
        str(target.threads),
        "--library",
        files["library"],
        "--library-version",
        native.library_version(files["library"], *_library(target.runtime)),
    )
    if LOADER in files:
        # The system's own libraries belong to the other C library.
        folder = str(PurePosixPath(files[LOADER]).parent)
        argv = (files[LOADER], "--library-path", folder, *argv)
    return (*argv, "--delegate", target.delegate) if target.delegate else argv


def _library(runtime: str) -> tuple[str, str]:
    """The package with a runtime's library, and the library's path in it."""
    engine = plugins.RUNTIMES.load(runtime)
    if engine.NATIVE is None:
        raise UsageError(
            f"the native runner cannot drive {runtime}", f"it drives {', '.join(runtimes())}"
        )
    return engine.PACKAGE, engine.NATIVE.pattern


def hear(process: Process, target: Target) -> Process:
    """The process itself: it speaks the protocol."""
    return process


def predict(model: str, target: Target, files: Mapping[str, str]) -> tuple[str, ...]:
    """The argv that answers the raw inputs on standard input."""
    return _argv("answer", model, target, files)


def hear_answers(process: Process, model: str) -> Process:
    """The process with the preparation of samples, which happens here."""
    return Answering(process, model)


def layers(target: Target) -> tuple[str, ...]:
    """UsageError: layers are run by the Python runner."""
    raise UsageError("the native runner runs whole models only", "--runner python")
