"""Which cores of a phone are its big ones: derived from its own facts, not from a list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def capacities(fact: str) -> dict[int, int]:
    """'0:325 1:325 7:1024' -> capacity by core; {} if the fact is absent.

    The kernel's cpu_capacity (1024 for the fastest core) or else the highest clock in kHz.
    """
    return {
        int(core): int(capacity) for core, capacity in re.findall(r"\b(\d{1,3}):(\d{1,9})\b", fact)
    }


def biggest(capacity: dict[int, int], threads: int) -> tuple[int, ...]:
    """The cores for `threads` threads: whole clusters, the fastest first, until they suffice.

    A cluster is the cores of one capacity. () if there is no choice: no capacities are known, or
    all cores are needed.
    """
    selection: list[int] = []
    for level in sorted(set(capacity.values()), reverse=True):
        selection += [core for core, own in capacity.items() if own == level]
        if len(selection) >= threads:
            break
    return tuple(sorted(selection)) if len(selection) < len(capacity) else ()


def mask(cores: tuple[int, ...]) -> str:
    """(4, 5, 6, 7) -> 'f0', as taskset takes it."""
    return f"{sum(1 << core for core in cores):x}"


def placed(argv: Sequence[str], facts: Mapping[str, str], threads: int) -> tuple[str, ...]:
    """`argv`, pinned to the biggest cores if `facts` name them and taskset."""
    cores = biggest(capacities(facts.get("core_capacity", "")), threads)
    if not cores or "taskset" not in facts:
        return tuple(argv)
    return ("taskset", mask(cores), *argv)
