import re

import pytest

from mobiledeploy.core import cards
from mobiledeploy.core.errors import InputError, UsageError

CARD = """\
name = "tiny"
architecture = "mobilenet_v1"
title = "Tiny"
paper = "A. Author 2020"
link = "https://example.org"

[defaults]
alpha = 0.5
resolution = 160

[limits]
resolution = [32, 1024]

[preprocessing]
input_range = [-1, 1]
channels = "rgb"
resize = "bilinear"
crop = 0.875

[weights.demo]
classes = ["a", "b"]
data = "demo"
crop = 1.0
[[weights.demo.files]]
alpha = 0.5
file = "tiny_0.5.h5"
sha256 = "HASH"
top1 = { "96" = 0.9, "160" = 0.95 }
command = "make train-demo"

[weights.imagenet]
base_url = "https://example.org/weights/"
classes = 1000
[[weights.imagenet.files]]
alpha = 1
file = "tiny_1_0_{resolution}.h5"
resolutions = [128, 224]
""".replace("HASH", "0" * 64)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "mobiledeploy" / "models"
    folder.mkdir(parents=True)
    (folder / "tiny.toml").write_text(CARD)
    return folder


def test_a_card_is_read_whole(config):
    card = cards.load("tiny")
    assert (card.default_alpha, card.default_resolution) == (0.5, 160)
    assert card.resolution_limits == (32, 1024)
    assert card.preprocessing.input_range == (-1.0, 1.0)
    assert card.preprocessing.crop == 0.875
    (file,) = card.weights.demo.files
    assert file.figures == file.top1 == {"96": 0.9, "160": 0.95}
    assert card.weights.imagenet.files[0].resolutions == (128, 224)
    assert card.folder == str(config)


def test_the_users_folder_comes_first(config):
    text = CARD.replace('name = "tiny"', 'name = "mobilenet_v1"')
    (config / "mobilenet_v1.toml").write_text(text)
    assert cards.load("mobilenet_v1").title == "Tiny"
    assert cards.folders()[0] == config


def test_a_card_without_weights_is_a_card(config):
    text = CARD.partition("[weights.demo]")[0]
    (config / "tiny.toml").write_text(text)
    card = cards.load("tiny")
    assert card.weights.demo is None
    assert card.weights.imagenet is None


def test_an_unknown_name_gets_a_suggestion(config):
    with pytest.raises(UsageError, match="did you mean tiny"):
        cards.load("tny")
    with pytest.raises(UsageError, match="no model card"):
        cards.load("../../etc/passwd")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('name = "tiny"', 'name = "huge"', "name"),
        ('name = "tiny"', "", "name"),
        ("alpha = 0.5\nresolution", "alpha = -1\nresolution", "defaults.alpha"),
        ("alpha = 0.5\nresolution", "alpha = nan\nresolution", "defaults.alpha"),
        ("alpha = 0.5\nresolution", 'alpha = "big"\nresolution', "defaults.alpha"),
        ("resolution = 160", "resolution = 16", "defaults.resolution"),
        ("resolution = 160", "resolution = 160\nresolutoin = 1", "resolutoin"),
        ("[32, 1024]", "[1024, 32]", "limits.resolution"),
        ('title = "Tiny"', 'title = "Tiny"\ntask = "portraits"', "task"),
        ("[32, 1024]", "[32]", "limits.resolution"),
        ("[-1, 1]", "[1, -1]", "preprocessing"),
        ('"rgb"', '"grb"', "preprocessing.channels"),
        ('["a", "b"]', '["a", "a"]', "weights.demo.classes"),
        ("0" * 64, "xyz", "weights.demo.files.sha256"),
        ('"tiny_0.5.h5"', '"../tiny.h5"', "weights.demo.files.file"),
        ('"96" = 0.9', '"96" = 90', "weights.demo.files.top1"),
        ('top1 = { "96" = 0.9', 'metric = { "96" = 90', "weights.demo.files.metric"),
        ("https://example.org/weights/", "file:///etc/", "weights.imagenet.base_url"),
        ("[128, 224]", "[]", "weights.imagenet.files.resolutions"),
        ('title = "Tiny"', 'title = "Tiny"\nfolder = "/"', "folder"),
        ('title = "Tiny"', "title =", "cannot be read"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(config, old, new, field):
    assert old in CARD
    (config / "tiny.toml").write_text(CARD.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"tiny\.toml.*{re.escape(field)}"):
        cards.load("tiny")


def test_a_card_may_have_no_alpha_and_arguments_of_its_own(config):
    text = CARD.partition("[weights.demo]")[0].replace("alpha = 0.5\n", "")
    (config / "tiny.toml").write_text(text + '[arguments]\nvariant = "small"\ngroups = 3\n')
    card = cards.load("tiny")
    assert card.default_alpha is None
    assert card.arguments == {"variant": "small", "groups": 3}


def test_every_installed_card_is_read():
    for name in cards.names():
        assert cards.load(name).name == name
