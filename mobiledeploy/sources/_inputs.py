"""What the inputs of a model are: images or tensors, by their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import ModelInput, NetworkInput, Output

_IMAGE_AXES = 4
_SCORES_AXES = 2
_CHANNELS = (1, 3)
_IMAGE_TYPES = ("float32", "uint8")


class ShapedInput(NamedTuple):
    """An input as a model declares it: None is a dynamic side."""

    name: str
    shape: Sequence[int | None] | None
    dtype: str


def inputs_of(
    declared: Sequence[ShapedInput], resolution: tuple[int, int] | None
) -> tuple[NetworkInput, ...]:
    """The inputs of a model, images at `resolution` (height, width) where they leave it open.

    An image has four axes, of which the last or the second has 1 or 3 channels, and holds float32
    or uint8.

    Raises:
        InputError: no inputs, or two of one name; a shape that is not known, or an image of any
            size without a `resolution`.
        UsageError: a `resolution` that no image of the model accepts.
    """
    if not declared:
        raise InputError("the model has no inputs", "save it with its inputs")
    names = [one.name for one in declared]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(
            f"the model has {names.count(repeated)} inputs named {repeated!r}",
            "give each input a name of its own: data has one array of a name",
        )
    return tuple(_input(one, resolution) for one in declared)


def may_take_images(shapes: Iterable[Sequence[int | None] | None]) -> bool:
    """Whether one of the inputs may be an image, by its shape with the batch; None is not known."""
    return any(shape is None or len(shape) == _IMAGE_AXES for shape in shapes)


def require_scores(output: Output, ranks: Sequence[int | None]) -> None:
    """InputError for a softmax to add or to leave out, unless the only output is a row of scores.

    `ranks` are the numbers of axes of the outputs, batch included; None is not known.
    """
    if output != "model" and list(ranks) not in ([_SCORES_AXES], [None]):
        raise InputError(
            f"--output {output} is for a model with one row of scores", "leave out --output"
        )


def _input(one: ShapedInput, resolution: tuple[int, int] | None) -> NetworkInput:
    name, shape, dtype = one
    if shape is None or not shape:
        raise InputError(
            f"the model was saved without the shape of its input {name}",
            "save it with a fixed input shape",
        )
    batch = shape[0] or 1
    first = _is_channels_first(shape)
    if dtype not in _IMAGE_TYPES or len(shape) != _IMAGE_AXES:
        return NetworkInput(_tensor(name, shape, dtype), batch)
    _, *sides = shape
    height, width, channels = (sides[1], sides[2], sides[0]) if first else sides
    if channels not in (*_CHANNELS, None):
        return NetworkInput(_tensor(name, shape, dtype), batch)
    size = _size(name, height, width, resolution)
    return NetworkInput(
        ModelInput(name, "image", (*size, channels or _CHANNELS[-1]), None, dtype), batch, first
    )


def _is_channels_first(shape: Sequence[int | None]) -> bool:
    return (
        len(shape) == _IMAGE_AXES and shape[3] not in (*_CHANNELS, None) and shape[1] in _CHANNELS
    )


def _tensor(name: str, shape: Sequence[int | None], dtype: str) -> ModelInput:
    sides = tuple(side for side in shape[1:] if side is not None)
    if len(sides) < len(shape) - 1:
        words = ", ".join("N" if side is None else str(side) for side in shape)
        raise InputError(
            f"the model's input {name} has no fixed shape: [{words}]",
            "save it with a fixed input shape",
        )
    return ModelInput(name, "tensor", sides, None, dtype)


def _size(
    name: str, height: int | None, width: int | None, resolution: tuple[int, int] | None
) -> tuple[int, int]:
    if resolution is None:
        if height is None or width is None:
            raise UsageError("the model takes images of any size", "choose one: --res 224")
        return height, width
    if height not in (None, resolution[0]) or width not in (None, resolution[1]):
        raise UsageError(f"the model takes {height}x{width} only", "omit --res")
    return resolution
