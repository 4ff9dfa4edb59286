"""How far a file is from float: over every image that judges it, and not over its golden ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.plugins import FORMATS, dataset
from mobiledeploy.steps import file_checks
from mobiledeploy.steps.fidelity import fidelities


def logits(path):
    """[N, classes], in a plain loop over every image of the artifact's data."""
    artifact, shelf = artifacts.load(path), FORMATS.load("tflite")
    interpreter = Interpreter(model_content=shelf.expose_tensor(path.read_bytes(), artifact.logits))
    interpreter.allocate_tensors()
    facts = shelf.inspect(shelf.expose_tensor(path.read_bytes(), artifact.logits))
    data, spec = artifact.data, artifact.spec
    held = dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )
    rows = []
    for index in range(len(held)):
        x = preprocessing.prepare(held.image(index), spec.preprocessing, spec.resolution)
        raw = preprocessing.to_input(x, facts.inputs[0], facts.layout)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], raw)
        interpreter.invoke()
        answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        rows.append(preprocessing.from_output(answer, facts.outputs[0]))
    return np.stack(rows)


def test_it_is_over_every_image_that_judges(unsigned) -> None:
    floats, integers = unsigned / "float32.tflite", unsigned / "int8_ptq.tflite"
    artifact = artifacts.load(integers)
    found = artifact.fidelity
    assert found is not None
    exact, given = logits(floats), logits(integers)
    assert found.images == len(exact) > 3 * len(artifact.golden.ids)
    assert found.sqnr_db == pytest.approx(accuracy.sqnr_db(exact, given), abs=1e-6)
    assert found.divergence == pytest.approx(accuracy.divergence(exact, given), abs=1e-9)
    assert found.sqnr_db != pytest.approx(artifact.sqnr_db, abs=0.01)
    assert found.reference_sha256 == artifacts.load(floats).sha256
    assert artifacts.load(floats).fidelity is None


def test_a_file_without_a_float_one_has_none(unsigned) -> None:
    alone = unsigned / "int8_ptq.tflite"
    both = {path: artifacts.load(path) for path in (alone, unsigned / "float32.tflite")}
    assert set(fidelities(both)) == {alone}


def test_a_record_of_an_earlier_version_is_read(unsigned, tmp_path) -> None:
    path = tmp_path / "int8_ptq.tflite"
    shutil.copy(unsigned / path.name, path)
    record = json.loads(artifacts.record_path(unsigned / path.name).read_text())
    del record["fidelity"]
    artifacts.record_path(path).write_text(json.dumps(record))
    assert artifacts.load(path).fidelity is None


def test_what_is_far_from_float_says_over_how_many_images(unsigned) -> None:
    artifact = artifacts.load(unsigned / "int8_ptq.tflite")
    assert file_checks.far_from_float(artifact, 10.0, "48 images") == ()
    (warning,) = file_checks.far_from_float(artifact, 9.94, "48 images")
    assert warning.name == "far-from-float"
    assert "(9.9 dB over 48 images)" in warning.message
