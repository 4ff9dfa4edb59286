from __future__ import annotations

import io
import sys
import time

import click
import pytest
from click.testing import CliRunner

from mobiledeploy.cli import _frame
from mobiledeploy.core.types import Failed


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_lines_say_what_goes_on(quiet, monkeypatch):
    monkeypatch.setattr(_frame, "_LINE_EVERY_S", 0.02)
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    with _frame.Terminal(quiet=quiet) as terminal:
        terminal.progress("opening", 0, 1)
        terminal.progress("choosing", 1, 4)
        terminal.progress("opening", 1, 1)
        deadline = time.monotonic() + 10
        while "choosing" not in pipe.getvalue() and not quiet and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1 * quiet)
    lines = pipe.getvalue().splitlines()
    assert quiet == (not lines)
    assert quiet or lines[-1].startswith("choosing, 1 of 4, after ")
    time.sleep(0.05)
    assert pipe.getvalue().splitlines() == lines


def test_what_failed_is_named_once_and_the_gravest_code_wins() -> None:
    @click.command()
    def command() -> None:
        _frame.failures([Failed("a.tflite", "a.tflite is not there", 7), Failed("b", "it died", 5)])

    result = CliRunner().invoke(command)
    assert result.stderr == "error: a.tflite is not there\nerror: b: it died\n"
    assert result.exit_code == 7
    assert not result.stdout
