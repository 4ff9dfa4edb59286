"""The main job as a user runs it: what stands afterwards, and what is refused beforehand."""

import json
import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import tf_keras
from PIL import Image

from mobiledeploy.core import artifacts
from mobiledeploy.core.plugins import RECIPES
from tests import namespaces, warm

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("MOBILEDEPLOY_")}


def run(*argv, cwd, **environment):
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *map(str, argv)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def refused(result, code, message, folder, besides=frozenset()):
    """One line, the right code, nothing on standard output, nothing written."""
    assert result.returncode == code, result.stderr
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    remaining = {p.name for p in folder.iterdir()} - {"given"}
    assert remaining <= besides


def image_folder(given, low=0):
    """Five class folders of noise, darker to brighter, twelve images each."""
    for number in range(60):
        path = given / "abcde"[number % 5] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(low, 130 + 25 * (number % 5), (32, 32, 3))
        Image.fromarray(noise.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder, answer) of the plain export of the demo weights."""
    folder = tmp_path_factory.mktemp("demo")
    result = run("export", "--alpha", "0.25", "--res", "64", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, json.loads(result.stdout)


def own_model(model_files: Path, recipe: str) -> tuple[object, ...]:
    """The arguments that export a model of a user's by one recipe, with the images in `given`."""
    own = ("--input-range", "0,1", "--data", "given", "--format", "tflite", "--recipe", recipe)
    return ("export", model_files / "k2.h5", *own)


def test_the_plain_export_makes_five_files_with_records(demo):
    folder, answer = demo
    rows = {(row["recipe"], row["format"]): row for row in answer["rows"]}
    assert set(rows) == {
        ("float32", "tflite"),
        ("float16", "tflite"),
        ("int8_best", "tflite"),
        ("float32", "onnx"),
        ("int8_best", "onnx"),
    }
    for own in ("build", ".mobiledeploy"):
        assert (folder / own / ".gitignore").read_text() == "*\n"
    made = folder / "build" / "mobilenet_v1_0.25_64_demo"
    kinds = {"float32.tflite", "float16.tflite", "int8_best.tflite"}
    names = kinds | {"float32.onnx", "int8_best.onnx"}
    assert {p.name for p in made.iterdir()} == names | {f"{n}.json" for n in names} | {"golden"}
    for row in rows.values():
        artifact = artifacts.load(folder / row["path"])
        assert artifact.sha256 == row["sha256"]
        assert artifact.spec.weights.source == "demo"
        for image in artifact.golden.images:
            assert np.asarray(Image.open(made / image)).shape == (64, 64, 3)
        assert len(artifact.golden.images) == len(artifact.golden.logits) == 4
        assert artifact.calibration_images == (200 if row["recipe"] == "int8_best" else 0)
        assert artifact.tools["tensorflow"]


def test_int8_keeps_its_accuracy_and_is_a_quarter_of_the_size(demo):
    _, answer = demo
    rows = {(row["recipe"], row["format"]): row for row in answer["rows"]}
    for format_ in ("tflite", "onnx"):
        whole, small = rows["float32", format_], rows["int8_best", format_]
        assert small["top1"] >= whole["top1"] - 0.015
        assert small["agreement"] > 0.94
        assert small["size_bytes"] < 0.37 * whole["size_bytes"]
        assert whole["top1"] > 0.7
        assert whole["images"] == 1000
    for row in rows.values():
        if row["recipe"] == "float32":
            assert (row["sqnr_db"], row["divergence"], row["compared"]) == (None, None, 0)
        else:
            assert row["sqnr_db"] > {"float16": 50, "int8_best": 15}[row["recipe"]]
            assert 0 < row["divergence"] < {"float16": 1e-4, "int8_best": 0.05}[row["recipe"]]
            assert row["compared"] == row["images"]
        low, high = row["latency_interval_ns"]
        assert 0 < low <= row["latency_ns"] <= high


def test_the_same_export_is_answered_from_the_earlier_one(demo):
    folder, answer = demo
    before = {p: p.stat().st_mtime_ns for p in folder.glob("build/*/*.*")}
    result = run("export", "--alpha", "0.25", "--res", "64", cwd=folder)
    assert "Nothing changed" in result.stdout
    again = json.loads(run("export", "--alpha", "0.25", "--res", "64", "--json", cwd=folder).stdout)
    assert again["reused"]
    assert not answer["reused"]
    assert again["rows"] == answer["rows"]
    assert {p: p.stat().st_mtime_ns for p in folder.glob("build/*/*.*")} == before


