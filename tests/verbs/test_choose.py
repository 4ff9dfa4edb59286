from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from mobiledeploy.cli import _tables
from mobiledeploy.core import artifacts, cards, records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import (
    DataRef,
    Estimated,
    ExportArguments,
    Fit,
    Prediction,
    Target,
    Weights,
)
from mobiledeploy.steps import card_specs, estimate
from mobiledeploy.steps.candidates import IMAGENET
from mobiledeploy.store.database import Store
from mobiledeploy.verbs.choose import ChoiceGroup, ChoiceResult, choose
from tests import figures

IMAGES = 400
CELLS = [
    (alpha, res, recipe)
    for alpha in (0.25, 0.5, 0.75, 1.0)
    for res in (96, 128, 160, 192, 224)
    for recipe in ("float32", "float16", "int8_best")
]


def sha(number: int) -> str:
    return f"{number:064x}"


def keep(
    number: int,
    latency_ms: float,
    top1: float,
    spread: float,
    arguments: ExportArguments | None = None,
    **target: object,
) -> None:
    """A cell of the grid as the store keeps it: its file, an evaluation and an estimate."""
    alpha, res, recipe = CELLS[number]
    spec = card_specs.spec(cards.load("mobilenet_v1"), alpha=alpha, res=res, classes=12)
    spec = dataclasses.replace(spec, weights=Weights("demo", "b" * 64, pinned=True))
    data = DataRef("photos", "validation", (res, res), (), "id")
    artifact = dataclasses.replace(
        figures.artifact(sha(number)),
        spec=spec,
        recipe=RECIPES.load(recipe).RECIPE,
        size_bytes=100_000 * (number + 1),
        data=data,
        arguments=arguments,
    )
    right = round(top1 * IMAGES)
    predictions = tuple(
        Prediction(f"{i}", 1, (1,) if i < right else (0,), (1.0,)) for i in range(IMAGES)
    )
    evaluation = dataclasses.replace(
        figures.evaluation(sha(number), right / IMAGES),
        data=data,
        preprocessing=spec.preprocessing,
        images=IMAGES,
        predictions=predictions,
    )
    ns, reach = latency_ms * 1e6, math.exp(1.96 * spread)
    fit = Fit("pixel-6", "tflite", 2024, "", {"dense": 1.0}, 9, (), "points", spread, ())
    goal = dataclasses.replace(Target("pixel-6", "none", "tflite", 1, "xnnpack"), **target)
    estimated = Estimated(sha(number), goal, ns, (ns / reach, ns * reach), fit)
    figures.keep(artifact, evaluation, estimated)


def own(answer: ChoiceResult) -> ChoiceGroup:
    (group,) = [group for group in answer.groups if group.judged_on.startswith("photos")]
    return group


@pytest.mark.slow
def test_the_true_best_of_a_stored_grid_is_in_the_answer_within_two_seconds(here) -> None:
    random = np.random.default_rng(0)
    assert len(CELLS) >= 60
    latency = np.exp(random.uniform(math.log(2), math.log(40), len(CELLS)))
    accuracy = np.clip(0.5 + 0.1 * np.log(latency) + random.normal(0, 0.04, len(CELLS)), 0.1, 0.95)
    for number, (ms, top1) in enumerate(zip(latency, accuracy, strict=True)):
        noisy = float(ms * np.exp(random.normal(0, 0.06)))
        keep(number, noisy, random.binomial(IMAGES, top1) / IMAGES, 0.06)
    before = os.times()
    argv = ("choose", "--device", "pixel-6", "--max-latency", "10ms", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "mobiledeploy", *argv], capture_output=True, check=True
    )
    after = os.times()
    # Of the processor, because other work may be going on.
    assert after.children_user + after.children_system < (
        before.children_user + before.children_system + 2
    )
    assert json.loads(done.stdout)["record"] == "ChoiceResult"
    for limit in np.geomspace(2.5, 39, 6):
        group = own(choose(device="pixel-6", max_latency=float(limit), reporter=SILENT))
        fast = np.flatnonzero(latency <= limit)
        if not len(fast):
            continue
        truth = sha(int(fast[np.argmax(accuracy[fast])]))
        shown = [x.candidate.artifact_sha256 for x in group.candidates if x.contender]
        assert truth in shown
        if group.best is not None:
            best = group.candidates[group.best]
            assert best.fits == "yes"
            assert best.candidate.latency_ns is not None
            assert best.candidate.latency_ns.high <= limit * 1e6


