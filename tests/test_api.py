"""The Python API: a function for each command, typed, and quick to import."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import logging
import re
import subprocess
import sys
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

import mobiledeploy as md
from mobiledeploy.cli import main
from mobiledeploy.core import cards, errors, records
from mobiledeploy.core.display import LONGEST_REPR
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import NamedWarning
from mobiledeploy.steps import card_specs, live_models, reporters

# Options that every command has: how it answers and how much it says.
EVERYWHERE = {"json", "quiet", "verbose"}
# An option that answers something else has a function of its own.
OF_THEIR_OWN = {
    "analyze": {
        "analyze_best": {"best", "max_mult_adds", "max_size", "min_top1"},
        "analyze_instructions": {"device"},
        "analyze_quantization": {
            "quantization",
            "reference",
            "data",
            "plot",
            *("input_range", "mean", "std", "channels", "resize", "crop", "labels"),
        },
        "analyze_table": {"table"},
    },
    "bench": {"cold_start": {"cold"}, "compare": {"compare", "rounds"}},
    "bundle": {
        "bundle_reproduce": {"reproduce", "data", "weights"},
        "bundle_verify": {"verify", "key"},
    },
    "check": {"update_baseline": {"update_baseline"}},
    "doctor": {
        "doctor_android": {"android"},
        "doctor_clean": {"clean"},
        "doctor_emulator": {"emulator"},
        "doctor_phone": {"phone", "record"},
        "doctor_torch": {"torch"},
    },
}
# Those are the function's name, not its keywords.
CHOOSE = {
    "android",
    "best",
    "clean",
    "cold",
    "compare",
    "emulator",
    "phone",
    "quantization",
    "torch",
    "update_baseline",
}
# What is of a terminal or of a process alone.
OF_THE_TERMINAL = {
    "bench": {"adb", "benchmark_model"},  # say it by MOBILEDEPLOY_ADB in the environment
    "choose": {"all"},  # rows that are shown
    "check": {"github"},  # annotations on standard error
    "devices": {"all"},  # rows that are shown
    "diff": {"most"},  # rows that are shown
    "results": {"csv"},  # printed; a record has rows
    "results regress": {"junit", "github", "on_inconclusive"},  # files and the exit code
}
SUBCOMMANDS = {
    "devices calibrate": "calibrate",
    "results calibration": "results_calibration",
    "results cold": "results_cold",
    "results compared": "results_compared",
    "results evaluated": "results_evaluated",
    "results export": "results_export",
    "results import": "results_import",
    "results regress": "results_regress",
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, those of groups as two words."""
    context = click.Context(main.cli)
    for name in main.cli.list_commands(context):
        command = main.cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                yield f"{name} {below}", inner


COMMANDS = dict(commands())
VERBS = [name for name in md.__all__ if inspect.isfunction(getattr(md, name))]
RECORDS = [
    kind for kind in (getattr(md, name) for name in md.__all__) if dataclasses.is_dataclass(kind)
]


def keywords(verb: str) -> set[str]:
    return set(inspect.signature(getattr(md, verb)).parameters)


# Each command has its verb


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_verb_with_its_options(name):
    verb = SUBCOMMANDS.get(name, name)
    own = OF_THEIR_OWN.get(name, {})
    options = {param.name for param in COMMANDS[name].params if param.name}
    options -= EVERYWHERE | OF_THE_TERMINAL.get(name, set())
    elsewhere = set().union(*own.values())
    for other, named in own.items():
        assert named - CHOOSE <= keywords(other), other
    # What only another function takes is none of this one's.
    assert options - elsewhere <= keywords(verb)
    assert keywords(verb) - options - elsewhere <= {"reporter", "seconds", "timed"}


