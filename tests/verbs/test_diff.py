from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS, RECIPES
from mobiledeploy.core.types import LayerCount, Model, RecipeAlternative, Target
from mobiledeploy.graphs import quantized
from mobiledeploy.verbs.diff import Difference, diff
from tests import warm
from tests.conftest import press
from tests.figures import CORE, command, counted, estimated, keep, measured
from tests.handmade import INT8, image_files, network, write
from tests.passes.conftest import images


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
        found = diff(reference, planted).layers
        assert found[0].b and found[0].b.name == names[7]
        assert "float32" in found[0].odd[0]
        assert found[1].b and found[1].b.name == names[4]
        assert "weights" in found[1].odd[-1]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with float32, int8_ptq, and the latter with pw1 kept float and noise in pw2."""
    folder = tmp_path_factory.mktemp("small")
    floats = press(Model("tf_keras", network()), "float32", "tflite", images(), output="softmax")
    samples = image_files(folder, images(4, seed=1), 8)
    write(folder, "float32.tflite", floats, RECIPES.load("float32").RECIPE, samples)
    for name, kept in (("int8_ptq", ()), ("planted", ("pw1",))):
        content = quantized.integers(quantized.start(floats, INT8, "int8", images(), kept))
        if kept:
            content = noise(content, "pw2")
        write(folder, f"{name}.tflite", content, INT8, samples)
    return folder


def noise(content: bytes, layer: str) -> bytes:
    """A TFLite file with other codes for the kernel of a layer."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    (reader,) = (
        x for x in graph.operators if f"/{layer}_relu/".encode() in graph.tensors[x.outputs[0]].name
    )
    kernel = model.buffers[graph.tensors[reader.inputs[1]].buffer].data.tobytes()
    assert content.count(kernel) == 1
    codes = np.frombuffer(kernel, np.int8)
    dice = np.random.default_rng(1)
    noisy = np.clip(codes + dice.integers(-40, 41, codes.shape), -127, 127).astype(np.int8)
    return content.replace(kernel, noisy.tobytes())


@pytest.mark.parametrize(
    ("reference", "activations"),
    [
        pytest.param("int8_ptq", False, marks=pytest.mark.slow),
        ("int8_ptq", True),
        ("float32", False),
        ("float32", True),
    ],
)
def test_so_they_are_in_tflite(small: Path, reference: str, activations: bool) -> None:
    paths = small / f"{reference}.tflite", small / "planted.tflite"
    first, second, *others = diff(*paths, activations=activations).layers
    assert first.b and "/pw1_relu/" in first.b.name
    assert "float32" in first.odd[0]
    assert second.b and "/pw2_relu/" in second.b.name
    assert [odd.partition(" ")[0] for odd in second.odd] == ["weights", "activations"][
        : 1 + activations
    ]
    assert not any("activations" in odd or "weights" in odd for p in others for odd in p.odd)


def test_activations_are_of_integers_alone(small: Path, tmp_path: Path) -> None:
    floats, integers = small / "float32.tflite", small / "int8_ptq.tflite"
    result = diff(floats, integers, activations=True)
    assert all(p.a.own_sqnr_db is None for p in result.layers if p.a)
    known = [p.b.own_sqnr_db for p in result.layers if p.b and p.b.own_sqnr_db is not None]
    assert len(known) >= 10
    assert all(10 < x < 80 for x in known)
    with pytest.raises(UsageError, match="neither"):
        diff(floats, floats, activations=True)
    for name in ("int8_ptq.tflite", "int8_ptq.tflite.json"):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    with pytest.raises(InputError, match=r"no float32.tflite"):
        diff(tmp_path / "int8_ptq.tflite", integers, activations=True)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_the_same_artifact_has_no_difference(exported, format_) -> None:
    path = exported["int8_ptq", format_]
    result = diff(path, path)
    assert result.layers
    assert all(p.a == p.b and not p.odd for p in result.layers)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_weights_are_the_real_values_of_both_recipes(exported, format_) -> None:
    shelf = FORMATS.load(format_)
    result = diff(exported["float32", format_], exported["int8_ptq", format_])
    errors = [p.sqnr_db for p in result.layers if p.sqnr_db is not None]
    # 8 bits for each channel: about 40 dB, whatever the layer.
    assert len(errors) > 10
    assert all(30 < e < 70 for e in errors)
    assert shelf.weights(exported["float32", format_].read_bytes())


def test_scaled_channels_are_no_loss_of_weights(exported, tmp_path, heard) -> None:
    reference, plain = exported["float32", "tflite"], exported["int8_ptq", "tflite"]
    diff(reference, plain, reporter=heard)
    assert heard.said == []
    path = tmp_path / "scaled.tflite"
    path.write_bytes(plain.read_bytes())
    tried = [
        RecipeAlternative(passes, divergence, 1.0, 30.0, 1.0, 8)
        for passes, divergence in (((), 0.2), (("equalize",), 0.1))
    ]
    record = dataclasses.replace(artifacts.load(plain), path=path.name, tried=tuple(tried))
    artifacts.record_path(path).write_text(records.dumps(record))
    diff(reference, path, reporter=heard)
    (line,) = heard.said
    assert line.startswith("int8_ptq scales channels")
    assert "--activations" in line


