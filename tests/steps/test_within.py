"""Exports within an accuracy budget."""

import itertools

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import mobiledeploy as md
from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.steps import within


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(tmp_path / "store"))
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (80, 16, 16, 3), np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(80) % 4)
    np.savez("bare.npz", images=images)
    return tmp_path


def exported(data="data.npz", **options):
    tf_keras.utils.set_random_seed(1)
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, 2, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(x)
    scores = layers.Dense(4, activation="softmax")(x)
    model = tf_keras.Model(image, scores, name="mine")
    common = {"input_range": (0, 1), "timed": False, "reporter": SILENT, "format": "tflite"}
    return md.export(model, data=data, **common, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"within": 1, "max_disagreement": 1}, "two budgets"),
        ({"within": "0"}, "--within 0 is not between"),
        ({"within": "-1pt"}, "--within -1pt is not between"),
        ({"max_disagreement": "a lot"}, "--max-disagreement a lot is not"),
        ({"within": 100}, "not between 0 and 100"),
        ({"cost": "bytes"}, "--cost goes with"),
        ({"within": 1, "recipe": "int8_ptq"}, "--recipe does not go"),
        ({"within": 1, "keep_float": "conv2d"}, "--keep-float does not go"),
    ],
)
def test_what_makes_no_sense_is_refused(here, options, message):
    with pytest.raises(UsageError, match=message):
        md.export("none.h5", reporter=SILENT, **options)


@pytest.mark.parametrize("text", [1, 1.0, "1", "1pt", "1 pt", "1%"])
def test_a_budget_is_of_points_or_percent(text):
    assert within.budget(text, None, None) == within.LossBudget("metric", 0.01)
    assert within.budget(None, text, "bytes") == within.LossBudget("answers", 0.01, "bytes")


def test_too_few_images_write_nothing_and_say_how_many_are_needed(here):
    done = exported(within="1pt", cost="bytes")
    chain = done.within
    assert (done.rows, chain.written, chain.outcome) == ((), None, "inconclusive")
    assert not (here / "build").exists()
    (file,) = chain.links[0].files
    assert file.verdict.needed >= 361
    assert chain.search + chain.verdict == 64
    # What comes after the first link is not tested.
    assert all(link.outcome is None for link in chain.links[1:])
    (table,) = done.tables()
    assert "images needed" in table.rows[0][-1]


def test_images_without_labels_are_judged_by_their_answers_only(here):
    with pytest.raises(UsageError, match=r"--max-disagreement judges"):
        exported(data="bare.npz", within=1, cost="bytes")


@pytest.mark.slow
def test_the_cheapest_link_that_passed_is_written_with_its_chain(here):
    done = exported(data="bare.npz", max_disagreement="40%", cost="bytes")
    chain = done.within
    assert chain.outcome == "pass"
    recipes = [link.recipe for link in chain.links]
    assert (recipes[0], recipes[-1]) == ("float16", "int8x4_ptq")
    kept = [link.kept_float for link in chain.links if link.recipe == "int8_best"]
    assert kept[-1] == ()
    assert all(set(a) > set(b) for a, b in itertools.pairwise(kept))
    (row,) = done.rows
    artifact = artifacts.load(here / row.path)
    link = chain.links[chain.written]
    assert artifact.within == chain
    assert artifact.sha256 == link.files[0].sha256 == row.sha256
    assert (artifact.recipe.name, artifact.kept_float) == (link.recipe, link.kept_float)
    assert link.cost == artifact.size_bytes
