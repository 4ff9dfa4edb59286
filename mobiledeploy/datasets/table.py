"""A CSV of images and what is true of them; the first column is the image's path from the CSV.

The first line names the columns. What the other columns are, their names and values say:

- one column `label`: the class of each image, by its name. Whole numbers are the places of classes,
  from 0.
- columns whose names begin with `target`: numbers to predict.
- other columns: numbers to predict as well. If every one of them is 0 or 1, they also say of each
  class, which the column names, whether it is right: a table does not decide which of both is
  meant, the model's task does.

Every cell needs a value.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobiledeploy.core import inputs, samples
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.types import Annotation, Split
from mobiledeploy.datasets import _images

LARGEST_LABEL = 99_999
_LABEL, _TARGET = "label", "target"
_WHOLE = re.compile("0|[1-9][0-9]*")
_MOST_DIGITS = 9


def accepts(source: str) -> bool:
    """Whether `source` is named as a CSV file."""
    return source.lower().endswith(".csv") and not _images.is_folder(source)


def open(
    source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Samples:
    """The images of `split` by `core.samples.part`, in the order of the table.

    Args:
        source: the CSV file.
        split: see `core.samples.part`.
        resolution: not used: images have their own size.
        labels: names in the model's order, of its classes or of its numbers. The names in the
            table are matched with them. Without them: the classes of a column `label` sorted, or
            the columns in their order.

    Raises:
        InputError: not a CSV, an image outside of its folder, a value that is no number, or names
            that do not match.
    """
    path = Path(source)
    header, rows = _read(path)
    columns = header[1:]
    if columns == (_LABEL,):
        annotations, classes = _of_labels([row[1] for row in rows], labels, source)
    else:
        annotations, classes = _of_numbers(columns, rows, labels, source)
    names = [row[0] for row in rows]
    files = _images.located(path, names)
    indices = samples.part_of(source, len(files), split)
    return _images.AnnotatedImages(
        "table",
        source,
        split,
        [files[i] for i in indices],
        [names[i] for i in indices],
        [annotations[i] for i in indices],
        classes,
    )


def _read(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """The header and the rows, every cell without the spaces around it."""
    text = inputs.text(path, inputs.TABLE, "utf-8-sig")
    lines = list(_lines(text, path))
    if not lines:
        raise InputError(f"{path} is empty", "its first line names the columns: image,label")
    header = tuple(lines[0][1])
    if len(header) < 2:
        other = next((mark for mark in ";\t" if mark in header[0]), "")
        raise InputError(
            f"{path} has one column only" + (f", {header[0]!r}" if other else ""),
            "separate columns by commas"
            if other
            else "the second one is what is true of the image",
        )
    if "" in header[1:] or len(set(header)) < len(header):
        raise InputError(f"the columns of {path} do not have different names: {', '.join(header)}")
    if not all(name.isprintable() for name in header):
        raise InputError(f"{path} has a column whose name cannot be printed")
    for number, row in lines[1:]:
        if len(row) != len(header) or "" in row:
            raise InputError(
                f"line {number} of {path} fills {sum(map(bool, row))} of {len(header)} columns",
                "give every image a value in each column, or leave it out",
            )
    if len(lines) == 1:
        raise InputError(f"{path} names no image", "each line after the first names one")
    return header, [row for _, row in lines[1:]]


def _lines(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {path} is not CSV: {error}") from error


def _of_labels(
    values: Sequence[str], labels: tuple[str, ...], source: str
) -> tuple[list[Annotation], tuple[str, ...]]:
    """The classes of a column of labels, and their names."""
    names = tuple(sorted(set(values)))
    if not all(name.isprintable() for name in names):
        raise InputError(f"{source} has a label that cannot be printed")
    if not all(map(_WHOLE.fullmatch, names)):
        places = dict(zip(names, samples.match(names, labels, source), strict=True))
        return [Annotation(places[value]) for value in values], labels or names
    top = max(int(name[:_MOST_DIGITS]) for name in names)
    if top > LARGEST_LABEL or (labels and top >= len(labels)):
        there = f"{len(labels)} labels" if labels else f"at most {LARGEST_LABEL + 1} classes"
        raise InputError(f"{source} has label {top}, but there are {there}")
    if any(name in labels and labels.index(name) != int(name) for name in names):
        raise InputError(
            f"the labels of {source} are numbers, and the names of classes are other numbers",
            "write names that are not numbers into the table",
        )
    classes = labels or tuple(map(str, range(top + 1)))
    return [Annotation(int(value)) for value in values], classes


def _of_numbers(
    columns: tuple[str, ...], rows: Sequence[Sequence[str]], labels: tuple[str, ...], source: str
) -> tuple[list[Annotation], tuple[str, ...]]:
    """The annotations of columns of numbers, and the names of the columns in the model's order."""
    targets = [name for name in columns if name.lower().startswith(_TARGET)]
    if _LABEL in columns or 0 < len(targets) < len(columns):
        raise InputError(
            f"{source} has columns of different kinds: {', '.join(columns)}",
            "give one column label, or targets alone, or a column for each class",
        )
    table = np.array([[_number(cell, row, source) for cell in row[1:]] for row in rows])
    places = samples.match(columns, labels, source)
    if sorted(places) != list(range(len(labels or columns))):
        missing = [name for place, name in enumerate(labels) if place not in places]
        raise InputError(
            f"{source} has no column {missing[0]!r}", "add it, or leave it out of labels"
        )
    table = table[:, np.argsort(places)]
    marks = not targets and bool(np.isin(table, (0, 1)).all())
    annotations = [
        replace(
            samples.right_classes(values == 1) if marks else Annotation(),
            values=tuple(values.tolist()),
        )
        for values in table
    ]
    return annotations, labels or columns


def _number(cell: str, row: Sequence[str], source: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    # float() also reads 1_000 and digits of other scripts.
    if not math.isfinite(value) or "_" in cell or not cell.isascii():
        raise InputError(
            f"{source} has {cell[:40]!r} as a value of {row[0]}",
            "numbers are needed; a column with names of classes is called label",
        )
    return value
