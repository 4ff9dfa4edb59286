"""What a converter makes of a recipe, and that it refuses what it cannot make."""

from __future__ import annotations

from collections.abc import Collection

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Recipe

Numbers = tuple[int, int, str | None]
"""Bits of the weights, bits of the activations, how their ranges are found."""


def refuse_other(recipe: Recipe, format_: str, numbers: Collection[Numbers]) -> None:
    """InputError for a recipe that asks for anything that a converter to `format_` does not do.

    `numbers` are all that it makes. Weights of 4 and 8 bits have symmetric scales, per tensor or
    per channel; wider ones are floats and have none. Passes are for integers throughout.
    """
    where = f"recipe {recipe.name} for {format_}"
    if any(recipe.passes) and not recipe.full_integer:
        raise InputError(f"{where}: passes are for recipes of integers throughout")
    asked = (recipe.weight_bits, recipe.activation_bits, recipe.calibration)
    if asked not in numbers:
        raise InputError(
            f"{where}: weights of {asked[0]} bits with activations of {asked[1]} bits and "
            f"{asked[2] or 'no'} calibration cannot be made"
        )
    integers = recipe.weight_bits <= 8
    scales = ("per-tensor", "per-channel") if integers else ("none",)
    if recipe.granularity not in scales:
        raise InputError(f"{where}: granularity is {recipe.granularity}, not {' or '.join(scales)}")
    symmetry = "symmetric" if integers else "none"
    if recipe.symmetry != symmetry:
        raise InputError(f"{where}: symmetry is {recipe.symmetry}, not {symmetry}")
