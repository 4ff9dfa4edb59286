"""Exports within an accuracy budget, as a user runs them."""

import itertools
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mobiledeploy as md
from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import (
    BudgetChain,
    BudgetFile,
    BudgetLink,
    Counted,
    LayerCount,
    Target,
    Verdict,
)
from mobiledeploy.steps import within
from tests import warm
from tests.lite import Lite

CLASSES = 4
COUNT = 400


def network(depth=0, classes=CLASSES, alike=False):
    """A classifier of images of 16 x 16; `alike` has rows of weights that float16 makes equal."""
    dice = np.random.default_rng(3)
    b = Lite()
    image = b.input((1, 16, 16, 3))
    weights = b.constant(dice.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32))
    offsets = b.constant(np.full(8, 0.1, np.float32))
    stride = {"strideH": 2, "strideW": 2, "fusedActivationFunction": 1}
    x = b.op("CONV_2D", [image, weights, offsets], (1, 8, 8, 8), options="Conv2DOptions", **stride)
    stay = {"strideH": 1, "strideW": 1, "fusedActivationFunction": 1}
    for _ in range(depth):
        weights = b.constant(dice.normal(0, 0.5, (8, 1, 1, 8)).astype(np.float32))
        offsets = b.constant(np.full(8, 0.1, np.float32))
        x = b.op("CONV_2D", [x, weights, offsets], (1, 8, 8, 8), options="Conv2DOptions", **stay)
    axes = b.constant(np.array([1, 2], np.int32))
    x = b.op("MEAN", [x, axes], (1, 8), options="ReducerOptions")
    rows = dice.normal(0, 1, (classes, 8)) * np.array([0.3, *[1] * (classes - 1)])[:, None]
    rows = 1 + 1e-4 * rows if alike else rows
    dense = [x, b.constant(rows.astype(np.float32)), b.constant(np.zeros(classes, np.float32))]
    scores = b.op("FULLY_CONNECTED", dense, (1, classes), options="FullyConnectedOptions")
    answer = b.op("SOFTMAX", [scores], (1, classes), options="SoftmaxOptions", beta=1.0)
    return b.file(answer)


@pytest.fixture
def files(here):
    """A folder with `few.npz`, `many.npz`, and `bare.npz` without labels; images of one colour."""
    dice = np.random.default_rng(0)
    colours = dice.integers(20, 236, (COUNT, 1, 1, 3))
    images = (colours + dice.integers(-20, 20, (COUNT, 16, 16, 3))).astype(np.uint8)
    labels = np.arange(COUNT) % CLASSES
    np.savez("many.npz", images=images, labels=labels)
    np.savez("few.npz", images=images[:80], labels=labels[:80])
    np.savez("bare.npz", images=images[:80])
    (here / "mine.tflite").write_bytes(network())
    return here


def run(*options, data="many.npz"):
    """The finished command."""
    own = ("mine.tflite", "--input-range", "0,1", "--data", data)
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", "export", *own, *options],
        capture_output=True,
        text=True,
    )


def answered(code, *options, **more):
    """What the command answers as JSON, after it ended with this exit code."""
    result = run(*options, "--json", **more)
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout)


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


def test_a_model_without_images_is_not_judged(files):
    with pytest.raises(UsageError, match="none are given"):
        md.export("mine.tflite", input_range=(0, 1), within=1, reporter=SILENT)


@pytest.mark.slow
def test_images_without_labels_are_judged_by_their_answers_only(files):
    options = ("--within", "1pt", "--cost", "bytes", "--format", "tflite")
    result = run(*options, data="bare.npz")
    assert result.returncode == 2
    assert "bare.npz has no labels for int8_best.tflite" in result.stderr
    assert "--max-disagreement judges" in result.stderr


def test_too_few_images_exit_with_3_and_say_how_many_would_decide(files):
    options = ("--within", "1pt", "--cost", "bytes", "--format", "tflite")
    answer = answered(3, *options, data="few.npz")
    chain = answer["within"]
    assert (answer["rows"], answer["folder"], chain["written"]) == ([], "", None)
    assert not (files / "build").exists()
    first, *others = chain["links"]
    (file,) = first["files"]
    assert (first["recipe"], first["outcome"]) == ("float16", "inconclusive")
    # Without a loss, 361 images of the verdict part are enough for a point.
    assert file["verdict"]["needed"] >= 361
    assert chain["search"] + chain["verdict"] == 64
    assert all(link["outcome"] is None and not link["files"] for link in others)


