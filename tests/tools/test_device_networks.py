"""The table of networks beside the device cards, against the tool that wrote it."""

from __future__ import annotations

import pytest

from mobiledeploy.core import device_cards
from tests.scripts import script


@pytest.fixture(scope="module")
def tool():
    with script("tools/device_networks.py") as module:
        yield module


@pytest.mark.slow
def test_a_row_is_what_the_tool_counts(tool) -> None:
    name, work = tool.count("mobilenet_v1", 0.25, 160)
    assert device_cards.networks()[name] == work


@pytest.mark.slow
def test_every_row_is_what_the_tool_counts(tool) -> None:
    counted = dict(tool.count(*network) for network in tool.NETWORKS if network[0] != "vgg16")
    known = device_cards.networks()
    assert known.keys() - counted.keys() == {"vgg16_224"}
    assert counted == {name: known[name] for name in counted}
