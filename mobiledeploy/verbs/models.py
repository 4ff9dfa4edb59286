"""Which models there are, where their weights come from, and what a file of the user's is."""

from __future__ import annotations

from dataclasses import dataclass

from mobiledeploy.core import cards
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.steps import published
from mobiledeploy.steps.published import Published


@dataclass(frozen=True)
class ModelListing:
    """A card and what is published of it."""

    card: ModelCard
    published: tuple[Published, ...]


@dataclass(frozen=True)
class ModelListings:
    """Every card that was asked for."""

    models: tuple[ModelListing, ...]


def models(name: str | None = None) -> tuple[ModelCard, ...]:
    """The card `name`, or all cards; UsageError for an unknown name."""
    return tuple(map(cards.load, cards.names() if name is None else [name]))


def listings(name: str | None = None) -> ModelListings:
    """The card `name`, or all cards, with the rows of published tables that are of them."""
    rows = published.grids()
    return ModelListings(
        tuple(
            ModelListing(card, tuple(row for row in rows if row.card == card.name))
            for card in models(name)
        )
    )
