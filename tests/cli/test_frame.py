from __future__ import annotations

import io
import sys
import time

import click
import pytest
from click.testing import CliRunner

from mobiledeploy.cli import _frame
from mobiledeploy.core.types import Failed, NamedWarning
from tests.terminals import on_terminal


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


def lines_of(*warnings: NamedWarning, capsys) -> list[str]:
    with _frame.Terminal(quiet=True) as terminal:
        for warning in warnings:
            terminal.warn(warning)
    return capsys.readouterr().err.splitlines()


def busy(path: str) -> NamedWarning:
    return NamedWarning("busy-machine", "other programs computed", "close them", path)


def test_a_warning_that_files_share_is_told_once_with_their_names(capsys) -> None:
    alone = NamedWarning("few-images", "there are few images")
    other = NamedWarning("wide-interval", "the median is rough", file="build/b.tflite")
    lines = lines_of(
        *(busy("build/a.tflite"), alone, other, busy("build/b.tflite"), busy("build/a.tflite")),
        capsys=capsys,
    )
    assert lines == [
        "warning: there are few images [few-images]",
        "warning: a.tflite, b.tflite in build: other programs computed; close them [busy-machine]",
        "warning: build/b.tflite: the median is rough [wide-interval]",
    ]


def test_many_files_are_counted_and_those_of_several_folders_keep_them(capsys) -> None:
    (line,) = lines_of(busy("x/a.tflite"), busy("y/a.tflite"), capsys=capsys)
    assert line.startswith("warning: x/a.tflite, y/a.tflite: other programs")
    (line,) = lines_of(*(busy(f"x/{n}.tflite") for n in range(40)), capsys=capsys)
    assert line.startswith("warning: 40 files in x, such as 0.tflite: other programs")


def test_a_warning_about_a_file_is_told_if_the_work_fails_or_is_over(capsys) -> None:
    with pytest.raises(ZeroDivisionError), _frame.Terminal(quiet=True) as terminal:
        terminal.warn(busy("a.tflite"))
        raise ZeroDivisionError
    terminal.warn(busy("b.tflite"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines] == [" a.tflite", " b.tflite"]


@pytest.mark.parametrize(("columns", "lines"), [(0, 1), (20, 2)])
def test_an_error_breaks_between_words_on_a_terminal_that_knows_its_width(columns, lines):
    code = "from mobiledeploy.cli import _frame; _frame.error('there is no file of that name')"
    printed = on_terminal(columns, sys.executable, "-c", code, also_errors=True)
    assert " ".join(printed) == "error: there is no file of that name"
    assert len(printed) == lines
