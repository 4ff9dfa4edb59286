"""Archives of torch.export as models, converted in the environment of `doctor --torch`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.types import ModelSpec, Preprocessing, Source, Weights
from mobiledeploy.graphs import execution
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources import torch
from mobiledeploy.steps import model_files
from mobiledeploy.verbs import analyze
from tests.hostile import pt2_files
from tests.hostile.files import touched
from tests.hostile.pt2_files import UNREAD
from tests.networks import answers

NETWORKS = Path(__file__).with_name("torch_networks.py")


@pytest.fixture(scope="session")
def written(torch_python, tmp_path_factory):
    """The folder that torch_networks.py has filled."""
    folder = tmp_path_factory.mktemp("torch")
    process = subprocess.run(
        [torch_python, "-I", "-P", NETWORKS, folder], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return folder


def source(path, resolution=None):
    file = model_files.detect(path)
    spec = ModelSpec(
        "own",
        None,
        "torch",
        {},
        (0, 0),
        0,
        Preprocessing((-1.0, 1.0)),
        Weights("own", file.sha256, pinned=False),
    )
    return Source(spec, file, resolution=resolution)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(pt2_files.archive(tmp_path))
    return path


def test_without_its_environment_the_command_for_it_is_named(good, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"mobiledeploy doctor --torch") as excinfo:
        torch.open(source(good))
    assert excinfo.value.exit_code == 6


def test_a_pt2_that_changed_after_the_check_is_refused(good, torch_python):
    result = source(good)
    good.write_bytes(good.read_bytes() + b"\0")
    with pytest.raises(InputError, match="changed while"):
        torch.open(result)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04broken", b"text"])
def test_another_file_with_the_suffix_is_refused(tmp_path, content):
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pt2 is (a broken|not an archive)"):
        model_files.detect(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_archive_is_refused(good, share):
    content = good.read_bytes()
    good.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="broken"):
        model_files.detect(good)


def test_its_layers_are_counted_in_the_exported_file(good):
    with pytest.raises(InputError, match=r"export it, and analyze the float32\.tflite"):
        analyze.analyze(good)


def test_the_name_of_the_file_does_not_matter(good):
    other = good.rename(good.with_suffix(".model"))
    assert model_files.detect(other).format == "pt2"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "softmax", "any_batch", "varied", "varied_any_batch"])
def test_the_float_tflite_answers_as_torch_does(written, name):
    images, theirs = np.load(written / "images.npy"), np.load(written / f"{name}.npy")
    model = torch.open(source(written / f"{name}.pt2"))
    assert [end.shape for end in model.inputs] == [(32, 32, 3)]
    assert model.ends_in_softmax() == (name == "softmax")
    lite = model.floats("model")
    graph = Graph(lite)
    assert graph.shape(graph.inputs[0]) == (1, 32, 32, 3)
    # Of a network that ends in a softmax, those before it.
    ours, own = execution.logits(model.floats("model"), images), answers(model, images)
    if name == "softmax":
        theirs = np.load(written / "small.npy")
    assert np.abs(own - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.slow
def test_the_same_file_gives_the_same_bytes(written):
    first, second = (torch.open(source(written / "small.pt2")).floats("model") for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_another_resolution_is_refused(written):
    with pytest.raises(UsageError, match="32x32 only"):
        torch.open(source(written / "small.pt2", (64, 64)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("batch_of_two", "a fixed batch of 2"),
        ("training", "in training mode"),
        ("wide", r"gives \[1, 4, 32, 32\]"),
        ("any_size", "not a plain size|any height and width"),
    ],
)
def test_a_network_that_is_not_a_classifier_is_refused(written, name, message):
    with pytest.raises(InputError, match=message):
        model_files.detect(written / f"{name}.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("hostile", UNREAD, ids=lambda hostile: hostile.name)
def test_members_that_are_not_needed_never_reach_torch(hostile, torch_python, tmp_path):
    canary = tmp_path / "canary"
    model = torch.open(source(hostile.write(tmp_path, canary)))
    assert answers(model, np.zeros((1, 4, 4, 3), np.float32)).shape == (1, 2)
    assert not touched(canary)


@pytest.mark.slow
def test_a_converter_error_is_one_line(torch_python, tmp_path):
    def change(program, *_):
        # A convolution of groups that its channels do not have.
        nodes = program["graph_module"]["graph"]["nodes"]
        for name, value in (
            ("bias", {"as_none": True}),
            ("stride", {"as_ints": [1, 1]}),
            ("padding", {"as_ints": [0, 0]}),
            ("dilation", {"as_ints": [1, 1]}),
            ("groups", {"as_int": 7}),
        ):
            nodes[0]["inputs"].append({"name": name, "arg": value, "kind": 1})

    path = tmp_path / "model.pt2"
    path.write_bytes(pt2_files.archive(tmp_path, change))
    with pytest.raises(InputError, match=r"litert-torch rejected model\.pt2: ") as excinfo:
        torch.open(source(path))
    assert "\n" not in excinfo.value.message


@pytest.mark.slow
def test_five_files_by_the_command_line(written, tmp_path):
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        images=random.integers(0, 256, (60, 32, 32, 3), np.uint8),
        labels=np.arange(60) % 10,
    )
    process = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "mobiledeploy",
            "export",
            written / "small.pt2",
            "--data",
            tmp_path / "images.npz",
            "--input-range",
            "-1,1",
            "--out",
            tmp_path / "build",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    result = {path.name for path in (tmp_path / "build" / "small").glob("*") if path.is_file()}
    assert {name for name in result if name.endswith((".tflite", ".onnx"))} == {
        "float32.tflite",
        "float16.tflite",
        "int8_best.tflite",
        "float32.onnx",
        "int8_best.onnx",
    }, sorted(result)