def test_every_verb_is_a_command_or_an_option_of_one():
    named = {SUBCOMMANDS.get(name, name) for name in COMMANDS}
    named |= {verb for own in OF_THEIR_OWN.values() for verb in own}
    assert set(VERBS) == named | {"diff_figures"}  # diff of two figures


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_an_example_and_says_what_it_takes_and_gives(name):
    verb = getattr(md, name)
    text = inspect.getdoc(verb)
    assert verb.__name__ == name
    assert "Returns:\n" in text
    if inspect.signature(verb).parameters:
        assert "Args:\n" in text
    for keyword in keywords(name):
        assert f"    {keyword}: " in text, keyword


@pytest.mark.parametrize("name", VERBS)
def test_the_example_of_a_verb_calls_it_with_what_it_takes(name):
    text = inspect.getdoc(getattr(md, name))
    lines = re.findall(r"^ *>>> (.*)$", text, re.MULTILINE)
    if not lines:
        assert name.startswith("doctor_")
        return
    tree = ast.parse("\n".join(lines))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert f"md.{name}" in {ast.unparse(call.func) for call in calls}
    for call in calls:
        where, _, verb = ast.unparse(call.func).rpartition(".")
        if where == "md":
            given = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(getattr(md, verb)).bind(*call.args, **given)


@pytest.mark.slow
def test_the_reference_has_every_name(tmp_path):
    tool = Path(__file__).resolve().parent.parent / "tools" / "api_docs.py"
    subprocess.run([sys.executable, tool, tmp_path], check=True, capture_output=True)
    text = (tmp_path / "mobiledeploy.html").read_text("utf-8")
    for name in md.__all__:
        assert f'<section id="{name}">' in text, name


# Types


def unions(kind: object, seen: set[object]) -> Iterator[object]:
    """`kind` and all that it is made of, fields of records included."""
    if isinstance(kind, typing.Hashable) and kind in seen:
        return
    seen.add(kind)
    yield kind
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        for field in typing.get_type_hints(kind).values():
            yield from unions(field, seen)
    for argument in typing.get_args(kind):
        if not isinstance(argument, str | int):
            yield from unions(argument, seen)


@pytest.mark.parametrize("name", VERBS)
def test_a_signature_says_what_it_takes(name):
    verb = getattr(md, name)
    hints = typing.get_type_hints(verb, localns={"Reporter": Reporter})
    assert hints.keys() - {"return"} == keywords(name)
    made_of = [part for hint in hints.values() for part in unions(hint, set())]
    assert typing.Any not in made_of
    for part in made_of:
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            assert getattr(md, part.__name__) is part
            assert issubclass(part, md.Record)


def test_every_error_can_be_caught_by_its_name():
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert getattr(md, kind.__name__) is kind
    with pytest.raises(md.UsageError, match="no model card"):
        md.models("mobilenet_v9")
    with pytest.raises(md.InputError, match="does not exist"):
        md.verify("nowhere.tflite")


