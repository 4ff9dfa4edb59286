from __future__ import annotations

import pytest

from mobiledeploy.core import units


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (("net_96", "demo", "1" * 64), "net_96 demo"),
        (("net_96", "random", ""), "net_96 random"),
        (("net_96", "run", "2" * 64), "net_96 run 22222222"),
        (("net", "net.h5", "3" * 64), "net 33333333"),
        (("", "run", "2" * 64), "run 22222222"),
        (("net", "", ""), "net"),
        # The folder of a training is named after the model; its weights are not shipped ones.
        (("v1_0.25_96", "v1_0.25_96_demo", "1" * 64), "v1_0.25_96_demo 11111111"),
    ],
)
def test_a_network_is_shown_with_its_weights(message: tuple[str, str, str], expected: str) -> None:
    assert units.network(*message) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7190, "120 min"), (7200, "2.0 h")],
)
def test_the_time_left_is_rough(seconds: float, expected: str) -> None:
    assert units.time_left(seconds) == f"{expected} left"


@pytest.mark.parametrize(
    ("io", "expected"),
    [("", "onnx"), ("int8", "onnx"), ("uint8", "onnx uint8"), ("float", "onnx float")],
)
def test_the_type_of_the_ends_is_shown_if_it_was_chosen(io: str, expected: str) -> None:
    assert units.format_name("onnx", io) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (("demo", "validation", "1" * 64), "demo validation"),
        (("demo", "held", "1" * 64), "demo held"),
        (("./demo", "validation", "2" * 64), "demo 22222222"),
        (("/a/photos/", "all", "3" * 64), "photos 33333333"),
        (("", "", ""), ""),
    ],
)
def test_a_data_set_is_shown_with_its_identity(
    message: tuple[str, str, str], expected: str
) -> None:
    assert units.images(*message) == expected


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (999.4, "999 ns"),
        (999.7, "1 us"),
        (999.7e3, "1 ms"),
        (1234567.0, "1.23 ms"),
        (1234.5e9, "1230 s"),
    ],
)
def test_a_time_has_three_digits_and_no_exponent(ns: float, expected: str) -> None:
    assert units.duration(ns) == expected


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        ((901e3, 766e3, 1.06e6), ("0.901 ms", "0.766 ms", "1.06 ms")),
        ((999.0, 2.0), ("999 ns", "2 ns")),
        ((1e3,), ("1 us",)),
        ((5e6, 2e9), ("0.005 s", "2 s")),
        ((4000.0, 1e9), ("0.000004 s", "1 s")),
        ((), ()),
    ],
)
def test_times_that_are_read_together_have_one_unit(
    ns: tuple[float, ...], expected: tuple[str, ...]
) -> None:
    assert units.durations(ns) == expected


def test_a_long_text_keeps_its_ends():
    assert units.shortened("abcdefghij", 10) == "abcdefghij"
    assert units.shortened("abcdefghijk", 7) == "abc…ijk"
    assert units.shortened("abcdefghijk", 7, 1) == "a…ghijk"
    assert units.shortened("abcdefghijk", 7, 6) == "abcdef…"
    assert units.shortened("abc", 1) == "…c"
