"""TFLite files with odd inputs and outputs, as a source opens them."""

from __future__ import annotations

import flatbuffers
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError
from mobiledeploy.graphs import ends
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources._lite import Lite
from mobiledeploy.writers import onnx as writer


def relus(names: list[str], count: int, inputs: list[int], outputs: list[int]) -> Graph:
    """Tensors [1, 4] of these names; the first `count` go through a RELU into the next `count`."""
    model, subgraph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [subgraph], [schema.BufferT()]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    model.operatorCodes = [code]
    subgraph.inputs, subgraph.outputs = inputs, outputs
    subgraph.tensors, subgraph.operators = [], []
    for name in names:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), [1, 4], 0
        subgraph.tensors.append(tensor)
    for number in range(count):
        op = schema.OperatorT()
        op.inputs, op.outputs = [number], [number + count]
        subgraph.operators.append(op)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return Graph(bytes(builder.Output()))


@pytest.mark.parametrize(
    ("count", "outputs"),
    [(1, [1, 1]), (1, [0, 1]), (1, [1, 0, 1]), (0, [0])],
    ids=["twice", "an input", "both", "an input alone"],
)
def test_each_output_is_a_tensor_of_its_own(count: int, outputs: list[int]) -> None:
    model = Lite(relus(["x", "y"][: count + 1], count, [0], outputs), None)
    floats = model.floats("model")
    graph = Graph(floats)
    own = [*graph.inputs, *graph.outputs]
    assert len(set(own)) == len(own)
    x = np.array([[-1.0, 0.0, 1.0, 2.0]], np.float32)
    want = [x if index == 0 else np.maximum(x, 0) for index in outputs]
    assert [answer.tolist() for answer in model.answers(Batch((x,)))] == [y.tolist() for y in want]
    session = onnxruntime.InferenceSession(writer.write(floats))
    answers = session.run(None, {session.get_inputs()[0].name: x})
    assert [answer.tolist() for answer in answers] == [y.tolist() for y in want]
    signature = ends.signature(graph, model.inputs, model.output_names)
    names = [end.name for end in (*signature.inputs, *signature.outputs)]
    assert len(set(names)) == len(names)


def test_two_inputs_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="2 inputs named 'x'") as caught:
        Lite(relus(["x", "x", "y", "z"], 2, [0, 1], [2, 3]), None)
    assert "a name of its own" in caught.value.hint
