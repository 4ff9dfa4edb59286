"""Image files that data sets name: listed, hashed and decoded in one way. No plugin.

A file is decoded when it is asked for, so a broken one counts when it is read.
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mobiledeploy.core import inputs, records, samples
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.ports import Array, Pixels
from mobiledeploy.core.types import Annotation, ModelInput

SUFFIXES = (".jpg", ".jpeg", ".png")
# These are listed and then reported as broken by name, so that they are not left out silently.
NOT_READ = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".tif", ".tiff", ".webp")

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
_LONGEST_SHOWN = 200
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation that exchange height and width."""


class ImageFiles:
    """One split of image files; a data set adds what is true of each.

    `kind` is the word that its identity begins with.
    """

    def __init__(
        self,
        kind: str,
        source: str,
        split: str,
        files: Sequence[Path],
        ids: Sequence[str],
        classes: tuple[str, ...],
    ) -> None:
        self._kind = kind
        self.source = source
        self.split = split
        self.classes = classes
        self._files = tuple(files)
        self._ids = tuple(ids)

    @functools.cached_property
    def identity(self) -> str:
        """sha256 over the split, the class names, and every image's name, content and facts."""
        digest = hashlib.sha256(f"{self._kind}\0{self.split}\0".encode())
        for name in self.classes:
            digest.update(f"{name}\0".encode())
        for index, (identifier, path) in enumerate(zip(self._ids, self._files, strict=True)):
            digest.update(f"\0{identifier}\0{content_hash(path)}{self.facts(index)}".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def id(self, index: int) -> str:
        """The image's path below the folder."""
        return self._ids[index]

    def facts(self, index: int) -> str:
        """What is true of the image besides its name and content, as text for the identity."""
        return ""

    def array(self, index: int, end: ModelInput) -> Array:
        """InputError: there are images only."""
        raise samples.no_array(self.source, end)

    def image(self, index: int) -> Pixels:
        """uint8 [H, W, 3], RGB, upright; BrokenImage where it cannot be decoded."""
        path, name = self._files[index], self._ids[index]
        if path.suffix.lower() not in SUFFIXES:
            kind = f"a {path.suffix[1:]} file" if path.suffix else "a file without a suffix"
            raise BrokenImage(f"{name} is {kind}", "JPEG and PNG are read")
        with opened(path, name) as image:
            return rgb(image)


class AnnotatedImages(ImageFiles):
    """One split of image files that another file lists, with the annotation of each."""

    def __init__(
        self,
        kind: str,
        source: str,
        split: str,
        files: Sequence[Path],
        ids: Sequence[str],
        annotations: Sequence[Annotation],
        classes: tuple[str, ...],
    ) -> None:
        super().__init__(kind, source, split, files, ids, classes)
        self._annotations = tuple(annotations)

    def facts(self, index: int) -> str:
        """Its annotation."""
        return f"\0{records.line(self._annotations[index])}"

    def label(self, index: int) -> int:
        """Its class, an index into `classes`; -1 if it has none."""
        return self._annotations[index].label

    def annotation(self, index: int) -> Annotation:
        """What the file says of it."""
        return self._annotations[index]


@contextmanager
def opened(
    path: Path, name: str, formats: tuple[str, ...] = ("JPEG", "PNG")
) -> Iterator[Image.Image]:
    """The image, not yet decoded; BrokenImage that says `name`, also for errors while decoding."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of images that exhaust memory: that counts as broken.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with (
                inputs.open_file(path, inputs.IMAGE) as stream,
                Image.open(stream, formats=formats) as image,
            ):
                yield image
    except InputError as error:
        raise BrokenImage(error.message, error.hint) from error
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"neither {' nor '.join(formats)}" if len(formats) > 1 else f"no {formats[0]}"
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


def size(path: Path) -> tuple[int, int] | None:
    """(height, width) of the upright image by its header; None where it cannot be read."""
    try:
        with opened(path, path.name) as image:
            width, height = image.size
            # A PNG that keeps it behind its pixels would have to be decoded.
            turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in _TURNED
    except BrokenImage:
        return None
    return (width, height) if turned else (height, width)


def content_hash(path: Path) -> str:
    """sha256 of the file; of a file that cannot be read, of the reason."""
    try:
        content = inputs.read(path, inputs.IMAGE)
    except InputError as error:
        # A broken link is a broken image: its name counts, `image` tells what is wrong.
        cause = error.__cause__
        content = f"unreadable {cause.errno if isinstance(cause, OSError) else None}".encode()
    return hashlib.sha256(content).hexdigest()


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image: no hidden one, and of a known suffix."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES + NOT_READ)


def loose(folder: Path) -> list[Path]:
    """The images that lie in the folder itself, sorted by name."""
    return [path for path in listed(folder) if is_image(path.name) and not path.is_dir()]


def folders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted by name."""
    return [path for path in listed(folder) if not path.name.startswith(".") and path.is_dir()]


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; InputError if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {os.strerror(error.errno or 0)}") from error


def is_folder(source: str | Path) -> bool:
    """Whether it is a folder; False for what is no name of a file at all."""
    try:
        return Path(source).is_dir()
    except (OSError, ValueError):
        return False


def inside(folder: Path, name: str, where: str) -> Path:
    """The file that a table or a list names by its path from the folder.

    InputError if the path is empty, absolute, or goes upwards; `where` says who names it.
    """
    upwards = ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts
    absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
    if not name.strip() or not name.isprintable() or upwards or absolute:
        raise InputError(
            f"{where} names the image {name[:_LONGEST_SHOWN]!r}, which is not a path in its folder",
            "put the images beside the file, and name them by their paths from there",
        )
    return folder / name


def printable(name: str) -> str:
    """A file name as text that can be printed and stored, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def located(table: Path, names: Sequence[str], below: Sequence[str] = (".",)) -> list[Path]:
    """Where the images lie that a file names: each in one of the folders `below` beside it.

    An image that is nowhere has its path in the first one: to read it says so.

    InputError if a name is no path in a folder, comes twice, or is in two folders, and if no image
    is there at all.
    """
    (twice, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise InputError(f"{table} names {twice!r} twice", "give each image once")
    paths = []
    for name in names:
        places = [inside(table.parent / folder, name, str(table)) for folder in below]
        there = [path for path in places if os.path.lexists(path)]
        if len(there) > 1:
            raise InputError(
                f"{name} of {table} is there twice: {' and '.join(map(str, there))}",
                "remove one, so that it is clear which was annotated",
            )
        paths.append(there[0] if there else places[0])
    if not any(map(os.path.lexists, paths)):
        folders = " or ".join(str(table.parent / folder) for folder in below)
        raise InputError(
            f"none of the {len(names)} images of {table} is in {folders}",
            "put the file beside its images",
        )
    return paths
