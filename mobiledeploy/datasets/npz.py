"""Samples in a numpy archive: an array for each input of the model, and arrays of annotations.

- `images` or `x`: uint8 [N, H, W, 3] RGB, [N, H, W] or [N, H, W, 1] gray. A model with one input
  takes this array, also as a tensor [N, ...] of another type. With several inputs each has an array
  of its name, [N, ...].
- `labels` or `y`: integer [N], the class of each sample; or 0 and 1 [N, C], whether each class is
  right.
- `targets`: numbers [N] or [N, K].
- `masks`: integer [N, H, W], the class of each pixel; 255 (and -1) is not annotated.
- `classes`: text [C], the names of the classes.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import masks
from mobiledeploy.core import arrays, inputs, records, samples
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array, Pixels, Samples
from mobiledeploy.core.types import Annotation, Mask, ModelInput, Split
from mobiledeploy.datasets import _images

LARGEST_BYTES = 4 << 30
"""The largest size of an archive's arrays in memory; larger data belong into class folders."""

LARGEST_LABEL = 99_999
NOT_ANNOTATED = 255
_IMAGES, _LABELS = ("images", "x"), ("labels", "y")
_ANNOTATIONS = ("classes", "masks", "targets")
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ArchiveContent:
    """What an archive of `count` samples holds, checked.

    `arrays` are by their names, `roles` those of labels, targets and masks. `unread` are the names
    of other arrays, which are read only if a model asks for them. `top` is the highest class of
    labels and masks, -1 without them.
    """

    arrays: Mapping[str, Array]
    roles: Mapping[str, Array]
    unread: tuple[str, ...]
    count: int
    classes: tuple[str, ...]
    top: int
    sha256: str


class Npz:
    """One split of an archive, opened. The arrays are shared by all splits."""

    def __init__(
        self,
        source: str,
        split: Split,
        content: ArchiveContent,
        places: NDArray[np.int64],
        indices: NDArray[np.int64],
        classes: tuple[str, ...],
    ) -> None:
        self.source = source
        self.split: str = split
        self.classes = classes
        self._content = content
        self._places = places
        self._indices = indices
        digest = hashlib.sha256(f"npz\0{split}\0{content.sha256}".encode())
        for name in classes:
            digest.update(f"\0{name}".encode())
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._indices)

    def id(self, index: int) -> str:
        """The sample's place in the archive."""
        return str(self._indices[index])

    def label(self, index: int) -> int:
        """Its class, an index into `classes`; -1 if the archive has none."""
        return self._labels(index).label

    def image(self, index: int) -> Pixels:
        """uint8 [H, W, 3], RGB; a read-only view if it is held so.

        Of an archive without `images` it is the only array that can be images. InputError where
        there is none or more than one.
        """
        name = next((name for name in _IMAGES if name in self._content.arrays), None)
        if name is None:
            fitting = [n for n in self._inputs() if _holds_images(self._content.arrays[n])]
            if len(fitting) != 1:
                there = " and ".join(fitting) if fitting else "no array of images"
                raise samples.AbsentArray(
                    f"{self.source} has {there}, and the model takes one image",
                    "name the images `images`: uint8 [N, H, W, 3]",
                )
            (name,) = fitting
        return self._pixels(self._content.arrays[name], name, index)

    def array(self, index: int, end: ModelInput) -> Array:
        """The array of an input, of the shape of `end`; of an image uint8 [H, W, 3].

        InputError if there is no array of this name, or if it does not fit.
        """
        values = self._named(end)
        if end.kind == "image":
            return self._pixels(values, end.name, index)
        fits = values.shape[:1] == (self._content.count,)
        sample = values[self._indices[index]] if fits else values
        # An axis of one number at the end says nothing.
        if not fits or _without_ones(sample.shape) != _without_ones(end.shape):
            raise InputError(
                f"{self.source} has {end.name} {list(values.shape)}, and the model takes "
                f"{list(end.shape)} for each of {self._content.count} samples"
            )
        if values.dtype.kind not in "fiub" or not np.isfinite(sample).all():
            what = "NaN or infinity" if values.dtype.kind == "f" else str(values.dtype)
            raise InputError(
                f"{self.source} has {what} in {end.name} of sample {self.id(index)}",
                "numbers are needed",
            )
        if np.dtype(end.dtype).kind in "iu" and (sample != np.floor(sample)).any():
            raise InputError(
                f"{self.source} has fractions in {end.name}, and the model takes {end.dtype}"
            )
        return np.asarray(sample).reshape(end.shape)

    def annotation(self, index: int) -> Annotation:
        """Its class or classes, targets and mask, as far as the archive has them."""
        place = self._indices[index]
        targets, mask = None, None
        if "targets" in self._content.roles:
            targets = self._content.roles["targets"][place]
        if "masks" in self._content.roles:
            mask = self._mask(self._content.roles["masks"][place])
        values = () if targets is None else tuple(map(float, np.ravel(targets).tolist()))
        return replace(self._labels(index), values=values, mask=mask)

    def _named(self, end: ModelInput) -> Array:
        """The array of an input: that of its name; `x` may stand for `images`."""
        content = self._content
        names = _IMAGES if end.name in _IMAGES else (end.name,)
        for name in names:
            if name in content.arrays:
                return content.arrays[name]
            if name in content.unread:
                return _read_one(Path(self.source), content.sha256, name)
        there = ", ".join(sorted((*content.arrays, *content.unread)))
        raise samples.no_array(self.source, end, f"the arrays {there}")

    def _labels(self, index: int) -> Annotation:
        labels = self._content.roles.get("labels")
        if labels is None:
            return Annotation()
        row = labels[self._indices[index]]
        if labels.ndim == 1:
            return Annotation(int(self._places[row]))
        marks = np.zeros(max(len(self.classes), len(row)), bool)
        marks[self._places[: len(row)]] = row != 0
        return samples.right_classes(marks)

    def _mask(self, table: Array) -> Mask:
        classes = table.astype(np.int64)
        known = (classes != NOT_ANNOTATED) & (classes >= 0)
        return masks.encode(np.where(known, self._places[np.where(known, classes, 0)], -1))

    def _inputs(self) -> list[str]:
        """The names of the arrays that are no annotations."""
        return [name for name in self._content.arrays if name not in (*_LABELS, *_ANNOTATIONS)]

    def _pixels(self, values: Array, name: str, index: int) -> Pixels:
        if not _holds_images(values) or len(values) != self._content.count:
            raise InputError(
                f"{self.source}: {name} are {values.dtype} {list(values.shape)}, "
                "not uint8 [N, H, W, 3]",
                "RGB pixels 0..255 are needed, or gray ones [N, H, W]",
            )
        pixels: Pixels = values[self._indices[index]]
        if pixels.ndim == 2:
            pixels = pixels[..., np.newaxis]
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def accepts(source: str) -> bool:
    """Whether `source` is named as a numpy archive."""
    return source.lower().endswith(".npz") and not _images.is_folder(source)


