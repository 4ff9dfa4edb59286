"""An app in Python with ONNX Runtime, and what it does alone."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper
from PIL import Image

from mobiledeploy.core import artifacts
from mobiledeploy.core.ports import SILENT
from mobiledeploy.verbs.app import app
from tests.apps.conftest import PLAIN, PYTHON, SIZE, artifact, run


def network() -> bytes:
    """An ONNX model that answers the first numbers of a channels-first image."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *SIZE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 7])
    parts = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("from", 0), ("until", 7), ("axis", 1))
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Slice", ["flat", "from", "until", "axis"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [image], [scores], parts)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_an_onnx_model_with_channels_first_is_replayed(tmp_path):
    path = artifact(tmp_path / "made", network(), kind="onnx")
    assert artifacts.load(path).layout == "NCHW"
    done = app(path, language="python", out=tmp_path / "app", reporter=SILENT)
    assert done.runtime == "onnxruntime"
    replayed = run(PYTHON.program(tmp_path / "app", "golden_test"), tmp_path)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert (
        PLAIN.labels[0]
        in run(
            [*PYTHON.program(tmp_path / "app", "app"), *(tmp_path / "app").glob("golden/*.png")],
            tmp_path,
        ).stdout
    )


def test_images_are_upright_and_on_white(tmp_path):
    path = artifact(tmp_path / "made", network(), kind="onnx")
    made = tmp_path / "app"
    app(path, language="python", out=made, reporter=SILENT)
    pixels = Image.effect_noise((20, 16), 90).convert("RGB")
    pixels.save(made / "plain.png")
    turned = pixels.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(made / "turned.png", exif=exif)
    whole = pixels.convert("RGBA")
    whole.putalpha(Image.new("L", whole.size, 255))
    whole.save(made / "opaque.png")
    done = run([*PYTHON.program(made, "app"), "plain.png", "turned.png", "opaque.png"], made)
    answers = {line.partition(", ")[2] for line in done.stdout.splitlines()}
    assert len(done.stdout.splitlines()) == 3
    assert len(answers) == 1, done.stdout
