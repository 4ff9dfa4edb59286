"""What the long commands show on terminals of any width, and where there is none."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests import warm
from tests.terminals import on_terminal

SMALL = ("--alpha", "0.25", "--res", "32")
COMMANDS = {
    "sweep": ("sweep", "--alpha", "0.25,0.5", "--res", "128,160", "--dry-run"),
    "export": (
        *("export", *SMALL, "--weights", "random"),
        *("--recipe", "float32,int8_ptq", "--format", "tflite"),
    ),
    "train": ("train", *SMALL, "--epochs", "1"),
}
SHOWN = {
    "sweep": ("mobilenet_v1 0.25 128", "float32,float16,int8_best", "to do"),
    "export": ("float32.tflite", "int8_ptq.tflite", "top-1", "random weights"),
    "train": ("top-1", "Next: mobiledeploy export runs/"),
}
QUICK = {("sweep", 60), ("sweep", 200)}
# What is one line whatever its length, so that it can be copied or searched for.
SENTENCES = ("warning: ", "error: ", "Next: ", "input codes: ")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*[34]\d")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        pytest.param(name, columns, marks=[pytest.mark.slow] * ((name, columns) not in QUICK))
        for name in COMMANDS
        for columns in (60, 80, 200)
    ],
)
def test_a_screen_has_every_part_within_its_width(name, columns, here):
    program = (warm.program(), "-m", "mobiledeploy")
    lines = on_terminal(columns, *program, *COMMANDS[name], also_errors=True)
    text = " ".join(lines)
    assert all(part in re.sub(r"\s+", " ", text) for part in SHOWN[name]), lines
    broken = iter(lines)
    for line in broken:
        if line.startswith(SENTENCES):
            continue
        assert len(line) <= columns, line
    # The table is left-aligned text: no line of it begins with a blank.
    assert not any(line.startswith(" ") and "%" in line for line in lines)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_without_a_terminal_there_are_no_styles(environment, here):
    kept = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    done = subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *COMMANDS["sweep"]],
        capture_output=True,
        text=True,
        env=kept | environment,
        check=True,
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert all(part in done.stdout for part in SHOWN["sweep"])
