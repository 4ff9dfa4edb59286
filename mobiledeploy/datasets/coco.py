"""Images with boxes, as COCO's JSON lists them: ``images``, ``annotations`` and ``categories``.

An image lies at its `file_name` in the folder of the JSON, or in the folder `images` beside it. The
classes are the categories in the order of their ids. A `bbox` is [left, top, width, height] in
pixels. `iscrowd` marks a box over a group. What else is there (polygons, masks, key points,
captions) is not read.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledeploy.core import inputs, samples
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.types import Annotation, Box, Split
from mobiledeploy.datasets import _images

TOLERANCE = 1.0
"""Pixels by which a box may leave its image: tools round. It is clipped then."""
LARGEST_SIDE = 1 << 20
_IMAGES = "images"

Key = int | str


@dataclass(frozen=True)
class CocoBox:
    """An annotation: what errors call it, its category, its box in pixels."""

    name: str
    category: Key
    left: float
    top: float
    width: float
    height: float
    is_crowd: bool


@dataclass(frozen=True)
class CocoImage:
    """An image: the name of its file, its (height, width) if the JSON gives it, and its boxes."""

    file_name: str
    size: tuple[int, int] | None
    boxes: tuple[CocoBox, ...]


@dataclass(frozen=True)
class CocoFile:
    """What is read of a JSON: its images in order, (id, name) of its categories sorted by id."""

    images: tuple[CocoImage, ...]
    categories: tuple[tuple[Key, str], ...]


def accepts(source: str) -> bool:
    """Whether `source` is named as a JSON file."""
    return source.lower().endswith(".json") and not _images.is_folder(source)


def open(
    source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Samples:
    """The images of `split` by `core.samples.part`, in the order of the JSON.

    Args:
        source: the JSON file.
        split: see `core.samples.part`.
        resolution: not used: images have their own size.
        labels: class names in the model's order, with which the names of the categories are
            matched. Without them the categories are the classes, in the order of their ids.

    Raises:
        InputError: not COCO's JSON, no images, a file outside of the folder or in two places, an
            annotation of an unknown image or category, a box that leaves its image by more than
            `TOLERANCE`, or an image of another size than the JSON says.
    """
    path = Path(source)
    with inputs.open_file(path, inputs.ANNOTATIONS) as stream:
        facts = os.fstat(stream.fileno())
    content = _read(path, facts.st_mtime_ns, facts.st_size)
    names = tuple(name for _, name in content.categories)
    numbers = samples.match(names, labels, source)
    places = {key: place for (key, _), place in zip(content.categories, numbers, strict=True)}
    files = _images.located(path, [image.file_name for image in content.images], (".", _IMAGES))
    indices = samples.part_of(source, len(files), split)
    return _images.AnnotatedImages(
        "coco",
        source,
        split,
        [files[i] for i in indices],
        [content.images[i].file_name for i in indices],
        [_annotation(content.images[i], files[i], places, source) for i in indices],
        labels or names,
    )


def _annotation(image: CocoImage, file: Path, places: dict[Key, int], source: str) -> Annotation:
    actual = _images.size(file)
    if actual and image.size and actual != image.size:
        own, other = (f"{height} × {width}" for height, width in (image.size, actual))
        raise InputError(
            f"{source} says that {image.file_name} has {own} pixels, and it has {other}",
            "give the images that were annotated, or correct height and width",
        )
    size = image.size or actual
    if size is None:
        raise InputError(
            f"{source} does not say the size of {image.file_name}, which cannot be read",
            "add its height and width, or leave it out",
        )
    boxes = tuple(_fractions(box, size, image.file_name, source) for box in image.boxes)
    crowd = tuple(box.is_crowd for box in image.boxes)
    return Annotation(
        labels=tuple(places[box.category] for box in image.boxes),
        boxes=boxes,
        crowd=crowd if any(crowd) else (),
    )


def _fractions(box: CocoBox, size: tuple[int, int], name: str, source: str) -> Box:
    """The box in fractions of the image; InputError if it leaves the image."""
    height, width = size
    sides = (box.left, box.top, box.left + box.width, box.top + box.height)
    ends = (width, height, width, height)
    if any(not -TOLERANCE <= x <= end + TOLERANCE for x, end in zip(sides, ends, strict=True)):
        raise InputError(
            f"{box.name} of {source} is outside of {name}: its box is "
            f"{[box.left, box.top, box.width, box.height]}, the image {width} × {height} pixels",
            "a bbox is [left, top, width, height] in pixels",
        )
    left, top, right, bottom = (
        min(max(x / end, 0.0), 1.0) for x, end in zip(sides, ends, strict=True)
    )
    return left, top, right, bottom


@functools.lru_cache(maxsize=1)
def _read(path: Path, mtime_ns: int, size_bytes: int) -> CocoFile:
    """The checked content; once for all splits of a file that did not change."""
    text = inputs.text(path, inputs.ANNOTATIONS, "utf-8-sig")
    try:
        tables = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error})") from error
    if not isinstance(tables, dict):
        raise InputError(f"{path} is not COCO's JSON", _HINT)
    images, annotations, categories = (
        _table(tables, name, path) for name in ("images", "annotations", "categories")
    )
    if not images:
        raise InputError(f"{path} has no images", _HINT)
    boxes: dict[Key, list[CocoBox]] = {}
    for number, image in enumerate(images):
        key = _key(image, "id", f"image {number} of {path}")
        if key in boxes:
            raise InputError(f"{path} has two images with the id {key!r}")
        boxes[key] = []
    names = _categories(categories, path)
    known = {key for key, _ in names}
    for number, annotation in enumerate(annotations):
        image_id, box = _box(annotation, number, path)
        if image_id not in boxes:
            raise InputError(
                f"{box.name} of {path} is of the image {image_id!r}, which is not there"
            )
        if box.category not in known:
            raise InputError(
                f"{box.name} of {path} is of the category {box.category!r}, which is not there"
            )
        boxes[image_id].append(box)
    return CocoFile(
        tuple(
            CocoImage(_file_name(image, key, path), _size(image, key, path), tuple(boxes[key]))
            for image, key in zip(images, boxes, strict=True)
        ),
        names,
    )


_HINT = "it needs images (id, file_name), annotations (image_id, category_id, bbox) and categories"


def _table(tables: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    rows = tables.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} has no {name}", _HINT)
    return rows


def _categories(rows: list[dict[str, Any]], path: Path) -> tuple[tuple[Key, str], ...]:
    names: dict[Key, str] = {}
    for number, row in enumerate(rows):
        key = _key(row, "id", f"category {number} of {path}")
        name = row.get("name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"category {key!r} of {path} has no name")
        if key in names or name in names.values():
            raise InputError(f"{path} has two categories with the id {key!r} or the name {name!r}")
        names[key] = name
    if len({type(key) for key in names}) != 1:
        raise InputError(f"{path} has no categories, or numbers and texts as their ids", _HINT)
    return tuple(sorted(names.items()))


def _box(row: dict[str, Any], number: int, path: Path) -> tuple[Key, CocoBox]:
    """The image's id, and the box."""
    name = f"annotation {row['id']!r}"[:80] if "id" in row else f"annotation number {number + 1}"
    where = f"{name} of {path}"
    image, category = (_key(row, field, where) for field in ("image_id", "category_id"))
    sides = row.get("bbox")
    if not isinstance(sides, list) or len(sides) != 4 or not all(map(_is_number, sides)):
        raise InputError(f"{where} has no bbox [left, top, width, height]")
    left, top, width, height = map(float, sides)
    if width < 0 or height < 0:
        raise InputError(f"{where} has a box of negative size: {sides}")
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InputError(f"{where} has iscrowd {crowd!r}", "0 or 1 is needed")
    return image, CocoBox(name, category, left, top, width, height, bool(crowd))


def _key(row: dict[str, Any], field: str, where: str) -> Key:
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"{where} has no {field}", _HINT)
    return value


def _file_name(row: dict[str, Any], key: Key, path: Path) -> str:
    name = row.get("file_name")
    if not isinstance(name, str):
        raise InputError(f"image {key!r} of {path} has no file_name", _HINT)
    return name


def _size(row: dict[str, Any], key: Key, path: Path) -> tuple[int, int] | None:
    """(height, width) of an image, None if the JSON has neither."""
    height: Any = row.get("height")
    width: Any = row.get("width")
    if height is None and width is None:
        return None
    if not all(_is_number(side) and side == int(side) >= 1 for side in (height, width)):
        raise InputError(f"image {key!r} of {path} has height {height!r} and width {width!r}")
    return int(height), int(width)


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= LARGEST_SIDE
