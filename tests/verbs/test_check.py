"""Regressions planted into a real artifact, one by one: each is caught, and named."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import Artifact
from mobiledeploy.formats import tflite
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.steps import accuracy_check, instruction_sets
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps.baseline import Baseline
from mobiledeploy.verbs import check as verb
from mobiledeploy.verbs.check import check, update_baseline
from mobiledeploy.verbs.export import export
from tests.figures import resealed

CLASSES = 12
RARE = (3, 7)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with int8_ptq.tflite and float32.tflite of the demo, a baseline, and images.

    `often.npz` holds 40 images of each class, `rarely.npz` 12 of the two classes in RARE.
    """
    folder = tmp_path_factory.mktemp("demo")
    drawn = dataset("demo").open("demo", "test", resolution=(96, 96), labels=())
    labels = np.array([drawn.label(i) for i in range(len(drawn))])
    often = np.sort(np.concatenate([np.flatnonzero(labels == c)[:40] for c in range(CLASSES)]))
    shown, labels = np.stack([drawn.image(i) for i in often]), labels[often]
    few = np.concatenate([np.flatnonzero(labels == c)[12:] for c in RARE])
    for name, left_out in (("often", []), ("rarely", few)):
        images, classes = (np.delete(array, left_out, axis=0) for array in (shown, labels))
        np.savez(folder / f"{name}.npz", images=images, labels=classes)
    np.savez(folder / "seen.npz", images=shown[::2], labels=labels[::2])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = export(
            alpha=0.25,
            res=96,
            weights="demo",
            # Fewer than are drawn otherwise; each is judged by both files, and compared.
            data=folder / "seen.npz",
            recipe=("float32", "int8_ptq"),
            format="tflite",
            out=folder / "build",
            timed=False,
        )
        made = Path(result.folder)
        for name in ("often", "rarely"):
            update_baseline(
                [made / "int8_ptq.tflite"],
                baseline=folder / f"{name}.json",
                data=str(folder / f"{name}.npz"),
            )
    return folder, made


@pytest.fixture
def place(demo, here):
    """Paths: the artifact, and a copy of it that a test may spoil, with its golden images."""
    folder, made = demo
    shutil.copytree(made, here / "new")
    return folder, here / "new" / "int8_ptq.tflite"


def planted(path: Path, change: Callable[[schema.ModelT], None], **record: object) -> None:
    """Changes the model, and its record so that the hashes fit."""
    artifact = artifacts.load(path)
    graph = Graph(path.read_bytes())
    change(graph.model)
    path.write_bytes(tflite.write_metadata(graph.pack(), tflite.contract(path.read_bytes())))
    recorded(path, artifact, sha256=records.sha256(path), **record)


def recorded(path: Path, artifact: Artifact, **changes: object) -> None:
    text = records.dumps(dataclasses.replace(artifact, **changes))
    artifacts.record_path(path).write_text(text)


def last_layer(model: schema.ModelT) -> tuple[np.ndarray, np.ndarray]:
    """Writable weights [classes, ...] int8 and biases [classes] int32 of the classifier."""
    graph = model.subgraphs[0]
    found = [
        op
        for op in graph.operators
        if len(op.inputs) == 3 and graph.tensors[op.inputs[2]].shape.tolist() == [CLASSES]
    ]
    parts = []
    for place, kind in zip(found[-1].inputs[1:3], (np.int8, np.int32), strict=True):
        buffer = model.buffers[graph.tensors[place].buffer]
        buffer.data = np.array(buffer.data, np.uint8)
        parts.append(buffer.data.view(kind).reshape(CLASSES, -1))
    scales = graph.tensors[found[-1].inputs[1]].quantization.scale
    assert len(scales) in (1, CLASSES)
    return parts[0], parts[1][:, 0]


def judged(place, name="often", **given):
    folder, path = place
    report = check(
        [path], baseline=folder / f"{name}.json", data=str(folder / f"{name}.npz"), **given
    )
    (found,) = report.checks
    return (
        found,
        {v.metric: v for v in found.verdicts if v.metric != "class"},
        {v.subject: v for v in found.verdicts if v.metric == "class"},
    )


