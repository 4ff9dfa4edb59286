from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mobiledeploy.core import protocol
from mobiledeploy.core.errors import UsageError, VoidError
from mobiledeploy.core.types import LeftOperator, Measured, Target
from mobiledeploy.steps import delegates

READY = protocol.Ready(2, "litert", "2.3.0", (), (), "gpu", 29, 31, 1, "aarch64")
MEASURED = Measured(
    *("0" * 64, Target("adb:1", "benchmark_model", "litert", 1, "gpu"), "2.3.0"),
    *((1,), (), 1.0, (1.0, 1.0), 1, 31, 31, {}, {}),
)


@pytest.fixture
def path(exported) -> Path:
    return exported["float32", "tflite"]


def test_operators_are_named_with_their_layers(path) -> None:
    assert delegates.left(path, READY) == ()
    # Without a delegate nothing was left by one.
    assert delegates.left(path, replace(READY, delegate="none", left_nodes=(0, 20))) == ()
    # A number that no operator has comes from a runner that is wrong.
    nodes = delegates.left(path, replace(READY, left_nodes=(0, 20, 21, -1)))
    first, last = nodes
    assert (first.op, last) == ("CONV_2D", LeftOperator("SOFTMAX", ("scores",)))
    assert first.layers[0].endswith("conv1_relu/Relu6")


def test_a_kind_is_named_with_the_layers_that_it_can_be(path) -> None:
    said = (
        "SOFTMAX: not here",
        "MEAN: no",
        "CUSTOM Mine: Mine",
        "nonsense",
        "DEPTHWISE_CONV_2D: x",
    )
    softmax, mean, custom, nonsense, depthwise = delegates.left(
        path, replace(READY, left_reasons=said)
    )
    assert softmax == LeftOperator("SOFTMAX", ("scores",), "not here")
    assert (len(mean.layers), len(depthwise.layers)) == (1, 8)
    assert custom == LeftOperator("Mine", (), "Mine")
    assert nonsense == LeftOperator("nonsense", (), "")


def names(measured: Measured, adapter: str = "") -> list[str]:
    return [warning.name for warning in delegates.warnings(measured, adapter)]


def test_what_a_timing_warns_of() -> None:
    nnapi = replace(MEASURED, target=replace(MEASURED.target, delegate="nnapi"))
    xnnpack = replace(MEASURED, target=replace(MEASURED.target, delegate="xnnpack"))
    none = replace(MEASURED, target=replace(MEASURED.target, delegate="none"), delegated_nodes=0)
    assert names(MEASURED) == names(none) == []
    assert names(replace(MEASURED, delegated_nodes=0)) == ["not-delegated"]
    assert names(replace(MEASURED, delegated_nodes=30)) == ["partly-delegated"]
    # The same core runs the rest, as the softmax of every int8 classifier.
    assert names(replace(xnnpack, delegated_nodes=30)) == []
    assert delegates.is_split(replace(xnnpack, delegated_nodes=30))
    assert not delegates.is_split(xnnpack)
    assert not delegates.is_split(replace(xnnpack, delegated_nodes=None))
    assert names(replace(MEASURED, delegated_nodes=None)) == []
    # An old benchmark_model counts what is taken only.
    assert names(replace(MEASURED, total_nodes=None)) == []
    assert names(nnapi) == ["deprecated-delegate"]
    (warning,) = delegates.warnings(nnapi, "")
    assert "Android 15" in warning.text
    assert "--delegate gpu" in warning.text
    assert names(MEASURED, "Adreno 740, backend=Vulkan, adapterType=Integrated GPU") == []
    software = "SwiftShader Device, vendor=google, adapterType=CPU / Software"
    assert names(MEASURED, software) == ["software-gpu"]


def test_strict_refuses_what_is_left_or_unknown(path) -> None:
    delegates.need_whole(path, replace(READY, delegated_nodes=31, left_nodes=()))
    with pytest.raises(VoidError, match=r"gpu took 29 of 31 operators only; on the CPU: SOFTMAX"):
        delegates.need_whole(path, replace(READY, left_reasons=("SOFTMAX: no",)))
    with pytest.raises(VoidError, match="which operators gpu took is not known"):
        delegates.need_whole(path, replace(READY, delegated_nodes=None))
    with pytest.raises(UsageError, match="float32.tflite runs without one"):
        delegates.need_whole(path, replace(READY, delegate="none"))
