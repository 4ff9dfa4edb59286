import json
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.sources import _keras_files as keras
from tests.conftest import reconfigured
from tests.hostile.keras_files import NO_WEIGHTS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("k2.h5", ("h5", "tf_keras", "model")),
        ("k2.keras", ("keras", "tf_keras", "model")),
        ("k2_weights.h5", ("h5", "tf_keras", "weights")),
        ("k2_ops.keras", ("keras", "tf_keras", "model")),
        ("k3.h5", ("h5", "keras3", "model")),
        ("k3.keras", ("keras", "keras3", "model")),
        ("k3_ops.keras", ("keras", "keras3", "model")),
        ("k3.weights.h5", ("h5", "keras3", "weights")),
    ],
)
def test_a_file_is_what_its_content_says(model_files, tmp_path, name, expected):
    file = keras.detect(model_files / name)
    assert (file.format, file.framework, file.content) == expected
    assert file.sha256 == records.sha256(model_files / name)
    assert file.code == ()
    renamed_file = tmp_path / "model.bin"
    renamed_file.write_bytes((model_files / name).read_bytes())
    assert keras.detect(renamed_file).framework == file.framework


def test_weights_show_the_number_of_classes(model_files):
    assert keras.detect(model_files / "k2_weights.h5").classes == 5


@pytest.mark.parametrize("name", ["k2_lambda.h5", "k2_lambda.keras", "k3_lambda.h5"])
def test_a_lambda_layer_is_named(model_files, name):
    assert keras.detect(model_files / name).code[0] == "Lambda layer 'doubled'"


def test_detection_imports_no_framework(model_files):
    names = ["k2_lambda.h5", "k2_lambda.keras", "k3_lambda.keras", "k2_lambda_saved"]
    program = (
        "import sys; from pathlib import Path; from mobiledeploy.steps.model_files import detect\n"
        "from mobiledeploy.core.errors import InputError\n"
        "for name in sys.argv[1:]:\n"
        "    try: detect(Path(name)); print('loaded', name)\n"
        "    except InputError as error: print(error)\n"
        "print(sorted({'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)))"
    )
    paths = [str(model_files / name) for name in names]
    process = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    *lines, imported = process.stdout.splitlines()
    assert len(lines) == 4
    assert all("Lambda layer 'doubled'" in line and "--unsafe" in line for line in lines)
    assert imported == "[]"


def test_other_kinds_of_files_are_not_claimed(tmp_path):
    other = tmp_path / "x.tflite"
    other.write_bytes(b"TFL3" * 10)
    assert keras.detect(other) is None
    np.savez(tmp_path / "x.npz", a=1)
    assert keras.detect(tmp_path / "x.npz") is None
    assert keras.detect(tmp_path) is None


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"])
def test_a_file_with_a_models_suffix_that_is_not_a_model_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is") as excinfo:
        keras.detect(tmp_path / name)
    assert "\n" not in str(excinfo.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.h5 cannot be read: No such file"):
        keras.detect(tmp_path / "nowhere.h5")


@pytest.mark.parametrize("name", ["k2.h5", "k2_weights.h5", "k3.keras", "k2.keras"])
def test_no_truncated_file_is_accepted(model_files, tmp_path, name):
    whole = (model_files / name).read_bytes()
    path = tmp_path / name
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=path.name):
            keras.detect(path)


def hdf5(path, build, **attributes):
    with h5py.File(path, "w") as file:
        build(file)
        file.attrs.update({"keras_version": "2.4.0", "layer_names": ["a"]} | attributes)
        file.require_group("a").attrs["weight_names"] = []
    return path


def test_hdf5_of_another_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["temperatures"] = np.ones(3)
    with pytest.raises(InputError, match=r"neither a Keras model nor Keras weights"):
        keras.detect(tmp_path / "x.h5")


def absurd(file):
    file.create_dataset("a/w", (10**6, 10**6), "f4", chunks=(100, 100))


def elsewhere(file):
    file.create_dataset("a/w", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "w", (4,))
    file.create_virtual_dataset("w", layout)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (absurd, "GiB of weights"),
        (elsewhere, "in another file"),
        (virtual, "in another file"),
        (lambda file: file.__setitem__("w", h5py.ExternalLink("other.h5", "/w")), "lead out"),
        (lambda file: file.__setitem__("w", h5py.SoftLink("/a")), "lead out"),
        (lambda file: file.__setitem__("loop", file["/"]), "contain themselves"),
    ],
)
def test_references_to_other_files_and_endless_data_are_refused(tmp_path, build, message):
    with pytest.raises(InputError, match=message):
        keras.detect(hdf5(tmp_path / "x.h5", build))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"model_config": "{" * 10}, "not JSON"),
        ({"model_config": '{"a":' * 12_000}, "too deep"),
        ({"model_config": 3}, "broken HDF5"),
        ({"keras_version": "two"}, "broken HDF5"),
        ({"layer_names": ["nowhere"]}, "broken HDF5"),
    ],
)
def test_broken_attributes_are_one_line(tmp_path, attributes, message):
    path = hdf5(tmp_path / "x.h5", lambda file: None, **attributes)
    with pytest.raises(InputError, match=message) as excinfo:
        keras.detect(path)
    assert "\n" not in str(excinfo.value)