def test_the_accepted_file_passes(place, here):
    found, verdicts, classes = judged(place)
    assert (found.outcome, found.flips, found.mcnemar_p) == ("pass", 0, 1)
    assert set(verdicts) == {"accuracy", "float", "golden"}
    assert verdicts["golden"].value == 0
    assert len(classes) == CLASSES
    assert 0.8 < found.top1 == found.accepted_top1
    # It is the accepted one: however fine the question, nothing was lost.
    fine = {"margin": 0.2, "float_margin": 0.4}
    found, verdicts, _ = judged(place, **fine)
    assert found.outcome == "pass"
    assert verdicts["accuracy"].needed is None
    assert "it is the accepted file, and answers as it did" in verdicts["accuracy"].line
    # On another machine or of other bytes that is too fine a question for so few images.
    folder, path = place
    for change in ({"isa": "avx9"}, {"runtime_version": "0"}, {"artifact_sha256": "0" * 64}):
        resealed(folder / "often.json", here / "other.json", **change)
        report = check([path], baseline=here / "other.json", data=str(folder / "often.npz"), **fine)
        (accuracy,) = [v for v in report.checks[0].verdicts if v.metric == "accuracy"]
        assert accuracy.outcome == "inconclusive"
        assert f"{accuracy.needed:,} images" in accuracy.line


@pytest.mark.slow
def test_another_training_is_refused_by_name(place, here):
    """Its answers are those of another model: they say nothing of how this one was made."""
    folder, path = place
    resealed(folder / "often.json", here / "other.json", weights_sha256="f" * 64)
    weights = artifacts.load(path).spec.weights
    message = f"weights: {weights.source} {weights.sha256[:12]}, not ffffffffffff; if that is meant"
    with pytest.raises(InputError, match=message):
        check([path], baseline=here / "other.json", data=str(folder / "often.npz"))
    # To accept it is to accept its float model, too: that of the other one is no anchor.
    result = update_baseline([path], baseline=here / "other.json", data=str(folder / "often.npz"))
    assert [(c.recipe, c.flips) for c in result.changes] == [("int8_ptq", None), ("float32", None)]
    report = check([path], baseline=here / "other.json", data=str(folder / "often.npz"))
    assert report.checks[0].outcome == "pass"


@pytest.mark.slow
def test_an_update_says_which_margin_so_many_images_can_decide(place, here, heard):
    folder, path = place
    with np.load(folder / "often.npz") as often:
        np.savez(here / "few.npz", images=often["images"][:100], labels=often["labels"][:100])
    options = {"data": str(here / "few.npz"), "baseline": here / "few.json", "reporter": heard}
    (change, _) = update_baseline([path], **options).changes
    assert change.images == 100
    (warning,) = [d for d in heard.warnings if d.name == "too-few-images"]
    assert "100 images can never decide 1 % of top-1 lost: that takes 361" in warning.message
    least = accuracy_check.points(change.decides)
    assert f"--margin {least:g} or more" in warning.advice
    heard.warnings.clear()
    update_baseline([path], margin=least, **options)
    assert "too-few-images" not in {d.name for d in heard.warnings}
    update_baseline([path], margin=least - 0.02, **options)
    assert "too-few-images" in {d.name for d in heard.warnings}
    heard.warnings.clear()
    update_baseline([path], no_labels=True, max_flips=2.0, **options)
    (warning,) = [d for d in heard.warnings if d.name == "too-few-images"]
    assert "2 % of answers changed: that takes 149 without" in warning.message
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "mobiledeploy",
            "check",
            path,
            "--update-baseline",
            "--data",
            here / "few.npz",
            "--baseline",
            here / "few.json",
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0
    assert f" images can decide a loss of {least:g} points of top-1 or more" in result.stdout
    assert "[too-few-images]" in result.stderr


