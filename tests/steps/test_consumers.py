"""What is said of files that Google's consumers take otherwise, or not at all."""

from __future__ import annotations

import pytest

from mobiledeploy.core.types import FileFacts, Preprocessing, Tensor
from mobiledeploy.steps import consumers

PLAIN = Preprocessing((-1.0, 1.0))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def told(pre: Preprocessing, dtype: str = "float32", format_: str = "tflite") -> list[str]:
    grid = {"uint8": ((2 / 255,), (127,)), "int8": ((2 / 255,), (-1,))}.get(dtype, ((), ()))
    image = Tensor("image", (1, 32, 32, 3), dtype, *grid)
    facts = FileFacts(format_, (image,), (), (), "NHWC", "scores")
    return [warning.name for warning in consumers.warnings(pre, facts)]


@pytest.mark.parametrize(
    ("pre", "dtype", "names"),
    [
        (PLAIN, "float32", []),
        (PLAIN, "uint8", []),
        # Most networks have a crop, and most float files go elsewhere.
        (Preprocessing((-1.0, 1.0), crop=0.875), "float32", []),
        (Preprocessing((-1.0, 1.0), crop=0.875), "uint8", ["metadata-crop"]),
        (Preprocessing((-1.0, 1.0), channels="bgr"), "float32", ["metadata-channels"]),
        (Preprocessing((0.0, 1.0), **IMAGENET), "float32", ["metadata-normalization"]),
        (Preprocessing((0.0, 1.0), **IMAGENET), "uint8", ["metadata-normalization"]),
        (Preprocessing((0.0, 1.0)), "uint8", ["metadata-normalization"]),
        # Neither of these opens there at all.
        (Preprocessing((-1.0, 1.0), crop=0.875, channels="bgr"), "int8", []),
    ],
)
def test_what_the_metadata_cannot_say(pre, dtype, names) -> None:
    assert told(pre, dtype) == names
    assert told(pre, dtype, "onnx") == []


def test_a_crop_says_what_becomes_of_the_accuracy() -> None:
    image = Tensor("image", (1, 32, 32, 3), "uint8", (1 / 255,), (0,))
    facts = FileFacts("tflite", (image,), (), (), "NHWC", "scores")
    (warning,) = consumers.warnings(Preprocessing((0.0, 1.0), crop=0.875), facts)
    assert "0.875" in warning.message
    assert "the accuracy told here is not theirs" in warning.message
    assert "--crop 1" in warning.advice
