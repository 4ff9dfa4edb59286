"""The conversion child: what it makes equals the float model, and how it refuses and dies."""

import dataclasses
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core import preprocessing
from mobiledeploy.core.errors import DeployError, DeviceError, InputError
from mobiledeploy.core.plugins import FORMATS, PASSES, RECIPES, dataset
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import (
    DataRef,
    ModelInput,
    ModelSpec,
    Preprocessing,
    Signature,
    Source,
    Weights,
)
from mobiledeploy.graphs import quantized
from mobiledeploy.steps import conversion_process, model_files
from tests import namespaces
from tests.conftest import REPOSITORY, few_images
from tests.lite import Lite
from tests.variants import slow_but

IMAGES_OF_64 = Signature(
    (ModelInput("image", "image", (64, 64, 3), Preprocessing((-1.0, 1.0))),), ()
)
SIZE = (65, 97)  # odd, so that SAME must round up
GOLDEN = (0, 1, 2)


class Listener:
    """A Reporter that remembers."""

    def __init__(self):
        self.warnings, self.steps, self.said = [], [], []

    def progress(self, what, result, total):
        self.steps.append((what, result, total))

    def warn(self, warning):
        self.warnings.append(warning)

    def say(self, line):
        self.said.append(line)


def request(folder, **changes):
    spec = ModelSpec(
        "v1",
        "mobilenet_v1",
        "mobilenet_v1",
        {"alpha": 0.25, "variant": "shallow"},
        SIZE,
        12,
        Preprocessing((-1.0, 1.0)),
        Weights("random", "", pinned=False),
    )
    jobs = (("float32", "tflite"), ("float32", "onnx"))
    plain = conversion_process.ConversionRequest(
        Source(spec),
        jobs,
        DataRef("demo", "validation", SIZE),
        GOLDEN,
        "int8",
        "logits",
        str(folder),
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """(files, the end, the warnings) of float and int8 files that end in logits, at an odd size."""
    folder = tmp_path_factory.mktemp("odd")
    jobs = (("float32", "tflite"), ("float32", "onnx"), ("int8_ptq", "tflite"))
    listener = Listener()
    files, finished = conversion_process.produce(
        request(folder, jobs=jobs, io="float"), folder / "log", listener
    )
    return {(f.recipe, f.format): f for f in files}, finished, listener


def images():
    samples = dataset("demo").open("demo", "validation", resolution=SIZE, labels=())
    plain = Preprocessing((-1.0, 1.0))
    return [preprocessing.prepare(samples.image(i), plain, SIZE) for i in GOLDEN]


def run(file):
    """The file's answers for the golden images, on the engines themselves."""
    data = Path(file.path).read_bytes()
    facts = FORMATS.load(file.format).inspect(data)
    feeds = [preprocessing.to_input(x, facts.inputs[0], facts.layout) for x in images()]
    if file.format == "onnx":
        from onnxruntime import InferenceSession

        session = InferenceSession(data)
        return np.concatenate([session.run(None, {"image": feed})[0] for feed in feeds])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    rows = []
    for feed in feeds:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], feed)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(rows)


@pytest.mark.slow
@pytest.mark.parametrize("format_", slow_but(["tflite", "onnx"], "tflite"))
def test_float_files_answer_as_the_keras_model_at_an_odd_size(odd, format_):
    files, finished, _ = odd
    reference = np.asarray(finished.reference, np.float32)
    assert reference.shape == (len(GOLDEN), 12)
    assert np.ptp(reference) > 0.01
    np.testing.assert_allclose(run(files["float32", format_]), reference, atol=1e-4, rtol=1e-4)


def test_asked_ends_are_kept(odd):
    files, _, _ = odd
    for (_, format_), file in files.items():
        facts = FORMATS.load(format_).inspect(Path(file.path).read_bytes())
        assert facts.outputs[0].dtype == facts.inputs[0].dtype == "float32"
        assert facts.logits == "scores"
        assert "SOFTMAX" not in {layer.op.upper() for layer in facts.layers}


def test_progress_is_told_and_nothing_warned_of(odd):
    _, finished, listener = odd
    assert ("converting", 3, 3) in listener.steps
    # Each ends: a log of it would otherwise name a step that is long over.
    last = {what: (done, total) for what, done, total in listener.steps}
    assert {"opening the model", "writing the float model", "reading calibration images"} < set(
        last
    )
    assert all(done == total for done, total in last.values())
    assert listener.warnings == listener.said == []
    assert finished.calibration_images == 200


