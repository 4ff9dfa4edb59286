"""A file with ends of uint8 through the house, from its record to what is said of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.steps import diagnose
from mobiledeploy.steps.baseline import Accepted
from mobiledeploy.steps.export_plan import ExportConfig, plan
from mobiledeploy.verbs import bench, diff, evaluate, verify
from mobiledeploy.verbs.check import check, update_baseline
from tests.figures import resealed

SMALL = {"alpha": 0.25, "res": 96, "io": "uint8"}


@pytest.fixture
def int8(unsigned, here):
    """A copy of the export, the artifact's path, in a folder with a store of its own."""
    shutil.copytree(unsigned, here / "made")
    return here / "made" / "int8_ptq.tflite"


def test_its_codes_are_pixels_though_the_calibration_saw_no_dark_one(int8) -> None:
    artifact = artifacts.load(int8)
    (image,), (scores,) = artifact.inputs, artifact.outputs
    assert artifact.io == image.dtype == scores.dtype == "uint8"
    assert (image.scale[0], image.zero_point) == (pytest.approx(2 / 255), (127,))
    assert artifact.sqnr_db > 15


def test_a_zero_point_of_uint8_is_within_it(int8) -> None:
    record = artifacts.record_path(int8)
    content = json.loads(record.read_text())
    content["inputs"][0]["zero_point"] = [256]
    record.write_text(json.dumps(content))
    with pytest.raises(InputError, match="scale is not valid"):
        artifacts.load(int8)


def test_it_is_judged_verified_and_timed(int8, heard) -> None:
    (judged,) = evaluate.evaluate([int8], reporter=heard).evaluations
    assert judged.agreement is not None and judged.agreement > 0.8
    assert verify.verify(int8).golden.outcome == "pass"
    (timed,) = bench.bench([int8], seconds=0.2, reporter=heard).measurements
    assert timed.kind == "measured"
    assert timed.delegated_nodes


def test_it_is_held_against_no_file_of_other_ends(int8, here) -> None:
    baseline, other = here / "baseline.json", here / "other.json"
    update_baseline([int8], baseline=baseline)
    assert check([int8], baseline=baseline).checks[0].outcome == "pass"
    for io in ("int8", "float"):
        resealed(baseline, other, io=io)
        with pytest.raises(InputError, match=f"io: uint8, not {io}; if that is meant"):
            check([int8], baseline=other)


def test_a_baseline_of_an_earlier_version_is_sound_and_of_no_uint8(int8, here) -> None:
    baseline = here / "baseline.json"
    update_baseline([int8], baseline=baseline)
    content = json.loads(baseline.read_text())
    for entry in content["accepted"]:
        del entry["io"]
        text = records.line(Accepted(**entry | {"seal": ""}))
        text = text.replace('"schema_version":2', '"schema_version":1')
        for newer in ("io", "task", "metric"):
            text = text.replace(f',"{newer}":null', "")
        entry["seal"] = records.sha256(text.encode())
    baseline.write_text(json.dumps(content))
    with pytest.raises(InputError, match="io: uint8, not int8 or float; if that is meant"):
        check([int8], baseline=baseline)
    (floats,) = check([int8.with_name("float32.tflite")], baseline=baseline).checks
    assert floats.outcome == "pass"
    for entry in content["accepted"]:
        entry["io"] = "uint8"
    baseline.write_text(json.dumps(content))
    with pytest.raises(InputError, match="was edited"):
        check([int8], baseline=baseline)


def test_it_is_diagnosed_and_compared(int8, heard) -> None:
    found = diagnose.diagnose(int8, reporter=heard)
    assert found.sqnr_db > 15
    assert len(found.layers) >= 3
    result = diff.diff(int8.with_name("float32.tflite"), int8)
    errors = [p.sqnr_db for p in result.layers if p.sqnr_db is not None and np.isfinite(p.sqnr_db)]
    assert min(errors) > 20


def test_what_cannot_take_uint8_and_was_not_asked_for_is_left_out(heard) -> None:
    jobs = plan(ExportConfig(**SMALL), heard).jobs
    assert ("int8_best", "tflite") in jobs
    assert ("int8_best", "onnx") not in jobs
    assert ("float32", "onnx") in jobs
    (warning,) = heard.warnings
    assert warning.name == "left-out"
    assert warning.message.startswith("int8_best.onnx is left out: cannot take uint8")


@pytest.mark.parametrize(
    ("recipes", "formats", "message"),
    [
        (("int8_ptq",), ("onnx",), r"int8_ptq\.onnx cannot take uint8, which is for TFLite"),
        (("int8_ptq",), ("tflite", "onnx"), r"int8_ptq\.onnx cannot take uint8"),
        (("int16x8_ptq",), None, r"int16x8_ptq\.tflite cannot take uint8: .* 16 bits"),
    ],
)
def test_what_cannot_take_uint8_and_was_asked_for_is_refused(
    heard, recipes, formats, message
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(ExportConfig(recipes=recipes, formats=formats, **SMALL), heard)
    assert heard.warnings == []


def test_recipes_of_floats_do_not_care(heard) -> None:
    order = ExportConfig(recipes=("float32", "float16"), formats=("tflite",), **SMALL)
    assert len(plan(order, heard).jobs) == 2
    assert heard.warnings == []
