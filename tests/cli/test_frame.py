from __future__ import annotations

import click
from click.testing import CliRunner

from mobiledeploy.cli import _frame
from mobiledeploy.core.types import Failed


def test_what_failed_is_named_once_and_the_gravest_code_wins() -> None:
    @click.command()
    def command() -> None:
        _frame.failures([Failed("a.tflite", "a.tflite is not there", 7), Failed("b", "it died", 5)])

    result = CliRunner().invoke(command)
    assert result.stderr == "error: a.tflite is not there\nerror: b: it died\n"
    assert result.exit_code == 7
    assert not result.stdout