@pytest.mark.slow
def test_another_recipe_stands_beside_the_earlier_files(tmp_path, model_files):
    image_folder(tmp_path / "given")
    for recipe in ("float32", "dynamic_int8"):
        result = run(*own_model(model_files, recipe), "--json", cwd=tmp_path)
        assert [row["recipe"] for row in json.loads(result.stdout)["rows"]] == [recipe]
    made = {path.name for path in tmp_path.glob("build/*/*.tflite")}
    assert made == {"float32.tflite", "dynamic_int8.tflite"}


def test_a_damaged_artifact_is_not_taken_for_the_earlier_one(demo, tmp_path):
    folder, _ = demo
    made = folder / "build" / "mobilenet_v1_0.25_64_demo" / "float32.tflite"
    keep = made.read_bytes()
    made.write_bytes(keep[:1000])
    try:
        result = run("bench", made, cwd=folder)
        assert result.returncode == 7
        assert "float32.tflite" in result.stderr
    finally:
        made.write_bytes(keep)


def test_an_export_is_reused_only_while_its_own_files_stand(tmp_path, model_files):
    """A, B, A: the second A may not be answered with the files of B, which bear the same names."""
    image_folder(tmp_path / "given")
    plain = (*own_model(model_files, "float32"), "--json")

    def made(*more):
        answer = json.loads(run(*plain, *more, cwd=tmp_path).stdout)
        return answer["reused"], answer["rows"][0]["sha256"], answer["rows"][0]["path"]

    first = made()
    assert not first[0]
    assert made() == (True, *first[1:])
    other = made("--output", "logits")
    assert not other[0]
    assert other[1] != first[1]
    assert other[2] == first[2]
    assert made() == first
    # Another export elsewhere, then the first again: `bench` takes what was exported last.
    assert not made("--out", "elsewhere")[0]
    assert made()[0]
    benched = json.loads(run("bench", "--runs", "20", "--json", cwd=tmp_path).stdout)
    assert benched["paths"] == [first[2]]
    # Golden images are part of it.
    shutil.rmtree(Path(tmp_path / first[2]).parent / "golden")
    assert made() == first


@pytest.mark.slow
def test_other_calibration_images_are_another_export(tmp_path, model_files):
    for split in ("calibration", "validation"):
        image_folder(tmp_path / "given" / split)
    argv = (*own_model(model_files, "int8_ptq"), "--json")
    first = json.loads(run(*argv, cwd=tmp_path).stdout)
    assert first["rows"][0]["agreement"] is not None  # though no float file was asked for
    assert [p.name for p in (tmp_path / "build" / "k2").glob("*.tflite")] == ["int8_ptq.tflite"]
    image_folder(tmp_path / "given" / "calibration", low=100)
    assert not json.loads(run(*argv, cwd=tmp_path).stdout)["reused"]


@pytest.mark.slow
def test_what_was_judged_otherwise_is_not_shown(tmp_path, model_files):
    """The same file with other preprocessing, and timed otherwise, has other figures."""
    image_folder(tmp_path / "given")
    argv = (*own_model(model_files, "float32"), "--json")
    first = json.loads(run(*argv, cwd=tmp_path).stdout)["rows"][0]
    path = first["path"]
    for more in (["--input-range", "0,255"], ["--data", str(tmp_path / "given" / "a" / "..")]):
        assert run("evaluate", path, *more, cwd=tmp_path).returncode == 0
    run("bench", path, "--runs", "20", "--delegate", "none", cwd=tmp_path)
    again = json.loads(run(*argv, cwd=tmp_path).stdout)
    assert again["reused"]
    assert again["rows"][0] == first


def test_a_format_named_twice_is_made_once(tmp_path, model_files):
    result = run(
        "export",
        model_files / "k2.h5",
        "--input-range",
        "0,1",
        "--recipe",
        "float32,float32",
        "--format",
        "tflite,tflite",
        "--json",
        cwd=tmp_path,
    )
    assert len(json.loads(result.stdout)["rows"]) == 1


