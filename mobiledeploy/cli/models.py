"""List the models: sizes, published accuracy, and which have weights."""

from __future__ import annotations

import click

from mobiledeploy.cli import _frame
from mobiledeploy.core import units
from mobiledeploy.core.cards import ModelCard, Published
from mobiledeploy.verbs import models as verb


@click.command(epilog="Example:  mobiledeploy models mobilenet_v1")
@click.argument("name", required=False)
@_frame.common
def command(name: str | None, json: bool, quiet: bool, verbose: int) -> None:
    """List the model cards: alphas, resolutions, mult-adds, params, published accuracy, weights.

    With NAME, that card only. The published accuracy is ImageNet top-1 of a float model, from the
    source that stands beside it.
    """
    found = verb.models(name)
    if json:
        _frame.emit_json(verb.Cards(found))
        return
    for card in found:
        low, high = card.resolution_limits
        click.echo(f"{card.name}: {card.title}, {card.paper} {card.link}".rstrip())
        click.echo(
            f"any alpha above 0, resolution {low} to {high}; default "
            f"alpha {card.default_alpha:g}, resolution {card.default_resolution}"
        )
        if card.published:
            _frame.table(
                ("published", "alpha", "resolution", "mult-adds", "params", "top-1"),
                [_row(row) for row in card.published],
            )
        rows = _weights(card)
        if rows:
            _frame.table(("weights", "alpha", "resolution", "top-1"), rows)


def _row(row: Published) -> tuple[str, ...]:
    return (
        row.source,
        f"{row.alpha:g}",
        str(row.resolution),
        f"{row.mult_adds / 1e6:.0f} M",
        f"{row.params / 1e6:.2f} M",
        units.percent(row.top1),
    )


def _weights(card: ModelCard) -> list[tuple[str, ...]]:
    """A row for each file of weights and each resolution of it."""
    rows: list[tuple[str, ...]] = []
    demo, imagenet = card.weights.demo, card.weights.imagenet
    for file in demo.files if demo else ():
        for resolution, top1 in file.top1.items():
            rows.append(("demo", f"{file.alpha:g}", resolution, units.percent(top1)))
    for published in imagenet.files if imagenet else ():
        sizes = ", ".join(map(str, published.resolutions))
        rows.append(("imagenet", f"{published.alpha:g}", sizes, "as published"))
    return rows
