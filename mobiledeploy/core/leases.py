"""Leases of a machine: shared for work, exclusive for a timing.

A lease is a lock (`core/locks.py`) on a file in the user's cache folder. It ends with
the process that holds it, however that process ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobiledeploy.core import locks
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.records import writing


def cores() -> int:
    """The number of cores that this process may use: each job of a sweep has a share of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def hold(machine: str, *, exclusive: bool, reporter: Reporter) -> Iterator[None]:
    """Holds the lease of `machine` until the context ends.

    Waits, and reports that, while another process holds a lease that excludes ours. A thread that
    already holds the lease must not call this.

    Raises:
        UsageError: the cache folder cannot be written.
    """
    path = cache_dir() / "leases" / f"{re.sub(r'[^A-Za-z0-9._-]', '-', machine)}.lock"
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle, path, exclusive, reporter)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, exclusive: bool, reporter: Reporter) -> None:
    try:
        locks.lock(handle, exclusive=exclusive, wait=False)
    except BlockingIOError:
        what = "works on" if exclusive else "is timing on"
        waiting = f"waiting: another mobiledeploy {what} {path.stem}"
        reporter.say(waiting)
        # It may take long: a log names it from time to time.
        reporter.progress(waiting, 0, 1)
        locks.lock(handle, exclusive=exclusive)
        reporter.progress(waiting, 1, 1)
