"""Resized images in a scratch folder, for several model files that are judged on the same ones.

Each model file has runner processes of its own. Without the folder, each of them reads, draws and
resizes every image again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.types import DataRef, ModelInput

MOST_BYTES = 2**29
"""A data set with more pixels is read again for each file: 3,500 images of 224 x 224."""


def has_room(folder: Path, images: int, signature: tuple[ModelInput, ...]) -> bool:
    """Whether the pixels of so many samples are few enough, and the disk holds them twice."""
    size = images * sum(int(np.prod(end.shape)) for end in signature if end.kind == "image")
    return 0 < size <= MOST_BYTES and 2 * size <= shutil.disk_usage(folder).free


class PixelCache:
    """The pixels of one data set, before they become a model's numbers: uint8 [H, W, 3], or [H, W].

    Processes may share the folder: a file is renamed into place when it is whole.
    """

    def __init__(self, folder: Path, data: DataRef) -> None:
        self._folder = folder
        self._data = (data.source, data.split, data.identity, data.resolution)

    def get(self, index: int, end: ModelInput) -> NDArray[np.uint8] | None:
        """The pixels that `put` kept for this sample and this geometry; None without any."""
        shape = _shape(end)
        try:
            content = self._path(index, end).read_bytes()
        except OSError:
            return None
        if len(content) != int(np.prod(shape)):
            return None
        return np.frombuffer(content, np.uint8).reshape(shape)

    def put(self, index: int, end: ModelInput, pixels: NDArray[np.uint8]) -> None:
        """Keeps the pixels; a full disk is no error, they are made again then."""
        path = self._path(index, end)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            partial.write_bytes(np.ascontiguousarray(pixels).tobytes())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)

    def _path(self, index: int, end: ModelInput) -> Path:
        assert end.preprocessing is not None
        geometry = (end.preprocessing.resize, end.preprocessing.crop, end.preprocessing.channels)
        key = repr((self._data, index, end.name, end.shape, geometry))
        return self._folder / hashlib.sha256(key.encode()).hexdigest()


def _shape(end: ModelInput) -> tuple[int, ...]:
    assert end.preprocessing is not None
    return end.shape[:2] if end.preprocessing.channels == "gray" else end.shape