def test_a_budget_on_this_host_takes_timings_of_this_host_alone(here) -> None:
    for number in range(4):
        keep(number, 5.0, 0.6 + number / 10, 0.05)
    timing = figures.measured(sha(0), 6_000_000, 1000)
    assert (timing.target.device, timing.target.threads) == ("host", 1)
    others = (
        dataclasses.replace(timing.target, device="host:Another processor"),
        dataclasses.replace(timing.target, threads=4),
    )
    elsewhere = [
        dataclasses.replace(timing, artifact_sha256=sha(number), target=target)
        for number, target in enumerate(others, 1)
    ]
    figures.keep(timing, *elsewhere)
    group = own(choose(device="host", max_latency=10.0, reporter=SILENT))
    assert group.best is not None
    best = group.candidates[group.best].candidate
    assert best.artifact_sha256 == sha(0)
    assert best.latency_ns is not None
    assert (best.latency_ns.kind, best.latency_ns.value) == ("measured", 6e6)
    rest = [x for x in group.candidates if x.candidate is not best]
    assert [(x.candidate.latency_ns, x.fits) for x in rest] == [(None, "no")] * 3


def test_one_file_of_a_network_is_read_for_all_its_recipes(here, exported, monkeypatch) -> None:
    reads, read = [], estimate.read
    monkeypatch.setattr(estimate, "read", lambda *args: reads.append(args) or read(*args))
    for recipe in ("float32", "float16", "int8_ptq"):
        path = exported[recipe, "tflite"]
        artifact = artifacts.load(path)
        figures.keep(artifact, figures.evaluation(artifact.sha256, 0.9))
        with Store.open() as store:
            store.add_export(recipe, {str(path): artifact})
    # This card refuses a network that is so small.
    answer = choose(device="raspberry-pi-5", max_latency=30.0, reporter=SILENT)
    latencies = [x.candidate.latency_ns for x in answer.groups[0].candidates]
    assert latencies == [None] * 3
    assert len(reads) == 1


def test_the_table_has_columns_on_a_narrow_terminal(here) -> None:
    for number in range(6):
        keep(number, 5.0, 0.6 + number / 100, 0.05)
    answer = choose(device="pixel-6", max_latency=30.0, reporter=SILENT)
    for table in answer.tables(15):
        columns = tuple(zip(table.headers, zip(*table.rows, strict=True), strict=True))
        layout = _tables._fit(
            _tables._Layout(columns, table.title, names=table.names), table.optional, 60
        )
        assert layout is not None
        assert {"network", "recipe", "accuracy %", "latency ms", "fits"} <= {
            *dict(layout.columns),
            *(name for name in table.headers if f"{name} " in layout.title),
        }


def test_figures_keep_their_kind_and_their_threads(here) -> None:
    keep(0, 5.0, 0.8, 0.05)
    keep(1, 4.0, 0.7, 0.05, threads=4)
    timing = figures.measured(sha(0), 6_000_000, 1000)
    timing = dataclasses.replace(
        timing,
        target=Target("adb:1234", "native", "litert", 1, "xnnpack"),
        interval_ns=(5.9e6, 6.1e6),
        facts_before={"model": "Pixel 6"},
    )
    figures.keep(timing, figures.counted(sha(0), 123_456))
    answer = choose(device="pixel-6", max_latency=10.0, reporter=SILENT)
    first, second = own(answer).candidates
    assert first.candidate.latency_ns is not None
    assert (first.candidate.latency_ns.kind, first.candidate.latency_ns.value) == ("measured", 6e6)
    assert first.candidate.instructions is not None
    assert first.candidate.instructions.kind == "counted"
    assert first.candidate.size_bytes is not None
    assert first.candidate.size_bytes.kind == "file size"
    assert first.candidate.accuracy.low < 0.8 < first.candidate.accuracy.high
    assert second.candidate.latency_ns is None
    assert second.fits == "no"
    assert any("no latency of it on pixel-6" in one.why for one in answer.left_out)
    assert own(answer).best == 0
    command = first.candidate.command
    assert command.startswith("mobiledeploy export --arch mobilenet_v1 --alpha 0.25 --res 96")
    assert records.loads(ChoiceResult, records.dumps(answer)) == answer


def test_a_training_is_exported_from_its_folder(here) -> None:
    given = ExportArguments(
        *("runs/mine", None, None, None, None, None, None, ("float16", "int8_best")),
        *(("tflite", "onnx"), "uint8", "model", (), True, "", None, False, False),
    )
    keep(0, 5.0, 0.8, 0.05, arguments=given)
    (one,) = own(choose(device="pixel-6", max_latency=10.0, reporter=SILENT)).candidates
    assert one.candidate.command == (
        "mobiledeploy export runs/mine --recipe=float32 --format=tflite --io=uint8"
    )


