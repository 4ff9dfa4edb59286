"""The tests themselves: they end, and mean the same, wherever they are started."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


def ignored() -> set[signal.Signals]:
    """The signals that a program started here would ignore."""
    code = "print(next(line for line in open('/proc/self/status') if line.startswith('SigIgn')))"
    status = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -S -c "{code}"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    mask = int(status.split()[1], 16)
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


def test_programs_start_with_default_signals() -> None:
    assert not ignored() & {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD}


def test_they_do_so_where_the_shell_ignores_them() -> None:
    """As in `make test &` of a script, and under nohup."""
    test = "tests/test_suite.py::test_programs_start_with_default_signals"
    line = f"trap '' INT QUIT HUP; exec {sys.executable} -m pytest -p no:cacheprovider -q {test}"
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_every_test_has_a_time_limit(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) <= 600