def archive(path, version="3.15.1", config=None, extra=(), weights="model.weights.h5"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("config.json", json.dumps(config or {"class_name": "Functional"}))
        if weights not in dict(extra):
            file.writestr(weights, NO_WEIGHTS)
        for name, content in extra:
            file.writestr(name, content)
    return path


def test_a_zip_with_duplicates_outside_paths_or_another_keras_is_refused(tmp_path):
    path = tmp_path / "x.keras"
    assert keras.detect(archive(path)).framework == "keras3"
    for name in ("../x", "/etc/x", "a/../../x", "c:\\x"):
        with pytest.raises(InputError, match=r"would land outside"):
            keras.detect(archive(path, extra=[(name, "")]))
    with pytest.raises(InputError, match=r"'4.0'"):
        keras.detect(archive(path, version="4.0"))
    with pytest.raises(InputError, match=r"None"):
        keras.detect(archive(path, version=None))
    with pytest.raises(InputError, match=r"not that of a Keras model"):
        keras.detect(archive(path, config=[1]))
    with pytest.warns(UserWarning, match=r"Duplicate"):
        archive(path, extra=[("config.json", "{}")])
    with pytest.raises(InputError, match=r"two files of the same name"):
        keras.detect(path)


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    path = archive(tmp_path / "x.keras", extra=[("model.weights.h5", bytes(1 << 22))])
    assert path.stat().st_size < 1 << 14
    monkeypatch.setattr(keras, "LARGEST_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"would inflate"):
        keras.detect(path)


def test_weights_in_a_zip_are_checked(tmp_path):
    inner = hdf5(tmp_path / "w.h5", elsewhere).read_bytes()
    path = archive(tmp_path / "x.keras", extra=[("model.weights.h5", inner)])
    with pytest.raises(InputError, match=r"in another file"):
        keras.detect(path)


def test_weights_in_another_format_are_refused(tmp_path):
    """Keras would load them without a check of ours."""
    with pytest.raises(InputError, match=r"it has no model\.weights\.h5"):
        keras.detect(archive(tmp_path / "x.keras", weights="model.weights.npz"))


@pytest.mark.parametrize("depth", [140, 160, 480, 900])
def test_a_deep_configuration_is_one_line(tmp_path, depth):
    config = []
    for _ in range(depth):
        config = [config]
    path = archive(tmp_path / "x.keras", config={"class_name": "Functional", "config": config})
    if depth < 150:
        assert keras.detect(path).code == ()
        return
    with pytest.raises(InputError, match=r"nested too deeply"):
        keras.detect(path)


@pytest.mark.parametrize(
    ("disguise", "message"),
    [
        ({"module": "evil", "class_name": "Evil", "registered_name": "keras>Evil"}, "keras>Evil"),
        ({"module": "keras", "class_name": "layers.Lambda"}, "layers.Lambda"),
        ({"module": "keras.layers", "class_name": "X", "registered_name": "Lambda"}, "Lambda"),
    ],
)
def test_a_disguised_layer_is_named(model_files, tmp_path, disguise, message):
    """Keras 2 finds the class of each of them: it imports the module, or follows the dots."""
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(model_files / "k2.keras") as whole:
        config = json.loads(whole.read("config.json"))
    config["config"]["layers"][1].update(disguise)
    reconfigured(model_files / "k2.keras", path, config)
    assert any(message in result for result in keras.detect(path).code)


def test_custom_losses_are_ignored_since_they_are_not_loaded(tmp_path):
    loss = {"class_name": "function", "config": "mine", "module": "my.losses"}
    model = {"class_name": "Functional", "module": "keras.src.models.functional"}
    inner = model | {"compile_config": {"loss": loss}}
    config = model | {"compile_config": {"loss": loss}, "config": {"layers": [inner]}}
    assert keras.detect(archive(tmp_path / "x.keras", config=config)).code == ()
    config = model | {"config": {"layers": [model | {"build_config": loss}]}}
    assert keras.detect(archive(tmp_path / "x.keras", config=config)).code != ()


def test_published_files_are_accepted(real_data):
    model = keras.detect(real_data / "vww" / "vww_96.h5")
    assert (model.framework, model.content, model.code) == ("tf_keras", "model", ())
    weights = keras.detect(real_data / "imagenet" / "mobilenet_7_5_224_tf.h5")
    assert (weights.framework, weights.content, weights.classes) == ("tf_keras", "weights", 1000)
