"""TFLite metadata, as MediaPipe and the Task Library read and write it.

A separate flatbuffer among the buffers, and class names in a zip after the model
(https://ai.google.dev/edge/litert/models/metadata). Slots are the positions of fields in the tables
of metadata_schema.fbs.
"""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from mobiledeploy.core import preprocessing, samples, zips
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import Preprocessing
from mobiledeploy.graphs.graph import BROKEN, Graph

_METADATA, _METADATA_IDENTIFIER = b"TFLITE_METADATA", b"M001"
_MOST_UNITS = 64
_USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_LABELS_BYTES = 1 << 20


def of_file(graph: Graph, content: bytes) -> Preprocessing | None:
    """The preprocessing in the metadata of a file; None if there is none.

    InputError for damaged metadata.
    """
    entries = [entry for entry in graph.model.metadata or () if entry.name == _METADATA]
    if not entries or not 0 <= entries[0].buffer < len(graph.model.buffers):
        return None
    content_ = graph.model.buffers[entries[0].buffer].data
    if content_ is None:
        return None
    data = np.asarray(content_, np.uint8).tobytes()
    if data[4:8] != _METADATA_IDENTIFIER:
        return None
    try:
        root = Table(data, flatbuffers.encode.Get(number_types.UOffsetTFlags.packer_type, data, 0))
        graphs = _children(root, 3)
        images = _children(graphs[0], 2) if graphs else []
        normal = _normalization(images[0]) if images else None
        answers = _children(graphs[0], 3) if graphs else []
        names = [_text(file, 0) for answer in answers for file in _children(answer, 6)]
    except (*BROKEN, UnicodeDecodeError) as error:
        raise InputError("its metadata is damaged") from error
    if normal is None:
        return None
    mean, std = normal
    labels = _labels(content, names[0]) if names else ()
    return _scaling(mean, std, labels)


def _scaling(mean: list[float], std: list[float], labels: tuple[str, ...]) -> Preprocessing | None:
    """The preprocessing (pixel - mean) / std, for pixels of 0..255."""
    count = max(len(mean), len(std))
    if count not in (1, 3) or not np.isfinite([*mean, *std]).all() or min(std) <= 0:
        return None
    means, stds = (list(v) * (3 // len(v)) for v in (mean, std))
    # One range for all channels is given by both of its ends.
    if len(set(means)) == len(set(stds)) == 1:
        low, high = -means[0] / stds[0], (255 - means[0]) / stds[0]
        matches = [r for r in _USUAL if np.allclose(r, (low, high), atol=0.02)]
        ends = matches[0] if matches else (low, high)
        preprocessing_ = Preprocessing(ends, labels=labels)
    else:
        red, green, blue = (m / 255 for m in means)
        preprocessing_ = Preprocessing(
            (0.0, 1.0),
            (red, green, blue),
            (stds[0] / 255, stds[1] / 255, stds[2] / 255),
            labels=labels,
        )
    try:
        preprocessing.validate(preprocessing_)
    except UsageError as error:
        raise InputError(f"its metadata is not valid: {error.message}") from error
    return preprocessing_


def _normalization(tensor: Table) -> tuple[list[float], list[float]] | None:
    """(mean, std) of the NormalizationOptions among a tensor's process units."""
    for unit in _children(tensor, 4):
        place = unit.Offset(_slot(0))
        kind = unit.Get(number_types.Uint8Flags, unit.Pos + place) if place else 0
        options = unit.Offset(_slot(1))
        if kind == 1 and options:
            table = Table(unit.Bytes, unit.Indirect(unit.Pos + options))
            mean, std = _floats(table, 0), _floats(table, 1)
            if mean and std:
                return mean, std
    return None


def _slot(number: int) -> int:
    return 4 + 2 * number


def _children(table: Table, slot: int) -> list[Table]:
    place = table.Offset(_slot(slot))
    if not place:
        return []
    if table.VectorLen(place) > _MOST_UNITS:
        raise InputError("its metadata holds more than a model can")
    start = table.Vector(place)
    return [
        Table(table.Bytes, table.Indirect(start + 4 * number))
        for number in range(table.VectorLen(place))
    ]


def _floats(table: Table, slot: int) -> list[float]:
    place = table.Offset(_slot(slot))
    if not place or table.VectorLen(place) > _MOST_UNITS:
        return []
    values = table.GetVectorAsNumpy(number_types.Float32Flags, place)
    return [float(value) for value in values]


def _text(table: Table, slot: int) -> str:
    place = table.Offset(_slot(slot))
    return table.String(table.Pos + place).decode() if place else ""


def _labels(content: bytes, name: str) -> tuple[str, ...]:
    """The class names in the zip after the model, one per line; () if there are none."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return ()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if name not in archive.namelist():
                return ()
            member = archive.getinfo(name)
            methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if member.file_size > _LABELS_BYTES or member.compress_type not in methods:
                raise InputError(f"its class names ({name}) cannot be read")
            text = archive.read(member).decode()
    except (*zips.BROKEN, MemoryError) as error:
        raise InputError(f"its class names ({name}) cannot be read") from error
    # Invalid label names are ignored; the model works without them.
    try:
        names = samples.label_names(text.rstrip().splitlines(), name)
    except InputError:
        return ()
    usable = (
        len(names) > 1 and len(set(names)) == len(names) and all(n.isprintable() for n in names)
    )
    return names if usable else ()