def image_files(folder, count):
    """A folder of two classes, from which half is calibration at most."""
    random = np.random.default_rng(0)
    for split in ("calibration", "validation"):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return folder


def best(tmp_path, count):
    listener = Listener()
    spec = dataclasses.replace(request(tmp_path).source.spec, resolution=(64, 64))
    data = str(image_files(tmp_path / "images", count))
    options = request(
        tmp_path,
        source=Source(spec),
        jobs=(("int8_best", "tflite"), ("int8_best", "onnx"), ("float32", "tflite")),
        data=DataRef(data, "validation", (64, 64)),
        golden=(0,),
    )
    files, _ = conversion_process.produce(options, tmp_path / "log", listener)
    return files, listener


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """The folder, the files and what was said, with 40 images."""
    folder = tmp_path_factory.mktemp("forty")
    return folder, *best(folder, 40)


def test_the_best_of_a_recipe_is_chosen_on_images_held_back(forty):
    _, files, listener = forty
    tried = files[0].tried
    assert files[1].tried == tried
    assert [one.passes for one in tried] == list(RECIPES.load("int8_best").RECIPE.passes)
    assert {one.images for one in tried} == {8}
    assert min(one.divergence for one in tried) <= tried[0].divergence
    assert listener.warnings == []
    assert ("choosing int8_best", len(tried), len(tried)) in listener.steps
    codes, line = listener.said
    assert codes.startswith("input codes: ")
    assert line.startswith("int8_best: ")
    assert "the best of 4 alternatives on 8 images held back" in line


@pytest.mark.slow
def test_what_was_chosen_is_made_with_all_images(tmp_path, forty):
    folder, files, _ = forty
    chosen = min(files[0].tried, key=lambda one: one.divergence)
    spec = dataclasses.replace(request(tmp_path).source.spec, resolution=(64, 64))
    data = DataRef(str(folder / "images"), "validation", (64, 64))
    images = conversion_process.calibration_samples(data, spec, IMAGES_OF_64, SILENT)
    assert len(images) == 40
    recipe = RECIPES.load("int8_best").RECIPE
    plain = conversion_process._Basis(
        Path(files[2].path).read_bytes(), IMAGES_OF_64.inputs, images, spans=False
    )
    basis = conversion_process._moved(plain)
    assert basis.inputs[0].preprocessing == files[0].inputs[0].preprocessing
    extents = conversion_process._extents(Signature(basis.inputs, ()))
    quantized_graph = quantized.start(basis.floats, recipe, request(tmp_path).io, basis.images)
    for name in chosen.passes:
        quantized_graph = quantized.spanning(quantized_graph, extents)
        quantized_graph = PASSES.load(name).apply(quantized_graph, basis.images)
    assert (
        FORMATS.load("tflite").seal(quantized.integers(quantized_graph), ["image"], ["scores"])
        == Path(files[0].path).read_bytes()
    )


def test_with_few_images_nothing_is_chosen_and_it_is_said(tmp_path):
    files, listener = best(tmp_path, 6)
    assert files[0].tried == ()
    names = [warning.name for warning in listener.warnings]
    assert names == ["few-calibration-images", "no-choice"]


def calibrated_on(tmp_path, images, **preprocessing_):
    """What is said of calibration images, uint8 [N, H, W, 3], before anything is made."""
    place = tmp_path / "data.npz"
    np.savez(place, images=images, labels=np.arange(len(images)) % 2)
    spec = dataclasses.replace(
        request(tmp_path).source.spec,
        resolution=(64, 64),
        preprocessing=Preprocessing(**({"input_range": (-1.0, 1.0)} | preprocessing_)),
    )
    listener = Listener()
    data = DataRef(str(place), "validation", (64, 64))
    image = dataclasses.replace(IMAGES_OF_64.inputs[0], preprocessing=spec.preprocessing)
    signature = dataclasses.replace(IMAGES_OF_64, inputs=(image,))
    samples = conversion_process.calibration_samples(data, spec, signature, listener)
    return samples.arrays[0], listener.warnings


def noise(count):
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_copies_of_calibration_images_count_once_and_it_is_said(tmp_path):
    images, warnings = calibrated_on(tmp_path, np.tile(noise(1), (100, 1, 1, 1)))
    assert len(images) == 1
    assert [warning.name for warning in warnings] == [
        "alike-calibration-images",
        "few-calibration-images",
    ]
    assert "the 20 calibration images are copies of 1" in warnings[0].message
    assert "come from 1 image only" in warnings[1].message