def test_a_budget_of_size_needs_no_device(here) -> None:
    # The larger file is the more accurate one, and has no latency on any phone that is named.
    keep(0, 5.0, 0.6, 0.05)
    keep(9, 5.0, 0.8, 0.05)
    answer = choose(max_size=500_000, reporter=SILENT)
    assert (answer.device, answer.threads) == ("", None)
    group = own(answer)
    first, second = group.candidates
    assert (first.fits, second.fits) == ("no", "yes")
    assert group.best == 1
    assert {one.candidate.latency_ns for one in group.candidates} == {None}
    # Of accuracy and size.
    assert (first.on_front, second.on_front) == (True, True)
    assert not any("latency" in one.why for one in answer.left_out)
    (table, *_) = answer.tables()
    assert not any("latency" in header for header in table.headers)
    assert all(len(row) == len(table.headers) for row in table.rows)
    assert "latency" not in table.title
    assert records.loads(ChoiceResult, records.dumps(answer)) == answer


def test_a_file_that_is_there_is_named_and_not_exported_again(here, exported) -> None:
    argv = ("choose", "--max-size", "10MB", "--arch", "mobilenet_v1")
    printed = figures.command(*argv)
    assert "Next: `mobiledeploy " in printed
    # Nobody made it: its size is no figure of a file.
    assert "estimated" in printed.splitlines()[0]
    assert "~ size: estimated from counted parameters" in printed
    path = exported["float32", "tflite"]
    artifact = artifacts.load(path)
    figures.keep(artifact, figures.evaluation(artifact.sha256, 0.9))
    with Store.open() as store:
        store.add_export("key", {str(path): artifact})
    argv = ("choose", "--max-size", "10MB", "--arch", artifact.spec.card or artifact.spec.name)
    (line,) = [x for x in figures.command(*argv).splitlines() if x.startswith("File: ")]
    assert line == f"File: {path.resolve()}"


def test_a_neighbour_that_may_fit_is_named_with_its_timing(here) -> None:
    keep(0, 5.0, 0.6, 0.05)
    keep(1, 10.2, 0.9, 0.05)
    group = own(choose(device="pixel-6", max_latency=10.0, reporter=SILENT))
    assert group.best is not None
    assert group.candidates[group.best].candidate.artifact_sha256 == sha(0)
    (one,) = group.measurements
    assert (one.what, one.recipe) == ("latency", "float16")
    assert "within 10 ms with a probability of 3" in one.why
    assert one.command.startswith("mobiledeploy export --arch mobilenet_v1 --alpha 0.25 --res 96")
    assert one.command.endswith("&& mobiledeploy bench --device pixel-6 --via adb")


def test_published_networks_answer_and_say_what_is_not_known(here) -> None:
    answer = choose(device="pixel-3", max_latency=10.0, max_size=4_000_000, reporter=SILENT)
    (group,) = answer.groups
    assert group.judged_on == IMAGENET
    assert group.best is not None
    best = group.candidates[group.best]
    assert best.candidate.loss_unknown == best.candidate.recipe.startswith("int8")
    kinds = {
        (c.accuracy.kind, c.latency_ns.kind, c.size_bytes.kind)
        for c in (one.candidate for one in group.candidates)
        if c.latency_ns and c.size_bytes
    }
    assert kinds == {("published", "estimated", "estimated")}
    # A float network is among the contenders, however accurate integers might be.
    assert any(one.contender and not one.candidate.loss_unknown for one in group.candidates)
    assert any(one.what == "accuracy" for one in group.measurements)
    assert len(group.measurements) <= 2


