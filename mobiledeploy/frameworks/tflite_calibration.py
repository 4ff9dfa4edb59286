"""Ranges that TFLite's calibrator finds, made true for operators that work in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flatbuffers
from tensorflow.lite.python import lite
from tensorflow.lite.python import schema_py_generated as schema


@contextmanager
def keeping_every_tensor() -> Iterator[None]:
    """Within it, TFLiteConverter calibrates with no tensor overwritten while it is looked at.

    TensorFlow 2.21 notes the range of the first input of an ADD, SUB or MUL after the operator has
    written its result over it, so that the input's int8 codes are spread over the wider of the two
    ranges. Every tensor is an output while calibration runs: outputs are never written over.
    """
    theirs = lite._calibrator.Calibrator
    lite._calibrator.Calibrator = _Calibrator
    try:
        yield
    finally:
        lite._calibrator.Calibrator = theirs


class _Calibrator(lite._calibrator.Calibrator):
    def __init__(self, content: bytes, *registerers: Any) -> None:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        self._outputs = [list(graph.outputs) for graph in model.subgraphs]
        for graph in model.subgraphs:
            made = [index for op in graph.operators for index in op.outputs]
            graph.outputs = [*graph.outputs, *(i for i in made if i not in graph.outputs)]
        super().__init__(_packed(model, len(content)), *registerers)

    def calibrate(self, dataset_gen: Any) -> bytes:
        content = super().calibrate(dataset_gen)
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        for graph, outputs in zip(model.subgraphs, self._outputs, strict=True):
            graph.outputs = outputs
        return _packed(model, len(content))


def _packed(model: Any, about: int) -> bytes:
    # A builder that is large enough from the start copies no weights while it grows.
    builder = flatbuffers.Builder(about + 2**16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
