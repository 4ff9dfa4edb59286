"""The table of networks beside the device cards, against the tool that wrote it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mobiledeploy.core import device_cards

SCRIPT = Path(__file__).resolve().parent.parent.parent / "tools" / "device_networks.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("device_networks", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_row_is_what_the_tool_counts(tool) -> None:
    name, work = tool.count("mobilenet_v1", 0.25, 160)
    assert device_cards.networks()[name] == work


@pytest.mark.slow
def test_every_row_is_what_the_tool_counts(tool) -> None:
    counted = dict(tool.count(*network) for network in tool.NETWORKS if network[0] != "vgg16")
    known = device_cards.networks()
    assert known.keys() - counted.keys() == {"vgg16_224"}
    assert counted == {name: known[name] for name in counted}
