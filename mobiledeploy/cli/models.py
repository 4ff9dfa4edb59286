"""List the models with sizes, published accuracy and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mobiledeploy.cli import _frame
from mobiledeploy.core import units

if TYPE_CHECKING:
    from mobiledeploy.core.cards import ModelCard
    from mobiledeploy.steps.published import Published
    from mobiledeploy.verbs import models as verb


@click.command(epilog="Example:  mobiledeploy models mobilenet_v1")
@click.argument("name", required=False)
@_frame.common
def command(name: str | None, json: bool, quiet: bool, verbose: int) -> None:
    """List the model cards: alphas, resolutions, mult-adds, params, published accuracy, weights.

    With NAME, show everything about that card. The published accuracy is ImageNet top-1, from the
    source beside it.
    """
    from mobiledeploy.verbs import models as verb

    listings = verb.models(name)
    if json:
        _frame.emit_json(listings)
    elif name is None:
        _frame.show(listings)
        _frame.sentence("Next: `mobiledeploy models NAME` shows everything about one model.")
    else:
        _detail(listings.models[0])


def _detail(listing: verb.ModelListing) -> None:
    card = listing.card
    low, high = card.resolution_limits
    _frame.sentence(f"{card.name}: {card.title}, {card.paper} {card.link}".rstrip())
    alpha = "no alpha" if card.default_alpha is None else "any alpha above 0"
    default = "" if card.default_alpha is None else f"alpha {card.default_alpha:g}, "
    _frame.sentence(
        f"{alpha}, resolution {low} to {high}; default {default}"
        f"resolution {card.default_resolution}"
    )
    if listing.published:
        _frame.table(
            ("published", "alpha", "resolution", "mult-adds", "params", "top-1"),
            [_row(row) for row in listing.published],
        )
    rows = _weights(card)
    if rows:
        # Not at the top: help needs no plugins.
        from mobiledeploy.core.plugins import TASKS

        figure = TASKS.load(card.task).METRICS[0].title
        _frame.table(("weights", "alpha", "resolution", figure), rows)


def _row(row: Published) -> tuple[str, ...]:
    groups = "" if row.groups is None else f", {row.groups} groups"
    variant = "" if row.variant == "float" else f", {row.variant}"
    return (
        f"{row.source}{groups}{variant}",
        "–" if row.alpha is None else f"{row.alpha:g}",
        str(row.resolution),
        units.millions(row.mult_adds),
        units.millions(row.params),
        units.percent(row.top1),
    )


def _weights(card: ModelCard) -> list[tuple[str, ...]]:
    """A row for each file of weights and each of its resolutions."""
    rows: list[tuple[str, ...]] = []
    demo, imagenet = card.weights.demo, card.weights.imagenet
    for file in demo.files if demo else ():
        for resolution, figure in file.figures.items():
            rows.append(("demo", _alpha(file.alpha), resolution, units.percent(figure)))
    for file_ in imagenet.files if imagenet else ():
        sizes = ", ".join(map(str, file_.resolutions))
        rows.append(("imagenet", _alpha(file_.alpha), sizes, "as published"))
    return rows


def _alpha(alpha: float | None) -> str:
    return "–" if alpha is None else f"{alpha:g}"
