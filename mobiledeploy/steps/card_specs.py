"""A model card and arguments -> the network that they describe."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import Argument, ModelSpec, Weights

# TFLite's flatbuffers end at 2 GB: alpha 10 of the widest network with an alpha stays below.
LARGEST_ALPHA = 10.0
LARGEST_CLASSES = 100_000
# Random weights come from a fixed seed, so no file can change them.
RANDOM = Weights("random", "", pinned=True)
DEMO = "demo"
"""The built-in images, as --data names them."""


def name(card: str, arguments: Mapping[str, Argument], resolution: int) -> str:
    """A network's name in records and folders: shufflenet_v1_g3_0.5_160."""
    parts = [card]
    if "groups" in arguments:
        parts.append(f"g{arguments['groups']}")
    if "alpha" in arguments:
        parts.append(f"{arguments['alpha']:g}")
    return "_".join((*parts, str(resolution)))


def spec(
    card: ModelCard,
    *,
    alpha: float | None = None,
    groups: int | None = None,
    res: int | None = None,
    classes: int,
) -> ModelSpec:
    """The card's network with random weights; None means the card's own value.

    UsageError for an argument that the card does not have, or that is beyond its limits.
    """
    if alpha is not None and card.default_alpha is None:
        raise UsageError(f"{card.name} has no alpha", "leave out --alpha")
    if groups is not None and "groups" not in card.arguments:
        raise UsageError(f"{card.name} has no groups", "leave out --groups")
    arguments = dict(card.arguments)
    if groups is not None:
        arguments["groups"] = operator.index(groups)
    width = card.default_alpha if alpha is None else alpha
    if width is not None:
        if not 0 < width <= LARGEST_ALPHA:
            raise UsageError(f"alpha {width:g} is not above 0 and at most {LARGEST_ALPHA:g}")
        # Records and keys hold a float, also for 1 and for numbers of numpy.
        arguments["alpha"] = float(width)
    size = card.default_resolution if res is None else operator.index(res)
    low, high = card.resolution_limits
    if not low <= size <= high:
        raise UsageError(f"resolution {size} is not within {low} to {high}")
    # A detector of one class tells it from the background.
    least = 1 if card.task == "detection" else 2
    if not least <= classes <= LARGEST_CLASSES:
        raise UsageError(f"{classes} classes are not within {least} to {LARGEST_CLASSES}")
    return ModelSpec(
        name=name(card.name, arguments, size),
        card=card.name,
        architecture=card.architecture,
        arguments=arguments,
        resolution=(size, size),
        classes=classes,
        preprocessing=card.preprocessing,
        weights=RANDOM,
        paper=card.paper,
        task=card.task,
    )