@pytest.mark.slow
def test_no_tensorflow_is_needed(here) -> None:
    code = (
        "import sys, mobiledeploy as md\n"
        "md.choose(device='pixel-3', max_latency=10.0, reporter=md.SILENT)\n"
        "assert not {'tensorflow', 'tf_keras', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_budget_that_nothing_meets_says_by_how_much(here) -> None:
    out = figures.command("choose", "--device", "pixel-3", "--max-latency", "100us", code=3)
    first = out.splitlines()[0]
    assert "is within the budget; the nearest, mobilenet" in first
    assert "misses it by" in first
    answer = choose(device="pixel-3", max_latency=0.1, reporter=SILENT)
    (group,) = answer.groups
    assert not answer.has_answer
    assert group.best is None
    assert 1 <= len(group.nearest) <= 3
    over = [group.candidates[place].over or 0 for place in group.nearest]
    assert over == sorted(over)
    assert over[0] > 1


def test_the_first_line_is_the_answer_and_all_rows_are_printed_on_request(here) -> None:
    argv = ("choose", "--device", "pixel-3a", "--max-latency", "30ms")
    short, long = figures.command(*argv), figures.command(*argv, "--all")
    assert short.startswith("Take mobilenet")
    assert "% top-1 (ImageNet, published), estimated" in short.splitlines()[0]
    (group,) = choose(device="pixel-3a", max_latency=30.0, reporter=SILENT).groups
    contenders = {i for i, one in enumerate(group.candidates) if one.contender}
    assert contenders <= set(group.shown())
    assert len(group.shown(15)) == 15 < len(group.shown())
    assert group.best in group.shown(15)
    assert len(long.splitlines()) - len(short.splitlines()) == len(group.shown()) - 15 - 1


def test_what_to_take_is_told_before_a_group_without_an_answer(here) -> None:
    keep(0, 500.0, 0.6, 0.05)
    lines = figures.command("choose", "--device", "pixel-3a", "--max-latency", "30ms").splitlines()
    assert lines[0].startswith("Take mobilenet")
    assert lines[1].startswith("No candidate judged on photos")
    assert lines[3].startswith("Accuracy is top-1 on ImageNet, published; tflite")


def test_filters_leave_the_rest_out(here) -> None:
    answer = choose(
        device="pixel-3", max_latency=50.0, arch="mobilenet_v2", recipe="int8", reporter=SILENT
    )
    shown = {(x.candidate.card, x.candidate.recipe) for x in answer.groups[0].candidates}
    assert shown == {("mobilenet_v2", "int8_best")}
    least = choose(device="pixel-3", max_latency=50.0, min_top1=70, reporter=SILENT).groups[0]
    assert all(one.candidate.accuracy.value >= 0.7 for one in least.candidates if one.fits != "no")


def test_a_top1_is_no_limit_of_files_that_another_metric_judged(here) -> None:
    detector = dataclasses.replace(
        figures.evaluation(sha(0)), task="detection", metrics={"map": 0.9}, top1=None
    )
    figures.keep(figures.artifact(sha(0)), detector)
    every = choose(max_size=10_000_000, reporter=SILENT)
    assert any(group.judged_on.endswith("mAP@[.5:.95]") for group in every.groups)
    classifiers = choose(max_size=10_000_000, min_top1=60, reporter=SILENT)
    assert not any("mAP" in group.judged_on for group in classifiers.groups)
    assert "its metric is mAP@[.5:.95], not top-1" in {one.why for one in classifiers.left_out}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"device": "pixle-3", "max_latency": 5.0}, "did you mean pixel-3"),
        ({"device": "pixel-3"}, "there is no budget"),
        ({"max_latency": 5.0}, "--max-latency is about a latency, which needs a device"),
        ({"max_size": 9, "threads": 2}, "--threads is about a latency, which needs a device"),
        ({"device": "pixel-3", "max_latency": 0.0}, "a latency of 0 is no limit"),
        ({"device": "pixel-3", "max_size": -1}, "a size of -1 is no limit"),
        ({"device": "pixel-3", "min_top1": 0.6}, "0.6 % is not an accuracy"),
        ({"device": "pixel-3", "max_latency": math.nan}, "a latency of nan is no limit"),
        ({"device": "emulator:cortex-a76", "max_latency": 5.0}, "gives no latency to choose by"),
        ({"device": "pixel-3", "max_latency": 5.0, "arch": "mobilenet_v9"}, "did you mean"),
        ({"device": "pixel-3", "max_latency": 5.0, "recipe": "int9"}, "no recipes named"),
        ({"device": "pixel-3", "max_latency": 5.0, "format": "coreml"}, "no format"),
        ({"device": "pixel-3", "max_latency": 5.0, "threads": 0}, "0 threads cannot work"),
    ],
)
def test_what_cannot_be_chosen_is_refused(here, arguments, line) -> None:
    with pytest.raises(UsageError) as error:
        choose(**arguments, reporter=SILENT)
    assert line in str(error.value)
    assert not (here / ".mobiledeploy").exists()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("--max-latency", "10"), "'10' is not a time such as 10ms"),
        (("--max-latency", "0ms"), "'0ms' is not a time such as 10ms"),
        (("--max-latency", "-3ms"), "'-3ms' is not a time"),
        (("--max-size", "4parsec"), "'4parsec' is not an amount"),
    ],
)
def test_units_are_read_or_refused(here, argv, line) -> None:
    assert line in figures.command("choose", "--device", "pixel-3", *argv, code=2)


@pytest.mark.parametrize(
    ("latency", "size"), [("10ms", "4MB"), ("10000us", "4000 kb"), ("0.01s", "0.004g")]
)
def test_units_name_the_same_budget(here, latency, size) -> None:
    out = figures.command(
        *("choose", "--device", "pixel-3", "--json"),
        *("--max-latency", latency, "--max-size", size, "--arch", "mobilenet_v1"),
    )
    budget = json.loads(out)["budget"]
    assert (budget["latency_ns"], budget["size_bytes"]) == (pytest.approx(1e7), 4_000_000)