def test_instructions_and_figures_stand_beside_the_layers(exported, here) -> None:
    path, other = exported["int8_ptq", "tflite"], exported["float32", "tflite"]
    first = {}
    for file, many in ((path, 1000), (other, 3000)):
        artifact = artifacts.load(file)
        first[file] = next(p.a for p in diff(file, file).layers if p.a and p.a.mult_adds)
        rows = (LayerCount(first[file].name, first[file].kind, many),)
        keep(counted(artifact.sha256, many, by_layer=rows))
    # The newest of one is of another core: it is compared with nothing.
    rows = (dataclasses.replace(rows[0], instructions=9),)
    target = dataclasses.replace(CORE, device="emulator:cortex-a53")
    keep(counted(artifact.sha256, 9, by_layer=rows, target=target))
    result = diff(other, path)
    (figures,) = result.figures
    assert (figures.a, figures.b, figures.kind) == (3000, 1000, "counted")
    assert {p.a.instructions for p in result.layers if p.a} == {3000, None}
    assert {p.b.instructions for p in result.layers if p.b} == {1000, None}


def test_estimates_stand_beside_the_timings_of_both(exported, here) -> None:
    paths = [exported["float32", "tflite"], exported["int8_ptq", "tflite"]]
    phone, card = (Target(name, "native", "litert", 1, "xnnpack") for name in ("adb:X", "pixel-6"))
    for path, ns in zip(paths, (2_000_000, 1_000_000), strict=True):
        sha = artifacts.load(path).sha256
        timing = measured(sha, ns, target=phone, facts_before={"model": "Pixel 6"})
        keep(estimated(sha, 1.25 * ns, target=card), timing)
    by_kind = {figures.kind: figures for figures in diff(*paths).figures}
    assert [f and f.error for f in by_kind["measured"].forecasts] == [0.25, 0.25]
    assert by_kind["estimated"].forecasts == (None, None)
    shown = command("diff", *paths)
    assert "2.5 ms (+25.0 %) → 1.25 ms (+25.0 %), -50.0 %" in shown


def test_the_page_has_every_layer_and_what_it_reads(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    place = tmp_path / "both.html"
    result = diff(small / "float32.tflite", small / "planted.tflite", html=place)
    text = place.read_text("utf-8")
    rows = sorted(result.layers, key=lambda pair: pair.place)
    assert [pair.place for pair in rows] == list(range(len(rows)))
    for letter, sides in (("a", [p.a for p in rows]), ("b", [p.b for p in rows])):
        for n, one in enumerate(sides):
            assert (f'id="{letter}{n}"' in text) == (one is not None)
        known = [one for one in sides if one]
        # A chain: each layer reads the one before it.
        assert [one.reads for one in known] == [(), *((one.name,) for one in known[:-1])]
    (stem,) = [p for p in rows if p.b and "/stem_relu/" in p.b.name]
    assert stem.a and stem.a.scale is None
    assert stem.b and stem.b.scale and stem.b.zero_point == -128
    assert f"scale {stem.b.scale:.4g}" in text
    assert "float32 → float32, others float32 → int8" in text


@pytest.mark.parametrize(
    ("name", "message"), [("a.txt", "is not a .html"), ("none/a.html", "there is no folder")]
)
def test_a_page_that_cannot_be_is_refused_beforehand(tmp_path, name, message) -> None:
    with pytest.raises(UsageError, match=message):
        diff(tmp_path / "a.tflite", tmp_path / "b.tflite", html=tmp_path / name)


def test_the_command_line(exported, here) -> None:
    argv = [warm.program(), "-m", "mobiledeploy", "diff"]
    pair = [str(exported["float32", "tflite"]), str(exported["int8_ptq", "onnx"])]
    page = ["--html", "both.html"]
    result = subprocess.run([*argv, *pair, *page], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert (here / "both.html").read_text("utf-8").startswith("<!doctype html>")
    assert "both.html shows both graphs" in result.stderr
    assert "more layers" in result.stdout
    result = subprocess.run([*argv, *pair, "--json"], capture_output=True, text=True, timeout=60)
    found = records.loads(Difference, result.stdout)
    assert all(p.sqnr_db is None for p in found.layers)
    assert json.loads(result.stdout)["record"] == "Difference"
    result = subprocess.run(
        [*argv, "no.tflite", pair[0]], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 7
    result = subprocess.run([*argv, "1", "2", *page], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "no graphs" in result.stderr
