"""What an export will make, and what it refuses before it makes anything."""

from __future__ import annotations

import pytest

from mobiledeploy.core.errors import UsageError
from mobiledeploy.verbs.plan import Order, plan

SMALL = {"alpha": 0.25, "res": 96, "io": "uint8"}


def test_what_cannot_take_uint8_and_was_not_asked_for_is_left_out(heard) -> None:
    jobs = plan(Order(**SMALL), heard).jobs
    assert ("int8_best", "tflite") in jobs
    assert ("int8_best", "onnx") not in jobs
    assert ("float32", "onnx") in jobs
    (doubt,) = heard.doubts
    assert doubt.name == "left-out"
    assert doubt.message.startswith("int8_best.onnx is left out: cannot take uint8")


@pytest.mark.parametrize(
    ("recipes", "formats", "said"),
    [
        (("int8_ptq",), ("onnx",), r"int8_ptq\.onnx cannot take uint8, which is for TFLite"),
        (("int8_ptq",), ("tflite", "onnx"), r"int8_ptq\.onnx cannot take uint8"),
        (("int16x8_ptq",), None, r"int16x8_ptq\.tflite cannot take uint8: .* 16 bits"),
    ],
)
def test_what_cannot_take_uint8_and_was_asked_for_is_refused(heard, recipes, formats, said) -> None:
    with pytest.raises(UsageError, match=said):
        plan(Order(recipes=recipes, formats=formats, **SMALL), heard)
    assert heard.doubts == []


def test_recipes_of_floats_do_not_care(heard) -> None:
    order = Order(recipes=("float32", "float16"), formats=("tflite",), **SMALL)
    assert len(plan(order, heard).jobs) == 2
    assert heard.doubts == []
