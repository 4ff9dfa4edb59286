"""What the diagnosis says of networks whose fault is known, because it was put there."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import tf_keras
from PIL import Image

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.types import Model
from mobiledeploy.steps import diagnose as verb
from mobiledeploy.steps import quantization_plot
from tests.handmade import BLOCKS, made, network, plain_files
from tests.passes.conftest import images

layers = tf_keras.layers


def uneven(model, block):
    """The channels of one depthwise layer a thousandfold apart, and the function as it was."""
    norm, reader = model.get_layer(f"dw{block}_bn"), model.get_layer(f"pw{block}")
    behind = tf_keras.Model(model.input, model.get_layer(f"dw{block}_relu").output)
    highest = behind.predict(images(), verbose=0).max(axis=(0, 1, 2))
    factor = np.where(highest < 5.5, 10.0 ** -np.linspace(1.5, 3, 16), 1)
    factor[0] = 1
    gamma, beta, mean, variance = norm.get_weights()
    norm.set_weights([gamma * factor, beta * factor, mean, variance])
    (kernel,) = reader.get_weights()
    reader.set_weights([kernel / factor[:, None]])


def small(folder, model, seen=None):
    seen = images() if seen is None else seen
    return made(folder, Model("tf_keras", model), seen, images(8, seed=1), onnx=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return small(tmp_path_factory.mktemp("plain") / "small", network())


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """Block 2's depthwise channels differ a thousandfold."""
    model = network()
    before = model.predict(images(), verbose=0)
    uneven(model, 2)
    np.testing.assert_allclose(model.predict(images(), verbose=0), before, atol=1e-4)
    return small(tmp_path_factory.mktemp("hard") / "small", model)


@functools.cache
def diagnosis(path: Path) -> verb.QuantizationDiagnosis:
    return verb.diagnose(path)


def short(name: str) -> str:
    """dw2 for model/dw2_relu/Relu6."""
    return next(p.partition("_")[0] for p in name.split("/")[::-1] if p not in ("Relu6", "MatMul"))


def test_every_layer_is_told_up_to_the_logits(plain):
    found = diagnosis(plain / "int8_ptq.tflite")
    assert len(found.layers) == 2 + 2 * BLOCKS + 1
    assert found.not_told == ()
    assert found.images == 8
    assert (found.data, found.runtime) == ("golden", "litert")
    for layer in found.layers:
        assert 10 < layer.sqnr_db < 60
        assert layer.own_sqnr_db > layer.sqnr_db - 3
        assert 0.99 < layer.cosine <= 1
        assert layer.clipped + layer.coded + layer.weighted == pytest.approx(1)
        assert 0 < layer.codes_used <= 1
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    # Errors grow: what the last layers deliver is worse than what they do themselves.
    inherited = [layer.own_sqnr_db - layer.sqnr_db for layer in found.layers]
    assert np.mean(inherited[5:]) > np.mean(inherited[:3])
    assert records.loads(verb.QuantizationDiagnosis, records.dumps(found)) == found


def test_the_errors_of_single_layers_come_to_that_of_the_whole(plain):
    found = diagnosis(plain / "int8_ptq.tflite")
    noise = sum(10 ** (-layer.alone_sqnr_db / 10) for layer in found.layers)
    assert -10 * np.log10(noise) == pytest.approx(found.sqnr_db, abs=4)


def test_onnx_of_the_same_integers_is_told_alike(plain):
    ours, other = (diagnosis(plain / f"int8_ptq.{kind}") for kind in ("tflite", "onnx"))
    assert other.runtime == "onnxruntime"
    assert [x.name for x in ours.layers] == [x.name for x in other.layers]
    for one, two in zip(ours.layers, other.layers, strict=True):
        assert one.own_sqnr_db == pytest.approx(two.own_sqnr_db, abs=0.5)
        assert one.range_ratio == two.range_ratio
        assert one.output == two.output
    assert ours.sqnr_db == pytest.approx(other.sqnr_db, abs=0.5)


