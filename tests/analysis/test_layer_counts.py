from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import layer_counts
from mobiledeploy.core.types import Layer, Tensor

# One XNNPACK partition of two operators, then one of TFLite's own.
LITERT = """1\t0\tLiteRT::Run[buffer registration]
1\t0\tInvoke
8\t0\tConvolution (NHWC, QC8) IGEMM
8\t1\tConvolution (NHWC, QC8) DWConv
2\t2\tSOFTMAX
32\t7\tInvoke
1\t0\tLiteRT::Run[Buffer sync]
"""


def readings(*steps: int) -> list[dict[str, int]]:
    """What was counted at each reading, of what was executed before it."""
    total, result = 0, []
    for step in steps:
        total += step
        result.append({"sdot": total, "alu": 10 * total, "bytes_loaded": 7})
    return result


def test_litert_operators_get_what_was_executed_between_their_readings() -> None:
    # Caller, registration twice, Invoke, XNNPACK begins, two operators, softmax twice, the ends.
    at = readings(1, 1, 1, 1, 1, 100, 200, 1, 300, 1, 1, 1, 1)
    first, second, third = layer_counts.of_litert(LITERT, at)
    assert (first.counts["sdot"], second.counts["sdot"], third.counts["sdot"]) == (100, 200, 300)
    assert first.kernel == "Convolution (NHWC, QC8) IGEMM, sdot"
    assert layer_counts.instructions(second.counts) == 2200


def test_a_file_without_a_signature_has_one_more_event_around() -> None:
    profile = LITERT.replace("1\t0\tInvoke", "16\t18446744073709551615\tinvoke\n1\t0\tInvoke")
    at = readings(1, 1, 1, 1, 1, 1, 100, 200, 1, 300, 1, 1, 1, 1, 1)
    layers = layer_counts.of_litert(profile, at)
    assert [one.counts["sdot"] for one in layers] == [100, 200, 300]
    assert [one.node for one in layers] == [None, None, 2]


@given(st.integers(0, 40).filter(lambda n: n != 13))
def test_readings_that_do_not_fit_give_no_layers(count: int) -> None:
    assert layer_counts.of_litert(LITERT, readings(*[1] * count)) == ()


def test_a_second_partition_begins_with_a_reading_of_its_own() -> None:
    profile = "8\t0\ta\n2\t1\tb\n8\t0\tc\n8\t1\td\n"
    at = readings(1, 1, 10, 1, 20, 1, 30, 40, 1)
    result = [one.counts["sdot"] for one in layer_counts.of_litert(profile, at)]
    assert result == [10, 20, 30, 40]


