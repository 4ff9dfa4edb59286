"""Labelled images in a numpy archive: `images` uint8 [N, H, W, 3] and `labels` integer [N].

The names `x` and `y` are accepted too. Optional `classes` [C] names the classes.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import arrays, inputs, records, samples
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array, Pixels, Samples
from mobiledeploy.core.types import Annotation, ModelInput, Split

LARGEST_BYTES = 4 << 30
"""The largest size of an archive's arrays in memory; larger data belong into class folders."""

LARGEST_LABEL = 99_999
_NAMES = {"images": ("images", "x"), "labels": ("labels", "y"), "classes": ("classes",)}


class Npz:
    """One split of an archive, opened. The images are one array that all splits share."""

    def __init__(
        self,
        source: str,
        split: Split,
        images: NDArray[np.uint8],
        targets: NDArray[np.int64],
        indices: NDArray[np.int64],
        classes: tuple[str, ...],
        content: str,
    ) -> None:
        self.source = source
        self.split: str = split
        self.classes = classes
        self._images = images
        self._targets = targets
        self._indices = indices
        digest = hashlib.sha256(f"npz\0{split}\0{content}".encode())
        for name in classes:
            digest.update(f"\0{name}".encode())
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._indices)

    def id(self, index: int) -> str:
        """The image's place in the archive."""
        return str(self._indices[index])

    def label(self, index: int) -> int:
        """Its class, an index into `classes`."""
        return int(self._targets[self._indices[index]])

    def array(self, index: int, end: ModelInput) -> Array:
        """InputError: there are images only."""
        raise samples.no_array(self.source, end)

    def annotation(self, index: int) -> Annotation:
        """Its class."""
        return Annotation(self.label(index))

    def image(self, index: int) -> Pixels:
        """uint8 [H, W, 3], RGB; a read-only view."""
        image: Pixels = self._images[self._indices[index]]
        return image


def accepts(source: str) -> bool:
    """Whether `source` is named as a numpy archive."""
    return source.lower().endswith(".npz")


def open(
    source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Samples:
    """The images of `split`, by `core.samples.part`.

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
    images, numbers, names, content = _read(path, facts.st_mtime_ns, facts.st_size)
    top = int(np.max(numbers))
    if names and top >= len(names):
        raise InputError(f"{source} has label {top}, but names {len(names)} classes")
    if names and labels:
        numbers = np.asarray(samples.match(names, labels, source), np.int64)[numbers]
    elif labels and top >= len(labels):
        raise InputError(f"{source} has label {top}, but there are {len(labels)} labels")
    classes = labels or names or tuple(str(number) for number in range(top + 1))
    samples.require_two_classes(split, len(np.unique(numbers)), source)
    indices = samples.part(len(images), split)
    if not len(indices):
        raise InputError(f"{source} has too few images ({len(images)}) to split")
    return Npz(source, split, images, numbers, indices, classes, content)


@functools.lru_cache(maxsize=1)
def _read(
    path: Path, mtime_ns: int, size_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...], str]:
    """Images, labels, class names, sha256; once for all splits of a file that did not change."""
    with arrays.open_archive(path, LARGEST_BYTES) as archive:
        images, numbers, classes = (_array(archive, kind, path) for kind in _NAMES)
    assert images is not None
    assert numbers is not None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise InputError(
            f"{path}: images are {images.dtype} {list(images.shape)}, not uint8 [N, H, W, 3]",
            "RGB pixels 0..255 are needed",
        )
    if numbers.dtype.kind not in "iu" or numbers.shape != images.shape[:1]:
        raise InputError(
            f"{path}: labels are {numbers.dtype} {list(numbers.shape)}, not integer [{len(images)}]"
        )
    if numbers.min() < 0 or numbers.max() > LARGEST_LABEL:
        raise InputError(f"{path}: labels run from {numbers.min()} to {numbers.max()}")
    names: tuple[str, ...] = ()
    if classes is not None:
        names = tuple(str(name) for name in classes.ravel())
        if classes.dtype.kind != "U" or classes.ndim != 1 or len(set(names)) < len(names):
            raise InputError(f"{path}: classes are not a list of different names")
    images.setflags(write=False)
    return images, numbers.astype(np.int64), names, records.sha256(path)


def _array(archive: arrays.Archive, kind: str, path: Path) -> Array | None:
    names = [name for name in _NAMES[kind] if name in archive.files]
    if len(names) == 1:
        return archive[names[0]]
    if kind == "classes":
        return None
    present = " and ".join(names) if names else f"no {' or '.join(_NAMES[kind])}"
    raise InputError(
        f"{path} has {present}; it holds {', '.join(sorted(archive.files)) or 'nothing'}",
        "one array of images and one of labels are needed",
    )
