"""Floors counted by hand, for layers as files hold them; real counts are in verbs/test_analyze."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis.floors import MOST, InstructionFloors, floors, widest
from mobiledeploy.core.types import Layer, LayerCount, Tensor
from tests.figures import counted

A53 = "aarch64 asimd"
A76 = f"{A53} asimdhp asimddp"
A710 = f"{A76} i8mm sve"


def conv(name: str, side: int, channels: int, filters: int, kernel: int = 1, **types: str) -> Layer:
    """A TFLite convolution of stride 1: `types` are those of the `image` and of the `weights`."""
    image, weights = types.get("image", "int8"), types.get("weights", "int8")
    return Layer(
        name,
        "CONV_2D",
        (
            Tensor(f"{name}_in", (1, side, side, channels), image),
            Tensor(f"{name}_w", (filters, kernel, kernel, channels), weights, constant=True),
            Tensor(f"{name}_b", (filters,), "int32", constant=True),
        ),
        (Tensor(name, (1, side, side, filters), image),),
    )


def depthwise(name: str, side: int, channels: int) -> Layer:
    return Layer(
        name,
        "DEPTHWISE_CONV_2D",
        (
            Tensor(f"{name}_in", (1, side, side, channels), "int8"),
            Tensor(f"{name}_w", (1, 3, 3, channels), "int8", constant=True),
        ),
        (Tensor(name, (1, side, side, channels), "int8"),),
    )


def found(layers: list[Layer], isa: str, **by_name: tuple[int, str]) -> InstructionFloors:
    """The floors of layers that took so many instructions, by a kernel of this class."""
    by_layer = tuple(
        LayerCount(name, "CONV_2D", number, f"Convolution (NHWC, QC8) IGEMM, {class_}")
        for name, (number, class_) in by_name.items()
    )
    total = sum(layer.instructions for layer in by_layer) + 50
    return floors(
        "a.tflite", "a.tflite", layers, counted("0" * 64, total, by_layer=by_layer, isa=isa)
    )


@pytest.mark.parametrize(
    ("isa", "side", "instruction", "width"),
    [
        (A53, 4, "smlal", 8),
        (A76, 4, "sdot", 16),
        (A710, 4, "smmla", 32),
        # A matrix of one row fills half of SMMLA's.
        (A710, 1, "sdot", 16),
        ("", 4, "smlal", 8),
    ],
)
def test_int8_by_what_the_core_has(isa: str, side: int, instruction: str, width: int) -> None:
    (layer,) = found([conv("a", side, 10, 3)], isa, a=(1000, "sdot")).layers
    assert (layer.instruction, layer.width) == (instruction, width)
    assert layer.mult_adds == side * side * 30
    assert layer.floor == math.ceil(layer.mult_adds / width)
    assert layer.ratio == 1000 / layer.floor


@pytest.mark.parametrize("isa", [A53, A76, A710])
def test_a_depthwise_convolution_adds_no_neighbours(isa: str) -> None:
    (layer,) = found([depthwise("a", 5, 16)], isa, a=(900, "mla")).layers
    assert (layer.kind, layer.instruction, layer.floor) == (
        "Conv DW 3x3",
        "smlal",
        5 * 5 * 16 * 9 // 8,
    )


@pytest.mark.parametrize(
    ("types", "class_", "width"),
    [
        ({"image": "float32", "weights": "float32"}, "fmla", 4),
        # The same file, where the core and the file have half precision, and elsewhere.
        ({"image": "float32", "weights": "float16"}, "fmla16", 8),
        ({"image": "float32", "weights": "float16"}, "fmla", 4),
        # Weights of bytes for floats: the kernel multiplies integers, or converts them first.
        ({"image": "float32", "weights": "int8"}, "sdot", 16),
        ({"image": "float32", "weights": "int8"}, "fmla", 4),
        ({"image": "int16", "weights": "int8"}, "mla", 4),
        ({"image": "uint8", "weights": "uint8"}, "sdot", 16),
        # Few multiplications, as in the kernels without a delegate: the types tell.
        ({"image": "int8", "weights": "int8"}, "", 16),
    ],
)
def test_types_and_kernels_tell_the_arithmetic(types, class_: str, width: int) -> None:
    (layer,) = found([conv("a", 4, 8, 8, **types)], A76, a=(1000, class_)).layers
    assert layer.width == width


def test_the_total_the_kinds_and_where_the_distance_is() -> None:
    layers = [conv("a", 4, 16, 16), depthwise("b", 4, 16), conv("c", 4, 16, 16)]
    one = found(layers, A76, a=(300, "sdot"), b=(1000, "mla"), c=(400, "sdot"), softmax=(70, ""))
    assert [layer.floor for layer in one.layers] == [256, 288, 256]
    assert (one.floor, one.instructions) == (800, 1820)
    assert one.ratio == 1820 / 800
    assert one.other_instructions == 120
    assert [(kind.kind, kind.layers, kind.ratio) for kind in one.kinds] == [
        ("Conv DW 3x3", 1, 1000 / 288),
        ("Conv 1x1", 2, 700 / 512),
    ]
    assert one.kinds[0].share == 712 / 1020
    assert ([layer.name for layer in one.most], one.most_share) == (["b"], 712 / 1020)
    layers_table, kinds_table = one.tables()
    assert [row[0] for row in layers_table.rows][-2:] == ["all others, and the runtime", "total"]
    assert layers_table.rows[-1][-3:] == ("800", "1,820", "2.27")
    assert "not a time" in layers_table.title
    assert kinds_table.rows[0][-1] == "69.8 %"


def test_names_that_repeat_stand_for_one_layer_each() -> None:
    layers = [conv("a", 4, 16, 16), conv("a", 4, 16, 16)]
    runs = tuple(LayerCount("a", "CONV_2D", number) for number in (500, 600))
    one = floors("a", "a", layers, counted("0" * 64, 1100, by_layer=runs, isa=A76))
    assert [layer.instructions for layer in one.layers] == [500, 600]
    assert [layer.above for layer in one.most] == [344]


def test_a_file_that_multiplies_nothing_has_no_ratio() -> None:
    one = found([], A76, softmax=(70, ""))
    assert (one.floor, one.ratio, one.layers, one.kinds, one.most) == (0, None, (), (), ())
    assert one.tables()[0].rows[-1][-1] == "–"


def test_a_kernel_that_skips_zeros_can_be_below_its_floor() -> None:
    one = found([conv("a", 4, 16, 16)], A76, a=(100, "sdot"))
    assert one.layers[0].ratio == 100 / 256
    assert one.most == ()
    assert one.kinds[0].share == 0.0


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=12))
def test_the_most_are_the_largest(numbers: list[int]) -> None:
    layers = [conv(f"n{i}", 2, 4, 4) for i in range(len(numbers))]
    one = found(layers, A76, **{f"n{i}": (n, "sdot") for i, n in enumerate(numbers)})
    above = sorted((n - 4 for n in numbers if n > 4), reverse=True)
    assert one.most_share * one.above == pytest.approx(sum(above[: len(one.most)]))
    assert len(one.most) <= min(MOST, len(above))
    enough = one.most_share >= 0.5 or len(one.most) == min(MOST, len(above))
    assert enough or one.above <= 0


@given(st.sampled_from([A53, A76, A710]), st.booleans(), st.integers(1, 99))
def test_a_newer_core_is_never_narrower(isa: str, is_depthwise: bool, pixels: int) -> None:
    old, new = (
        widest("int8", core.split(), depthwise=is_depthwise, pixels=pixels) for core in (isa, A710)
    )
    assert old.width <= new.width


def test_a_runtime_that_reports_no_layers_has_a_total() -> None:
    figure = counted("0" * 64, 1000, by_class={"fmla16": 900, "alu": 100}, isa=A76)
    one = floors(
        "a.onnx", "a.onnx", [conv("a", 4, 16, 16, image="float16", weights="float16")], figure
    )
    (layer,) = one.layers
    assert (layer.width, layer.floor, layer.instructions, layer.ratio) == (8, 512, None, None)
    assert (one.floor, one.multiplying, one.ratio) == (512, 900, 1000 / 512)
    assert (one.other_instructions, one.kinds, one.most) == (None, (), ())
    (table,) = one.tables()
    assert [row[0] for row in table.rows] == ["a", "total"]
    assert table.rows[0][-2:] == ("–", "–")
