"""Golden images of an artifact, and the input that it is timed or counted with: the first."""

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
    """A file with the raw input of the artifact's first golden image; None where it has none."""
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
    """A golden image of the artifact in `folder`, if it is the one that its record speaks of."""
    content = golden_content(folder, file)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"golden image {file} cannot be read", _AGAIN) from error


def golden_content(folder: Path, file: Path) -> bytes:
    """A golden image's file, if it is the one that the record was made with.

    A record from elsewhere may name any file: only a regular one below its own folder is opened.
    """
    try:
        real = file.resolve()
        if not real.is_relative_to(folder.resolve()) or (real.exists() and not real.is_file()):
            raise InputError(f"golden image {file} is no file of the artifact's folder", _AGAIN)
        content = inputs.read(real, inputs.IMAGE)
    except inputs.Absent as error:
        raise InputError(f"golden image {file} is not there", _AGAIN) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"golden image {file} cannot be read", _AGAIN) from error
    if records.sha256(content)[:16] != file.stem:
        raise InputError(f"golden image {file} is not the one that its name says", _AGAIN)
    return content
