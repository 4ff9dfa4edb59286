from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import DeviceError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Counted
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import analyze as analyze_verb
from mobiledeploy.verbs.bench import bench
from tests.conftest import ALL_CORES
from tests.layers import Network

KEYS = [("int8_ptq", "tflite"), ("float32", "tflite"), ("int8_ptq", "onnx"), ("float32", "onnx")]
# What multiplies integers and floats on each core: the A53 has no dot products.
MULTIPLIES = {
    ("cortex-a53", "int8_ptq"): ("mla", "sdot"),
    ("cortex-a76", "int8_ptq"): ("sdot", "fmla"),
    ("cortex-a53", "float32"): ("fmla", "sdot"),
    ("cortex-a76", "float32"): ("fmla", "sdot"),
}


COUNTS: dict[tuple[Path, str], Counted] = {}


def counted(path, core, **more) -> Counted:
    (made,) = bench([path], device=f"emulator:{core}", **more).measurements
    assert isinstance(made, Counted)
    if not more:
        COUNTS[path, core] = made
    return made


def counted_once(path, core) -> Counted:
    """What a test has counted the others need not count: counts are exact, as tests here show."""
    return COUNTS.get((path, core)) or counted(path, core)


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process and what it starts run on one core of the host."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ONNX Runtime takes seconds to load a model under emulation: one of its files is enough at first.
QUICK = {("cortex-a76", ("int8_ptq", "tflite"))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", [("float16_full", "tflite"), pytest.param(("float16", "onnx"), marks=pytest.mark.slow)]
)
def test_half_precision_is_computed_where_the_core_has_it(emulator, exported, here, key) -> None:
    big, small = (counted(exported[key], core) for core in ("cortex-a76", "cortex-a53"))
    assert big.by_class["fmla16"] > 10 * big.by_class.get("fmla", 0)
    assert small.by_class.get("fmla16", 0) == 0
    assert big.instructions < 0.8 * small.instructions
    # The host computes it in float32; an answer in half is another, and no cause for a warning.
    assert 1e-6 < big.host_difference < 1e-2
    assert small.host_difference < 1e-6
    assert big.warnings == small.warnings == ()


@pytest.mark.parametrize(
    ("core", "key"),
    [
        pytest.param(
            core,
            key,
            marks=[] if (core, key) in QUICK else [pytest.mark.slow],
            id="-".join((core, *key)),
        )
        for core in ("cortex-a53", "cortex-a76")
        for key in KEYS
    ],
)
def test_counts_are_exact_and_answers_the_hosts(emulator, exported, here, core, key) -> None:
    path = exported[key]
    c = counted(path, core)
    if core == "cortex-a76":
        # To the instruction, by class and by layer: from one process to another, wherever the file
        # lies, and whichever core of the host runs the emulator.
        moved = shutil.copytree(path.parent, here / "a folder of a longer name" / "its own")
        cores = {min(ALL_CORES), max(ALL_CORES)} if key[0] == "int8_ptq" else {max(ALL_CORES)}
        for host_core in cores:
            with pinned(host_core):
                assert counted(moved / path.name, core) == c
    assert sum(c.by_class.values()) == c.instructions
    assert c.core == core
    assert c.warnings == ()
    integers = artifacts.load(path).outputs[0].dtype == "int8"
    assert c.host_difference == 0 if integers else c.host_difference < 1e-6
    much, little = MULTIPLIES[core, key[0]]
    assert c.by_class[much] > 10 * c.by_class.get(little, 0)
    assert any(much in kernel for kernel in c.kernels)
    # The runtime's own work is in no layer; a profile costs little.
    within = sum(layer.instructions for layer in c.by_layer)
    assert 0.5 * c.instructions < within < 1.02 * c.instructions or key[1] == "onnx"
    with Store.open() as store:
        assert store.measurement(c.artifact_sha256, c.target) == c
    assert {"qemu", "libc6", "counter", "runner"} <= set(c.versions)


@pytest.mark.parametrize("recipe", ["int8_ptq", "float16"])
def test_layers_have_the_names_of_the_file(emulator, exported, here, recipe: str) -> None:
    """The runtime converts the constants of a float16 file while it loads them."""
    path = exported[recipe, "tflite"]
    layers = FORMATS.load("tflite").inspect(path.read_bytes()).layers
    c = counted_once(path, "cortex-a76")
    ran = [layer.name for layer in layers if layer.op != "DEQUANTIZE"]
    assert [layer.name for layer in c.by_layer] == ran


def test_layers_that_ran_in_another_order_keep_their_names(emulator, here) -> None:
    """XNNPACK leaves one operator, and what comes after it in the file runs before it."""
    net = Network()
    first = net.conv(net.image, 8, kernel=3)
    kept = net.lite.op(
        "LOCAL_RESPONSE_NORMALIZATION",
        [first],
        net.lite.shape(first),
        options="LocalResponseNormalizationOptions",
        radius=1,
        bias=1.0,
        alpha=1.0,
        beta=0.5,
    )
    narrow, wide = net.conv(kept, 8), net.depthwise(first)
    path = here / "a.tflite"
    path.write_bytes(net.lite.file(net.pair("ADD", narrow, wide)))
    names = [layer.name for layer in FORMATS.load("tflite").inspect(path.read_bytes()).layers]
    c = counted(path, "cortex-a76")
    assert [layer.name for layer in c.by_layer] == [names[i] for i in (0, 3, 1, 2, 4)]
    kernels = {layer.op: layer.kernel for layer in c.by_layer}
    assert "DWConv" in kernels["DEPTHWISE_CONV_2D"]
    assert kernels["LOCAL_RESPONSE_NORMALIZATION"].startswith("LOCAL_RESPONSE_NORMALIZATION")
    assert kernels["ADD"].startswith("Add")


def test_no_fewer_multiplications_than_the_network_has(emulator, exported, here) -> None:
    path = exported["float32", "tflite"]
    network = analyze_verb.analyze(path)
    c = counted_once(path, "cortex-a76")
    # Four multiply-adds in each; less is not possible, and much more would be waste.
    result = 4 * c.by_class["fmla"]
    assert network.mult_adds <= result < 1.5 * network.mult_adds


def test_what_cannot_be_counted_is_refused(emulator, exported, here) -> None:
    path = exported["int8_ptq", "tflite"]
    with pytest.raises(UsageError, match="for one thread only"):
        counted(path, "cortex-a76", threads=2)
    with pytest.raises(UsageError, match="cannot be emulated"):
        counted(path, "cortex-a76", runner="python")
    with pytest.raises(UsageError, match="no runtime 'tflite_runtime'"):
        counted(path, "cortex-a76", runtime="tflite_runtime")
    with pytest.raises(UsageError, match="no delegate 'gpu'"):
        counted(path, "cortex-a76", delegate="gpu")
    assert not [name for name in os.listdir(here) if name != ".mobiledeploy"]


def test_without_the_delegate_the_builtin_kernels_are_counted(emulator, exported, here) -> None:
    path = exported["int8_ptq", "tflite"]
    with_ = counted_once(path, "cortex-a76")
    without = counted(path, "cortex-a76", delegate="none")
    assert without.target.delegate == "none"
    assert without.instructions > with_.instructions
    assert dataclasses.replace(with_.target, delegate="none") == without.target


def test_a_runner_that_dies_is_told(emulator, exported, here, monkeypatch) -> None:
    from mobiledeploy.runners import native

    monkeypatch.setattr(native.native, "runner", lambda machine: exported["float32", "onnx"])
    with pytest.raises(DeviceError, match="before it was done"):
        counted(exported["int8_ptq", "tflite"], "cortex-a76")