@pytest.mark.slow
def test_too_many_broken_images_leave_nothing(tmp_path, model_files):
    image_folder(tmp_path / "given")
    for path in sorted((tmp_path / "given").rglob("*.png"))[::2]:
        path.write_text("no image")
    argv = (
        "export",
        model_files / "k2.h5",
        "--input-range",
        "0,1",
        "--data",
        "given",
        "--recipe",
        "float32",
    )
    refused(run(*argv, cwd=tmp_path), 7, "cannot be read", tmp_path, besides={".mobiledeploy"})


@pytest.mark.slow
def test_a_module_that_lies_in_the_current_folder_is_not_imported(tmp_path, model_files):
    for name in ("queue", "numpy", "h5py", "keras", "random"):
        (tmp_path / f"{name}.py").write_text("open('/dev/stderr', 'w').write('EVIL'); 1 / 0")
    result = subprocess.run(
        [
            Path(sys.executable).with_name("mobiledeploy"),
            "export",
            model_files / "k2.h5",
            "--input-range",
            "0,1",
            "--recipe",
            "float32",
            "--format",
            "tflite",
        ],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "EVIL" not in result.stderr


# What is refused.


def test_an_alpha_without_demo_weights_says_which_have_them(tmp_path):
    result = run("export", "--alpha", "0.33", cwd=tmp_path)
    refused(result, 6, "alpha 0.25, 0.5", tmp_path)
    assert "--weights" in result.stderr


def model_of(path, *middle):
    layers = tf_keras.layers
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=2)(image)
    for layer in middle:
        x = layer(x)
    scores = layers.Dense(5, activation="softmax")(layers.Flatten()(x))
    tf_keras.Model(image, scores).save(path)
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model with an operator that TFLite has in float, and ONNX not at all."""
    layers = tf_keras.layers
    middle = (layers.Reshape((15, 15, 4, 1)), layers.Conv3D(2, 3, strides=2))
    return model_of(tmp_path_factory.mktemp("odd") / "odd.h5", *middle)


@pytest.mark.slow
def test_an_operator_that_onnx_runtime_has_in_float_alone_is_said(tmp_path):
    """TFLite has it in int8."""
    image_folder(tmp_path / "given")
    model = model_of(tmp_path / "exp.h5", tf_keras.layers.Activation("exponential"))
    result = run(
        "export",
        model,
        "--data",
        "given",
        "--input-range",
        "0,1",
        "--recipe",
        "int8_ptq",
        "--json",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    (warning,) = (
        d for d in json.loads(result.stdout)["warnings"] if d["name"] == "float-operators"
    )
    assert warning["message"] == "int8_ptq.onnx computes Exp in float, between integers"


def test_what_cannot_be_and_was_not_asked_for_by_name_is_left_out_and_said(tmp_path, odd):
    image_folder(tmp_path / "given")
    argv = ("export", odd, "--data", "given", "--input-range", "0,1", "--json")
    result = run(*argv, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    made = {Path(row["path"]).name for row in answer["rows"]}
    assert made == {"float32.tflite", "float16.tflite"}
    warnings = [d for d in answer["warnings"] if d["name"] == "left-out"]
    messages = {d["message"].split(" is left out: ")[0]: d["message"] for d in warnings}
    assert messages.keys() == {"int8_best.tflite", "float32.onnx", "int8_best.onnx"}
    assert "CONV_3D has no form in ONNX here" in messages["float32.onnx"]
    assert "[left-out]" in result.stderr
    again = json.loads(run(*argv, cwd=tmp_path).stdout)
    assert again["reused"] and all(warning in again["warnings"] for warning in warnings)


def test_what_cannot_be_and_was_asked_for_by_name_is_refused(tmp_path, odd):
    image_folder(tmp_path / "given")
    result = run(
        "export",
        odd,
        "--data",
        "given",
        "--input-range",
        "0,1",
        "--recipe",
        "float32",
        "--format",
        "onnx",
        cwd=tmp_path,
    )
    refused(result, 7, "CONV_3D has no form in ONNX here", tmp_path, {"build"})


def test_a_job_that_fails_costs_that_job_only(tmp_path, odd):
    image_folder(tmp_path / "given")
    result = run(
        "export",
        odd,
        "--data",
        "given",
        "--input-range",
        "0,1",
        "--recipe",
        "float32",
        "--format",
        "onnx,tflite",
        "--json",
        cwd=tmp_path,
    )
    assert result.returncode == 7, result.stderr
    answer = json.loads(result.stdout)
    assert [Path(row["path"]).name for row in answer["rows"]] == ["float32.tflite"]
    (failed,) = answer["failed"]
    assert failed["what"] == "float32.onnx"
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "CONV_3D has no form in ONNX here" in result.stderr.splitlines()[-1]
    assert (tmp_path / "build" / "odd" / "float32.tflite.json").is_file()


def test_a_float_tflite_is_a_model_whose_metadata_is_read(tmp_path, model_files):
    image_folder(tmp_path / "given")
    (tmp_path / "names").write_text("e\nd\nc\nb\na\n")
    argv = ("export", model_files / "k2.h5", "--input-range", "-1,1", "--data", "given")
    argv += ("--recipe", "float32,float16,int8_ptq", "--format", "tflite")
    first = run(*argv, "--labels", "names", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = {row["recipe"]: row for row in json.loads(first.stdout)["rows"]}
    again = {}
    for recipe in ("float32", "float16"):
        file = tmp_path / f"my-{recipe}.tflite"
        shutil.copyfile(tmp_path / rows[recipe]["path"], file)
        more = ("--recipe", "float32,int8_ptq") if recipe == "float16" else ("--recipe", "float32")
        result = run("export", file, "--data", "given", *more, "--json", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        again[recipe] = json.loads(result.stdout)
    spec = again["float32"]["spec"]
    assert spec["preprocessing"]["input_range"] == [-1.0, 1.0]
    assert spec["preprocessing"]["labels"] == ["e", "d", "c", "b", "a"]
    made = {Path(row["path"]).name for row in again["float16"]["rows"]}
    assert made == {"float32.tflite", "int8_ptq.tflite", "float32.onnx", "int8_ptq.onnx"}
    row = next(r for r in again["float32"]["rows"] if r["recipe"] == "float32")
    assert row["top1"] == rows["float32"]["top1"]
    integers = tmp_path / "my-int8.tflite"
    shutil.copyfile(tmp_path / rows["int8_ptq"]["path"], integers)
    result = run("export", integers, "--data", "given", cwd=tmp_path)
    assert result.returncode == 7
    assert "evaluate, bench, check, verify and diff" in result.stderr


@pytest.mark.slow
def test_layers_of_the_users_own_come_from_their_file(tmp_path):
    own = (
        "import tf_keras\n"
        "@tf_keras.saving.register_keras_serializable('mine')\n"
        "class Double(tf_keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    (tmp_path / "own.py").write_text(own)
    module = types.ModuleType("own")
    exec(own, module.__dict__)
    model = model_of(tmp_path / "given.h5", module.Double())
    image_folder(tmp_path / "given")
    argv = ("export", model, "--input-range", "0,1", "--data", "given", "--recipe", "float32")
    result = run(*argv, cwd=tmp_path)
    assert result.returncode == 7 and "--custom-objects FILE.py" in result.stderr
    result = run(*argv, "--custom-objects", "own.py", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    argv += ("--custom-objects", "own.py", "--json")
    assert json.loads(run(*argv, cwd=tmp_path).stdout)["reused"]
    (tmp_path / "own.py").write_text(own.replace("2 * x", "2.0 * x"))
    assert not json.loads(run(*argv, cwd=tmp_path).stdout)["reused"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("--arch", "mobilenet_v2", "--groups", "3"), 2, "mobilenet_v2 has no groups"),
        (("--arch", "vgg16", "--alpha", "0.5"), 2, "vgg16 has no alpha"),
        (("--arch", "mobilenetv2"), 2, "did you mean mobilenet_v2"),
        (("--arch", "shufflenet_v1", "--groups", "5", "--weights", "random"), 2, "groups"),
        (("--arch", "xception"), 6, "--weights imagenet, --weights random"),
    ],
)
def test_an_argument_that_the_network_does_not_have(argv, code, message, tmp_path):
    result = run("export", *argv, cwd=tmp_path)
    refused(result, code, message, tmp_path, {"build"})


def test_calibration_needs_images(tmp_path, model_files):
    result = run("export", model_files / "k2.h5", "--input-range", "0,1", cwd=tmp_path)
    refused(result, 2, "--data DIR", tmp_path)
    result = run("export", "--weights", "imagenet", cwd=tmp_path, MOBILEDEPLOY_WEIGHTS_URL="x")
    refused(result, 2, "--data DIR", tmp_path)


def test_the_demo_images_are_for_the_demo_weights_only(tmp_path, model_files):
    argv = ("export", model_files / "k2.h5", "--input-range", "0,1", "--data", "demo")
    refused(run(*argv, cwd=tmp_path), 2, "demo images", tmp_path)


def test_preprocessing_is_never_guessed(tmp_path, model_files):
    result = run("export", model_files / "k2.h5", "--recipe", "float32", cwd=tmp_path)
    refused(result, 2, "--input-range", tmp_path)


def image(path, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), "red").save(path, **save)


def folder_empty(given):
    given.mkdir()


def folder_one_class(given):
    for number in range(30):
        image(given / "only" / f"{number}.png")


def folder_of_text(given):
    for number in range(30):
        path = given / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no image")


@pytest.mark.parametrize(
    ("make", "message"),
    [(folder_empty, "given"), (folder_one_class, "one class"), (folder_of_text, "read")],
)
def test_a_folder_that_is_no_data_set(make, message, tmp_path, model_files):
    make(tmp_path / "given")
    argv = ("export", model_files / "k2.h5", "--input-range", "0,1", "--data", "given")
    refused(run(*argv, cwd=tmp_path), 7, message, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.h5", "absent.h5"),
        ("truncated.h5", "truncated.h5"),
        ("text.h5", "text.h5"),
        ("k2_lambda.h5", "--unsafe"),
        ("k2_weights.h5", "weights"),
    ],
)
def test_a_file_that_is_no_model(name, message, tmp_path, model_files):
    given = tmp_path / "given"
    shutil.copytree(model_files, given)
    (given / "truncated.h5").write_bytes((given / "k2.h5").read_bytes()[:9000])
    (given / "text.h5").write_text("no model")
    argv = ("export", given / name, "--input-range", "0,1", "--recipe", "float32")
    refused(run(*argv, cwd=tmp_path), 7, message, tmp_path)


MODEL_WITH_ERFINV = """
import sys, tensorflow as tf
class Classifier(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), tf.float32)])
    def __call__(self, image):
        return {"scores": tf.raw_ops.Betainc(a=tf.ones((1, 3)), b=tf.ones((1, 3)),
                                             x=tf.reduce_mean(image, (1, 2)))}
