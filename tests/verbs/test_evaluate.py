from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mobiledeploy.cli.evaluate import command
from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import FORMATS, RUNTIMES, dataset
from mobiledeploy.core.types import Artifact, ChangedAnswer, Evaluation, Weights
from mobiledeploy.steps import runner_pool, runtimes
from mobiledeploy.steps.answers import logits
from mobiledeploy.steps.runner_pool import image_ranges
from mobiledeploy.steps.runtimes import target
from mobiledeploy.store.database import Store
from mobiledeploy.verbs.evaluate import evaluate
from tests.variants import slow_but

# A runner on each core is what it is about.
pytestmark = pytest.mark.usefixtures("all_cores")

# The same work in a plain loop over one interpreter: what the pool must equal to the last bit.
PLAIN = """
import json, sys
from pathlib import Path
import numpy as np
from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.plugins import dataset
path = Path(sys.argv[1])
a = artifacts.load(path)
if a.format == "tflite":
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    def answer(x):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    answer = lambda x: session.run(None, {"image": x})[0]
d, spec = a.data, a.spec
held = dataset(d.source).open(d.source, d.split, resolution=d.resolution, labels=d.labels)
rows = []
for index in range(len(held)):
    x = preprocessing.prepare(held.image(index), spec.preprocessing, spec.resolution)
    raw = answer(preprocessing.to_input(x, a.inputs[0], a.layout))
    row = preprocessing.from_output(raw, a.outputs[0])
    rows.append([held.id(index), held.label(index), *accuracy.best(row)])
print(json.dumps(rows))
"""


def copied(
    exported: dict[tuple[str, str], Path], folder: Path, *keys: tuple[str, str]
) -> list[Path]:
    """The artifacts in a folder of their own, where a test may change them."""
    folder.mkdir(exist_ok=True)
    for key in keys:
        shutil.copy(exported[key], folder)
        shutil.copy(artifacts.record_path(exported[key]), folder)
    return [folder / exported[key].name for key in keys]


