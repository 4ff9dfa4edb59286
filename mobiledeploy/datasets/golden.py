"""The golden samples of an artifact as a data set: `golden:FOLDER`, files in the order of names.

A PNG is the only image of its sample; an .npz has an array for each input of the model.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mobiledeploy.core import arrays, inputs
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.ports import Array, Pixels, Samples
from mobiledeploy.core.types import Annotation, ModelInput, Split

_PREFIX = "golden:"
_ARRAYS = ".npz"
_PIXEL_AXES = 3
_AGAIN = "export again, with --force"


@dataclass
class GoldenSamples:
    """The files, which hold no annotations."""

    source: str
    split: str
    files: tuple[Path, ...]
    classes: tuple[str, ...] = ()
    identity: str = ""

    def __len__(self) -> int:
        return len(self.files)

    def id(self, index: int) -> str:
        """The file's name."""
        return self.files[index].name

    def label(self, index: int) -> int:
        """-1: the files have no labels."""
        return -1

    def annotation(self, index: int) -> Annotation:
        """An empty one."""
        return Annotation()

    def image(self, index: int) -> Pixels:
        """The image of a PNG, or the only one of an .npz."""
        file = self.files[index]
        if file.suffix == _ARRAYS:
            every = _read(file).values()
            images = [x for x in every if x.dtype == np.uint8 and x.ndim == _PIXEL_AXES]
            if len(images) != 1:
                raise BrokenImage(f"golden sample {file.name} has {len(images)} images")
            return images[0]
        try:
            with (
                inputs.open_file(file, inputs.IMAGE) as stream,
                Image.open(stream, formats=("PNG",)) as image,
            ):
                return np.array(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BrokenImage(f"golden image {file.name} cannot be read") from error

    def array(self, index: int, end: ModelInput) -> Array:
        """The array of an input; InputError if the file has none, or not of finite numbers."""
        file = self.files[index]
        content = _read(file) if file.suffix == _ARRAYS else {}
        if end.name not in content:
            raise InputError(f"golden sample {file.name} has no {end.name}", _AGAIN)
        values = content[end.name]
        if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
            what = "NaN or infinity" if values.dtype.kind == "f" else str(values.dtype)
            raise InputError(f"golden sample {file.name} has {what} as {end.name}", _AGAIN)
        return values


def _read(file: Path) -> dict[str, Array]:
    # A record from elsewhere may name any file.
    content = io.BytesIO(inputs.read(file, inputs.IMAGE))
    with arrays.read_archive(content, f"golden sample {file.name}", inputs.ARRAYS) as archive:
        return {name: archive[name] for name in archive.files}


def accepts(source: str) -> bool:
    """Whether `source` names a folder of golden samples."""
    return source.startswith(_PREFIX)


def open(
    source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Samples:
    """The samples; `resolution` and `labels` are not used."""
    del resolution, labels
    return GoldenSamples(source, split, tuple(sorted(Path(source[len(_PREFIX) :]).iterdir())))