@pytest.mark.parametrize("std", [(1.0, 1.0, 1.0), (0.25, 0.25, 0.25)])
def test_calibration_images_that_hardly_differ_are_said(tmp_path, std):
    alike = np.full((100, 64, 64, 3), 128, np.uint8) + noise(100) // 128
    images, warnings = calibrated_on(tmp_path, alike, std=std)
    assert len(images) == 20
    assert [warning.name for warning in warnings] == ["alike-calibration-images"]
    assert "all alike" in warnings[0].message


def test_calibration_images_that_differ_give_no_warning(tmp_path):
    images, warnings = calibrated_on(tmp_path, noise(100) // 8)
    assert (len(images), warnings) == (20, [])


@pytest.mark.slow
def test_images_of_another_range_than_the_training_had_are_said(tmp_path):
    """The demo weights, trained on -1,1, are told 0,255."""
    spec = request(tmp_path).source.spec
    wrong = dataclasses.replace(
        spec,
        arguments={"alpha": 0.25},
        resolution=(64, 64),
        preprocessing=Preprocessing((0.0, 255.0)),
    )
    weights = str(REPOSITORY / "models" / "weights" / "mobilenet_v1_0.25.h5")
    message = {}
    for name, own in (
        ("wrong", wrong),
        ("right", dataclasses.replace(wrong, preprocessing=Preprocessing((-1.0, 1.0)))),
    ):
        listener = Listener()
        options = request(
            tmp_path,
            source=Source(own, weights=weights),
            jobs=(("int8_ptq", "tflite"),),
            data=DataRef("demo", "validation", (64, 64)),
        )
        conversion_process.produce(options, tmp_path / "log", listener)
        message[name] = listener.warnings
    assert message["right"] == []
    (warning,) = message["wrong"]
    assert warning.name == "unlike-training"
    assert "scaled to 0,255" in warning.message
    assert "BatchNorm fit pixels of -1,1" in warning.message
    assert warning.advice.startswith("--input-range -1,1")


@pytest.mark.parametrize("kind", ["k2.h5", "k2.keras", "k3.keras", "k2_saved"])
def test_nan_weights_are_refused_by_the_name_of_their_layer(tmp_path, kind):
    import keras
    import tf_keras

    library = keras if kind.startswith("k3") else tf_keras
    image = library.layers.Input((32, 32, 3))
    x = library.layers.Conv2D(4, 3, name="broken")(image)
    scores = library.layers.Dense(2, name="preds")(library.layers.GlobalAveragePooling2D()(x))
    model = library.Model(image, scores)
    kernel, bias = model.get_layer("broken").get_weights()
    kernel[0, 0, 0, 0] = np.inf
    model.get_layer("broken").set_weights([kernel, bias])
    path = tmp_path / kind
    model.save(path)
    spec = dataclasses.replace(request(tmp_path).source.spec, card=None)
    options = request(
        tmp_path,
        source=Source(spec, file=model_files.detect(path)),
        data=DataRef("demo", "validation", (32, 32)),
    )
    with pytest.raises(InputError, match=r"broken.*NaN or infinite"):
        conversion_process.produce(options, tmp_path / "log", Listener())


def of_two_products(folder, factor):
    """A request for float16 files of a network whose values between two products are large.

    Its second product divides them by `factor` again.
    """
    b, folder = Lite(), Path(folder)
    image, random = b.input((1, 8, 8, 3)), np.random.default_rng(0)
    for weights in (
        factor * random.uniform(1, 2, (4, 1, 1, 3)),
        random.uniform(1, 2, (5, 1, 1, 4)),
    ):
        scaled = weights if weights.shape[0] == 4 else weights / factor
        image = b.op(
            "CONV_2D",
            [image, b.constant(scaled, np.float32), b.constant(np.zeros(len(scaled), np.float32))],
            (1, 8, 8, len(scaled)),
            options="Conv2DOptions",
            strideH=1,
            strideW=1,
            dilationHFactor=1,
            dilationWFactor=1,
        )
    axes = b.constant((1, 2), np.int32)
    path = folder / "two.tflite"
    path.write_bytes(b.file(b.op("MEAN", [image, axes], (1, 5), options="ReducerOptions")))
    spec = dataclasses.replace(request(folder).source.spec, card=None, resolution=(8, 8), classes=5)
    return request(
        folder,
        source=Source(spec, file=model_files.detect(path)),
        jobs=(
            ("float32", "onnx"),
            ("float16", "tflite"),
            ("float16", "onnx"),
            ("float16_full", "tflite"),
        ),
        data=DataRef("demo", "validation", (8, 8)),
        output="model",
    )


@pytest.mark.parametrize(
    ("factor", "large", "fails"), [(2e3, False, False), (3e4, False, True), (5e4, True, True)]
)
def test_values_that_leave_the_range_of_half_are_not_computed_in_it(factor, large, fails, tmp_path):
    """Weights are up to twice the factor, the values behind them up to six times."""
    listener = Listener()
    files, finished = conversion_process.produce(
        of_two_products(tmp_path, factor), tmp_path / "log", listener
    )
    made = [(file.recipe, file.format) for file in files]
    assert made[:2] == [("float32", "onnx"), ("float16", "tflite")]
    assert made[2:] == ([] if fails else [("float16", "onnx"), ("float16_full", "tflite")])
    said = [warning.message for warning in listener.warnings if warning.name == "beyond-float16"]
    expected = [f"{recipe} keeps t1 in float32" for recipe in ("float16", "float16_full")]
    assert [message.split(":")[0] for message in said] == expected * large
    names = ["float16.onnx", "float16_full.tflite"]
    assert [one.what for one in finished.failed] == names * fails
    for one in finished.failed:
        assert "would compute t3 in float16, whose largest number is 65504" in one.message
    if platform.machine() == "x86_64":
        unseen = [one.message for one in listener.warnings if one.name == "half-not-seen"]
        assert [message.split()[0] for message in unseen] == ([] if fails else names)


@pytest.mark.slow
def test_the_same_request_gives_the_same_bytes(cold, converted, tmp_path):
    arguments = {"alpha": 0.25, "variant": "shallow"}
    spec = request(tmp_path).source.spec
    spec = dataclasses.replace(spec, arguments=arguments, resolution=(64, 64))
    again = request(
        tmp_path,
        source=Source(spec),
        jobs=(("int8_ptq", "tflite"), ("int8_ptq", "onnx")),
        data=few_images(tmp_path / "images.npz"),
        golden=(0,),
        output="softmax",
    )
    files, _ = conversion_process.produce(again, tmp_path / "log", Listener())
    for file in files:
        assert Path(file.path).read_bytes() == converted[file.recipe, file.format]


@pytest.mark.slow
def test_an_opened_model_is_not_opened_again_and_gives_the_same(tmp_path):
    opened = tmp_path / "opened"
    opened.mkdir()
    ends = []
    for name in ("first", "second"):
        folder, listener = tmp_path / name, Listener()
        folder.mkdir()
        again = request(folder, jobs=(("int8_ptq", "tflite"),), opened=str(opened))
        (file,), finished = conversion_process.produce(again, folder / "log", listener)
        was_opened = any(what == "opening the model" for what, *_ in listener.steps)
        ends.append((was_opened, Path(file.path).read_bytes(), finished, listener.warnings))
    assert [one[0] for one in ends] == [True, False]
    assert ends[0][1:] == ends[1][1:]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    """A small tmpfs of its own, in a user namespace."""
    code = (
        "import pathlib, sys\n"
        "from mobiledeploy.core import records\n"
        "p = pathlib.Path(sys.argv[1])\n"
        'try: records.write_atomic(p / "big", bytes(10**6))\n'
        "except Exception as e: print(type(e).__name__, e); print(list(p.iterdir()))"
    )
    script = 'mount -t tmpfs -o size=200k none "$1" && exec "$0" -c "$2" "$1"'
    argv = ["unshare", "-Urm", "sh", "-c", script, sys.executable, str(tmp_path), code]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    namespaces.need(result)
    assert result.stdout.splitlines() == [
        f"UsageError cannot write in {tmp_path}: no space left on device; free some space",
        "[]",
    ]


def kill_the_next_child(number):
    """Sends a signal to the first child process that is there from now on, when it computes."""
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    others = set(own.read_text().split())

    def kill_soon():
        for _ in range(600):
            time.sleep(0.05)
            children = [child for child in own.read_text().split() if child not in others]
            if children:
                time.sleep(0.5)
                os.kill(int(children[0]), number)
                return

    thread = threading.Thread(target=kill_soon)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_child_is_an_error_and_not_a_hang(cold, number, tmp_path):
    """Nobody's fault but the machine's, whatever TensorFlow has printed before."""
    thread = kill_the_next_child(number)
    with pytest.raises(DeviceError) as error_info:
        conversion_process.produce(request(tmp_path), tmp_path / "log", Listener())
    thread.join()
    assert error_info.value.message.startswith(f"the conversion was killed by signal {int(number)}")
    assert error_info.value.hint in ("close other programs and try again", "try again")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_crashes_names_the_file_that_it_read(cold, number, tmp_path):
    spec = request(tmp_path).source.spec
    options = request(tmp_path, source=Source(spec, weights=str(tmp_path / "odd.h5")))
    thread = kill_the_next_child(number)
    name = number.name
    with pytest.raises(InputError, match=rf"the conversion crashed on odd.h5 \({name}\); the file"):
        conversion_process.produce(options, tmp_path / "log", Listener())
    thread.join()


def test_a_child_that_crashes_on_nothing_is_a_defect(cold, tmp_path):
    thread = kill_the_next_child(signal.SIGSEGV)
    with pytest.raises(DeployError, match=r"the conversion crashed \(SIGSEGV\)") as error_info:
        conversion_process.produce(request(tmp_path), tmp_path / "log", Listener())
    thread.join()
    assert error_info.value.exit_code == 70


def test_weights_of_another_alpha_are_refused_by_alpha(tmp_path, real_data):
    file = real_data / "imagenet" / "mobilenet_7_5_224_tf.h5"
    options = request(tmp_path, source=Source(request(tmp_path).source.spec, weights=str(file)))
    with pytest.raises(InputError, match=r"--alpha 0\.75"):
        conversion_process.produce(options, tmp_path / "log", Listener())
    assert list(tmp_path.glob("*.tflite")) == []


class Broken(Exception):
    """What stops a listener."""


def trained(tmp_path, name, listener):
    """int8_qat of a small network on the built-in images, in a folder of its own."""
    spec = dataclasses.replace(request(tmp_path).source.spec, resolution=(32, 32))
    folder = tmp_path / name
    folder.mkdir()
    options = request(
        folder,
        source=Source(spec),
        jobs=(("int8_qat", "tflite"),),
        golden=(0,),
        data=DataRef("demo", "held", (32, 32)),
        unfinished=str(tmp_path / "unfinished"),
    )
    (file,), _ = conversion_process.produce(options, folder / "log", listener)
    return Path(file.path).read_bytes()


@pytest.mark.slow
def test_a_training_that_is_broken_off_goes_on_and_ends_where_an_unbroken_one_does(tmp_path):
    class Breaks(Listener):
        def progress(self, what, result, total):
            if "part 3" in what and result > 5:
                raise Broken

    with pytest.raises(Broken):
        trained(tmp_path, "broken", Breaks())
    assert [p.name for p in (tmp_path / "unfinished").iterdir()] == ["int8_qat-2.npz"]
    listener = Listener()
    resumed = trained(tmp_path, "resumed", listener)
    assert "int8_qat: training goes on after part 2 of 4" in listener.said
    assert not any("part 2" in what for what, _, _ in listener.steps)
    (tmp_path / "unfinished" / "int8_qat-4.npz").unlink()
    assert trained(tmp_path, "unbroken", Listener()) == resumed


def test_training_images_are_read_once_and_few_are_said(tmp_path):
    spec = dataclasses.replace(request(tmp_path).source.spec, resolution=(64, 64))
    data = DataRef(str(image_files(tmp_path / "images", 10)), "validation", (64, 64))
    listener = Listener()
    with pytest.raises(InputError, match="has no images for train"):
        conversion_process.training_images(data, spec, tmp_path, listener)
    (tmp_path / "images" / "calibration").rename(tmp_path / "images" / "train")
    seen = conversion_process.training_images(data, spec, tmp_path, listener)
    assert seen.shape == (10, 64, 64, 3)
    assert np.ptp(seen) > 1
    assert [warning.name for warning in listener.warnings] == ["few-training-images"]


def test_layers_that_are_kept_float_are_so_in_both_formats(tmp_path):
    spec = dataclasses.replace(request(tmp_path).source.spec, resolution=(64, 64))
    data = DataRef(str(image_files(tmp_path / "images", 20)), "validation", (64, 64))
    options = request(
        tmp_path,
        source=Source(spec),
        jobs=(("int8_ptq", "tflite"), ("int8_ptq", "onnx")),
        data=data,
        golden=(0,),
        keep_float=("conv_pw_3", "conv_preds"),
    )
    files, _ = conversion_process.produce(options, tmp_path / "log", Listener())
    kept = {
        file.format: FORMATS.load(file.format).float_layers(
            FORMATS.load(file.format).inspect(Path(file.path).read_bytes())
        )
        for file in files
    }
    assert kept["tflite"] == ("CONV_2D", "CONV_2D")
    assert sorted(op for op in kept["onnx"] if op in ("Conv", "Gemm")) == ["Conv", "Conv"]
    assert len(files[0].kept) == 2