model = Classifier()
tf.saved_model.save(model, sys.argv[1], signatures=model.__call__)
"""


@pytest.mark.slow
def test_a_model_with_an_operator_that_the_format_lacks(tmp_path):
    given = tmp_path / "given"
    subprocess.run(
        [sys.executable, "-c", MODEL_WITH_ERFINV, given], check=True, capture_output=True
    )
    argv = ("export", given, "--input-range", "0,1", "--recipe", "float32", "--format", "tflite")
    refused(run(*argv, cwd=tmp_path), 7, "Betainc", tmp_path)


@pytest.mark.slow
def test_what_googles_metadata_cannot_say_is_a_warning_and_in_the_record(tmp_path, model_files):
    image_folder(tmp_path / "given")
    result = run(
        "export",
        model_files / "k2.h5",
        "--input-range",
        "0,1",
        "--data",
        "given",
        "--crop",
        0.875,
        "--recipe",
        "float32,int8_ptq",
        "--io",
        "uint8",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.endswith("[metadata-crop]")]
    assert "squeeze the whole image" in line
    names = {}
    for path in tmp_path.glob("build/*/*.json"):
        names[path.stem] = [d["name"] for d in json.loads(path.read_text())["warnings"]]
    message = [name for name, warnings in names.items() if "metadata-crop" in warnings]
    # The other files are not made for these consumers.
    assert message == ["int8_ptq.tflite"]
    assert {"float32.tflite", "float32.onnx"} < set(names)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [("int8x4_ptq", "it can do"), ("dynamic_int8", "float16, float32, int8_best, int8_ptq")],
)
def test_a_recipe_that_a_format_cannot_do(recipe, message, tmp_path):
    result = run("export", "--alpha", "0.25", "--recipe", recipe, "--format", "onnx", cwd=tmp_path)
    refused(result, 7, message, tmp_path)


def in_a_namespace(script, cwd):
    """Runs a shell script where mounts are private; skips where the kernel forbids it."""
    result = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], cwd=cwd, capture_output=True, text=True
    )
    namespaces.need(result)
    return result


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "given").mkdir()
    command = f"{sys.executable} -m mobiledeploy export --alpha 0.25 --res 96 --out given/out"
    script = f"mount -t tmpfs -o size=1m none given && mount -o remount,ro given && {command}"
    result = in_a_namespace(script, tmp_path)
    refused(result, 2, "read-only file system", tmp_path)


@pytest.mark.slow
def test_a_disk_that_fills_up(tmp_path):
    (tmp_path / "given").mkdir()
    command = f"{sys.executable} -m mobiledeploy export --alpha 0.25 --res 96 --out given/out"
    script = (
        f"mount -t tmpfs -o size=600k none given && {command}; code=$?; ls -A given; exit $code"
    )
    result = in_a_namespace(script, tmp_path)
    assert result.stdout == ""  # nothing is left on the small disk
    refused(result, 2, "no space left on device", tmp_path)


def test_a_killed_export_leaves_nothing_that_is_taken_for_an_artifact(tmp_path, model_files):
    image_folder(tmp_path / "given")
    argv = [sys.executable, "-m", "mobiledeploy", *own_model(model_files, "float32,int8_ptq")]
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("build/.*.staging/*.tflite")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.kill()
    remaining = list(tmp_path.glob("build/.*.staging"))
    assert len(remaining) == 1
    assert not list(tmp_path.glob("build/[!.]*/*.tflite"))
    assert run("bench", cwd=tmp_path).returncode == 2
    # The next export sweeps up, even one that is refused later on.
    result = run(*own_model(model_files, "float32"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not remaining[0].exists()


# The real networks.


@pytest.mark.slow
def test_the_person_detector(tmp_path, real_data):
    vww = real_data / "vww"
    argv = ("export", vww / "vww_96.h5", "--data", vww / "images.npz", "--input-range", "0,1")
    result = run(*argv, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {(r["recipe"], r["format"]): r for r in json.loads(result.stdout)["rows"]}
    for format_ in ("tflite", "onnx"):
        assert rows["float32", format_]["top1"] > 0.8
        assert rows["int8_best", format_]["top1"] >= rows["float32", format_]["top1"] - 0.015


@pytest.mark.slow
def test_a_published_weight_file_with_photos(tmp_path, real_data):
    imagenet = real_data / "imagenet"
    result = run(
        "export",
        "--alpha",
        "0.75",
        "--res",
        "224",
        "--weights",
        imagenet / "mobilenet_7_5_224_tf.h5",
        "--data",
        imagenet / "images",
        "--labels",
        imagenet / "labels.txt",
        "--json",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    rows = {(r["recipe"], r["format"]): r for r in json.loads(result.stdout)["rows"]}
    assert rows["float32", "tflite"]["top1"] > 0.8
    assert rows["float32", "onnx"]["agreement"] is None
    assert rows["int8_best", "tflite"]["agreement"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["k2.h5", "k2.keras", "k2_saved", "k3.keras", "k3_saved"])
def test_every_kind_of_model_file_goes_the_whole_way(name, tmp_path, model_files):
    image_folder(tmp_path / "given")
    result = run(
        "export",
        model_files / name,
        "--data",
        "given",
        "--input-range",
        "0,1",
        "--recipe",
        "all",
        "--json",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    made = {(row["recipe"], row["format"]) for row in rows}
    known = [RECIPES.load(recipe).RECIPE for recipe in RECIPES.names()]
    assert made == {(recipe.name, f) for recipe in known for f in recipe.formats}
    assert Path(tmp_path / rows[0]["path"]).is_file()


@pytest.mark.slow
def test_careless_calibration_visibly_loses_on_the_demo_data(tmp_path):
    """The demo data is hard enough to show it: ranges from noise instead of from images."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 96, 96, 3), np.uint8)
    np.savez(tmp_path / "noise.npz", images=noise, labels=np.arange(100) % 12)
    argv = ("export", "--alpha", "0.5", "--res", "96", "--format", "tflite", "--json")
    careful = json.loads(run(*argv, cwd=tmp_path).stdout)["rows"]
    careless = json.loads(
        run(*argv, "--data", "noise.npz", "--out", "careless", cwd=tmp_path).stdout
    )["rows"]
    top1 = {}
    for name, rows in (("careful", careful), ("careless", careless)):
        path = next(row["path"] for row in rows if row["recipe"] == "int8_best")
        result = run("evaluate", path, "--data", "demo", "--json", cwd=tmp_path)
        top1[name] = json.loads(result.stdout)["evaluations"][0]["top1"]
    assert top1["careless"] < top1["careful"] - 0.03
