"""The exit status of a process decides the error and its cause."""

from __future__ import annotations

import signal

import pytest

from mobiledeploy.core import deaths
from mobiledeploy.core.errors import DeployError, DeviceError, InputError


@pytest.mark.parametrize(
    ("status", "log", "file", "kind", "message"),
    [
        (-signal.SIGKILL, "", "a.h5", DeviceError, "the work was killed by signal 9"),
        (-signal.SIGTERM, "", "a.h5", DeviceError, "the work was killed by signal 15"),
        (-signal.SIGABRT, "std::bad_alloc", "a.h5", DeviceError, "the work ran out of memory"),
        (-signal.SIGSEGV, "", "a.h5", InputError, "the work crashed on a.h5 (SIGSEGV)"),
        (-signal.SIGSEGV, "a\nb\n\n", "", DeployError, "the work crashed (SIGSEGV); b"),
        (3, "a\nb\n\n", "a.h5", DeployError, "the work ended with status 3; b"),
        (0, "", "", DeployError, "the work ended with status 0; it printed nothing"),
    ],
)
def test_the_end_of_a_process_has_a_cause(
    status: int, log: str, file: str, kind: type[DeployError], message: str
) -> None:
    error = deaths.death("the work", status, log, file)
    assert type(error) is kind
    assert str(error).startswith(message)
