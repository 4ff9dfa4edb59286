"""Exports of other ends than a model's own."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import mobiledeploy as md
from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import SILENT


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(tmp_path / "store"))
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (60, 16, 16, 3), np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(60) % 4)
    return tmp_path


def network(*, pools=True, softmax=True):
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, 2, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(x) if pools else layers.Flatten()(x)
    scores = layers.Dense(4, activation="softmax" if softmax else None)(x)
    return tf_keras.Model(image, scores, name="mine")


def exported(model, heard=SILENT, **options):
    common = {"data": "data.npz", "input_range": (0, 1), "timed": False, "reporter": heard}
    return md.export(model, recipe=("float32", "int8_ptq"), **common, **options)


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


def test_a_model_without_a_pooling_is_refused_and_the_way_works(here):
    model = network(pools=False)
    with pytest.raises(InputError, match=r"no global pooling is found.*--task tensors"):
        exported(model, task="embedding")
    done = exported(model, task="tensors", format="tflite")
    assert done.spec.task == "tensors"
