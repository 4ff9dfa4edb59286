"""A forked process is what a started one is, to whoever watches it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobiledeploy.steps import child_process
from tests import warm

# It waits for a line on its standard input.
WAITING = ("-P", "-m", warm.JOB)


def forks() -> set[str]:
    """The processes that this session's servers have forked."""
    found: set[str] = set()
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if b"warm.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found |= set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def run(program: str, *argv: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [program, "-m", "mobiledeploy", *argv],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["--version"], 0), (["models", "--json"], 0), (["results"], 2), (["export", "--alpha=0"], 2)],
    ids=str,
)
def test_it_answers_as_a_started_one(here: Path, argv: list[str], code: int) -> None:
    answer = run(warm.program(), *argv)
    assert answer[0] == code
    assert answer == run(sys.executable, *argv)


def test_it_has_the_folder_and_the_environment_of_its_caller(here: Path) -> None:
    Path("mobiledeploy.toml").write_text("[export]\nalpha = -1.5\n")
    assert "alpha -1.5" in run(warm.program(), "export")[2]
    assert "alpha -2.5" in run(warm.program(), "export", MOBILEDEPLOY_EXPORT_ALPHA="-2.5")[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_both(number: signal.Signals) -> None:
    before = forks()
    begin = time.monotonic()
    with subprocess.Popen([warm.program(), *WAITING], stdin=subprocess.PIPE) as client:
        while not (started := forks() - before):
            assert client.poll() is None
            assert time.monotonic() - begin < 60, "it was started, not forked"
            time.sleep(0.01)
        (fork,) = started
        client.send_signal(number)
        assert client.wait(60) == -number
    deadline = time.monotonic() + 60
    while Path(f"/proc/{fork}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_read_while_python_starts_needs_a_start() -> None:
    _, _, said = run(warm.program(), "--version", PYTHONVERBOSE="1")
    assert "import _frozen_importlib" in said
    done = subprocess.run([warm.program(), "-c", "import sys; print(sys.argv)", "a"], stdout=-1)
    assert done.stdout == b"['-c', 'a']\n"


def test_conversions_are_forked_unless_a_test_is_of_the_process(
    request: pytest.FixtureRequest,
) -> None:
    assert (warm.program(), "-P") == child_process.INTERPRETER
    request.getfixturevalue("cold")
    assert (sys.executable, "-P") == child_process.INTERPRETER


def test_what_keras_backend_our_modules_set_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    before = forks()
    with subprocess.Popen([warm.program(), *WAITING], stdin=subprocess.PIPE) as client:
        begin = time.monotonic()
        while not forks() - before:
            assert time.monotonic() - begin < 60, "it was started, not forked"
            time.sleep(0.01)
        client.kill()
