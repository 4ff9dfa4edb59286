"""The processor of this machine, as the system describes it."""

from __future__ import annotations

import platform
from pathlib import Path


def name() -> str:
    """Its model, by which figures of this machine tell it from another."""
    return ",".join(info("model name")) or platform.processor() or platform.machine()


def info(key: str) -> tuple[str, ...]:
    """The values of a key of /proc/cpuinfo, each different one once; () without that file."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ()
    pairs = (line.partition(":") for line in text.splitlines())
    return tuple(dict.fromkeys(value.strip() for field, _, value in pairs if field.strip() == key))
