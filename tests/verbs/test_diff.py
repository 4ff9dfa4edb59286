from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.store import Store
from mobiledeploy.core.types import Counted, LayerCount, Target
from mobiledeploy.verbs.diff import Different, diff


def replant(source: Path, change: object, folder: Path) -> Path:
    """The artifact at `source` with its ONNX graph changed, as an artifact of its own."""
    model = onnx.load(source)
    change(model.graph)
    path = folder / "planted.onnx"
    onnx.save(model, path)
    known = artifacts.load(source)
    record = dataclasses.replace(
        known, path=path.name, sha256=records.sha256(path), size_bytes=path.stat().st_size
    )
    artifacts.record_path(path).write_text(records.dumps(record))
    return path


def convolutions(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Conv"]


def fall_back(graph: onnx.GraphProto, conv: onnx.NodeProto) -> None:
    """The result of `conv` goes on in float: nobody quantizes it any more."""
    made = conv.output[0]
    quantize = next(n for n in graph.node if made in n.input and n.op_type == "QuantizeLinear")
    back = next(n for n in graph.node if quantize.output[0] in n.input)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == back.output[0]:
                node.input[index] = made
    graph.node.remove(quantize)
    graph.node.remove(back)


def make_noisy(graph: onnx.GraphProto, conv: onnx.NodeProto) -> None:
    maker = next(n for n in graph.node if conv.input[1] in n.output)
    held = next(t for t in graph.initializer if t.name == maker.input[0])
    codes = numpy_helper.to_array(held)
    dice = np.random.default_rng(1)
    noisy = np.clip(codes + dice.integers(-40, 41, codes.shape), -127, 127).astype(codes.dtype)
    held.CopyFrom(numpy_helper.from_array(noisy, held.name))


def test_a_fallback_to_float_and_a_noisy_layer_are_ranked_first_and_second(
    exported, tmp_path
) -> None:
    source = exported["int8_ptq", "onnx"]
    names = [node.name or node.output[0] for node in convolutions(onnx.load(source).graph)]

    def change(graph: onnx.GraphProto) -> None:
        # By name first: the list changes with the graph.
        noisy, fallen = convolutions(graph)[4], convolutions(graph)[7]
        make_noisy(graph, noisy)
        fall_back(graph, fallen)

    planted = replant(source, change, tmp_path)
    for reference in (source, exported["float32", "onnx"]):
        found = [p for p in diff(reference, planted).layers if p.a and p.b]
        assert found[0].b and found[0].b.name == names[7]
        assert "float32" in found[0].odd[0]
        assert found[1].b and found[1].b.name == names[4]
        assert "weights" in found[1].odd[-1]


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_the_same_artifact_has_no_difference(exported, format_) -> None:
    path = exported["int8_ptq", format_]
    done = diff(path, path)
    assert done.layers
    assert all(p.a == p.b and not p.odd for p in done.layers)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_weights_are_the_real_values_of_both_recipes(exported, format_) -> None:
    shelf = FORMATS.load(format_)
    done = diff(exported["float32", format_], exported["int8_ptq", format_])
    errors = [p.sqnr_db for p in done.layers if p.sqnr_db is not None]
    # 8 bits for each channel: about 40 dB, whatever the layer.
    assert len(errors) > 10
    assert all(30 < e < 70 for e in errors)
    assert shelf.weights(exported["float32", format_].read_bytes())


def test_instructions_and_figures_stand_beside_the_layers(exported, here) -> None:
    path, other = exported["int8_ptq", "tflite"], exported["float32", "tflite"]
    target = Target("emulator:cortex-a76", "native", "litert", 1, "xnnpack")
    with Store.open() as store:
        for file, many in ((path, 1000), (other, 3000)):
            artifact = artifacts.load(file)
            first = next(p.a for p in diff(file, file).layers if p.a and p.a.mult_adds)
            rows = (LayerCount(first.name, first.kind, many),)
            store.add_measurement(
                Counted(
                    artifact.sha256, target, "2", "cortex-a76", many, {}, 0, 0, rows, (), 0.0, {}
                )
            )
    done = diff(other, path)
    (figures,) = done.figures
    assert (figures.a, figures.b, figures.kind) == (3000, 1000, "counted")
    assert any(p.a and p.a.instructions == 3000 for p in done.layers)


def test_the_command_line(exported, here) -> None:
    argv = [sys.executable, "-m", "mobiledeploy", "diff"]
    pair = [str(exported["float32", "tflite"]), str(exported["int8_ptq", "onnx"])]
    done = subprocess.run([*argv, *pair], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "more layers" in done.stdout
    done = subprocess.run([*argv, *pair, "--json"], capture_output=True, text=True, timeout=60)
    found = records.loads(Different, done.stdout)
    assert all(p.sqnr_db is None for p in found.layers)
    assert json.loads(done.stdout)["record"] == "Different"
    done = subprocess.run([*argv, "no.tflite", pair[0]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 7
