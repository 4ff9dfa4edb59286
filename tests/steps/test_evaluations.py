"""Which float file a file is compared with, where no record says which model it is of."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.steps import diagnose
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.conversion_process import HALF_NOT_SEEN
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import evaluate, export
from mobiledeploy.verbs.check import update_baseline
from tests.conftest import press_floats
from tests.lite import Lite

SIDE = 8


def colours(shift=0) -> bytes:
    """The brightest channel of an image; `shift` turns the answers to another channel."""
    b = Lite()
    x = b.input((1, SIDE, SIDE, 3), name="image")
    mean = b.op("MEAN", [x, b.constant(np.int32([1, 2]))], (1, 3), options="ReducerOptions")
    weights = b.constant(np.roll(9 * np.eye(3, dtype=np.float32), shift, axis=0), name="weights")
    bias = b.constant(np.zeros(3, np.float32))
    scores = b.op("FULLY_CONNECTED", [mean, weights, bias], (1, 3), options="FullyConnectedOptions")
    return b.file(b.op("SOFTMAX", [scores], (1, 3), options="SoftmaxOptions", beta=1.0))


@pytest.fixture
def files(here) -> Path:
    """Its float and int8 files, an unrelated float file of the same shapes, and data."""
    random = np.random.default_rng(0)
    images = random.integers(0, 90, (40, SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.arange(40) % 3
    images[np.arange(40), ..., labels] += 120
    np.savez(here / "data.npz", images=images, labels=labels)
    prepared = (images / 255).astype(np.float32)
    (here / "own.tflite").write_bytes(colours())
    (here / "int8.tflite").write_bytes(press_floats(colours(), "int8_ptq", "tflite", prepared))
    (here / "unrelated.tflite").write_bytes(colours(1))
    return here


def judged(heard, *names):
    done = evaluate.evaluate(
        [Path(name) for name in names], data="data.npz", input_range=(0, 1), reporter=heard
    )
    return dict(zip(done.paths, done.evaluations, strict=True))["int8.tflite"]


def names_of(warnings):
    return [warning.name for warning in warnings]


def test_a_float_file_that_was_named_is_told(files, heard):
    one = judged(heard, "int8.tflite", "own.tflite")
    assert one.agreement == 1 and not one.warnings
    assert "int8.tflite is compared with own.tflite, which has its inputs and outputs" in heard.said


def test_a_float_file_that_answers_otherwise_is_warned_of(files, heard):
    one = judged(heard, "int8.tflite", "unrelated.tflite")
    assert one.agreement == 0
    assert names_of(one.warnings) == ["unlike-reference"]
    assert "agrees with unrelated.tflite on 0 % of the images" in one.warnings[0].message


def test_of_two_float_files_none_is_taken(files, heard):
    one = judged(heard, "int8.tflite", "own.tflite", "unrelated.tflite")
    assert one.agreement is None
    (warning,) = [warning for warning in heard.warnings if warning.name == "no-reference"]
    assert "own.tflite and unrelated.tflite have the inputs and outputs" in warning.message


def test_no_file_beside_it_is_taken_by_its_name_alone(files, heard):
    (files / "own.tflite").rename(files / "float32.tflite")
    assert judged(heard, "int8.tflite").agreement is None


def test_a_baseline_is_judged_by_the_only_float_file(files, heard):
    update_baseline(
        [files / "int8.tflite", files / "own.tflite", files / "unrelated.tflite"],
        baseline=files / "baseline.json",
        data="data.npz",
        input_range=(0, 1),
        reporter=heard,
    )
    assert "no-reference" in names_of(heard.warnings)


def test_a_diagnosis_says_which_float_file_it_took(files, heard):
    def diagnosed(**given):
        return diagnose.diagnose(
            files / "int8.tflite",
            data="data.npz",
            overrides=Overrides(input_range=(0.0, 1.0)),
            reporter=heard,
            **given,
        )

    with pytest.raises(InputError, match="several float files"):
        diagnosed()
    named = diagnosed(reference=files / "unrelated.tflite")
    assert names_of(named.warnings) == ["unlike-reference"]
    assert not diagnosed(reference=files / "own.tflite").warnings
    (files / "unrelated.tflite").unlink()
    assumed = diagnosed()
    assert Path(assumed.reference).name == "own.tflite"
    assert names_of(assumed.warnings) == ["assumed-reference"]


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="an ARM machine computes in float16 (use one of x86-64)"
)
def test_a_half_file_is_warned_of_until_it_was_judged_in_float16(files, heard):
    options = {"recipe": "float16_full", "format": "tflite", "data": "data.npz", "timed": False}

    def warnings() -> list[str]:
        done = export.export("own.tflite", input_range=(0, 1), reporter=heard, **options)
        return [w.advice for w in done.warnings if w.name == HALF_NOT_SEEN]

    (advice,) = warnings()
    assert "evaluate float16_full.tflite --device emulator:cortex-a76" in advice
    (path,) = Path("build").rglob("float16_full.tflite")
    (here,) = evaluate.evaluate([path], reporter=heard).evaluations
    assert len(warnings()) == 1
    # As the record of an evaluation on an emulated core; builtin kernels compute in float32.
    for delegate, isa, left in (
        ("xnnpack", "aarch64 asimd", 1),
        ("none", "aarch64 asimd asimdhp", 1),
        ("xnnpack", "aarch64 asimd asimdhp", 0),
    ):
        target = dataclasses.replace(here.target, device="emulator:cortex-a76", delegate=delegate)
        with Store.open() as store:
            store.add_evaluation(dataclasses.replace(here, target=target, isa=isa))
        assert len(warnings()) == left
