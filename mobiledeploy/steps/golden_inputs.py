"""Golden images of an artifact, and its input for timing and counting: the first of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mobiledeploy.core import inputs, preprocessing, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Pixels
from mobiledeploy.core.types import Artifact

_AGAIN = "export again, with --force"


def sample(path: Path, artifact: Artifact, folder: Path) -> Path | None:
    """A file with the raw input of the artifact's first golden image; None if it has no images."""
    if not artifact.golden.images:
        return None
    pixels = golden(path.parent, path.parent / artifact.golden.images[0])
    spec = artifact.spec
    x = preprocessing.prepare(pixels, spec.preprocessing, spec.resolution)
    raw = preprocessing.to_input(x, artifact.inputs[0], artifact.layout)
    file = folder / "sample.bin"
    file.write_bytes(raw.tobytes())
    return file


def golden(folder: Path, file: Path) -> Pixels:
    """A golden image of the artifact in `folder`; InputError if its record means another file."""
    content = golden_content(folder, file)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"golden image {file} cannot be read", _AGAIN) from error


def golden_content(folder: Path, file: Path) -> bytes:
    """The content of a golden image's file; InputError if the record was made with another file.

    A record from elsewhere may name any file: only a regular file below its own folder is opened.
    """
    try:
        real = file.resolve()
        if not real.is_relative_to(folder.resolve()) or (real.exists() and not real.is_file()):
            raise InputError(f"golden image {file} is not in the artifact's folder", _AGAIN)
        content = inputs.read(real, inputs.IMAGE)
    except inputs.Absent as error:
        raise InputError(f"golden image {file} is not there", _AGAIN) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"golden image {file} cannot be read", _AGAIN) from error
    if records.sha256(content)[:16] != file.stem:
        raise InputError(f"golden image {file} is not the one that its name says", _AGAIN)
    return content
