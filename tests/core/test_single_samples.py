"""Files of other tools that take or give no single sample: any is timed, none is evaluated."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import DataRef

DATA = DataRef("data.npz", "all", (0, 0))


def write(path: Path, inputs: list, outputs: list, op: str = "Relu", **options: int) -> Path:
    """A model of one operator; inputs and outputs are (name, shape[, type])."""

    def ends(listed: list) -> list:
        return [
            helper.make_tensor_value_info(name, (*more, TensorProto.FLOAT)[0], shape)
            for name, shape, *more in listed
        ]

    node = helper.make_node(op, [inputs[0][0]] if inputs else ["c"], [outputs[0][0]], **options)
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1, 2], [1.0, 2.0])
    graph = helper.make_graph(
        [node], "g", ends(inputs), ends(outputs), [] if inputs else [constant]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("inputs", "outputs", "op", "options", "message"),
    [
        ([], [("y", [1, 2])], "Relu", {}, "takes no inputs"),
        ([("x", [4, 3])], [("y", [4, 3])], "Relu", {}, r"takes x as float32 \[4, 3\]"),
        ([("x", [])], [("y", [])], "Relu", {}, r"takes x as float32 \[\]"),
        (
            [("x", [1, 4])],
            [("y", [])],
            "ReduceMean",
            {"keepdims": 0},
            r"gives y as float32 \[\]",
        ),
        (
            [("x", [1, 4], TensorProto.STRING)],
            [("y", [1, 4], TensorProto.STRING)],
            "Identity",
            {},
            "takes x as object",
        ),
    ],
)
def test_a_file_without_single_samples_is_no_work(
    inputs, outputs, op, options, message, tmp_path
) -> None:
    artifact = artifacts.load(write(tmp_path / "m.onnx", inputs, outputs, op, **options))
    with pytest.raises(InputError, match=message) as caught:
        artifacts.work(artifact, DATA)
    assert caught.value.hint


def test_an_open_batch_is_one_sample(tmp_path) -> None:
    path = write(tmp_path / "m.onnx", [("x", ["N", 3])], [("y", ["N", 3])])
    work = artifacts.work(artifacts.load(path), DATA)
    assert [tensor.shape for tensor in work.inputs] == [(1, 3)]
