"""Locks of open files, which end with the process that holds them, however it ends.

They are flock's. Windows has none; there portalocker takes its place, whose shared locks need
pywin32.
"""

from __future__ import annotations

from typing import Any

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


def lock(file: Any, *, exclusive: bool = True, wait: bool = True) -> None:
    """Locks an open file, or a folder where the system opens such.

    Args:
        file: a descriptor, or an object with one.
        exclusive: whether nobody else may hold a lock of it; else others may hold shared ones.
        wait: whether to wait for the others.

    Raises:
        BlockingIOError: others hold it, and `wait` is false.
    """
    if fcntl is not None:
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        return
    import portalocker

    flags = portalocker.LockFlags.EXCLUSIVE if exclusive else portalocker.LockFlags.SHARED
    try:
        portalocker.lock(file, flags if wait else flags | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked as error:
        raise BlockingIOError(str(error)) from error
