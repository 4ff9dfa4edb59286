"""Node data as Model Explorer reads it.

Its package is too large for a test (128 MB), so `sound` says what its `GraphNodeData` may hold.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.core import records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import LayerCount
from mobiledeploy.steps import node_data
from mobiledeploy.steps.node_data import NodeFigure
from mobiledeploy.verbs.analyze import analyze
from tests.figures import counted, keep


def sound(path: Path) -> dict[str, Any]:
    """A file of node data, if it has the fields and types of `GraphNodeData` and no others."""
    data = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
    assert set(data) == {"name", "results", "gradient", "hideAggregatedStats"}
    assert isinstance(data["name"], str)
    for key, result in data["results"].items():
        assert key
        assert list(result) == ["value"]
        assert type(result["value"]) in (int, float)
    assert [item["stop"] for item in data["gradient"]] == [0, 1]
    assert all(re.fullmatch("#[0-9a-f]{6}", item["bgColor"]) for item in data["gradient"])
    assert set(data["hideAggregatedStats"]) <= {"min", "max", "sum", "avg"}
    return data


def values(path: Path) -> dict[str, float]:
    return {key: result["value"] for key, result in sound(path)["results"].items()}


def nodes(path: Path) -> set[str]:
    """What Model Explorer's readers call the nodes of a file: by other parsers than ours."""
    if path.suffix == ".onnx":
        return {node.name for node in onnx.load(path).graph.node}
    (graph,) = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0).subgraphs
    return {graph.tensors[op.outputs[0]].name.decode() for op in graph.operators}


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_every_key_is_a_node_of_the_file(exported, here, format_) -> None:
    path = exported["float32", format_]
    analysis = analyze(path, model_explorer="net.json")
    assert {one.name for one in here.iterdir()} == {"net.json", "net.params.json"}
    mult_adds, params = values(here / "net.json"), values(here / "net.params.json")
    assert mult_adds.keys() | params.keys() <= nodes(path)
    assert sum(mult_adds.values()) == analysis.mult_adds
    assert sum(params.values()) == analysis.params


def test_a_count_of_the_store_is_there(exported, here) -> None:
    path = exported["float32", "tflite"]
    first = analyze(path).layers[0].name
    layers = (LayerCount(first, "CONV_2D", 7),)
    keep(counted(records.sha256(path), 9, by_layer=layers))
    analyze(path, model_explorer="net.json")
    assert values(here / "net.instructions.json") == {first: 7}
    assert sound(here / "net.instructions.json")["name"] == "instructions on cortex-a76, litert"
    # Of another file there is none.
    analyze(exported["float32", "onnx"], model_explorer="other.json")
    assert not (here / "other.instructions.json").exists()


def test_a_ratio_without_an_end_is_left_out_and_its_sum_hidden(tmp_path) -> None:
    ratios = node_data._ratios([("a", 20.5), ("b", 200.0), ("c", -200.0)])
    assert ratios == {"a": 20.5}
    plain = NodeFigure("x", "x", {"a": 1})
    first, second = node_data.write(
        tmp_path / "n.json", [plain, NodeFigure("sqnr", "SQNR", ratios, ratio=True)]
    )
    assert sound(first)["hideAggregatedStats"] == []
    assert sound(second)["hideAggregatedStats"] == ["sum", "avg"]
    # The worst is marked: the most, or the smallest ratio.
    marked = [item["bgColor"] for item in sound(first)["gradient"]]
    assert [item["bgColor"] for item in sound(second)["gradient"]] == marked[::-1]


def test_what_is_no_number_is_never_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        node_data.write(tmp_path / "n.json", [NodeFigure("x", "x", {"a": math.nan})])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.txt", "is not a .json"),
        ("net.tflite.json", "a model's record"),
        ("int8.onnx.json", "a model's record"),
        ("none/net.json", "there is no folder"),
    ],
)
def test_another_place_is_refused_beforehand(tmp_path, name, message) -> None:
    with pytest.raises(UsageError, match=message):
        node_data.check(tmp_path / name)


@pytest.mark.parametrize("file", [None, "model.h5", "a_saved_model"])
def test_only_a_finished_file_has_nodes(tmp_path, file) -> None:
    with pytest.raises(UsageError, match=r"a finished file: \.onnx or \.tflite"):
        analyze(file, model_explorer=tmp_path / "net.json")
