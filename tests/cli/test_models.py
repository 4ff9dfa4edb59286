import json

import click.testing
import pytest

from mobiledeploy.cli.models import command
from mobiledeploy.core import cards
from mobiledeploy.core.errors import UsageError


def run(*arguments):
    return click.testing.CliRunner().invoke(command, arguments, catch_exceptions=True)


def lines(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_one_card_has_published_rows_and_weights():
    message = lines("mobilenet_v1")
    assert message[0].startswith("mobilenet_v1: MobileNet v1, Howard et al. 2017")
    assert any("any alpha above 0, resolution 32 to 1024" in line for line in message)
    (row,) = [line.split() for line in message if line.startswith("Howard 2017 Table 9")]
    assert row[4:] == ["0.5", "160", "76", "M", "1.32", "M", "60.2", "%"]
    assert sum("int8" in line for line in message) == 16
    assert any(line.split()[:2] == ["demo", "0.25"] for line in message)
    assert any(line.split()[:2] == ["imagenet", "0.75"] for line in message)


def test_a_card_without_alpha_and_weights():
    message = lines("googlenet")
    assert "no alpha, resolution 32 to 1024; default resolution 224" in message
    assert not any("imagenet" in line for line in message)


def test_groups_stand_in_the_rows():
    assert any("Zhang 2017 Table 2, 8 groups" in line for line in lines("shufflenet_v1"))


def test_without_a_name_every_card_has_one_line():
    header, *rows, last = lines()
    assert header.split() == [
        "model",
        "paper",
        "alphas",
        "resolution",
        "mult-adds",
        "params",
        "top-1",
        "weights",
    ]
    assert [row.split()[0] for row in rows] == list(cards.names())
    found = {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
    assert found["mobilenet_v1"] == (
        "Howard et al. 2017 0.25, 0.5, 0.75, 1 224 569 M 4.2 M 70.6 % demo, imagenet"
    )
    assert found["shufflenet_v1"].startswith("Zhang et al. 2017 0.25, 0.5, 1, 1.5, 2 224 140 M")
    assert found["vgg16"].endswith("– 224 15300 M 138 M 71.5 % imagenet")
    assert found["googlenet"].endswith("random")
    assert "mobiledeploy models NAME" in last


def test_json_is_one_object():
    data = json.loads(run("--json").stdout)
    assert data["record"] == "ModelListings"
    assert [listing["card"]["name"] for listing in data["models"]] == list(cards.names())
    (listing,) = json.loads(run("mobilenet_v1", "--json").stdout)["models"]
    first = listing["published"][0]
    assert (first["mult_adds"], first["alpha"]) == (569_000_000, 1.0)


def test_an_unknown_name_is_a_usage_error():
    result = run("mobilenet_v9")
    assert isinstance(result.exception, UsageError)
    with pytest.raises(UsageError, match="did you mean mobilenet_v"):
        raise result.exception
