"""The export that made a file, from its record: as a command line, and as arguments again."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mobiledeploy.cli.export import command
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import Artifact, DataRef, Preprocessing
from mobiledeploy.steps import bundle_commands, export_plan
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.export_plan import ExportConfig

LABELS = ("a", "b")
CONFIGS = {
    "the default": ExportConfig(),
    "a card": ExportConfig(
        arch="shufflenet_v1",
        alpha=0.30000000000000004,
        groups=3,
        res=96,
        weights="random",
        data="demo",
        recipes=("int8_best", "float32"),
        formats=("tflite",),
        io="uint8",
        output="logits",
        keep_float=("a layer", "-b,c"),
        shrink=False,
        task="classification",
    ),
    "own weights": ExportConfig(weights="own.h5", alpha=1.0, res=128, data="photos"),
    "own model": ExportConfig(
        model=Path("own.keras"),
        data="photos",
        overrides=Overrides(
            (-1.0, 1.0), (0.1, 0.2, -0.3), (1.0, 2.0, 3.0), "bgr", "bicubic", 0.875, LABELS
        ),
    ),
}


class Record:
    """As much of an artifact as its command is made of."""

    path = "int8.tflite"

    def __init__(self, config: ExportConfig) -> None:
        self.arguments = export_plan.arguments(config)
        self.data = DataRef("demo", "validation", (8, 8))
        self.spec = type("Spec", (), {"preprocessing": Preprocessing((0, 1), labels=LABELS)})


@pytest.mark.parametrize("name", CONFIGS)
def test_the_arguments_come_again(name):
    config = CONFIGS[name]
    own = Path("photos") if config.data == "photos" else None
    weights = Path(str(config.model or config.weights))
    again = bundle_commands.config(Record(config), Path("build"), data=own, weights=weights)
    assert again == config


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_line_says_them(name):
    config = CONFIGS[name]
    words = shlex.split(bundle_commands.line(Record(config)))
    assert words[:2] == ["mobiledeploy", "export"]
    given = command.make_context("export", words[2:]).params
    changes = config.overrides
    assert given["model"] == config.model
    assert given["recipe"] == config.recipes
    assert given["format"] == config.formats
    assert given["no_shrink"] is not config.shrink
    assert (given["task"] or "") == config.task
    assert given["labels"] == (Path("labels.txt") if changes.labels else None)
    for field in ("arch", "alpha", "groups", "res", "weights", "data", "io", "output"):
        assert given[field] == getattr(config, field), field
    assert given["keep_float"] == config.keep_float
    for field in ("input_range", "mean", "std", "channels", "resize", "crop"):
        assert given[field] == getattr(changes, field), field


@pytest.mark.parametrize(
    ("name", "given", "option"),
    [
        ("own weights", {"data": Path("photos"), "weights": None}, "--weights"),
        ("own weights", {"data": None, "weights": Path("own.h5")}, "--data"),
        ("own model", {"data": Path("photos"), "weights": None}, "--weights"),
    ],
)
def test_what_a_bundle_does_not_hold_is_asked_for(name, given, option):
    with pytest.raises(UsageError, match=f"which no bundle holds; give {option}"):
        bundle_commands.config(Record(CONFIGS[name]), Path("build"), **given)


def test_a_record_of_an_earlier_version_has_no_command():
    assert Artifact.__dataclass_fields__["arguments"].default is None
    record = Record(ExportConfig())
    record.arguments = None
    assert bundle_commands.line(record) == ""


def test_a_training_names_its_images_itself_and_others_may_replace_their_place():
    record = Record(ExportConfig(model=Path("runs/mine")))
    for source, moved in (("photos", "moved"), ("demo", None)):
        record.data = DataRef(source, "held", (8, 8))
        for data, used in ((None, None), (Path("moved"), moved)):
            config = bundle_commands.config(record, Path("again"), data=data, weights=Path("mine"))
            assert config.data == used
            assert config.model == Path("mine")
