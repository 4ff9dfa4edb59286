"""The output of a short command on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Session


def lines(session: Session, argv: Sequence[str]) -> list[str]:
    """The lines that a command prints until it ends, whatever its status; DeviceError if lost."""
    process = session.run(argv)
    try:
        printed = [line.strip() for line in process.lines()]
        process.wait()
    finally:
        process.kill()
    return printed