@pytest.mark.slow
def test_the_table_says_how_many_images_would_decide(files):
    options = ("--within", "1pt", "--cost", "bytes", "--format", "tflite")
    result = run(*options, data="few.npz")
    assert result.returncode == 3
    assert "images needed" in result.stdout
    assert "mobiledeploy bench" not in result.stdout


@pytest.mark.slow
def test_a_model_that_loses_more_in_each_link_exits_with_1(files):
    (files / "mine.tflite").write_bytes(network(alike=True))
    answer = answered(1, "--max-disagreement", "1%", "--cost", "bytes", "--format", "tflite")
    assert answer["rows"] == []
    first, second, *_ = answer["within"]["links"]
    assert (first["recipe"], first["outcome"]) == ("float16", "fail")
    assert second["outcome"] is None
    # The images were judged, not the absence of an answer.
    assert first["files"][0]["verdict"]["value"] > 0.1


@pytest.mark.slow
def test_the_cheapest_link_that_passed_is_written_with_its_chain(files):
    answer = answered(0, "--max-disagreement", "30%", "--cost", "bytes", "--format", "tflite")
    (row,) = answer["rows"]
    artifact = artifacts.load(files / row["path"])
    assert (files / "build" / ".gitignore").is_file()
    chain = artifact.within
    assert isinstance(chain, BudgetChain)
    recipes = [link.recipe for link in chain.links]
    assert (recipes[0], recipes[-1]) == ("float16", "int8x4_ptq")
    kept = [link.kept_float for link in chain.links if link.recipe == "int8_best"]
    assert kept[-1] == ()
    assert all(set(a) > set(b) for a, b in itertools.pairwise(kept))
    link = chain.links[chain.written]
    (file,) = link.files
    assert artifact.sha256 == file.sha256 == row["sha256"]
    assert (artifact.recipe.name, artifact.kept_float) == (link.recipe, link.kept_float)
    assert file.cost == artifact.size_bytes
    passed = [one for one in chain.links if one.outcome == "pass"]
    assert file.cost == min(one.cost for one in passed)
    # A link's own warnings only, and a plain export of it finds these files.
    assert not [one for one in artifact.warnings if "float16" in one.message]
    options = [f"--recipe={link.recipe}", *(f"--keep-float={name}" for name in link.kept_float)]
    again = answered(0, "--format", "tflite", *options)
    assert (again["reused"], again["rows"][0]["sha256"]) == (True, file.sha256)
    # What the links share changes nothing: an export on its own makes and finds the same.
    alone = answered(0, "--format", "tflite", *options, "--force")
    (other,) = alone["rows"]
    same = ("sha256", "size_bytes", "agreement", "images", "compared", "top1")
    assert [row[name] for name in same] == [other[name] for name in same]
    for name in ("sqnr_db", "divergence"):
        # The images are answered in no order, and sums of floats have one.
        assert row[name] == pytest.approx(other[name], rel=1e-9)


def test_an_app_of_no_file_is_refused_before_the_search(files):
    options = {"input_range": (0, 1), "data": "few.npz", "format": "tflite", "reporter": SILENT}
    with pytest.raises(UsageError, match="javascript runs onnx, and this export makes tflite"):
        md.export("mine.tflite", **options, within=20, app="javascript")
    place = Path("build/mine/app_python")
    place.mkdir(parents=True)
    (place / "mine").touch()
    with pytest.raises(UsageError, match="build/mine/app_python holds files already"):
        md.export("mine.tflite", **options, within=20, app="python")


class Listener:
    """A Reporter that remembers what was said, and of what there was progress."""

    def __init__(self):
        self.lines, self.steps = [], []

    def progress(self, what, result, total):
        self.steps += [what] * (result == 0)

    def say(self, line):
        self.lines.append(line)

    def warn(self, warning):
        pass


@pytest.mark.slow
def test_the_links_share_the_opened_model_and_the_judged_float_file(files):
    listener = Listener()
    options = {"input_range": (0, 1), "data": "few.npz", "format": "tflite", "timed": False}
    options |= {"max_disagreement": 60, "cost": "bytes", "app": "python"}
    done = md.export("mine.tflite", **options, reporter=listener)
    assert sum(link.outcome is not None for link in done.within.links) > 2
    assert listener.steps.count("opening the model") == 1
    assert sum(line.startswith("float32.tflite: 64 images") for line in listener.lines) == 1
    assert listener.steps.count("converting") > 2
    # The app is one of the file that was chosen.
    assert [app.artifact for app in done.apps] == [row.path for row in done.rows]


