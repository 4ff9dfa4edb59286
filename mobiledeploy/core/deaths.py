"""Why one of our processes ended before its work was done: the cause, and the exit code.

A crash is blamed on the file that the process was reading. A kill is not: the system or a user
ended the process.
"""

from __future__ import annotations

import signal

from mobiledeploy.core.errors import DeployError, DeviceError, InputError

# Signals of a crash: bad addresses, a file that ends before its map, a failed check.
# Windows lacks some of them, and no process ends by one there.
_CRASHES = frozenset(
    getattr(signal, name, None) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE")
)
KILLED = -getattr(signal, "SIGKILL", 9)
"""The status of a process that was killed, out of memory for one."""
# What C++ prints if there is no memory.
_NO_MEMORY = "bad_alloc"


def death(what: str, status: int, log: str, file: str = "") -> DeployError:
    """The error for the unexpected end of a process.

    Args:
        what: a noun for the process, such as "the conversion".
        status: its exit status; negative for a signal.
        log: what the process and its libraries printed.
        file: the name of the file that it was reading, "" for none.

    Returns:
        DeviceError if it was killed, InputError if it crashed on `file`. DeployError (a defect of
        ours) if it crashed without a file, or ended by itself.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1] if lines else "it printed nothing"
    if status >= 0:
        return DeployError(f"{what} ended with status {status}", last)
    if status == KILLED:
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
            f"{what} crashed on {file} ({name})",
            "the file is damaged, or of a kind that it cannot read",
        )
    return DeployError(f"{what} crashed ({name})", last)


def out_of_memory(what: str) -> DeviceError:
    """The error for too little memory; `what` as in `death`."""
    return DeviceError(f"{what} ran out of memory", "close other programs and try again")
