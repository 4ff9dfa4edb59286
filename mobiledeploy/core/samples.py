"""What the data sets of images share: how samples are split, and how labels meet class names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Split

CALIBRATION = 200
"""Images that calibrate at most; more do not move the ranges of a min-max calibration much."""

_SEED = 20170417


def part(count: int, split: Split) -> NDArray[np.int64]:
    """Which of `count` samples, in their own order, belong to `split`.

    A permutation seeded by the count alone is cut: its first ``min(200, max(1, count // 5))`` are
    for calibration, the rest, which is `test` too, is for validation. For networks that are trained
    on the same data it is cut otherwise: the last fifth is `held` back to judge them by, the rest
    is to `train` on, the calibration part among it. `all` is every sample.

    Returns:
        Ascending indices, int64.
    """
    if split == "all":
        return np.arange(count, dtype=np.int64)
    order = np.random.Generator(np.random.PCG64(_SEED)).permutation(count)
    fifth = max(1, count // 5)
    cut = min(CALIBRATION, fifth)
    chosen = {
        "train": order[:-fifth],
        "held": order[-fifth:],
        "calibration": order[:cut],
    }.get(split, order[cut:])
    return np.sort(chosen).astype(np.int64)


def match(names: Sequence[str], labels: Sequence[str], where: str) -> tuple[int, ...]:
    """The index in `labels` of each class name that the data has.

    A name matches a label by the whole line or by its first word (`n01440764 tench`). Without
    labels the classes are numbered in the order of `names`.

    Raises:
        InputError: a name is no label or could be two, or two names are one label.
    """
    if not labels:
        return tuple(range(len(names)))
    places: dict[str, set[int]] = {}
    for index, label in enumerate(labels):
        for key in {label, *label.split()[:1]}:
            places.setdefault(key, set()).add(index)
    whole = {label: index for index, label in enumerate(labels)}
    found: dict[int, str] = {}
    for name in names:
        candidates = {whole[name]} if name in whole else places.get(name, set())
        if len(candidates) != 1:
            how = "is none of" if not candidates else "begins more than one of"
            raise InputError(
                f"class {name!r} of {where} {how} the {len(labels)} labels",
                "name it as a line of --labels, or as that line's first word",
            )
        index = candidates.pop()
        if index in found:
            raise InputError(f"{found[index]!r} and {name!r} of {where} are the same label")
        found[index] = name
    return tuple(found)


def judged(split: Split, classes: int, where: str) -> None:
    """InputError where images of fewer than two classes should tell how good a model is."""
    if split not in ("calibration", "train") and classes < 2:
        raise InputError(
            f"{where} holds one class: accuracy over it would say nothing",
            "add images of another class (one class is enough to calibrate, not to judge)",
        )


def class_offset(labels: int, outputs: int) -> int | None:
    """What to add to a label to get the model's class: 0, or +-1 for ImageNet with background.

    Some ImageNet models have 1001 outputs, background first, where label lists have 1000 lines,
    or the other way round.

    Returns:
        None where the two numbers of classes have nothing to do with each other.
    """
    return {(outputs, outputs): 0, (1000, 1001): 1, (1001, 1000): -1}.get((labels, outputs))


def class_name(labels: Sequence[str], outputs: int, index: int) -> str:
    """What the model calls its class `index`: its number, where no label is known to be its own."""
    offset = class_offset(len(labels), outputs)
    place = -1 if offset is None else index - offset
    return labels[place] if 0 <= place < len(labels) else str(index)