@pytest.mark.slow
def test_files_of_both_formats_must_pass_and_each_has_its_cost(files):
    answer = answered(0, "--within", "20pt", "--cost", "bytes")
    chain = answer["within"]
    assert [link["recipe"] for link in chain["links"]].count("int8x4_ptq") == 0
    written = chain["links"][chain["written"]]
    sizes = {row["format"]: row["size_bytes"] for row in answer["rows"]}
    assert {file["format"]: file["cost"] for file in written["files"]} == sizes
    assert set(sizes) == {"tflite", "onnx"}
    assert all(file["verdict"]["outcome"] == "pass" for file in written["files"])


@pytest.mark.slow
def test_instructions_are_counted_for_each_file(files, emulator):
    answer = answered(0, "--max-disagreement", "30%", "--cost", "instructions")
    chain = answer["within"]
    assert (chain["cost"], chain["core"]) == ("instructions", within.CORE)
    # float16 and int4 save bytes, and no instructions.
    assert {link["recipe"] for link in chain["links"]} == {"int8_best"}
    written = chain["links"][chain["written"]]
    for row, file in zip(answer["rows"], written["files"], strict=True):
        (figure,) = md.bench([row["path"]], device=within.CORE).measurements
        assert (row["format"], figure.instructions) == (file["format"], file["cost"])


@pytest.mark.slow
def test_a_deep_network_has_a_chain_of_eight_links(files):
    (files / "mine.tflite").write_bytes(network(depth=8, classes=256))
    answer = answered(
        3, "--max-disagreement", "1%", "--cost", "bytes", "--format", "tflite", data="bare.npz"
    )
    links = answer["within"]["links"]
    assert len(links) == within.MOST_LINKS == 8
    kept = [len(link["kept_float"]) for link in links]
    assert kept == [0, *sorted(kept[1:-1], reverse=True), 0]
    assert len(set(kept)) == 6


@pytest.mark.slow
def test_onnx_alone_has_no_layers_in_float_and_the_warning_says_the_way_out(files):
    answer = answered(3, "--within", "1pt", "--cost", "bytes", "--format", "onnx", data="few.npz")
    (warning,) = (one for one in answer["warnings"] if one["name"] == "no-layers-in-float")
    assert "--format tflite,onnx" in warning["advice"]
    assert [link["recipe"] for link in answer["within"]["links"]] == ["float16", "int8_best"]


def link(cost, outcome="pass"):
    verdict = Verdict("flips", "", outcome, 0.0, (0.0, 0.0), 0.01, 100, None, "")
    return BudgetLink("int8_best", (), outcome, (BudgetFile("tflite", "", cost, verdict),))


@pytest.mark.parametrize(
    ("costs", "passed", "chosen"),
    [((9, 5, 7), (0, 1, 2), 1), ((9, 5, 5), (0, 1, 2), 2), ((3, 9), (0, 1), 0), ((3,), (), None)],
)
def test_the_least_cost_is_chosen_and_not_the_last_link(costs, passed, chosen):
    assert within.cheapest([link(cost) for cost in costs], passed) == chosen


def test_a_layer_that_is_too_dear_does_not_keep_others_out():
    added = {"a": 2, "b": 50, "c": 3, "d": 6}
    assert within.affordable(("c", "b", "free", "a", "d"), added, 10) == ("c", "free", "a")


def counted(**layers):
    rows = tuple(LayerCount(name, "CONV_2D", count) for name, count in layers.items())
    target = Target("emulator", "native", "litert", 1, "xnnpack")
    return Counted("", target, "", "cortex-a76", 0, {}, 0, 0, rows, (), 0.0, {})


def test_a_layer_adds_the_instructions_that_float_takes_more():
    exact, codes = counted(**{"a;b": 900, "c": 100}), counted(a=300, d=5)
    assert within.added_instructions(exact, codes) == {"a": 600.0}


def test_where_counts_do_not_name_a_layer_its_multiply_adds_stand_in():
    facts = FORMATS.load("tflite").inspect(network())
    by_layer = within.mult_adds(facts.layers)
    names = [layer.outputs[0].name for layer in facts.layers]
    assert set(by_layer) <= set(names)
    assert by_layer[names[0]] == 8 * 8 * 8 * 3 * 3 * 3
    assert by_layer[names[2]] == 8 * CLASSES


def test_a_layer_adds_the_bytes_of_its_weights_in_float():
    facts = FORMATS.load("tflite").inspect(network())
    convolution, pool, dense, softmax = (
        within.added_bytes(facts.layers)[layer.outputs[0].name] for layer in facts.layers
    )
    assert convolution == 3 * (8 * 27 + 8)
    assert dense == 3 * (8 * CLASSES + CLASSES)
    assert pool == softmax == 0