def changed(path: Path, **fields: object) -> None:
    artifact = records.loads(Artifact, artifacts.record_path(path).read_bytes())
    artifact = dataclasses.replace(artifact, **fields)
    artifacts.record_path(path).write_text(records.dumps(artifact))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A numpy archive of 600 images of 12 classes, 64x64, no two alike."""
    path = tmp_path_factory.mktemp("archive") / "many.npz"
    dice = np.random.Generator(np.random.PCG64(2))
    np.savez(
        path,
        images=dice.integers(0, 256, (600, 64, 64, 3), np.uint8),
        labels=np.arange(600) % 12,
    )
    return path


@pytest.mark.parametrize("key", [("int8_ptq", "tflite"), ("float32", "onnx")])
def test_it_equals_a_plain_loop_exactly(exported, here, heard, key) -> None:
    path = exported[key]
    done = evaluate([path], reporter=heard)
    (made,) = done.evaluations
    result = subprocess.run(
        [sys.executable, "-c", PLAIN, str(path)], capture_output=True, text=True, check=True
    )
    rows = json.loads(result.stdout)
    assert [[p.sample, p.label, list(p.classes), list(p.scores)] for p in made.predictions] == rows
    assert made.images == len(rows) == 13
    hits = [row[1] == row[2][0] for row in rows]
    assert made.top1 == sum(hits) / len(hits)
    assert sum(count for *_, count in made.confusion) == len(hits) - sum(hits)
    shown = str([table.rows for table in done.tables()])
    assert ("(once)" in shown) == any(count == 1 for *_, count in made.confusion[:3])


def test_the_validation_split_of_its_own_data_is_taken(exported, here, heard) -> None:
    path = exported["float32", "tflite"]
    (made,) = evaluate([path], reporter=heard).evaluations
    assert made.data == artifacts.load(path).data
    assert made.preprocessing == artifacts.load(path).spec.preprocessing
    # The same images under another name are still the same images.
    source = made.data.source
    shutil.copytree(source, here / "elsewhere")
    (again,) = evaluate([path], data=str(here / "elsewhere"), reporter=heard).evaluations
    assert (again.data.split, again.data.identity) == ("validation", made.data.identity)
    assert again.predictions == made.predictions
    assert heard.warnings == []


def test_of_other_data_all_is_taken(exported, here, heard, archive) -> None:
    (made,) = evaluate(
        [exported["float32", "tflite"]], data=str(archive), reporter=heard
    ).evaluations
    assert (made.data.split, made.images) == ("all", 600)
    assert [p.sample for p in made.predictions] == [str(n) for n in range(600)]
    assert made.images_per_second > 0
    assert heard.warnings == []
    assert ("evaluating float32.tflite", 600, 600) in heard.steps


@pytest.mark.parametrize("named", [None, "./photos", "other/../photos", "link", "{here}/photos"])
def test_images_that_changed_since_the_export_are_warned_of(exported, here, heard, named) -> None:
    (path,) = copied(exported, here / "build", ("float32", "tflite"))
    artifact = artifacts.load(path)
    shutil.copytree(artifact.data.source, here / "photos")
    (here / "other").mkdir()
    (here / "link").symlink_to("photos")
    changed(path, data=dataclasses.replace(artifact.data, source="photos"))
    shutil.copy(here / "photos" / "a" / "00.png", here / "photos" / "a" / "99.png")
    data = named and named.format(here=here)
    (made,) = evaluate([path], data=data, reporter=heard).evaluations
    assert [warning.name for warning in made.warnings] == ["changed-data"]
    assert made.data.split == "validation"
    assert heard.warnings == list(made.warnings)


def test_a_folder_called_demo_is_not_the_demo_data(exported, here, heard) -> None:
    (path,) = copied(exported, here / "build", ("float32", "tflite"))
    artifact = artifacts.load(path)
    shutil.copytree(artifact.data.source, here / "demo")
    changed(path, data=dataclasses.replace(artifact.data, source="demo", identity="drawn"))
    (made,) = evaluate([path], data="./demo", reporter=heard).evaluations
    assert (made.data.split, made.images) == ("all", 16)
    assert made.warnings == ()


@pytest.mark.slow
def test_the_demo_images_are_always_those_for_validation(exported, here, heard) -> None:
    (made,) = evaluate([exported["float32", "tflite"]], data="demo", reporter=heard).evaluations
    assert (made.data.split, made.images) == ("validation", 1000)


def test_agreement_is_with_the_float_model_of_the_same_format(
    exported, here, heard, archive
) -> None:
    data = str(archive)
    options = [exported[key] for key in (("int8_ptq", "tflite"), ("int8_ptq", "onnx"))]
    floats = [exported[key] for key in (("float32", "tflite"), ("float32", "onnx"))]
    # Not asked for, the float models are found beside them.
    result = evaluate(options, data=data, reporter=heard)
    made = result.evaluations
    again = evaluate([*floats, *options], data=data, reporter=heard).evaluations
    assert [e.agreement for e in again[:2]] == [None, None]
    for int8, float_, same in zip(made, again[:2], again[2:], strict=True):
        best = {p.sample: p.classes[0] for p in float_.predictions}
        share = np.mean([p.classes[0] == best[p.sample] for p in int8.predictions])
        assert int8.agreement == same.agreement == pytest.approx(share)
        labels = int8.preprocessing.labels
        changes = [
            (p.sample, labels[p.label], labels[best[p.sample]], labels[p.classes[0]])
            for p in int8.predictions
            if p.classes[0] != best[p.sample]
        ]
        assert 5 < len(changes) < 600
        assert int8.changed_answers == tuple(ChangedAnswer(*change) for change in changes)
    # The table of a file shows the first few of them.
    table = result.tables()[-1]
    assert table.headers == ("image", "float", "this file", "label")
    assert [(row[0], row[3], row[1], row[2]) for row in table.rows] == changes[:5]
    assert f"{len(changes)} of 600 answers differ from the float model's" in table.title


def test_scores_that_are_tied_are_warned_of(exported, here, heard, archive) -> None:
    # Of a model that learned nothing, all scores are alike, and int8 has 256 of them.
    path = exported["int8_ptq", "tflite"]
    int8, float_ = evaluate(
        [path, exported["float32", "tflite"]], data=str(archive), reporter=heard
    ).evaluations
    share = np.mean([p.scores[0] == p.scores[1] for p in int8.predictions])
    assert share > 0.01
    (warning,) = int8.warnings
    assert warning.name == "tied-scores"
    assert f"on {100 * share:.1f} % of the images" in warning.message
    assert "--output logits" in warning.advice
    assert heard.warnings == [warning]
    assert float_.warnings == ()


@pytest.mark.slow
def test_another_order_of_labels_is_named_where_it_is_better(exported, here, heard) -> None:
    path = exported["float32", "tflite"]
    size = artifacts.load(path).spec.resolution
    demo = dataset("demo").open("demo", "validation", resolution=size, labels=())
    (answered,) = evaluate([path], data="demo", reporter=heard).evaluations
    # Folders as the model answers: it is right in the order of the demo data's classes.
    for index, prediction in enumerate(answered.predictions[:240]):
        place = here / "photos" / demo.classes[prediction.classes[0]] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(demo.image(index)).save(place)

    def judged(labels: list[str]) -> Evaluation:
        return evaluate([path], data="photos", labels=labels, reporter=heard).evaluations[0]

    right = judged(list(demo.classes))
    assert right.warnings == ()
    assert right.top1 == 1
    wrong = judged([*demo.classes[1:], demo.classes[0]])
    (warning,) = wrong.warnings
    assert warning.name == "label-order"
    assert warning in heard.warnings
    assert "would give float32.tflite 100 % instead of 0 %" in warning.message
    advised = warning.advice.partition("the lines ")[2].split(", ")
    assert judged(advised).top1 == 1


def test_without_a_float_model_there_is_no_agreement(exported, here, heard) -> None:
    (path,) = copied(exported, here / "alone", ("int8_ptq", "tflite"))
    assert evaluate([path], reporter=heard).evaluations[0].agreement is None
    # Only another format's, then that; one of another model is none.
    path, other = copied(exported, here / "alone", ("int8_ptq", "tflite"), ("float32", "onnx"))
    assert evaluate([path], reporter=heard).evaluations[0].agreement is not None
    spec = artifacts.load(other).spec
    changed(other, spec=dataclasses.replace(spec, weights=Weights("x", "", pinned=True)))
    assert evaluate([path], reporter=heard).evaluations[0].agreement is None
    assert {warning.name for warning in heard.warnings} <= {"tied-scores"}
    artifacts.record_path(other).write_text("{}")
    assert evaluate([path], reporter=heard).evaluations[0].agreement is None
    assert "no-reference" in {warning.name for warning in heard.warnings}


def test_labels_that_do_not_fit_give_no_top_1(exported, here, heard) -> None:
    (path,) = copied(
        exported,
        here / "build",
        ("float32", "tflite"),
    )
    np.savez(here / "two.npz", images=np.zeros((20, 64, 64, 3), np.uint8), labels=np.arange(20) % 2)
    spec = artifacts.load(path).spec
    plain = dataclasses.replace(spec.preprocessing, labels=())
    changed(path, spec=dataclasses.replace(spec, preprocessing=plain))
    (made,) = evaluate([path], data=str(here / "two.npz"), reporter=heard).evaluations
    assert (made.top1, made.top5, made.confusion) == (None, None, ())
    assert {p.label for p in made.predictions} == {-1}
    assert [warning.name for warning in made.warnings] == ["labels-do-not-fit"]
    (made,) = evaluate(
        [path],
        data=str(here / "two.npz"),
        labels=tuple("abcdefghijkl"),
        reporter=heard,
    ).evaluations
    assert made.top1 is not None
    assert made.warnings == ()


def test_preprocessing_can_be_overridden_and_is_recorded(exported, here, heard) -> None:
    path = exported["float32", "tflite"]
    (own,) = evaluate([path], reporter=heard).evaluations
    (same,) = evaluate([path], input_range=(-1.0, 1.0), reporter=heard).evaluations
    (other,) = evaluate([path], input_range=(0.0, 255.0), reporter=heard).evaluations
    assert own.predictions == same.predictions != other.predictions
    assert own.preprocessing == same.preprocessing
    assert other.preprocessing.input_range == (0.0, 255.0)
    artifact = artifacts.load(path)
    default = (artifact.sha256, artifact.data, artifact.spec.preprocessing, target(artifact))
    with Store.open() as store:
        # The newest is of the other preprocessing, which answers for itself alone.
        assert store.evaluation(*default) == same
        assert store.evaluation(*default[:2], other.preprocessing, default[3]) == other
    with pytest.raises(UsageError, match="not above 0"):
        evaluate([path], crop=0.0, reporter=heard)


def test_a_few_broken_images_are_left_out_by_name(exported, here, heard) -> None:
    (path,) = copied(exported, here / "build", ("float32", "tflite"))
    photos = here / "photos"
    shutil.copytree(artifacts.load(path).data.source, photos)
    names = [f"a/broken{n}.jpg" for n in range(6)]
    for name in names[:5]:
        (photos / name).write_text("text")
    (made,) = evaluate([path], data=str(photos), reporter=heard).evaluations
    assert made.images == 16
    assert [line.split()[0] for line in made.skipped] == names[:5]
    assert [warning.name for warning in made.warnings] == ["broken-image"]
    assert names[2] in made.warnings[0].message
    (photos / names[5]).write_text("text")
    with pytest.raises(InputError, match="more than 5 images that cannot be read"):
        evaluate([path], data=str(photos), reporter=heard)


def test_nan_in_an_answer_is_the_models_fault(exported, here, heard) -> None:
    (path,) = copied(exported, here / "build", ("float32", "tflite"))
    artifact = artifacts.load(path)
    data = bytearray(path.read_bytes())
    # Half way through the file lie the weights of some convolution.
    middle = len(data) // 2 // 4 * 4
    data[middle : middle + 4096] = np.full(1024, np.nan, "<f4").tobytes()
    path.write_bytes(data)
    changed(path, sha256=records.sha256(bytes(data)), size_bytes=len(data))
    assert artifacts.load(path).sha256 != artifact.sha256
    with pytest.raises(InputError, match="answers NaN or infinity for image"):
        evaluate([path], reporter=heard)
    # The others have their answer, and those without one their reason.
    gone, (other,) = here / "gone.onnx", copied(exported, here / "build", ("int8_ptq", "onnx"))
    result = evaluate((path, gone, other), reporter=heard)
    assert result.paths == (str(other),)
    assert result.evaluations[0].agreement is None
    assert [Path(f.what) for f in result.failed] == [gone, path]
    output = CliRunner().invoke(command, [str(path), str(gone), str(other)])
    assert output.exit_code == 7
    assert "int8_ptq.onnx" in output.stdout
    assert sum(line.startswith("error: ") for line in output.stderr.splitlines()) == 2


def test_the_demo_images_judge_their_own_models_only(exported, here, heard) -> None:
    (path,) = copied(exported, here / "build", ("float32", "tflite"))
    spec = artifacts.load(path).spec
    changed(path, spec=dataclasses.replace(spec, card=None))
    with pytest.raises(UsageError, match=r"demo images say nothing.*--data"):
        evaluate([path], data="demo", reporter=heard)


def test_each_result_is_in_the_store(exported, here, heard) -> None:
    made = evaluate(
        [exported["int8_ptq", "tflite"], exported["float32", "tflite"]], threads=1, reporter=heard
    ).evaluations
    with Store.open() as store:
        for e in made:
            assert store.evaluation(e.artifact_sha256, e.data, e.preprocessing, e.target) == e


def test_invalid_requests_are_refused(exported, here, heard) -> None:
    path = exported["float32", "tflite"]
    with pytest.raises(UsageError, match="no artifact"):
        evaluate([], reporter=heard)
    with pytest.raises(UsageError, match="0 threads"):
        evaluate([path], threads=0, reporter=heard)
    with pytest.raises(UsageError, match="no runtimes named 'tensorrt'"):
        evaluate([path], runtime="tensorrt", reporter=heard)
    with pytest.raises(UsageError, match="not a known data set"):
        evaluate([path], data="nowhere", reporter=heard)
    with pytest.raises(InputError, match="does not exist"):
        evaluate([here / "nothing.tflite"], reporter=heard)


def test_a_runtime_that_does_not_fit_is_refused_before_anything_runs(exported, here, heard) -> None:
    paths = [exported["float32", "onnx"], exported["int8_ptq", "tflite"]]
    with pytest.raises(UsageError, match=r"onnxruntime runs \.onnx files, not int8_ptq\.tflite"):
        evaluate(paths, runtime="onnxruntime", reporter=heard)
    assert heard.steps == []
    assert not (here / ".mobiledeploy").exists()


def test_a_float_model_that_was_not_named_runs_where_it_can(exported, here, heard) -> None:
    path, _ = copied(exported, here / "alone", ("int8_ptq", "tflite"), ("float32", "onnx"))
    assert evaluate([path], runtime="litert", reporter=heard).evaluations[0].agreement is not None


def test_a_format_that_nothing_runs_is_named(exported, here, heard) -> None:
    (path,) = copied(exported, here / "build", ("float32", "tflite"))
    changed(path, format="coreml")
    with pytest.raises(InputError, match="'coreml', which nothing here runs"):
        evaluate([path], reporter=heard)


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_what_is_said_of_a_runtime_imports_no_engine(name: str) -> None:
    script = (
        f"import sys; from mobiledeploy.core.plugins import RUNTIMES; r = RUNTIMES.load({name!r});"
        "print(r.FORMATS, r.DELEGATES, r.PACKAGE, r.PREFERRED, r.PUBLISHED_AS, r.NATIVE);"
        "print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    engines = {"ai_edge_litert", "tflite_runtime", "onnxruntime", "numpy"}
    assert not engines & set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("format_", FORMATS.names())
def test_a_format_has_one_runtime_that_is_taken_where_none_is_named(format_: str) -> None:
    preferred = [n for n, r in RUNTIMES.each() if format_ in r.FORMATS and r.PREFERRED]
    assert preferred == [runtimes.of_format(format_)[0]]


def test_the_target_is_the_one_of_the_record(exported, here, heard) -> None:
    for key in (("int8_ptq", "tflite"), ("float32", "onnx")):
        (made,) = evaluate([exported[key]], reporter=heard).evaluations
        assert made.target == target(artifacts.load(exported[key]))


def test_nothing_of_the_current_folder_is_run(exported, here, heard) -> None:
    for name in ("queue", "numpy", "mobiledeploy"):
        (here / f"{name}.py").write_text(f"open('{name}-was-here', 'w')\nraise SystemExit(3)\n")
    (made,) = evaluate([exported["float32", "tflite"]], reporter=heard).evaluations
    assert made.images == 13
    assert list(here.glob("*-was-here")) == []


def test_a_runner_that_hangs_is_given_up(exported, here, heard, archive) -> None:
    def stop_it() -> None:
        for pid in wait_for_children(os.getpid(), 2):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    stopped: list[int] = []
    thread = threading.Thread(target=stop_it)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner_pool, "PATIENCE_S", 2.0)
        with pytest.raises(DeviceError, match="float32.tflite hangs: no output for 2 s"):
            evaluate([exported["float32", "tflite"]], data=str(archive), threads=2, reporter=heard)
    thread.join()
    assert len(stopped) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in stopped)


def test_logits_of_a_file_without_a_record(exported, here, heard) -> None:
    for key in (("int8_ptq", "tflite"), ("int8_ptq", "onnx"), ("float32", "tflite")):
        path = exported[key]
        artifact = artifacts.load(path)
        shelf = FORMATS.load(artifact.format)
        probe_content = shelf.expose_tensor(path.read_bytes(), artifact.logits)
        probe = here / f"tap{shelf.SUFFIX}"
        probe.write_bytes(probe_content)
        runtime, rows = logits(
            probe,
            shelf.inspect(probe_content),
            artifacts.signature(artifact).inputs,
            artifact.data,
            (4, 0),
            reporter=heard,
        )
        assert runtime.split()[0] in ("litert", "onnxruntime")
        assert (rows.shape, rows.dtype) == ((2, 12), np.float32)
        # Their softmax is what the whole file answers.
        (made,) = evaluate([path], reporter=heard).evaluations
        held = [made.predictions[index] for index in (4, 0)]
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        for prediction, row in zip(held, scores, strict=True):
            assert row[list(prediction.classes)] == pytest.approx(prediction.scores, abs=0.02)


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (1, 2), (7, 1), (1000, 2), (333, 8)])
def test_ranges_cover_everything_once_and_end_small(count: int, workers: int) -> None:
    ranges = list(image_ranges(count, workers))
    assert [n for start, stop in ranges for n in range(start, stop)] == list(range(count))
    assert all(stop - start == 1 for start, stop in ranges[-2 * workers :])


def children(pid: int) -> list[int]:
    """Runner processes below `pid`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and b"mobiledeploy.runners.python" in command:
            found.append(int(entry.name))
    return found


