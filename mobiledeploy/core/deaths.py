"""Why a process of ours ended before its work was done: whose fault it was, and the exit code.

A crash is the fault of the file that the process was reading. Being killed is not: the system, or
somebody, ended it.
"""

from __future__ import annotations

import signal

from mobiledeploy.core.errors import DeployError, DeviceError, InputError

# What a process does to itself: bad addresses, a file that ends before its map, a failed check.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE})
# The last words of C++ where there is no memory.
_NO_MEMORY = "bad_alloc"


def death(what: str, status: int, log: str, file: str = "") -> DeployError:
    """The error that stands for the end of a process.

    Args:
        what: a noun for it, "the conversion".
        status: how it ended; negative: the signal.
        log: what it and its libraries printed.
        file: the name of the file that it was reading, "" where it read none.

    Returns:
        DeviceError where it was killed, InputError where it crashed on `file`; DeployError, which
        is a defect of ours, where it crashed on nothing or just ended.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if status >= 0:
        return DeployError(f"{what} ended with status {status}", last)
    if -status == signal.SIGKILL:
        return DeviceError(
            f"{what} was killed by signal 9 (out of memory?)", "close other programs and try again"
        )
    if -status not in _CRASHES:
        return DeviceError(f"{what} was killed by signal {-status}", "try again")
    if _NO_MEMORY in log:
        return out_of_memory(what)
    name = signal.Signals(-status).name
    if file:
        return InputError(
            f"{what} crashed on {file} ({name})", "the file is damaged, or none that it can read"
        )
    return DeployError(f"{what} crashed ({name})", last)


def out_of_memory(what: str) -> DeviceError:
    """The error that stands for memory that was not there; `what` as of `death`."""
    return DeviceError(f"{what} ran out of memory", "close other programs and try again")