def trace(*nodes: str) -> list[dict[str, object]]:
    result: list[dict[str, object]] = [
        {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": "QLinearConv"}}
        for name in nodes
    ]
    return [*result, {"cat": "Session", "name": "model_run", "args": {}}]


def test_onnxruntime_nodes_of_the_last_run() -> None:
    profile = json.dumps([*trace("warm", "up"), *trace("a", "b")])
    at = readings(1, 1, 1, 1, 1, 50, 1, 60, 1, 1, 1, 1, 1)[:-1]
    at = readings(*[1] * 4, 1, 50, 1, 60, *[1] * 6)[: 4 + 4 + 6]
    result = layer_counts.of_onnxruntime(profile, at)
    assert [(one.name, one.counts["sdot"]) for one in result] == [("a", 50), ("b", 60)]


@given(st.text() | st.sampled_from(["[]", "[1]", '[{"cat":"Node"}]', "{}"]))
def test_an_unknown_profile_gives_no_layers(text: str) -> None:
    assert layer_counts.of_onnxruntime(text, readings(1, 1)) == ()
    assert layer_counts.of_litert(text.replace("\t", " "), readings(1)) == ()


def test_a_kernel_that_hardly_multiplies_has_no_class() -> None:
    assert layer_counts.multiplication({"sdot": 1, "alu": 1000}) == ""
    assert layer_counts.multiplication({"mla": 50, "sdot": 2, "alu": 50}) == "mla"


def test_operators_that_ran_have_the_names_of_the_file() -> None:
    """As LiteRT runs a v2, whose mean is two, and a float16, whose constants are converted."""
    ran = ["Convolution (NHWC, F32) IGEMM, fmla", "Fully Connected (NC, F32) GEMM", "Add (ND)"]
    ran += ["Fully Connected (NC, F32) GEMM", "Mean (ND) Reduce2", "Static Reshape (NC)"]
    ran += ["Fully Connected (NC, F32) GEMM, fmla", "Softmax (NC, F32)"]
    file = ["CONV_2D", "CONV_2D", "ADD", "CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    found = (0, 1, 2, 3, 4, None, 5, 6)
    assert layer_counts.places(ran, file) == found
    shifted = tuple(None if place is None else place + 5 for place in found)
    assert layer_counts.places(ran, ["DEQUANTIZE"] * 5 + file) == shifted
    # An operator that no delegate took has its own name.
    ran[-1] = "SOFTMAX"
    assert layer_counts.places(ran, file) == found


def test_operators_that_are_as_many_are_one_to_one() -> None:
    assert layer_counts.places(["Whatever", "Else"], ["CONV_2D", "MUL"]) == (0, 1)


def test_operators_of_another_number_of_products_stay_unknown() -> None:
    assert layer_counts.places(["Fully Connected (NC)", "Add (ND)"], ["ADD"]) == (None, None)
    assert layer_counts.places([], ["ADD"]) == ()
    # Twice the same kind, once in the file: one of them only.
    assert layer_counts.places(["Add (ND)", "Add (ND)"], ["ADD"]) == (0, None)


def operators(*names: str) -> list[Layer]:
    """Each as `output:op<input,input`."""
    made = []
    for name in names:
        output, _, rest = name.partition(":")
        op, _, read = rest.partition("<")
        inputs = tuple(Tensor(x, (1,), "int8") for x in read.split(","))
        made.append(Layer(output, op, inputs, (Tensor(output, (1,), "int8"),)))
    return made


def test_a_delegate_takes_what_it_can_before_an_operator_that_it_leaves() -> None:
    """LR-ASPP: a convolution near the end of the file reads what the first one made."""
    net = operators("a:CONV_2D<x", "b:HARD_SWISH<a", "c:CONV_2D<b", "d:CONV_2D<a", "e:ADD<c,d")
    assert layer_counts.run_order(net, {1}) == (0, 3, 1, 2, 4)
    # With it throughout, or without it, the file's order stands.
    assert layer_counts.run_order(net, set()) == (0, 1, 2, 3, 4)
    assert layer_counts.run_order(net, {0, 1, 2, 3, 4}) == (0, 1, 2, 3, 4)


def test_an_operator_that_is_left_waits_for_all_that_can_run_before() -> None:
    """SSDLite: one concatenation ends the boxes, and the scores come after it in the file."""
    net = operators("a:CONV_2D<x", "b:CONCATENATION<a", "c:CONV_2D<x", "d:CONCATENATION<c,b")
    assert layer_counts.run_order(net, {1, 3}) == (0, 2, 1, 3)


def test_tensors_that_wait_for_one_another_keep_the_order_of_the_file() -> None:
    assert layer_counts.run_order(operators("a:ADD<b", "b:ADD<a"), {1}) == (0, 1)
    # A name twice, as tools write it.
    assert layer_counts.run_order(operators("a:ADD<x", "a:ADD<a"), {1}) == (0, 1)


def test_as_many_kernels_as_operators_are_not_the_same_ones() -> None:
    """A reshape was left out, and a mean became two."""
    ran = ["Convolution (NHWC, QC8) IGEMM", "Mean (ND)", "Static Reshape (NC)", "Fully Connected"]
    file = ["RESHAPE", "CONV_2D", "MEAN", "FULLY_CONNECTED"]
    assert layer_counts.places(ran, file) == (1, 2, None, 3)
