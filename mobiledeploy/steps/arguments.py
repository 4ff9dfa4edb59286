"""Converts the arguments of verbs for their steps: one path or several, one name or several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, TypeVar

from mobiledeploy.core import artifacts, cards, inputs, samples
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import ChannelOrder, Preprocessing, Resize

T = TypeVar("T", str, float, int)

AnyPath = str | os.PathLike[str]
AnyPaths = AnyPath | Iterable[AnyPath]
Names = str | Iterable[str]
Labels = AnyPath | Iterable[str]
"""Class names in the model's order, or the path of a file with one name per line."""
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Overrides(Record):
    """The settings of `Preprocessing` that the command line gives; None for the others."""

    input_range: tuple[float, float] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: ChannelOrder | None = None
    resize: Resize | None = None
    crop: float | None = None
    labels: tuple[str, ...] | None = None

    def over(self, default: Preprocessing | None) -> Preprocessing | None:
        """`default` with these settings; None if neither gives the input range."""
        settings = {name: value for name, value in vars(self).items() if value is not None}
        if default is not None:
            return replace(default, **settings)
        return Preprocessing(**settings) if "input_range" in settings else None


class ImageOptions(TypedDict):
    """How images become input, as the keywords of a verb; None means the default."""

    input_range: tuple[float, float] | None
    mean: Triple | None
    std: Triple | None
    channels: ChannelOrder | None
    resize: Resize | None
    crop: float | None
    labels: Labels | None


def need_model_file(file: object, options: Mapping[str, object]) -> None:
    """UsageError for a card's name in place of a file, and for options of a card beside a file.

    `options` are such options by name; None means that one is absent.
    """
    if str(file) in cards.names() and not Path(str(file)).exists():
        raise UsageError(f"{file} is an architecture, not a model file", f"--arch {file}")
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} does not go with a model file", "leave it out")


def path(value: AnyPath | None) -> Path | None:
    """None stays None."""
    return None if value is None else Path(value)


def text(value: AnyPath | None) -> str | None:
    """A word or a path as text; None stays None."""
    return None if value is None else os.fspath(value)


def paths(value: AnyPaths) -> tuple[Path, ...]:
    """One path or several, each once, without the records of artifacts."""
    several = [value] if isinstance(value, str | os.PathLike) else value
    return artifacts.without_records(map(Path, several))


def several(value: T | Iterable[T]) -> tuple[T, ...]:
    """One value or several, each once."""
    values = [value] if isinstance(value, str | float | int) else value
    return tuple(dict.fromkeys(values))


def overrides(
    input_range: tuple[float, float] | None,
    mean: Triple | None,
    std: Triple | None,
    channels: ChannelOrder | None,
    resize: Resize | None,
    crop: float | None,
    labels: Labels | None,
) -> Overrides:
    """The preprocessing that differs from the model's own.

    Raises:
        UsageError: too few or too many numbers; labels that are not names of classes.
    """
    for name, numbers, count in (
        ("input range", input_range, 2),
        ("mean", mean, 3),
        ("std", std, 3),
    ):
        if numbers is not None and len(numbers) != count:
            raise UsageError(f"{name} has {len(numbers)} numbers", f"give {count}")
    return Overrides(
        None if input_range is None else (float(input_range[0]), float(input_range[1])),
        _triple(mean),
        _triple(std),
        channels,
        resize,
        crop,
        None if labels is None else _labels(labels),
    )


def _triple(numbers: Triple | None) -> Triple | None:
    return None if numbers is None else (float(numbers[0]), float(numbers[1]), float(numbers[2]))


def _labels(labels: Labels) -> tuple[str, ...]:
    where = ""
    if isinstance(labels, str | os.PathLike):
        where = f" {labels}"
        try:
            labels = inputs.text(Path(labels), inputs.TABLE).rstrip().splitlines()
        except InputError as error:
            raise UsageError(f"--labels {error.message}", error.hint) from error
    try:
        names = samples.label_names(labels, f"--labels{where}")
    except InputError as error:
        raise UsageError(error.message, error.hint) from error
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"--labels{where} must name at least two classes, each once, one a line")
    return names


def need_threads(threads: int | None) -> None:
    """UsageError for less than one thread; None is for a default."""
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads cannot work", "give 1 or more")
