"""Exports of other ends than a model's own."""

import subprocess
import sys

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import mobiledeploy as md
from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.steps import diagnose


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(tmp_path / "store"))
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (60, 16, 16, 3), np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(60) % 4)
    return tmp_path


def network(*, pools=True, softmax=True):
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, 2, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(x) if pools else layers.Flatten()(x)
    scores = layers.Dense(4, activation="softmax" if softmax else None)(x)
    return tf_keras.Model(image, scores, name="mine")


def exported(model, heard=SILENT, **options):
    common = {"data": "data.npz", "input_range": (0, 1), "timed": False, "reporter": heard}
    return md.export(model, recipe=("float32", "int8_ptq"), **common | options)


@pytest.mark.slow
def test_a_classifier_becomes_an_embedding_in_both_formats(here):
    done = exported(network(), task="embedding")
    assert len(done.rows) == 4
    for row in done.rows:
        artifact = artifacts.load(here / row.path)
        assert (artifact.spec.task, artifact.output) == ("embedding", "pooled")
        assert [(end.name, end.shape) for end in artifact.signature.outputs] == [
            ("embedding", (8,))
        ]
        # The divergence is 1 - cosine; the metrics are those of the labels of the data.
        assert row.recipe == "float32" or row.divergence < 0.01
        assert 0 < row.metrics["recall_at_1"] < 1


@pytest.mark.slow
def test_what_is_an_embedding_already_stays_and_can_be_cut_by_name(here):
    model = network(softmax=False)
    whole = md.export(
        model,
        data="data.npz",
        input_range=(0, 1),
        task="embedding",
        recipe="float32",
        format="tflite",
        timed=False,
        reporter=SILENT,
    )
    assert artifacts.load(here / whole.rows[0].path).signature.outputs[0].shape == (4,)
    cut = exported(model, output="pooled", format="tflite")
    assert cut.folder != whole.folder
    assert artifacts.load(here / cut.rows[0].path).signature.outputs[0].shape == (8,)
    with pytest.raises(UsageError, match=r"gives an embedding, and --task names regression"):
        exported(model, output="pooled", task="regression")


@pytest.mark.slow
def test_a_model_without_a_pooling_is_refused_and_the_way_works(here):
    model = network(pools=False)
    with pytest.raises(InputError, match=r"no global pooling is found.*--task tensors"):
        exported(model, task="embedding")
    done = exported(model, task="tensors", format="tflite")
    assert done.spec.task == "tensors"


def test_an_int8_file_states_its_pixels_by_its_codes(here):
    done = exported(network(), input_range=(-1, 1))
    assert len(done.rows) == 4
    for row in done.rows:
        artifact = artifacts.load(here / row.path)
        how, (tensor,) = artifact.spec.preprocessing, artifact.inputs
        assert artifact.signature.image.preprocessing == how
        if row.recipe == "float32":
            assert (how.input_range, how.mean, how.std) == ((-1, 1), (0,) * 3, (1,) * 3)
            continue
        assert (how.input_range, how.mean, how.std) == ((0, 255), (127,) * 3, (127.5,) * 3)
        assert (tensor.scale[0], tensor.zero_point) == (pytest.approx(2 / 255), (-1,))
        # The float file is found, though it states its pixels in another way.
        assert row.agreement > 0.8
        # The file says the same itself, and its golden samples come again.
        verified = md.verify(here / row.path, reporter=SILENT)
        assert verified.sound and verified.sealed
    pairs = {(row.recipe, row.path.rpartition(".")[2]): row for row in done.rows}
    one, other = pairs["int8_ptq", "tflite"], pairs["int8_ptq", "onnx"]
    assert one.divergence == pytest.approx(other.divergence, rel=0.05, abs=1e-6)
    # The range of the float model is another name of the same pixels.
    (own, named) = (
        md.evaluate([here / one.path], data="data.npz", reporter=SILENT, **given)
        for given in ({}, {"input_range": (-1, 1)})
    )
    assert named.evaluations[0].preprocessing == own.evaluations[0].preprocessing
    errors = diagnose.own_errors(here / one.path)
    assert min(errors.values()) > 20