def test_the_import_brings_nothing_heavy():
    code = (
        "import sys, mobiledeploy\n"
        "print(*{'numpy', 'tensorflow', 'click', 'rich', 'PIL', 'mobiledeploy.verbs'} "
        "& set(sys.modules))\n"
        "mobiledeploy.InputError, mobiledeploy.NamedWarning\n"
        "print(*{'numpy', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [], done.stderr
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        md.exprot  # noqa: B018
    assert set(VERBS) < set(dir(md))


def test_a_verb_of_the_name_of_a_folder_stays_the_verb():
    code = (
        "import mobiledeploy as md\n"
        "from mobiledeploy.devices import host\n"
        "import mobiledeploy.devices\n"
        "from mobiledeploy import devices\n"
        "print(devices is md.devices, md.devices().devices[0].name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "adb"], done.stderr


# Records


@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_all_kinds_are_short(kind):
    many = {f.name: ("x" * 1000,) * 1000 for f in dataclasses.fields(kind)}
    record = object.__new__(kind)
    for name, value in many.items():
        object.__setattr__(record, name, value)
    assert len(repr(record)) <= LONGEST_REPR
    assert repr(record).startswith(f"{kind.__name__}(")


# What is given to a verb


def test_one_path_is_taken_and_several(exported, here):
    path = exported["int8_ptq", "tflite"]
    one = md.evaluate(str(path), threads=1, reporter=SILENT)
    more = md.evaluate([path, f"{path}", Path(f"{path}.json")], threads=1, reporter=SILENT)
    assert one.paths == more.paths == (str(path),)
    table = one.tables()[0]
    assert table.rows[0][0] == str(path)
    assert str(path) in one._repr_html_()


def test_numbers_of_numpy_are_the_same_as_pythons():
    card = cards.load("mobilenet_v1")
    plain = card_specs.spec(card, alpha=1.0, res=160, classes=12)
    other = card_specs.spec(card, alpha=np.float32(1), res=np.int64(160), classes=12)
    assert records.line(other) == records.line(plain)
    assert records.line(card_specs.spec(card, alpha=1, res=160, classes=12)) == records.line(plain)


def test_labels_are_names_or_a_file(exported, here):
    path = exported["float32", "tflite"]
    names = list("abcdefghijkl")
    Path("labels.txt").write_text("\n".join(names))
    Path("numbered.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(names)))
    told = md.evaluate(path, labels=names, threads=1, reporter=SILENT).evaluations[0]
    numbered = md.evaluate(path, labels="numbered.txt", threads=1, reporter=SILENT).evaluations[0]
    assert numbered.preprocessing.labels == tuple(names)
    read = md.evaluate(path, labels="labels.txt", threads=1, reporter=SILENT).evaluations[0]
    assert told.preprocessing.labels == read.preprocessing.labels == tuple(names)
    with pytest.raises(md.UsageError, match="at least two classes"):
        md.evaluate(path, labels=["one"], reporter=SILENT)
    with pytest.raises(md.UsageError, match="mean has 1 numbers"):
        md.evaluate(path, mean=(0.5,), reporter=SILENT)


# Live models


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    dice = np.random.default_rng(1)
    for number in range(40):
        path = folder / "abcde"[number % 5] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(dice.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    return folder


def network(library: typing.Any, name: str) -> typing.Any:
    layers = library.layers
    image = layers.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(image))
    return library.Model(image, layers.Dense(5, activation="softmax")(x), name=name)


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_a_live_model_is_exported(library, photos, here):
    model = network(importlib.import_module(library), "mine")
    done = md.export(
        model,
        data=photos,
        input_range=(0, 1),
        recipe="float32",
        format="tflite",
        timed=False,
        reporter=SILENT,
    )
    assert done.path("float32") == Path("build/mine/float32.tflite")
    assert done.rows[0].images > 0
    with pytest.raises(md.UsageError, match=r"no onnx of float32; there are float32.tflite"):
        done.path("float32", "onnx")
    assert "float32.tflite" in done._repr_html_()


def test_what_is_no_model_is_refused_with_the_way_that_works():
    class Module:
        pass

    for package, way in (("torch.nn", "torch.export.save"), ("tensorflow.python", "saved_model")):
        Module.__module__ = package
        with (
            pytest.raises(md.UsageError, match=f"Module is not a Keras model; .*{way}"),
            live_models.as_file(Module()),
        ):
            pass
    with pytest.raises(md.UsageError, match="give a Keras model, or the path of a file"):
        md.export(3)


# What a verb says where no reporter is given


def test_warnings_are_pythons_and_name_the_line_that_called(caplog):
    reporter = reporters.PythonReporter()
    with warnings.catch_warnings(record=True) as heard, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        reporter.warn(NamedWarning("rough", "times are rough", "bench longer"))
        reporter.say("going on")
        reporter.progress("evaluating", 1, 2)
    assert [(w.category, str(w.message)) for w in heard] == [
        (md.DeployWarning, "times are rough; bench longer [rough]")
    ]
    assert heard[0].filename == __file__
    assert [(r.name, r.message) for r in caplog.records] == [("mobiledeploy", "going on")]
