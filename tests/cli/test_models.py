import json

import click.testing
import pytest

from mobiledeploy.cli.models import command
from mobiledeploy.core.errors import UsageError


def run(*arguments):
    return click.testing.CliRunner().invoke(command, arguments, catch_exceptions=True)


def test_the_table_has_published_rows_and_weights():
    result = run("mobilenet_v1")
    assert result.exit_code == 0
    assert "0.5" in result.stdout
    assert "569 M" in result.stdout
    assert "70.6 %" in result.stdout
    assert "imagenet" in result.stdout
    assert result.stdout == run().stdout


def test_json_is_one_object():
    data = json.loads(run("--json").stdout)
    assert data["record"] == "Cards"
    assert data["cards"][0]["name"] == "mobilenet_v1"
    assert data["cards"][0]["published"][0]["mult_adds"] == 569_000_000


def test_an_unknown_name_is_a_usage_error():
    result = run("mobilenet_v9")
    assert isinstance(result.exception, UsageError)
    with pytest.raises(UsageError, match="did you mean mobilenet_v1"):
        raise result.exception