def open(
    source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Samples:
    """The samples of `split`, by `core.samples.part`.

    Args:
        source: the archive.
        split: see `core.samples.part`.
        resolution: not used: images have their own size.
        labels: class names in the model's order. With `classes` in the archive these are matched
            by name, else the archive's integers are indices into `labels`.

    Raises:
        InputError: not an archive, truncated, too large, or its arrays are not as said above.
    """
    path = Path(source)
    with inputs.open_file(path, inputs.ARRAYS) as stream:
        facts = os.fstat(stream.fileno())
    content = _read(path, facts.st_mtime_ns, facts.st_size)
    names, top = content.classes, content.top
    if names and top >= len(names):
        raise InputError(f"{source} has label {top}, but names {len(names)} classes")
    places = np.arange(max(top + 1, len(names)), dtype=np.int64)
    if names and labels:
        places = np.asarray(samples.match(names, labels, source), np.int64)
    elif labels and top >= len(labels):
        raise InputError(f"{source} has label {top}, but there are {len(labels)} labels")
    classes = labels or names or tuple(str(number) for number in range(top + 1))
    indices = samples.part_of(source, content.count, split, "samples")
    return Npz(source, split, content, places, indices, classes)


@functools.lru_cache(maxsize=1)
def _read(path: Path, mtime_ns: int, size_bytes: int) -> ArchiveContent:
    """The archive's content; once for all splits of a file that did not change."""
    with arrays.open_archive(path, LARGEST_BYTES) as archive:
        _refuse_two_names(archive.files, path)
        images = next((name for name in _IMAGES if name in archive.files), None)
        label_name = next((name for name in _LABELS if name in archive.files), None)
        known = {*_ANNOTATIONS, images, label_name} if images else set(archive.files)
        content = {name: archive[name] for name in archive.files if name in known}
        unread = tuple(name for name in archive.files if name not in known)
    for array in content.values():
        array.setflags(write=False)
    given = {name: content[name] for name in _ANNOTATIONS if name in content}
    if label_name:
        given["labels"] = content[label_name]
    others = [name for name in content if name not in (*_ANNOTATIONS, label_name)]
    if not others:
        raise InputError(
            f"{path} has no {' or '.join(_IMAGES)}; "
            f"it holds {', '.join(sorted(content)) or 'nothing'}",
            "one array of images, or one for each input of the model, is needed",
        )
    count = _count(content, [images] if images else others, path)
    roles: dict[str, Array] = {}
    top = -1
    if "labels" in given:
        roles["labels"], top = _checked_labels(given["labels"], count, path)
    if "targets" in given:
        roles["targets"] = _checked_targets(given["targets"], count, path)
    if "masks" in given:
        picture = content[images].shape if images else None
        roles["masks"], highest = _checked_masks(given["masks"], count, picture, path)
        top = max(top, highest)
    names: tuple[str, ...] = ()
    if "classes" in given:
        names = tuple(str(name) for name in given["classes"].ravel())
        classes = given["classes"]
        if classes.dtype.kind != "U" or classes.ndim != 1 or len(set(names)) < len(names):
            raise InputError(f"{path}: classes are not a list of different names")
    return ArchiveContent(content, roles, unread, count, names, top, records.sha256(path))


@functools.lru_cache(maxsize=8)
def _read_one(path: Path, sha256: str, name: str) -> Array:
    """An array that no annotation and no image is, of the file with this hash."""
    with arrays.open_archive(path, LARGEST_BYTES) as archive:
        values = archive[name]
    values.setflags(write=False)
    return values


def _refuse_two_names(files: tuple[str, ...], path: Path) -> None:
    for names in (_IMAGES, _LABELS):
        if set(names) <= set(files):
            raise InputError(
                f"{path} has {' and '.join(names)}; it holds {', '.join(sorted(files))}",
                "they mean the same: remove one",
            )


def _count(content: Mapping[str, Array], names: list[str], path: Path) -> int:
    """The number of samples, on which the arrays of `names` agree."""
    shapes = {name: content[name].shape for name in names}
    counts = {shape[0] for shape in shapes.values() if shape}
    if len(counts) != 1 or () in shapes.values() or any(0 in shape for shape in shapes.values()):
        each = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
        raise InputError(
            f"{path} has arrays that do not begin with one number of samples: {each}",
            "an array for each input of the model, [N, ...], is needed; name the images `images`",
        )
    (count,) = counts
    return count


def _checked_labels(labels: Array, count: int, path: Path) -> tuple[Array, int]:
    """The labels, and the highest class of them."""
    what = f"{path}: labels are {labels.dtype} {list(labels.shape)}"
    if labels.shape == (count, 1):
        raise InputError(f"{what}, not [{count}]", "give labels[:, 0]")
    if labels.ndim == 2 and len(labels) == count and labels.dtype.kind in "fiub":
        if not np.isin(labels, (0, 1)).all():
            raise InputError(f"{what} and not all 0 or 1", "numbers to predict are `targets`")
        return labels, labels.shape[1] - 1
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise InputError(
            f"{what}, not integer [{count}], or 0 and 1 [{count}, classes]",
            "numbers to predict are `targets`" if labels.dtype.kind == "f" else "",
        )
    if labels.min() < 0 or labels.max() > LARGEST_LABEL:
        raise InputError(f"{path}: labels run from {labels.min()} to {labels.max()}")
    return labels, int(labels.max())


def _checked_targets(targets: Array, count: int, path: Path) -> Array:
    fits = targets.ndim in (1, 2) and len(targets) == count and math.prod(targets.shape) > 0
    if targets.dtype.kind not in "fiu" or not fits:
        raise InputError(
            f"{path}: targets are {targets.dtype} {list(targets.shape)}, "
            f"not numbers [{count}] or [{count}, K]"
        )
    if not np.isfinite(targets).all():
        raise InputError(f"{path}: targets hold NaN or infinity", "leave such samples out")
    return targets


def _checked_masks(
    table: Array, count: int, images: tuple[int, ...] | None, path: Path
) -> tuple[Array, int]:
    """The masks [N, H, W], and the highest class of them."""
    what = f"{path}: masks are {table.dtype} {list(table.shape)}"
    if table.ndim == 4 and table.shape[3] == 1:
        table = table[..., 0]
    if table.dtype.kind not in "iub" or table.ndim != 3 or len(table) != count or not table.size:
        raise InputError(
            f"{what}, not integer [{count}, H, W]", "give the index of the class of each pixel"
        )
    if images is not None and len(images) > 2 and table.shape != images[:3]:
        raise InputError(
            f"{what}, and the images are {list(images)}", "give a mask of the size of its image"
        )
    known = table[table != NOT_ANNOTATED] if table.dtype.kind != "b" else table
    low, high = (int(known.min()), int(known.max())) if known.size else (0, 0)
    if low < -1 or high > LARGEST_LABEL:
        raise InputError(f"{path}: the classes of masks run from {low} to {high}")
    return table, high


def _holds_images(values: Array) -> bool:
    """Whether an array [N, ...] can be images: uint8 [N, H, W] or [N, H, W, 1 or 3]."""
    gray, channels = values.ndim == 3, values.ndim == 4 and values.shape[3] in _CHANNELS
    return values.dtype == np.uint8 and (gray or channels) and 0 not in values.shape


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the ones at its end."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
