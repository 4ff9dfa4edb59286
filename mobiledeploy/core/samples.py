"""Shared by the data sets: how samples are split, and how labels match class names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.types import Annotation, ModelInput, Split

CALIBRATION = 200
"""The most images used for calibration; more would not change min-max ranges much."""

_SEED = 20170417


def part(count: int, split: Split) -> NDArray[np.int64]:
    """The indices of the samples of `split`, among `count` samples in their own order.

    A permutation that depends on the count alone is split: its first ``min(200, max(1, count //
    5))`` are for calibration, the rest is for validation (and is `test` too). For networks that are
    trained on the same data there is another split: the last fifth is `held` back for evaluation,
    the rest is `train`, which includes the calibration part. `all` is every sample.

    Returns:
        Ascending indices, int64.
    """
    if split == "all":
        return np.arange(count, dtype=np.int64)
    order = np.random.Generator(np.random.PCG64(_SEED)).permutation(count)
    fifth = max(1, count // 5)
    calibration_count = min(CALIBRATION, fifth)
    subset = {
        "train": order[:-fifth],
        "held": order[-fifth:],
        "calibration": order[:calibration_count],
    }.get(split, order[calibration_count:])
    return np.sort(subset).astype(np.int64)


class AbsentArray(InputError):
    """The data has nothing for an input of the model."""


def no_array(source: str, end: ModelInput, there: str = "images only") -> AbsentArray:
    """The error of a data set that has nothing for this input but has what is `there`."""
    return AbsentArray(
        f"{source} has {there}, and the model takes {end.name} {list(end.shape)}",
        "give an .npz with an array for each input, by their names",
    )


def label_names(lines: Iterable[str], where: str) -> tuple[str, ...]:
    """The class names in a file of labels, one a line.

    If the lines begin with 0, 1, 2, ... in order, as Teachable Machine writes them (`0 name`),
    these numbers are no part of the names.

    InputError for an empty line; `where` names the file.
    """
    lines = tuple(line.strip() for line in lines)
    if "" in lines:
        raise InputError(
            f"{where} has an empty line {lines.index('') + 1}",
            "every line names a class; a background class needs a name too",
        )
    numbered = [line.split(maxsplit=1) for line in lines]
    if all(len(words) > 1 and words[0] == str(n) for n, words in enumerate(numbered)):
        return tuple(name for _, name in numbered)
    return lines


def right_classes(marks: NDArray[np.bool_]) -> Annotation:
    """The annotation of a row of marks, one for each class: whether it is right.

    It holds all classes that are right. If there is exactly one it is the sample's class too: data
    does not say whether its classes exclude each other, which the task decides.
    """
    labels = tuple(np.flatnonzero(marks).tolist())
    return Annotation(labels[0] if len(labels) == 1 else -1, labels)


def part_of(source: str, count: int, split: Split, noun: str = "images") -> NDArray[np.int64]:
    """`part` of the `count` samples of `source`; InputError if there is nothing in it."""
    indices = part(count, split)
    if not len(indices):
        raise InputError(f"{source} has too few {noun} ({count}) to split")
    return indices


def match(names: Sequence[str], labels: Sequence[str], where: str) -> tuple[int, ...]:
    """The index in `labels` of each class name of the data.

    A name matches a label if it equals the whole line or its first word (`n01440764 tench`).
    Without labels the classes are numbered in the order of `names`.

    Raises:
        InputError: a name matches no label or several, or two names match the same label.
    """
    if not labels:
        return tuple(range(len(names)))
    places: dict[str, set[int]] = {}
    for index, label in enumerate(labels):
        for key in {label, *label.split()[:1]}:
            places.setdefault(key, set()).add(index)
    exact = {label: index for index, label in enumerate(labels)}
    names_by_index: dict[int, str] = {}
    for name in names:
        candidates = {exact[name]} if name in exact else places.get(name, set())
        if len(candidates) != 1:
            how = "is none of" if not candidates else "begins more than one of"
            raise InputError(
                f"class {name!r} of {where} {how} the {len(labels)} labels",
                "name it as a line of --labels, or as that line's first word",
            )
        index = candidates.pop()
        if index in names_by_index:
            raise InputError(
                f"{names_by_index[index]!r} and {name!r} of {where} are the same label"
            )
        names_by_index[index] = name
    return tuple(names_by_index)


def labelled_classes(samples: Samples) -> int:
    """The number of classes that the samples have labels of.

    0 where they have none, and where they have other annotations too: these leave open whether
    there is one class for each sample.
    """
    # Labels are at hand, while an annotation may be a mask that has to be decoded.
    first = next((index for index in range(len(samples)) if samples.label(index) >= 0), None)
    if first is None:
        return 0
    truth = samples.annotation(first)
    return 0 if truth.labels or truth.values else len(samples.classes)


def require_two_classes(samples: Samples) -> None:
    """InputError for labelled samples that are all of one class; samples without labels pass.

    It is for tasks that are judged by a label. The others can use such data, and so can
    calibration.
    """
    first = -1
    for index in range(len(samples)):
        label = samples.label(index)
        if first >= 0 and label not in (-1, first):
            return
        first = max(first, label)
    if first >= 0:
        raise InputError(
            f"{samples.source} holds one class: an accuracy on it would mean nothing",
            "add images of another class (one class is enough for calibration, not for evaluation)",
        )


def class_offset(labels: int, outputs: int) -> int | None:
    """The model's class minus the label: 0, or +-1 for ImageNet with background.

    Some ImageNet models have 1001 outputs, background first, and label lists have 1000 lines, or
    the other way round.

    Returns:
        None if the two numbers of classes do not match in any of these ways.
    """
    return {(outputs, outputs): 0, (1000, 1001): 1, (1001, 1000): -1}.get((labels, outputs))


def class_name(labels: Sequence[str], outputs: int, index: int) -> str:
    """The label of the model's class `index`, or its number if no label matches."""
    offset = class_offset(len(labels), outputs)
    place = -1 if offset is None else index - offset
    return labels[place] if 0 <= place < len(labels) else str(index)