def test_a_class_that_collapsed_is_named(place):
    def collapse(model):
        _, biases = last_layer(model)
        biases[5] = -(1 << 20)

    planted(place[1], collapse)
    found, verdicts, classes = judged(place)
    assert found.outcome == "fail"
    failed = [name for name, v in classes.items() if v.outcome == "fail"]
    assert failed == ["pentagon"]
    assert "0 of 40 right" in classes["pentagon"].line
    assert found.moved[0].true == "pentagon"
    assert verdicts["accuracy"].outcome == "fail"


def swap(model):
    """Two rows of the classifier change places, with their scales."""
    for part in last_layer(model):
        part[list(RARE)] = part[list(RARE[::-1])]
    graph = model.subgraphs[0]
    for op in graph.operators:
        if len(op.inputs) == 3 and graph.tensors[op.inputs[2]].shape.tolist() == [CLASSES]:
            for place in op.inputs[1:3]:
                quantization = graph.tensors[place].quantization
                scales = np.array(quantization.scale)
                if len(scales) == CLASSES:
                    scales[list(RARE)] = scales[list(RARE[::-1])]
                quantization.scale = scales


def test_two_rare_classes_swapped_are_named_where_the_mean_passes(place):
    planted(place[1], swap)
    found, verdicts, classes = judged(place, "rarely", margin=9.0, float_margin=10.0)
    assert verdicts["accuracy"].outcome == verdicts["float"].outcome == "pass"
    assert found.outcome == "fail"
    failed = {name: v.line for name, v in classes.items() if v.outcome == "fail"}
    assert set(failed) == {"triangle", "star"}
    assert all("the two look swapped" in line for line in failed.values())
    assert "now taken for star" in failed["triangle"]


def test_two_classes_swapped_are_named_without_labels_too(place):
    planted(place[1], swap)
    found, verdicts, classes = judged(place, no_labels=True)
    assert verdicts["flips"].outcome == found.outcome == "fail"
    assert {n for n, v in classes.items() if v.outcome == "fail"} == {"triangle", "star"}
    assert found.top1 is None
    assert "accuracy" not in verdicts


def test_without_labels_the_accepted_file_passes_and_flips_are_bounded(place, here):
    found, verdicts, _ = judged(place, no_labels=True)
    assert (found.outcome, verdicts["flips"].value) == ("pass", 0)
    found, verdicts, _ = judged(place, no_labels=True, max_flips=0.1)
    assert (found.outcome, verdicts["flips"].needed) == ("pass", None)
    folder, path = place
    resealed(folder / "often.json", here / "other.json", isa="avx9")
    report = check(
        [path],
        baseline=here / "other.json",
        data=str(folder / "often.npz"),
        no_labels=True,
        max_flips=0.1,
    )
    (flips,) = [v for v in report.checks[0].verdicts if v.metric == "flips"]
    assert flips.outcome == "inconclusive"
    assert flips.needed > 480


def test_a_corrupted_weight_is_seen_in_the_golden_outputs(place):
    def corrupt(model):
        weights, _ = last_layer(model)
        weights[2, :40] ^= 0x40

    planted(place[1], corrupt)
    found, verdicts, _ = judged(place)
    assert found.outcome == "fail"
    assert verdicts["golden"].outcome == "fail"
    assert verdicts["golden"].value > 1


