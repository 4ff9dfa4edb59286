"""Float TFLite files: a source like any other, which needs no TensorFlow.

The preprocessing is in our own contract, or in standard metadata.
"""

from __future__ import annotations

from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import OpenedModel
from mobiledeploy.core.types import ModelFile, Source
from mobiledeploy.graphs import float16
from mobiledeploy.graphs.graph import IDENTIFIER, Graph
from mobiledeploy.sources._inputs import may_take_images
from mobiledeploy.sources._lite import Lite

NEEDS: tuple[str, ...] = ()


def detect(path: Path) -> ModelFile | None:
    """What the file is, with the preprocessing of its metadata.

    Returns:
        None if it is not a TFLite file.

    Raises:
        InputError: it cannot be read, is damaged, or holds integers.
    """
    if path.is_dir():
        return None
    with inputs.open_file(path) as stream:
        start = stream.read(8)
    if start[4:8] != IDENTIFIER:
        return None
    content = inputs.read(path, inputs.MODEL)
    try:
        graph = Graph(content)
        _refuse_integers(graph, path)
        shelf = FORMATS.load("tflite")
        contract, how = shelf.contract(content), shelf.preprocessing(content)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error
    return ModelFile(
        str(path),
        "tflite",
        "tflite",
        "model",
        records.sha256(content),
        preprocessing=contract.preprocessing if contract else how,
        task=contract.task if contract else "",
        images=may_take_images(graph.shape(index) for index in graph.inputs),
    )


def open(source: Source) -> OpenedModel:
    """The file with a static batch of 1, float16 weights widened to float32, and all its zeros."""
    assert source.file is not None
    path = Path(source.file.path)
    content = inputs.read(path, inputs.MODEL)
    if records.sha256(content) != source.file.sha256:
        raise InputError(f"{path} changed while it was read", "try again")
    graph = Graph(content)
    del content
    graph.fill_in_zeros()
    float16.widen(graph)
    return Lite(graph, source.resolution)


def _refuse_integers(graph: Graph, path: Path) -> None:
    """InputError for a file that is already quantized."""
    types = {graph.type_name(index) for index in range(len(graph.subgraph.tensors))}
    integer_types = sorted(types & {"int8", "uint8", "int4", "int16"})
    has_scales = any(graph.scale(i)[0].size for i in range(len(graph.subgraph.tensors)))
    if integer_types and has_scales:
        raise InputError(
            f"it already holds integers ({', '.join(integer_types)})",
            f"export the float model that it was made from; evaluate, bench, check, verify and "
            f"diff accept {path.name} as it is",
        )
