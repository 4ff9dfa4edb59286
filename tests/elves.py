"""ELF files made by hand: what is in their headers, and nothing that runs."""

from __future__ import annotations

import struct
from pathlib import Path


def write(path: Path, alignment: int, *, address: int = 0, needed: str = "", machine: int = 183):
    """A 64-bit file of one loaded segment at `address`, which needs one library or none."""
    names = b"\0" + needed.encode() + b"\0"
    base = 64 + 2 * 56
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in _dynamic(address + base, needed))
    size = base + len(names) + len(dynamic)
    head = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    segments = [
        (1, 5, 0, address, address, size, size, alignment),
        (2, 4, base + len(names), 0, 0, len(dynamic), len(dynamic), 8),
    ]
    path.write_bytes(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        + head
        + b"".join(struct.pack("<IIQQQQQQ", *segment) for segment in segments)
        + names
        + dynamic
    )
    return path


def _dynamic(names: int, needed: str) -> list[tuple[int, int]]:
    return [(1, 1)] * bool(needed) + [(5, names), (0, 0)]