def wait_for_children(pid: int, count: int) -> list[int]:
    for _ in range(600):
        found = children(pid)
        if len(found) >= count:
            return found
        time.sleep(0.02)
    pytest.fail("no runners after 12 s")


@pytest.mark.parametrize(
    "kind", slow_but([signal.SIGINT, signal.SIGTERM, signal.SIGKILL], signal.SIGINT)
)
def test_nothing_is_left_behind_when_it_is_stopped(exported, here, kind) -> None:
    images = np.zeros((12_000, 64, 64, 3), np.uint8)
    np.savez(here / "long.npz", images=images, labels=np.arange(12_000) % 12)
    argv = (
        sys.executable,
        "-m",
        "mobiledeploy",
        "evaluate",
        str(exported["float32", "onnx"]),
        "--data",
        str(here / "long.npz"),
        "--threads",
        "2",
    )
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        runners = wait_for_children(run.pid, 2)
        time.sleep(0.5)
        assert run.poll() is None
        run.send_signal(kind)
        _, err = run.communicate(timeout=20)
    if kind != signal.SIGKILL:
        assert run.returncode == 130
        assert err.splitlines()[-1] == "interrupted"
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in runners):
            return
        time.sleep(0.05)
    pytest.fail("a runner is still there after 10 s")


def test_a_runner_that_is_killed_ends_it_at_once(exported, here, heard) -> None:
    images = np.zeros((20_000, 64, 64, 3), np.uint8)
    np.savez(here / "long.npz", images=images, labels=np.arange(20_000) % 12)

    def murder() -> None:
        os.kill(wait_for_children(os.getpid(), 2)[0], signal.SIGKILL)

    thread = threading.Thread(target=murder)
    thread.start()
    with pytest.raises(DeviceError, match="killed by signal 9"):
        evaluate(
            [exported["float32", "onnx"]], data=str(here / "long.npz"), threads=2, reporter=heard
        )
    thread.join()
    assert children(os.getpid()) == []
