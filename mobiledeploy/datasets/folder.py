"""Labelled photos in class folders: ``DIR/<class>/*.jpg``, or ``DIR/<split>/<class>/*.jpg``.

Where every folder in DIR is named train, calibration, validation (val) or test, those are the
splits; else `core.samples.part` splits the sorted list of images.
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mobiledeploy.core import inputs, samples
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.ports import Array, Pixels, Samples
from mobiledeploy.core.types import Annotation, ModelInput, Split

SUFFIXES = (".jpg", ".jpeg", ".png")
# These are listed and then reported as broken by name, so that they are not left out silently.
NOT_READ = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".tif", ".tiff", ".webp")
_SPLIT_OF = {
    "train": "train",
    "calibration": "calibration",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}

# What Pillow's decoders raise for bytes that are not an image, besides the first three.
_BROKEN = (
    OSError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    ArithmeticError,
    EOFError,
    LookupError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class Folder:
    """One split of a folder of class folders, opened; images are decoded when asked for."""

    def __init__(
        self,
        source: str,
        split: Split,
        files: tuple[Path, ...],
        ids: tuple[str, ...],
        targets: tuple[int, ...],
        classes: tuple[str, ...],
    ) -> None:
        self.source = source
        self.split: str = split
        self.classes = classes
        self._files = files
        self._ids = ids
        self._targets = targets

    @functools.cached_property
    def identity(self) -> str:
        """sha256 over the split, the class names and every image's name and content."""
        digest = hashlib.sha256(f"folder\0{self.split}\0".encode())
        for name in self.classes:
            digest.update(f"{name}\0".encode())
        for identifier, path in zip(self._ids, self._files, strict=True):
            content = hashlib.sha256(_content(path)).hexdigest()
            digest.update(f"\0{identifier}\0{content}".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def id(self, index: int) -> str:
        """The image's path below the folder."""
        return self._ids[index]

    def label(self, index: int) -> int:
        """Its class, an index into `classes`."""
        return self._targets[index]

    def array(self, index: int, end: ModelInput) -> Array:
        """InputError: there are images only."""
        raise samples.no_array(self.source, end)

    def annotation(self, index: int) -> Annotation:
        """Its class."""
        return Annotation(self.label(index))

    def image(self, index: int) -> Pixels:
        """uint8 [H, W, 3], RGB, upright; BrokenImage where it cannot be decoded."""
        path, name = self._files[index], self._ids[index]
        if path.suffix.lower() not in SUFFIXES:
            raise BrokenImage(f"{name} is a {path.suffix[1:]} file", "JPEG and PNG are read")
        try:
            with warnings.catch_warnings():
                # Pillow warns of images that exhaust memory: that counts as broken.
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with (
                    inputs.open_file(path, inputs.IMAGE) as stream,
                    Image.open(stream, formats=("JPEG", "PNG")) as image,
                ):
                    return rgb(image)
        except InputError as error:
            raise BrokenImage(error.message, error.hint) from error
        except _BROKEN as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, UnidentifiedImageError):
                reason = "neither JPEG nor PNG"
            raise BrokenImage(f"{name} cannot be read: {reason}") from error


def rgb(image: Image.Image) -> Pixels:
    """Any image as uint8 [H, W, 3]: upright by its EXIF, 16 bits scaled, laid on white.

    What is transparent shows white, as in most viewers, instead of the colour beneath.
    """
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion would cut 16-bit grey at 255.
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.rint(grey).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))


def accepts(source: str) -> bool:
    """Whether `source` is a folder."""
    try:
        return Path(source).is_dir()
    except OSError:
        return False


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
            then the rest). `all` is everything, and a folder of images without class folders:
            they have no labels then.
        resolution: not used: images have their own size.
        labels: class names in the model's order; `label()` is then an index into them. A class
            folder is named as a label or as its first word. Without them: the sorted class folders.

    Raises:
        InputError: no such folder, no images, a class folder without images or with an unknown
            name, a missing split, only one class for evaluation, or an unreadable file.
    """
    root = Path(source)
    if not accepts(source):
        raise InputError(f"{source} is not a folder")
    folders = _folders(root)
    if folders and all(path.name.lower() in _SPLIT_OF for path in folders):
        split_folders, part = _split_folders(folders, split, source)
    else:
        split_folders, part = [root], split
    classes: dict[str, list[Path]] = {}
    for base in split_folders:
        for folder in _folders(base):
            classes.setdefault(_printable(folder.name), []).append(folder)
    names = tuple(sorted(classes))
    if not names and split == "all" and (flat := tuple(_loose(root))):
        ids = tuple(_printable(path.name) for path in flat)
        return Folder(source, split, flat, ids, (-1,) * len(flat), labels)
    if not names:
        loose = any(path.suffix.lower() in SUFFIXES for path in split_folders[0].iterdir())
        raise InputError(
            f"{source} holds {'images but ' if loose else ''}no class folders",
            "put the images of each class into a folder of its own",
        )
    targets = dict(zip(names, samples.match(names, labels, source), strict=True))
    entries: list[tuple[str, Path, int]] = []
    for name in names:
        images = [path for folder in classes[name] for path in _images(folder)]
        if not images:
            raise InputError(f"class folder {name!r} of {source} holds no JPEG or PNG image")
        entries += [(_printable(p.relative_to(root).as_posix()), p, targets[name]) for p in images]
    samples.require_two_classes(split, len(names), source)
    entries.sort()
    part_entries = [entries[index] for index in samples.part(len(entries), part)]
    if not part_entries:
        raise InputError(f"{source} has too few images ({len(entries)}) to split")
    return Folder(
        source,
        split,
        tuple(path for _, path, _ in part_entries),
        tuple(identifier for identifier, _, _ in part_entries),
        tuple(target for _, _, target in part_entries),
        labels or names,
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
        raise InputError(
            f"{source} has no images for {split}: its folders are "
            f"{', '.join(sorted(path.name for path in folders))}",
            f"add a folder {split}, or name one of these instead",
        )
    return [there[split]], "all"


def _folders(base: Path) -> list[Path]:
    try:
        inside = sorted(base.iterdir())
    except OSError as error:
        raise InputError(f"{base} cannot be read: {os.strerror(error.errno or 0)}") from error
    return [path for path in inside if not path.name.startswith(".") and path.is_dir()]


def _images(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error

    for where, inside, files in os.walk(folder, onerror=refuse):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES + NOT_READ):
                yield Path(where, name)


def _loose(base: Path) -> Iterator[Path]:
    """The images that lie in `base` itself, sorted by name."""
    for path in sorted(base.iterdir()):
        if not path.name.startswith(".") and path.name.lower().endswith(SUFFIXES + NOT_READ):
            yield path


def _content(path: Path) -> bytes:
    try:
        return inputs.read(path, inputs.IMAGE)
    except InputError as error:
        # A broken link is a broken image: its name counts, `image` tells what is wrong.
        cause = error.__cause__
        return f"unreadable {cause.errno if isinstance(cause, OSError) else None}".encode()


def _printable(name: str) -> str:
    """A file name as text that can be printed and stored, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
