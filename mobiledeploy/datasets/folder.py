"""Images in class folders: ``DIR/<class>/*.jpg``, or ``DIR/<split>/<class>/*.jpg``.

A folder of images without class folders is a data set too, of images without labels.

Where every folder in DIR is named train, calibration, validation (val) or test, those are the
splits; else `core.samples.part` splits the sorted list of images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mobiledeploy.core import samples
from mobiledeploy.core.errors import InputError, NoSplit
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.types import Annotation, Split
from mobiledeploy.datasets import _images

_SPLIT_OF = {
    "train": "train",
    "calibration": "calibration",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
_OF_MASKS = {"images", "masks"}


class Folder(_images.ImageFiles):
    """One split of a folder, opened; the names of the class folders are in those of the images."""

    def __init__(
        self,
        source: str,
        split: Split,
        entries: Sequence[tuple[str, Path, int]],
        classes: tuple[str, ...],
    ) -> None:
        super().__init__(
            "folder",
            source,
            split,
            [path for _, path, _ in entries],
            [name for name, _, _ in entries],
            classes,
        )
        self._targets = tuple(target for _, _, target in entries)

    def label(self, index: int) -> int:
        """Its class, an index into `classes`; -1 without class folders."""
        return self._targets[index]

    def annotation(self, index: int) -> Annotation:
        """Its class."""
        return Annotation(self.label(index))


def accepts(source: str) -> bool:
    """Whether `source` is a folder, and not one of images and their masks alone."""
    if not _images.is_folder(source):
        return False
    try:
        return {path.name for path in _images.folders(Path(source))} != _OF_MASKS
    except InputError:
        # To open it says what is wrong.
        return True


def open(
    source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Samples:
    """The images of `split`.

    Hidden files are left out. Links to files and to class folders are followed, since data sets
    often consist of links; links to deeper folders are not.

    Args:
        source: the folder.
        split: with split folders, `calibration` is the folder of that name, or else the
            calibration part of `train` or, without that, of the validation images (which are
            then the rest). `all` is everything.
        resolution: not used: images have their own size.
        labels: class names in the model's order; `label()` is then an index into them. A class
            folder is named as a label or as its first word. Without them: the sorted class folders.

    Raises:
        InputError: no such folder, no images, images beside class folders, a class folder without
            images or with an unknown name, a missing split, or an unreadable file.
    """
    root = Path(source)
    if not _images.is_folder(source):
        raise InputError(f"{source} is not a folder")
    inside = _images.folders(root)
    if inside and all(path.name.lower() in _SPLIT_OF for path in inside):
        split_folders, part = _split_folders(inside, split, source)
        _require_no_images(root, inside, source)
    else:
        split_folders, part = [root], split
    classes: dict[str, list[Path]] = {}
    for base in split_folders:
        for folder in _images.folders(base):
            classes.setdefault(_images.printable(folder.name), []).append(folder)
    if not classes:
        flat = [path for base in split_folders for path in _images.loose(base)]
        if not flat:
            raise InputError(
                f"{source} holds neither class folders nor images",
                "put the images of each class into a folder of its own; without labels, all images "
                "into this one",
            )
        entries = [(_name(path, root), path, -1) for path in flat]
    else:
        for base in split_folders:
            _require_no_images(base, _images.folders(base), source)
        _refuse_other_kinds(root, set(classes), source)
        entries = _in_class_folders(root, classes, labels, source)
    entries.sort()
    part_entries = [entries[index] for index in samples.part_of(source, len(entries), part)]
    return Folder(source, split, part_entries, labels or tuple(sorted(classes)))


def _in_class_folders(
    root: Path, classes: dict[str, list[Path]], labels: tuple[str, ...], source: str
) -> list[tuple[str, Path, int]]:
    """The name, the path and the class of each image."""
    names = tuple(sorted(classes))
    targets = dict(zip(names, samples.match(names, labels, source), strict=True))
    entries: list[tuple[str, Path, int]] = []
    for name in names:
        images = [path for folder in classes[name] for path in _below(folder)]
        if not images:
            raise InputError(f"class folder {name!r} of {source} holds no JPEG or PNG image")
        entries += [(_name(path, root), path, targets[name]) for path in images]
    return entries


def _require_no_images(base: Path, folders: Sequence[Path], source: str) -> None:
    loose = _images.loose(base)
    if loose:
        raise InputError(
            f"{source} holds images ({_name(loose[0], base)}) beside folders ({folders[0].name})"
            if folders
            else f"{source} holds class folders in one split, and images without them in another",
            "put every image into the folder of its class, or all images into one folder without "
            "others",
        )


def _refuse_other_kinds(root: Path, classes: set[str], source: str) -> None:
    """InputError where the only class folders are those of another kind of data set."""
    if classes == _OF_MASKS:
        raise InputError(
            f"{source} holds folders named images and masks in folders of splits",
            "give the folder that holds images and masks itself",
        )
    lists = [p.name for p in _images.listed(root) if p.suffix.lower() in (".json", ".csv")]
    if classes == {"images"} and lists:
        raise InputError(
            f"{source} holds {lists[0]} beside the images",
            f"give the file of their annotations: --data {root / lists[0]}",
        )


def _split_folders(folders: list[Path], split: Split, source: str) -> tuple[list[Path], Split]:
    """The folders that hold `split`, and which part of their images it is."""
    there: dict[str, Path] = {}
    for path in folders:
        name = _SPLIT_OF[path.name.lower()]
        if name in there:
            raise InputError(f"{source} has both {there[name].name} and {path.name}")
        there[name] = path
    if split == "all":
        return folders, "all"
    if split == "held":
        split = "validation" if "validation" in there or "test" not in there else "test"
        if "train" not in there:
            return [there[split]] if split in there else folders, "held"
    if split == "calibration" and split not in there and "train" in there:
        return [there["train"]], "calibration"
    alone = "validation" in there and not {"calibration", "train"} & set(there)
    if alone and split in ("calibration", "train", "validation"):
        return [there["validation"]], split
    if split not in there:
        raise NoSplit(
            f"{source} has no images for {split}: its folders are "
            f"{', '.join(sorted(path.name for path in folders))}",
            f"add a folder {split}, or name one of these instead",
        )
    return [there[split]], "all"


def _below(folder: Path) -> Iterator[Path]:
    """The images in a class folder and in the folders below it."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error

    for where, inside, files in os.walk(folder, onerror=refuse):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(files):
            if _images.is_image(name):
                yield Path(where, name)


def _name(path: Path, root: Path) -> str:
    return _images.printable(path.relative_to(root).as_posix())
