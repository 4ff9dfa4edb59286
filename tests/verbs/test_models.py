import dataclasses
import hashlib
import sys

import numpy as np
import pytest
import tf_keras

from mobiledeploy.core import cards
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.types import Weights
from mobiledeploy.steps import card_specs, card_weights
from mobiledeploy.steps.model_files import detect
from mobiledeploy.verbs import models as verb
from tests.conftest import Heard
from tests.variants import slow_but

CARD = """\
name = "tiny"
architecture = "mobilenet_v1"
title = "Tiny"
paper = "A. Author 2020"
link = "https://example.org"
[defaults]
alpha = 0.25
resolution = 160
[limits]
resolution = [32, 1024]
[preprocessing]
input_range = [-1, 1]
crop = 0.875
[weights.demo]
classes = ["a", "b", "c"]
data = "demo"
files = [{{ alpha = 0.25, file = "tiny.h5", sha256 = "{sha256}", top1 = {{ "96" = 0.9 }} }}]
[weights.imagenet]
base_url = "https://127.0.0.1:9/never-asked"
classes = 1000
[[weights.imagenet.files]]
alpha = 0.25
file = "mobilenet_2_5_{{resolution}}_tf.h5"
resolutions = [128, 160, 192, 224]
"""


class Notes:
    """A Reporter that keeps what it is told."""

    def __init__(self):
        self.warnings, self.steps = [], []

    def progress(self, what, result, total):
        self.steps.append((what, result, total))

    def warn(self, warning):
        self.warnings.append(warning)

    def say(self, line):
        raise AssertionError(line)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The bytes of a weights file like those of Keras Applications."""
    path = tmp_path_factory.mktemp("published") / "w.h5"
    ARCHITECTURES.load("mobilenet_v1").build(
        alpha=0.25, resolution=(32, 32), classes=1000
    ).save_weights(path)
    return path.read_bytes()


@pytest.fixture
def card(tmp_path, monkeypatch, published):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "config" / "mobiledeploy" / "models"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "tiny.h5").write_bytes(published)
    text = CARD.format(sha256=hashlib.sha256(published).hexdigest())
    (folder / "tiny.toml").write_text(text)
    return cards.load("tiny")


def resolved(card, source, alpha=0.25, resolution=160, **options):
    return card_weights.weights(card, source, alpha, resolution, Notes(), **options)


def test_models_lists_every_card(card):
    assert card in [listing.card for listing in verb.models().models]
    assert [listing.card for listing in verb.models("tiny").models] == [card]


def test_demo_weights_are_pinned_and_bring_their_classes(card):
    found = resolved(card, "demo")
    assert found.path.name == "tiny.h5"
    assert found.weights == Weights("demo", card.weights.demo.files[0].sha256, pinned=True)
    assert (found.classes, found.labels) == (3, ("a", "b", "c"))
    assert found.preprocessing.crop == 1.0
    assert found.preprocessing.input_range == (-1.0, 1.0)


def test_demo_weights_that_were_changed_or_lost_are_refused(card):
    path = resolved(card, "demo").path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="sha256 differs"):
        resolved(card, "demo")
    path.unlink()
    with pytest.raises(MissingError, match="are not there"):
        resolved(card, "demo")


def test_an_alpha_without_demo_weights_says_which_have_them(card):
    with pytest.raises(MissingError, match=r"alpha 0\.75; alpha 0\.25 can be had") as error_info:
        resolved(card, "demo", alpha=0.75)
    assert "--weights random" in error_info.value.hint
    assert error_info.value.exit_code == 6


def test_random_weights_need_nothing(card):
    found = resolved(card, "random", alpha=0.33)
    assert found.path is None
    assert found.classes == len(found.labels) == 12


@pytest.mark.parametrize("name", ["same", "other"])
def test_the_publishers_own_hash_is_held_against_the_file(
    card, web, monkeypatch, published, tmp_path, name
):
    monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", web.url)
    web.files["/mobilenet_2_5_160_tf.h5"] = (200, {}, published)
    md5 = hashlib.md5(published if name == "same" else b"", usedforsecurity=False).hexdigest()
    path = tmp_path / "config" / "mobiledeploy" / "models" / "tiny.toml"
    path.write_text(path.read_text() + f'md5 = "{md5}"\n')
    notes = Notes()
    if name == "same":
        found = card_weights.weights(cards.load("tiny"), "imagenet", 0.25, 160, notes)
        assert found.weights.pinned
        assert notes.warnings == []
        return
    with pytest.raises(InputError, match="its md5 is"):
        card_weights.weights(cards.load("tiny"), "imagenet", 0.25, 160, notes)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_spec_is_what_the_card_says_but_for_what_is_asked(card):
    spec = card_specs.spec(card, classes=7)
    assert (spec.name, spec.resolution, spec.classes) == ("tiny_0.25_160", (160, 160), 7)
    assert spec.arguments == {"alpha": 0.25}
    assert spec.weights.source == "random"
    spec = card_specs.spec(card, alpha=0.6, res=64, classes=7)
    assert (spec.name, spec.arguments) == ("tiny_0.6_64", {"alpha": 0.6})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, "alpha 0 is not above 0"),
        ({"alpha": float("nan")}, "alpha nan is not above 0"),
        ({"alpha": 11.0}, "at most 10"),
        ({"groups": 2}, "tiny has no groups"),
        ({"res": 31}, "resolution 31 is not within 32 to 1024"),
        ({"classes": 1}, "1 classes are not within 2"),
    ],
)
def test_an_argument_beyond_the_card_is_refused(card, arguments, message):
    with pytest.raises(UsageError, match=message):
        card_specs.spec(card, **({"classes": 2} | arguments))


def test_a_card_without_alpha_takes_none(card):
    plain = dataclasses.replace(card, defaults=dataclasses.replace(card.defaults, alpha=None))
    assert card_specs.spec(plain, classes=2).name == "tiny_160"
    assert card_specs.spec(plain, classes=2).arguments == {}
    with pytest.raises(UsageError, match="tiny has no alpha"):
        card_specs.spec(plain, alpha=0.25, classes=2)
    with pytest.raises(MissingError, match="no imagenet weights for tiny;"):
        card_weights.weights(plain, "imagenet", None, 160, Notes())


@pytest.mark.parametrize(
    ("resolution", "name"),
    [
        (160, "mobilenet_2_5_160_tf.h5"),
        (224, "mobilenet_2_5_224_tf.h5"),
        (96, "mobilenet_2_5_224_tf.h5"),
    ],
)
def test_imagenet_weights_come_from_the_address_that_is_set(
    card, web, monkeypatch, published, resolution, name
):
    monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", f"{web.url}/mirror/")
    web.files[f"/mirror/{name}"] = (200, {}, published)
    notes = Notes()
    found = card_weights.weights(card, "imagenet", 0.25, resolution, notes)
    assert web.asked == [f"/mirror/{name}"]
    assert found.path.read_bytes() == published
    assert found.weights == Weights("imagenet", hashlib.sha256(published).hexdigest(), pinned=False)
    assert (found.classes, found.labels) == (1000, ())
    assert found.preprocessing.crop == 0.875
    assert [warning.name for warning in notes.warnings] == ["unpinned-weights"]
    assert "unpinned" in notes.warnings[0].message
    assert notes.steps[-1] == (f"download {name}", len(published), len(published))
    assert card_weights.weights(card, "imagenet", 0.25, resolution, notes) == found
    assert len(web.asked) == 1


@pytest.mark.parametrize("kind", ["truncated", "wrong", "whole model", "missing", "cut"])
def test_what_is_no_weights_file_is_refused_and_not_kept(
    card, web, monkeypatch, published, model_files, tmp_path, kind
):
    monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", web.url)
    whole = (model_files / "k2.h5").read_bytes()
    answers = {
        "truncated": (200, {"Content-Length": str(len(published))}, published[: 1 << 16]),
        "wrong": (200, {}, b"<html>please log in</html>"),
        "whole model": (200, {}, whole),
        "missing": (404, {}, b""),
        "cut": (200, {}, published[: len(published) // 2]),
    }
    web.files["/mobilenet_2_5_160_tf.h5"] = answers[kind]
    missing = kind in ("truncated", "missing")
    with pytest.raises(MissingError if missing else InputError, match=web.url) as error_info:
        resolved(card, "imagenet")
    assert "MOBILEDEPLOY_WEIGHTS_URL" in error_info.value.hint
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_an_alpha_without_imagenet_weights_says_which_have_them(card):
    with pytest.raises(MissingError, match=r"alpha 0\.25 can be had"):
        resolved(card, "imagenet", alpha=0.3)


def test_a_weights_file_of_the_users(card, tmp_path, published):
    path = tmp_path / "mine.h5"
    path.write_bytes(published)
    found = resolved(card, str(path))
    assert found.path == path
    assert found.weights == Weights("mine.h5", hashlib.sha256(published).hexdigest(), pinned=False)
    assert found.classes == 1000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("k2.h5", "is a whole model"),
        ("k3.weights.h5", "Keras 3 weights"),
        ("nowhere.h5", "cannot be read"),
        ("k2_saved", "is a whole model"),
    ],
)
def test_a_file_that_is_no_keras_2_weights_is_refused(card, model_files, name, message):
    with pytest.raises(InputError, match=message):
        resolved(card, str(model_files / name))


def test_code_in_a_file_is_refused_unless_the_user_says(model_files):
    for name in ("k2_lambda.h5", "k3_lambda.keras", "k2_lambda_saved"):
        with pytest.raises(InputError, match=r"code of its own.*--unsafe"):
            detect(model_files / name)
        heard = Heard()
        assert detect(model_files / name, unsafe=True, reporter=heard).code
        (warning,) = heard.warnings
        assert warning.name == "unsafe"
        assert "Lambda layer 'doubled'" in warning.message


def test_what_is_no_model_is_said(tmp_path):
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(InputError, match="is not a known kind of model"):
        detect(tmp_path / "x.txt")
    with pytest.raises(InputError, match="is not a known kind of model"):
        detect(tmp_path)


def test_the_card_of_v1_fits_keras_applications():
    card = cards.load("mobilenet_v1")
    assert card.weights.imagenet is not None
    found = {file.alpha: file.file for file in card.weights.imagenet.files}
    assert found == {
        1.0: "mobilenet_1_0_{resolution}_tf.h5",
        0.75: "mobilenet_7_5_{resolution}_tf.h5",
        0.5: "mobilenet_5_0_{resolution}_tf.h5",
        0.25: "mobilenet_2_5_{resolution}_tf.h5",
    }
    source = sys.modules[tf_keras.applications.MobileNet.__module__]
    assert card.weights.imagenet.base_url == source.BASE_WEIGHT_PATH


WITH_DEMO = [name for name in cards.names() if cards.load(name).weights.demo]


@pytest.mark.parametrize("name", slow_but(WITH_DEMO, "mobilenet_v1"))
def test_the_shipped_demo_weights_load(name):
    card = cards.load(name)
    assert {"mobilenet_v1", "ssdlite_mobilenet_v1", "lraspp_mobilenet_v3_small"} <= set(WITH_DEMO)
    for file in card.weights.demo.files:
        assert file.figures
        found = resolved(card, "demo", alpha=file.alpha, resolution=96)
        model = ARCHITECTURES.load(card.architecture).build(
            **card.arguments, alpha=file.alpha, resolution=(96, 96), classes=found.classes
        )
        model.load_weights(found.path)
        assert np.isfinite(model.get_weights()[0]).all()