def test_a_weight_corrupted_on_disk_is_no_artifact_any_more(place):
    data = bytearray(place[1].read_bytes())
    data[len(data) // 2] ^= 0x40
    place[1].write_bytes(data)
    with pytest.raises(InputError, match="not the file that its record describes"):
        judged(place)


def test_wrong_preprocessing_of_the_artifact_is_refused_by_name(place):
    artifact = artifacts.load(place[1])
    message = dataclasses.replace(artifact.spec.preprocessing, input_range=(0.0, 1.0))
    spec = dataclasses.replace(artifact.spec, preprocessing=message)
    recorded(place[1], artifact, spec=spec, signature=None)
    with pytest.raises(InputError, match=r"input_range: 0,1, not 0,255; .*--update-baseline"):
        judged(place)


def test_wrong_preprocessing_on_the_command_line_is_refused_by_name(place):
    with pytest.raises(InputError, match="channels: bgr, not rgb; resize: bicubic"):
        judged(place, channels="bgr", resize="bicubic")


def test_a_stale_label_file_is_refused_with_its_line(place):
    names = list(artifacts.load(place[1]).spec.preprocessing.labels)
    names[4], names[9] = names[9], names[4]
    with pytest.raises(InputError, match="line 5 is 'cross', not 'square', and 1 more"):
        judged(place, labels=names)


def test_an_artifact_with_other_classes_is_refused(place):
    folder, path = place
    known = records.loads(Baseline, (folder / "often.json").read_text())
    entries = [dataclasses.replace(e, classes=13, seal="") for e in known.accepted]
    entries = [dataclasses.replace(e, seal=baselines.seal(e)) for e in entries]
    Path("other.json").write_text(records.dumps(Baseline(tuple(entries))))
    with pytest.raises(InputError, match="classes: 12, not 13"):
        check([path], baseline=Path("other.json"), data=str(folder / "often.npz"))


# Bad baselines


def test_without_a_baseline_the_line_that_makes_one_is_told(place):
    with pytest.raises(MissingError) as error:
        check([place[1]], baseline=Path("none.json"), data="a b.npz")
    assert error.value.hint == (
        f"mobiledeploy check {place[1]} --baseline none.json --data 'a b.npz' --update-baseline"
    )


def test_the_line_that_makes_a_baseline_has_all_that_changes_the_answers(place):
    options = {"crop": 0.875, "mean": (0.5, 0.25, 0.125), "channels": "bgr"}
    with pytest.raises(MissingError) as error:
        check(
            [place[1]],
            baseline=Path("none.json"),
            runtime="litert",
            **options,
            no_labels=True,
        )
    assert error.value.hint == (
        f"mobiledeploy check {place[1]} --baseline none.json --no-labels --runtime litert "
        "--mean 0.5,0.25,0.125 --channels bgr --crop 0.875 --update-baseline"
    )


def test_what_another_process_accepts_meanwhile_stays(place, monkeypatch):
    """Both read the baseline, judge for a while, and write it."""
    folder, path = place
    known = records.loads(Baseline, (folder / "often.json").read_text())
    (other,) = (e for e in known.accepted if e.recipe == "float32")
    judge = verb.evaluations.each

    def meanwhile(*given, **named):
        made = judge(*given, **named)
        Path("two.json").write_text(records.dumps(Baseline((other,))))
        return made

    monkeypatch.setattr(verb.evaluations, "each", meanwhile)
    update_baseline([path], baseline=Path("two.json"), data=str(folder / "often.npz"))
    written = records.loads(Baseline, Path("two.json").read_text())
    assert {e.recipe for e in written.accepted} == {"float32", "int8_ptq"}


def test_a_baseline_without_a_folder_is_refused_before_anything_is_judged(place, monkeypatch):
    monkeypatch.setattr(verb.evaluations, "each", None)
    with pytest.raises(UsageError, match="there is no folder .*nowhere for b.json"):
        update_baseline([place[1]], baseline=Path("nowhere", "b.json"))


def test_an_artifact_that_the_baseline_does_not_hold_is_missing(place):
    folder, path = place
    known = records.loads(Baseline, (folder / "often.json").read_text())
    remaining = tuple(e for e in known.accepted if e.recipe == "float32")
    Path("some.json").write_text(records.dumps(Baseline(remaining)))
    with pytest.raises(MissingError, match="no mobilenet_v1_0.25_96 int8_ptq tflite"):
        check([path], baseline=Path("some.json"), data=str(folder / "often.npz"))


def test_a_baseline_of_other_images_is_refused(place):
    folder, path = place
    with pytest.raises(InputError, match=r"images: 424 of .*rarely.npz .*not 480 of"):
        check([path], baseline=folder / "often.json", data=str(folder / "rarely.npz"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("right", 1), ("images", 479), ("answers", "AAAA"), ("runtime_version", "9"), ("seal", "")],
)
def test_an_edited_baseline_is_refused(place, field, value):
    folder, path = place
    data = json.loads((folder / "often.json").read_text())
    data["accepted"][1][field] = value
    Path("edited.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="was edited"):
        check([path], baseline=Path("edited.json"), data=str(folder / "often.npz"))


@pytest.mark.parametrize("keep", [0, 100, -20])
def test_a_truncated_baseline_is_refused_and_not_written_over(place, keep):
    folder, path = place
    cut = (folder / "often.json").read_text()[:keep]
    Path("cut.json").write_text(cut)
    for verb_ in (check, update_baseline):
        with pytest.raises(InputError, match=r"cut.json is not JSON"):
            verb_([path], baseline=Path("cut.json"), data=str(folder / "often.npz"))
    assert Path("cut.json").read_text() == cut


@pytest.mark.parametrize("images", [-1, 0, 479, 481, 2**62])
def test_an_entry_of_another_length_is_refused_even_with_a_seal(place, images):
    folder, path = place
    resealed(folder / "often.json", Path("other.json"), images=images)
    with pytest.raises(InputError, match="images"):
        check([path], baseline=Path("other.json"), data=str(folder / "often.npz"))


def test_answers_of_as_many_other_images_are_not_compared(place):
    """Answers and their number fit together, and the images are said to be the same."""
    folder, path = place
    known = records.loads(Baseline, (folder / "often.json").read_text())
    entries = []
    for e in known.accepted:
        fewer = baselines.answers(e)[:-1].astype("<u2")
        packed = base64.b64encode(zlib.compress(fewer.tobytes())).decode()
        other = dataclasses.replace(e, images=len(fewer), answers=packed)
        entries.append(dataclasses.replace(other, seal=baselines.seal(other)))
    Path("other.json").write_text(records.dumps(Baseline(tuple(entries))))
    with pytest.raises(InputError, match="images: "):
        check([path], baseline=Path("other.json"), data=str(folder / "often.npz"))


def test_answers_that_cannot_be_are_refused_even_with_a_seal(place):
    folder, path = place
    resealed(folder / "often.json", Path("other.json"), answers="eJwDAAAAAAE=")
    with pytest.raises(InputError, match="answers of"):
        check([path], baseline=Path("other.json"), data=str(folder / "often.npz"))


# Writing it


def test_only_an_update_writes_and_it_tells_what_changes(place):
    folder, path = place
    shutil.copy(folder / "often.json", "mine.json")
    before = Path("mine.json").read_bytes()

    def collapse(model):
        _, biases = last_layer(model)
        biases[5] = -(1 << 20)

    planted(path, collapse)
    data = str(folder / "often.npz")
    assert check([path], baseline=Path("mine.json"), data=data).checks[0].outcome == "fail"
    assert Path("mine.json").read_bytes() == before
    (change,) = update_baseline([path], baseline=Path("mine.json"), data=data).changes
    # The float anchor stays as it was: that is what small losses are summed against.
    assert (change.recipe, change.images) == ("int8_ptq", 480)
    assert change.flips >= 30
    assert change.top1 < change.top1_before - 0.05
    found = check([path], baseline=Path("mine.json"), data=data).checks[0]
    message = {v.metric: v.outcome for v in found.verdicts if v.metric != "class"}
    assert message["accuracy"] == "pass"
    assert message["float"] == "fail"


def test_a_baseline_is_small_and_the_same_bytes_again(place):
    folder, path = place
    assert (folder / "often.json").stat().st_size < 6000
    update_baseline([path], baseline=Path("again.json"), data=str(folder / "often.npz"))
    assert Path("again.json").read_bytes() == (folder / "often.json").read_bytes()


def test_a_floor_is_hard(place):
    found, verdicts, _ = judged(place, floor=99.9)
    assert found.outcome == verdicts["floor"].outcome == "fail"
    _, verdicts, _ = judged(place, floor=50.0)
    assert verdicts["floor"].outcome == "pass"


def test_another_runtime_is_refused_by_name(place):
    pytest.importorskip(
        "tflite_runtime",
        reason="no tflite_runtime (Python 3.11: pip install 'mobiledeploy[tflite-runtime]')",
    )
    with pytest.raises(InputError, match="runtime: tflite_runtime, not litert"):
        judged(place, runtime="tflite_runtime")


def test_another_machine_is_told_and_no_reason_to_fail(place, monkeypatch, heard):
    monkeypatch.setattr(instruction_sets, "here", lambda: "riscv64 v")
    found, verdicts, _ = judged(place, reporter=heard)
    assert found.outcome == "pass"
    assert "golden" not in verdicts
    assert {d.name for d in found.warnings} >= {"other-machine", "golden-elsewhere"}
    assert {d.name for d in heard.warnings} >= {"other-machine", "golden-elsewhere"}


def test_an_artifact_without_its_golden_images_is_judged_by_the_rest(place):
    shutil.rmtree(place[1].parent / "golden")
    found, verdicts, _ = judged(place)
    assert (found.outcome, set(verdicts)) == ("pass", {"accuracy", "float"})
    assert "no-golden" in {d.name for d in found.warnings}


def test_two_artifacts_of_one_key_need_baselines_of_their_own(place, demo):
    with pytest.raises(UsageError, match="are both mobilenet_v1_0.25_96 int8_ptq tflite"):
        check([place[1], demo[1] / "int8_ptq.tflite"], baseline=demo[0] / "often.json")


@pytest.mark.parametrize("limits", [{"margin": 0.0}, {"floor": 150.0}, {"margin": np.nan}])
def test_margins_that_cannot_be_are_refused(place, limits):
    with pytest.raises(UsageError, match="points"):
        judged(place, **limits)


def test_unlabelled_images_are_judged_by_their_answers_only(place):
    """A plain folder of images, without a folder for each class."""
    from PIL import Image

    folder, path = place
    Path("photos").mkdir()
    for number, image in enumerate(np.load(folder / "often.npz")["images"][:100]):
        Image.fromarray(image).save(f"photos/{number:03}.png")
    with pytest.raises(UsageError, match="no labels .*--no-labels accepts the answers alone"):
        update_baseline([path], baseline=Path("b.json"), data="photos")
    assert not Path("b.json").exists()
    changes = update_baseline(
        [path], baseline=Path("b.json"), data="photos", no_labels=True
    ).changes
    assert {c.top1 for c in changes} == {None}
    with pytest.raises(UsageError, match="no labels .*--no-labels"):
        check([path], baseline=Path("b.json"), data="photos")
    (found,) = check([path], baseline=Path("b.json"), data="photos", no_labels=True).checks
    assert (found.outcome, found.images, found.top1) == ("pass", 100, None)


def test_zero_images_are_refused(place):
    np.savez("none.npz", images=np.zeros((0, 96, 96, 3), np.uint8), labels=np.zeros(0, int))
    with pytest.raises(InputError, match=r"none.npz"):
        check([place[1]], baseline=place[0] / "often.json", data="none.npz")


def test_nan_outputs_are_refused(place):
    """Of the float file, one of whose weights is no number."""
    folder, path = place
    path = path.with_name("float32.tflite")

    def spoil(model):
        graph = model.subgraphs[0]
        sizes = [
            0 if model.buffers[t.buffer].data is None else len(model.buffers[t.buffer].data)
            for t in graph.tensors
        ]
        buffer = model.buffers[graph.tensors[int(np.argmax(sizes))].buffer]
        buffer.data = np.array(buffer.data, np.uint8)
        buffer.data.view(np.float32)[:] = np.nan

    planted(path, spoil)
    with pytest.raises(InputError, match="NaN"):
        check([path], baseline=folder / "often.json", data=str(folder / "often.npz"))


def test_a_check_imports_no_tensorflow(place):
    folder, path = place
    code = (
        "import sys; from mobiledeploy.cli.main import run\n"
        f"sys.argv = ['mobiledeploy', 'check', {str(path)!r}, '--baseline', "
        f"{str(folder / 'often.json')!r}, '--data', {str(folder / 'often.npz')!r}]\n"
        "code = run(); print('MODULES', *sys.modules); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded = {name.partition(".")[0] for name in result.stdout.partition("MODULES")[2].split()}
    assert not {"tensorflow", "tf_keras", "keras", "ai_edge_litert.interpreter"} & loaded