def test_each_image_of_several_has_its_codes_and_float_ends_stay(here):
    ends = [layers.Input((16, 16, 3), name=name) for name in ("left", "right")]
    x = layers.Concatenate()([layers.Conv2D(4, 3, 2)(end) for end in ends])
    model = tf_keras.Model(ends, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    dice = np.random.default_rng(1)
    both = {end.name: dice.integers(0, 256, (60, 16, 16, 3), np.uint8) for end in ends}
    np.savez("two.npz", **both, labels=np.arange(60) % 4)
    for io in ("int8", "float"):
        done = exported(model, data="two.npz", input_range=(-1, 1), io=io, format="tflite", out=io)
        row = next(row for row in done.rows if row.recipe == "int8_ptq")
        for end in artifacts.load(here / row.path).signature.inputs:
            # A file that takes floats stands for the float file, and takes its numbers.
            assert end.preprocessing.mean == ((127,) * 3 if io == "int8" else (0,) * 3)
        assert row.agreement > 0.8


@pytest.mark.slow
def test_zero_to_one_stays(here):
    done = exported(network(), format="tflite")
    for row in done.rows:
        assert artifacts.load(here / row.path).spec.preprocessing.input_range == (0, 1)


# With an app


@pytest.mark.slow
def test_an_app_of_the_best_file_is_written_beside_the_files(here, heard):
    options = {"task": "classification", "format": "tflite", "app": "python"}
    done = exported(network(), heard, **options)
    (python,) = done.apps
    assert python.path == "build/mine/app_python"
    assert python.artifact == "build/mine/int8_ptq.tflite"
    assert (here / python.path / "model.tflite").read_bytes() == (
        here / python.artifact
    ).read_bytes()
    told = "the app in python answers by int8_ptq.tflite, the tflite of the fewest bits"
    assert any(line.startswith(told) for line in heard.said)
    table = done.tables()[-1]
    assert table.headers == ("app",)
    assert table.rows[-1] == ("  python golden_test.py",)
    # It passes its own test.
    replayed = subprocess.run([sys.executable, "golden_test.py"], cwd=here / python.path)
    assert replayed.returncode == 0
    # Its own files are replaced, the user's code is not.
    (again,) = exported(network(), **options).apps
    assert again.artifact_sha256 != python.artifact_sha256
    assert (here / again.path / "model.tflite").read_bytes() == (here / again.artifact).read_bytes()
    (here / python.path / "app.py").write_text("mine")
    with pytest.raises(UsageError, match="build/mine/app_python/app.py is not as an app"):
        exported(network(), **options)


def test_an_app_that_cannot_be_is_refused_before_the_work(here):
    for options, message in (
        ({"app": "rust"}, "no apps named 'rust'"),
        ({"app": ("python", "cpp"), "format": "onnx"}, "cpp runs tflite, and this export makes"),
        ({"app": "python", "task": "tensors"}, "no answers of the task 'tensors'"),
    ):
        with pytest.raises(UsageError, match=message):
            exported(network(), **options)
        assert not (here / "build").exists()


@pytest.mark.slow
def test_an_app_of_a_task_that_shows_too_late_has_failed(here):
    """Nobody names the task of this model: that it is `tensors` shows when it is opened."""
    image = layers.Input((16, 16, 3))
    model = tf_keras.Model(image, layers.Conv2D(8, 3, 2)(image), name="mine")
    done = exported(model, format="tflite", app="python")
    assert len(done.rows) == 2
    assert done.apps == ()
    (failed,) = done.failed
    assert (failed.what, failed.exit_code) == ("the app in python", 7)
    assert "decodes no answers of the task 'tensors'" in failed.message