def test_an_answer_of_several_dimensions_is_told(tmp_path):
    whole = network()
    boxes = tf_keras.Model(whole.input, whole.get_layer(f"pw{BLOCKS - 1}").output)
    model = Model("tf_keras", boxes)
    folder = tmp_path / "small"
    plain_files(folder, model, images(), images(8, seed=1), output="model")
    for path in (folder / "float32.tflite", folder / "int8_ptq.tflite"):
        artifact = artifacts.load(path)
        ends = artifacts.signature(artifact)
        output = dataclasses.replace(ends.outputs[0], shape=(12, 12, 16), activation="none")
        changed = dataclasses.replace(
            artifact,
            spec=dataclasses.replace(artifact.spec, task="tensors"),
            signature=dataclasses.replace(ends, outputs=(output,)),
        )
        artifacts.record_path(path).write_text(records.dumps(changed))
    found = diagnosis(path)
    assert len(found.layers) == 1 + 2 * BLOCKS
    # Of one output, the answer's error is that of the layer that makes it.
    assert found.sqnr_db == pytest.approx(found.layers[-1].sqnr_db)


@pytest.mark.parametrize("file", ["int8_ptq.tflite", "int8_ptq.onnx"])
def test_the_layer_whose_channels_differ_a_thousandfold_is_named(hard, file):
    found = diagnosis(hard / file)
    rows = {short(layer.name): layer for layer in found.layers}
    broken = {"dw2", "pw2"}
    # The codes of its narrow channels, and the weights that make up for them where they are read.
    assert (rows["dw2"].cause, rows["pw2"].cause) == ("codes", "weights")
    assert rows["dw2"].share + rows["pw2"].share > 0.95
    assert short(found.enters) in broken
    assert rows["dw2"].range_ratio == max(layer.range_ratio for layer in found.layers) > 300
    assert rows["dw2"].lost >= 1
    best, keep = found.remedies[:2]
    assert best.name == "int8_best"
    assert "dw2_relu/Relu6 differ" in best.why and "equalization" in best.why
    assert {short(name) for name in best.layers} == broken
    assert keep.name == "keep-float"
    assert {short(name) for name in keep.layers} == broken
    # The layers before it are as they were; those after it inherit its error.
    own = {short(layer.name): layer.own_sqnr_db for layer in found.layers}
    delivered = {short(layer.name): layer.sqnr_db for layer in found.layers}
    assert own["pw2"] < min(own["pw0"], own["pw1"], own["pw3"]) - 20
    assert delivered["dw1"] > delivered["pw2"] + 5
    assert own["pw3"] > delivered["pw3"] + 5


def test_what_int8_best_made_of_it_is_told_in_the_float_networks_units(hard):
    before, after = (diagnosis(hard / f"{name}.tflite") for name in ("int8_ptq", "int8_best"))
    assert after.passes[-1] == "adaround"
    assert after.sqnr_db > before.sqnr_db + 6
    was, now = ({short(x.name): x for x in found.layers} for found in (before, after))
    assert now["dw2"].range_ratio < was["dw2"].range_ratio / 5
    assert now["pw2"].own_sqnr_db > was["pw2"].own_sqnr_db + 15
    assert "int8_best" not in [remedy.name for remedy in after.remedies]


@pytest.mark.slow
def test_one_scale_for_all_weights_is_named(tmp_path):
    """A BatchNorm of variance 1e-9 over a channel that is always zero: Sheng et al.'s case."""
    model = network()
    norm, before = model.get_layer("dw1_bn"), model.get_layer("pw0_bn")
    gamma, beta, mean, variance = before.get_weights()
    beta[3] = -50
    before.set_weights([gamma, beta, mean, variance])
    gamma, beta, mean, variance = norm.get_weights()
    mean[3], variance[3], beta[3] = 0, 1e-9, 0.7
    norm.set_weights([gamma, beta, mean, variance])
    norm.epsilon = 1e-5
    folder = small(tmp_path / "small", model)
    found = verb.diagnose(folder / "per_tensor.tflite")
    assert short(found.enters) == "dw1"
    assert next(x for x in found.layers if x.name == found.enters).cause == "weights"
    assert found.remedies[0].name == "per-channel"
    assert short(found.remedies[0].layers[0]) == "dw1"
    plain = verb.diagnose(folder / "int8_ptq.tflite")
    assert plain.sqnr_db > found.sqnr_db + 10
    # Dead behind that BatchNorm, in float as well.
    assert next(x for x in plain.layers if short(x.name) == "dw1").dead == 1


@pytest.mark.slow
def test_images_unlike_the_calibration_are_named(tmp_path):
    """Calibrated on images of little contrast."""
    folder = small(tmp_path / "small", network(), images() * 0.3)
    found = verb.diagnose(folder / "int8_ptq.tflite")
    assert found.remedies[0].name == "calibration"
    assert found.remedies[0].layers
    assert sum(layer.saturated for layer in found.layers) > 10


