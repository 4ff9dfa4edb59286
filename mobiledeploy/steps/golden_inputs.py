"""Golden samples of an artifact, and its input for timing and counting: the first of them."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mobiledeploy.core import artifacts, inputs, preprocessing, records
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import Pixels, Samples
from mobiledeploy.core.types import Artifact, ModelInput

_AGAIN = "export again, with --force"


def encode(samples: Samples, index: int, signature: Sequence[ModelInput]) -> tuple[bytes, str]:
    """A sample as the content of a golden file, and the suffix of the file.

    A PNG of its only image, else an .npz with an array for each input.
    """
    stream = io.BytesIO()
    if len(signature) == 1 and signature[0].kind == "image":
        Image.fromarray(samples.image(index)).save(stream, "PNG")
        return stream.getvalue(), ".png"
    images = sum(end.kind == "image" for end in signature)
    # np.savez takes no array of the name `file`, and an input may have any name.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for end in signature:
            if end.kind == "tensor":
                values = preprocessing.sample_array(samples, index, end, len(signature))
            else:
                values = samples.image(index) if images == 1 else samples.array(index, end)
            # The same sample gives the same bytes: a member has no time of its own.
            with archive.open(zipfile.ZipInfo(f"{end.name}.npy"), "w") as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)  # type: ignore[no-untyped-call]
    return stream.getvalue(), ".npz"


def data_set(folder: Path, names: Sequence[str], scratch: Path) -> str:
    """The golden files `names` of the artifact in `folder` as a data set: the value of `--data`.

    InputError if the record names other files than those that were made with it.
    """
    copies = scratch / "golden"
    copies.mkdir()
    for number, name in enumerate(names):
        file = folder / name
        (copies / f"{number:04}{file.suffix}").write_bytes(golden_content(folder, file))
    return f"golden:{copies}"


def sample(path: Path, artifact: Artifact, folder: Path) -> Path | None:
    """A file with the raw inputs of the artifact's first golden sample; None if it has none."""
    if not artifact.golden.images:
        return None
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source = data_set(path.parent, artifact.golden.images[:1], Path(scratch))
        samples = dataset(source).open(
            source, "all", resolution=artifact.spec.resolution, labels=()
        )
        try:
            values = preprocessing.sample_inputs(samples, 0, artifacts.signature(artifact).inputs)
        except BrokenImage as error:
            raise InputError(error.message, _AGAIN) from error
    file = folder / "sample.bin"
    file.write_bytes(
        b"".join(
            preprocessing.to_input(x, tensor, artifact.layout).tobytes()
            for x, tensor in zip(values, artifact.inputs, strict=True)
        )
    )
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
    """The content of a golden file; InputError if the record was made with another file.

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
