"""Lists the models, the sources of their weights, and their published figures."""

from __future__ import annotations

from dataclasses import dataclass

from mobiledeploy.core import cards, units
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.display import Record, Table
from mobiledeploy.steps import published
from mobiledeploy.steps.published import Published


@dataclass(frozen=True)
class ModelListing(Record):
    """A model card and its published figures."""

    card: ModelCard
    published: tuple[Published, ...]


@dataclass(frozen=True)
class ModelListings(Record):
    """The answer of `models`."""

    models: tuple[ModelListing, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each card, at its defaults."""
        headers = ("model", "paper", "alphas", "resolution", "mult-adds", "params", "top-1")
        rows = tuple(map(_row, self.models))
        optional = ("paper", "resolution", "weights", "alphas")
        return (Table((*headers, "weights"), rows, optional=optional),)


def models(name: str | None = None) -> ModelListings:
    """Lists model cards: alphas, resolutions, mult-adds, parameters, published accuracy, weights.

    Example:
        >>> [listing.card.name for listing in md.models("mobilenet_v1").models]

    Args:
        name: one card; the default is all.

    Returns:
        The cards, each with its rows of published tables.

    Raises:
        UsageError: no card has this name.
    """
    rows = published.grids()
    return ModelListings(
        tuple(
            ModelListing(card, tuple(row for row in rows if row.card == card.name))
            for card in map(cards.load, cards.names() if name is None else [name])
        )
    )


def _row(listing: ModelListing) -> tuple[str, ...]:
    """A card at its defaults, with the figures of the first source that has them."""
    card = listing.card
    usual = [
        row
        for row in listing.published
        if (row.alpha, row.resolution, row.variant)
        == (card.default_alpha, card.default_resolution, "float")
        and row.groups in (None, card.arguments.get("groups"))
    ]
    alphas = sorted({row.alpha for row in listing.published if row.alpha is not None})
    weights = [
        kind
        for kind, there in (("demo", card.weights.demo), ("imagenet", card.weights.imagenet))
        if there
    ]
    return (
        card.name,
        card.paper.partition(",")[0],
        ", ".join(f"{alpha:g}" for alpha in alphas) or "–",
        str(card.default_resolution),
        units.millions(next((row.mult_adds for row in usual if row.mult_adds), None)),
        units.millions(next((row.params for row in usual if row.params), None)),
        units.percent(next((row.top1 for row in usual if row.top1), None)),
        ", ".join(weights) or "random",
    )
