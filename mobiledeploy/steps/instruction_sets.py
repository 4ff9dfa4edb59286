"""Instruction sets in one form, 'x86_64 avx2 avx512_vnni', with what kernels depend on."""

from __future__ import annotations

import platform
from collections.abc import Collection

from mobiledeploy.core import cpu

HALF = "asimdhp"
"""The feature of a CPU that computes in float16."""
# The CPU features by which runtimes choose kernels, with the names of Linux.
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    HALF,
    "asimddp",
    "i8mm",
    "sve",
)


def here() -> str:
    """That of this machine."""
    flags = cpu.info("flags") or cpu.info("Features") or ("",)
    return _of(platform.machine(), flags[0].split())


def of_runner(told: str) -> str:
    """That of a device by the `cpu` of its runner's Ready: the machine, then features."""
    machine, *features = told.split() or [""]
    return _of(machine, features)


def _of(machine: str, features: Collection[str]) -> str:
    return " ".join((machine, *(name for name in _FEATURES if name in features)))