def test_images_of_ones_own_are_taken(plain, tmp_path, heard):
    for number, image in enumerate(images(20, seed=3)):
        place = tmp_path / "mine" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint((image + 1) / 2 * 255).astype(np.uint8)).save(place)
    (tmp_path / "mine" / "a" / "0.png").write_bytes(b"broken")
    found = verb.diagnose(plain / "int8_ptq.tflite", data=str(tmp_path / "mine"), reporter=heard)
    assert found.images == verb.IMAGES - 1
    assert found.data == str(tmp_path / "mine")
    assert [warning.name for warning in found.warnings] == ["broken-image"]
    assert heard.warnings == list(found.warnings)
    assert ("from each layer on", len(found.layers), len(found.layers)) in heard.steps


def test_the_same_is_told_again(plain):
    path = plain / "int8_ptq.tflite"
    assert verb.diagnose(path) == diagnosis(path)


def copied(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "copy"))


def test_what_cannot_be_diagnosed_is_refused(plain, tmp_path):
    folder = copied(plain, tmp_path)
    with pytest.raises(InputError, match="its activations are floats"):
        verb.diagnose(folder / "float32.tflite")
    with pytest.raises(UsageError, match="the demo images say nothing"):
        verb.diagnose(folder / "int8_ptq.tflite", data="demo")
    with pytest.raises(InputError, match="does not exist"):
        verb.diagnose(folder / "nothing.tflite")
    for image_ in (folder / "golden").iterdir():
        image_.write_bytes(b"another")
    with pytest.raises(InputError, match="not the one that its name says"):
        verb.diagnose(folder / "int8_ptq.tflite")


def test_a_file_whose_answer_no_layer_makes_is_refused(plain, tmp_path):
    path = copied(plain, tmp_path) / "int8_ptq.onnx"
    model = onnx.load(path)
    model.graph.output[0].name = model.graph.input[0].name
    path.write_bytes(model.SerializeToString())
    record = artifacts.record_path(path)
    messages = json.loads(record.read_text())
    messages |= {"sha256": records.sha256(path), "size_bytes": path.stat().st_size}
    record.write_text(json.dumps(messages))
    with pytest.raises(InputError, match=r"int8_ptq.onnx does not fit together: no layer makes"):
        verb.diagnose(path)


def test_the_float_artifact_of_the_same_model_is_needed(plain, tmp_path):
    folder = copied(plain, tmp_path)
    record = artifacts.record_path(folder / "float32.tflite")
    other = json.loads(record.read_text())
    other["spec"]["name"] = "other"
    record.write_text(json.dumps(other))
    with pytest.raises(InputError, match=r"float32.tflite is of another model"):
        verb.diagnose(folder / "int8_ptq.tflite")
    (folder / "float32.tflite").unlink()
    with pytest.raises(InputError, match="--recipe float32 --format tflite"):
        verb.diagnose(folder / "int8_ptq.tflite")


@pytest.mark.slow
def test_no_tensorflow_is_needed(plain):
    code = (
        "import sys; from pathlib import Path; from mobiledeploy.steps import diagnose\n"
        f"diagnose.diagnose(Path({str(plain / 'int8_ptq.onnx')!r}))\n"
        "sys.exit(any(n in sys.modules for n in ('tensorflow', 'ai_edge_litert.interpreter')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG")])
def test_the_image_shows_every_layer(plain, tmp_path, suffix, start):
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    found = diagnosis(plain / "int8_ptq.tflite")
    # Names are a stranger's: what is no character of XML is none of the image's.
    first, *others = found.layers
    layers = (dataclasses.replace(first, name="first\x01--\ufffe"), *others)
    found = dataclasses.replace(found, artifact="a $x$ b_{c}\x02.tflite", layers=layers)
    path = tmp_path / f"image{suffix}"
    quantization_plot.draw(found, path)
    content = path.read_bytes()
    assert content.startswith(start)
    if suffix == ".svg":
        text = content.decode()
        texts = {element.text for element in ElementTree.fromstring(text).iter()}
        assert {layer.name for layer in others} <= texts
        assert any("a $x$ b_{c}?.tflite" in (one or "") for one in texts)
    quantization_plot.draw(found, path)
    assert path.read_bytes() == content


def test_an_image_that_cannot_be_is_refused_beforehand(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"neither .svg nor .png"):
        quantization_plot.check(tmp_path / "a.gif")
    with pytest.raises(UsageError, match="there is no folder"):
        quantization_plot.check(tmp_path / "none" / "a.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="vl_convert is not installed") as error_info:
        quantization_plot.check(tmp_path / "a.png")
    assert "mobiledeploy[report]" in error_info.value.hint
