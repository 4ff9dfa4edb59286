"""What `app` writes, what it says of it, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import AppContract, ModelInput, ModelOutput
from mobiledeploy.steps import golden, instruction_sets
from mobiledeploy.verbs.app import app
from tests import warm
from tests.apps.conftest import INT8, PLAIN, SCORES, SIZE, artifact, network, photos
from tests.lite import Lite


@pytest.fixture
def made(tmp_path):
    return artifact(tmp_path / "made", network(SCORES, kind=INT8))


def changed(path: Path, **fields) -> Path:
    """The artifact with other fields in its record."""
    record = dataclasses.replace(artifacts.load(path), **fields)
    records.write_atomic(artifacts.record_path(path), records.dumps(record))
    return path


def test_the_record_names_what_was_written(made, tmp_path, heard):
    done = app(made, language="python", out=tmp_path / "new" / "app", reporter=heard)
    folder = tmp_path / "new" / "app"
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert set(done.files) == files
    assert (folder / "model.tflite").read_bytes() == made.read_bytes()
    assert (done.task, done.samples, done.runtime) == ("classification", 3, "ai-edge-litert")
    assert done.artifact_sha256 == artifacts.load(made).sha256
    pinned = (folder / "requirements.txt").read_text().splitlines()[0]
    assert pinned == f"ai-edge-litert=={done.runtime_version}"
    contract = records.loads(AppContract, (folder / "contract.json").read_text())
    assert contract.labels == tuple("abcdefg")
    assert len(contract.golden) == done.samples
    # Its golden outputs are those of another runtime.
    assert [warning.name for warning in done.warnings] == ["golden-elsewhere"]
    assert heard.warnings == list(done.warnings)


def test_an_app_of_golden_outputs_of_this_machine_has_no_warning(made, tmp_path):
    record = artifacts.load(made)
    now = golden.replay(made, record, SILENT)
    rows = tuple(tuple(map(float, row)) for row in now.logits)
    own = dataclasses.replace(record.golden, logits=rows, runtime=now.runtime, isa=now.isa)
    changed(made, golden=own)
    assert app(made, language="python", out=tmp_path / "a", reporter=SILENT).warnings == ()


def test_a_file_that_answers_otherwise_than_at_its_export_is_refused(made, tmp_path):
    record = artifacts.load(made)
    now = golden.replay(made, record, SILENT)
    own = dataclasses.replace(record.golden, runtime=now.runtime, isa=instruction_sets.here())
    with pytest.raises(InputError, match="golden answers differ by .* steps.*export it again"):
        app(changed(made, golden=own), language="python", out=tmp_path / "a", reporter=SILENT)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("count", [1000, 1001])
def test_labels_are_those_of_the_models_classes(count, tmp_path):
    ends = (ModelOutput("scores", (1001,)),)
    lite = Lite()
    image = lite.input((1, *SIZE, 3), name="image")
    sides = lite.constant(np.array([1, 1001], np.int32))
    flat = lite.tensor((1, 360))
    lite.op(
        "RESHAPE",
        [image, lite.constant(np.array([1, 360], np.int32))],
        flat,
        options="ReshapeOptions",
        newShape=[1, 360],
    )
    many = lite.op("CONCATENATION", [flat] * 3, (1, 1080), options="ConcatenationOptions", axis=1)
    scores = lite.tensor((1, 1001), name="scores")
    start = lite.constant(np.array([0, 0], np.int32))
    lite.op("SLICE", [many, start, sides], scores, options="SliceOptions")
    how = dataclasses.replace(PLAIN, labels=tuple(f"l{n}" for n in range(count)))
    path = artifact(tmp_path / "made", lite.file(scores), how, ends=ends)
    app(path, language="python", out=tmp_path / "app", reporter=SILENT)
    labels = json.loads((tmp_path / "app" / "contract.json").read_text())["labels"]
    assert len(labels) == 1001
    assert labels[5] == ("l4" if count == 1000 else "l5")


def test_what_an_app_cannot_do_is_refused_by_name(made, tmp_path):
    def refusal(path, language="python"):
        with pytest.raises(InputError) as caught:
            app(path, language=language, out=tmp_path / "app", reporter=SILENT)
        assert caught.value.exit_code == 7
        assert not (tmp_path / "app").exists()
        return str(caught.value)

    bare = tmp_path / "bare.tflite"
    bare.write_bytes(made.read_bytes())
    assert "bare.tflite has no golden samples" in refusal(bare)

    two = (ModelInput("image", "image", (*SIZE, 3), PLAIN), ModelInput("age", "tensor", (1,)))
    lite = Lite()
    ends = [lite.input((1, *SIZE, 3), name="image"), lite.input((1, 1), name="age")]
    both = lite.op("ADD", ends, (1, *SIZE, 3), options="AddOptions")
    path = artifact(
        tmp_path / "two", lite.file(both), ends=[ModelOutput("x", (*SIZE, 3))], inputs=two
    )
    assert "takes image (image), age (tensor), and an app feeds one image" in refusal(path)

    spec = artifacts.load(made).spec
    changed(made, spec=dataclasses.replace(spec, task="tensors"))
    told = "decodes no answers of the task 'tensors'; export it with --task"
    assert told in refusal(made)
    changed(made, spec=spec, format="onnx")
    assert "runs tflite; --language javascript or --language python" in refusal(made, "cpp")


def test_a_type_without_codes_is_refused(tmp_path):
    path = artifact(tmp_path / "made", network(SCORES, kind=("int64", None)))
    with pytest.raises(InputError, match="takes image as int64, .*; export it with --io float"):
        app(path, language="python", out=tmp_path / "app", reporter=SILENT)


def test_a_folder_that_holds_something_is_left_as_it_is(made, tmp_path):
    out = tmp_path / "app"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files already; remove it, choose"):
        app(made, language="python", out=out, reporter=SILENT)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match=r"mine.txt is not a folder"):
        app(made, language="python", out=out / "mine.txt", reporter=SILENT)
    with pytest.raises(UsageError, match=r"no apps named 'rust'; there are android, cpp"):
        app(made, language="rust", out=tmp_path / "b", reporter=SILENT)


def test_golden_images_of_others_are_refused(made, tmp_path):
    record = artifacts.load(made)
    (made.parent / record.golden.images[0]).write_bytes(b"another")
    with pytest.raises(InputError, match="is not the one that its name says"):
        app(made, language="python", out=tmp_path / "app", reporter=SILENT)


def test_the_command_prints_the_commands_and_the_record(made, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [warm.program(), "-m", "mobiledeploy", "app", made, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("--language", "cpp", "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "cmake --build build" in done.stdout.splitlines()
    assert "golden-elsewhere" in done.stderr
    again = run("--language", "python", "--out", tmp_path / "b", "--json", "--quiet")
    assert json.loads(again.stdout)["record"] == "WrittenApp"
    (tmp_path / "a" / "main.cpp").write_text("mine")
    assert run("--language", "cpp", "--out", tmp_path / "a").returncode == 2
    assert len(photos()) == json.loads(again.stdout)["samples"]
