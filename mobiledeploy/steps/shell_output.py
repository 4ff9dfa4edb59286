"""The output of a short command on a device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mobiledeploy.core.errors import DeviceError

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Session

LIMIT_S = 60.0
"""How long a command may take that answers at once."""


def lines(session: Session, argv: Sequence[str], *, limit_s: float = LIMIT_S) -> list[str]:
    """The lines that a command prints until it ends, whatever its status.

    Raises:
        DeviceError: the device was lost, or the command did not end within `limit_s`.
    """
    process = session.run(argv)
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        process.kill()

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        try:
            printed = [line.strip() for line in process.lines()]
        finally:
            timer.cancel()
            timer.join()
        if is_late.is_set():
            raise DeviceError(
                f"the device hangs: a command did not end within {limit_s:g} s",
                "restart it, and try again",
            )
        process.wait()
    finally:
        process.kill()
    return printed
