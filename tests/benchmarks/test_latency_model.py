"""The parts of benchmarks/latency_model.py that read the table of counts."""

from __future__ import annotations

from mobiledeploy.core import device_cards
from tests.scripts import script


def test_published_networks_are_estimated_or_refused() -> None:
    with script("benchmarks/latency_model.py") as module:
        cards = [card for card in device_cards.all_() if card.name == "pixel-1"]
        (pairs,) = module.pairs(cards)
        assert 0 < pairs.refused < pairs.networks
        # MobileNet v2 1.0 and v3 Small, on one and on two threads.
        judged = module.unseen(cards)
        assert len(judged) == 4
        assert module.figures(judged).rmspe < 0.2
