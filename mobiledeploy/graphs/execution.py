"""Runs graphs operator by operator over all images, with LiteRT's interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from mobiledeploy.core import detectors, leases
from mobiledeploy.core.batches import Images, batch
from mobiledeploy.core.errors import InputError, first_line
from mobiledeploy.core.ports import Array
from mobiledeploy.graphs.graph import CASTS, Floats, Graph


class Walk:
    """The values of a graph's tensors for many images, operator by operator.

    Each operator runs once for each image; only values that are needed later are kept.
    """

    def __init__(self, graph: Graph, images: Images) -> None:
        self._graph = graph
        self._at = 0
        arrays = batch(images).arrays
        if len(graph.inputs) != len(arrays):
            raise InputError(f"the model has {len(graph.inputs)} inputs, the data {len(arrays)}")
        self._values: dict[int, Array] = {
            source: _input_values(graph, source, values)[:, None]
            for source, values in zip(graph.inputs, arrays, strict=True)
        }

    def before(self, op: int) -> None:
        """Runs all operators before number `op`."""
        if op <= self._at:
            return
        content, inputs, outputs = self._graph.part(self._at, op)
        if outputs:
            self._values |= _run(content, [self._values[i] for i in inputs], outputs)
        self._at = op
        live = {i for later in self._graph.ops[op:] for i in later.inputs}
        live |= set(self._graph.outputs)
        self._values = {i: v for i, v in self._values.items() if i in live}

    def ends(self) -> tuple[Floats, ...]:
        """Each output [N, ...] in real values."""
        self.before(len(self._graph.ops))
        return tuple(self._graph.real(index, self.value(index)) for index in self._graph.outputs)

    def value(self, index: int) -> Array:
        """The stored values [N, ...] of a tensor that the next operator reads."""
        values = self._values[index]
        if values.ndim > 1 and values.shape[1] == 1:
            return np.reshape(values, (len(values), *values.shape[2:]))
        return values


def run(content: bytes, images: Images) -> Floats:
    """The output of a TFLite file with one output, in real values: [N, ...]."""
    (answer,) = Walk(Graph(content), images).ends()
    return answer


def answers(content: bytes, images: Images) -> tuple[Floats, ...]:
    """Each output of a TFLite in real values [N, ...], a single one before a final softmax."""
    graph = Graph(content)
    if len(graph.outputs) > 1:
        return Walk(graph, images).ends()
    return (logits(content, images),)


def logits(content: bytes, images: Images) -> Floats:
    """The output of a TFLite in real values, before a final softmax: [N, classes]."""
    graph = Graph(content)
    ops = graph.ops
    last = len(ops)
    while last and graph.kind(ops[last - 1]) in ("SOFTMAX", *CASTS):
        last -= 1
    walk = Walk(graph, images)
    walk.before(last)
    (target,) = {int(i) for i in ops[last - 1].outputs}
    return graph.real(target, walk.value(target))


def each_output(content: bytes, images: Images) -> Iterator[list[Array]]:
    """The stored values of all outputs for each image; copies."""
    graph = Graph(content)
    engine = interpreter(content)
    sources = [detail["index"] for detail in engine.get_input_details()]
    targets = [detail["index"] for detail in engine.get_output_details()]
    for sample in batch(images):
        for source, index, values in zip(sources, graph.inputs, sample.arrays, strict=True):
            engine.set_tensor(source, _input_values(graph, index, values))
        invoke(engine)
        yield [engine.get_tensor(target) for target in targets]


def interpreter(
    content: bytes,
    *,
    every_tensor: bool = False,
    shapes: Mapping[int, Sequence[int]] | None = None,
) -> Any:
    """LiteRT's interpreter, allocated; InputError if it rejects the file.

    It runs on all cores, but for a detector that chooses its boxes: with several threads LiteRT's
    operator leaves out whole classes (https://github.com/tensorflow/tensorflow/issues/56058).

    `every_tensor` keeps the tensors between operators for `get_tensor`; `shapes` are other shapes
    of inputs.
    """
    try:
        engine = Interpreter(
            model_content=content,
            num_threads=1 if detectors.POSTPROCESS.encode() in content else leases.cores(),
            experimental_preserve_all_tensors=every_tensor,
            # XNNPACK does not expose the tensors between its operators.
            experimental_op_resolver_type=(
                OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                if every_tensor
                else OpResolverType.AUTO
            ),
        )
        for index, shape in (shapes or {}).items():
            engine.resize_tensor_input(index, list(shape))
        engine.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot load the model: {first_line(error)}") from error
    return engine


def invoke(engine: Any) -> None:
    """Runs an interpreter; InputError if it fails."""
    try:
        engine.invoke()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot run the model: {first_line(error)}") from error


def _run(content: bytes, values: Sequence[Array], tensors: Sequence[int]) -> dict[int, Array]:
    """The outputs, each [N, *shape], of the file for `values`, [N, *shape] for each input."""
    engine = interpreter(content)
    input_indices = [detail["index"] for detail in engine.get_input_details()]
    output_indices = [detail["index"] for detail in engine.get_output_details()]
    answers: list[Array] = []
    for number in range(len(values[0])):
        for source, value in zip(input_indices, values, strict=True):
            engine.set_tensor(source, value[number])
        invoke(engine)
        for place, target in enumerate(output_indices):
            answer = engine.get_tensor(target)
            if number == 0:
                answers.append(np.empty((len(values[0]), *answer.shape), answer.dtype))
            answers[place][number] = answer
    return dict(zip(tensors, answers, strict=True))


def _input_values(graph: Graph, index: int, values: Array) -> Array:
    """Real values [N, ...] as stored values of the input."""
    dtype = graph.dtype(index)
    assert dtype is not None
    scales, zero = graph.scale(index)
    if not scales.size:
        return values.astype(dtype, copy=False)
    limits: np.iinfo[Any] = np.iinfo(dtype)
    codes = np.round(values / np.float32(scales[0])) + zero
    clipped_codes: Array = np.clip(codes, limits.min, limits.max).astype(dtype)
    return clipped_codes
