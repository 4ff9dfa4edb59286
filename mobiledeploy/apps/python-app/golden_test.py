"""Replays the golden samples: the input, the answer and the inference must be those of the export.

`python golden_test.py` says what differs and ends with 1; pytest runs it as a test, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decode
import numpy as np
import preprocess
from app import App
from numpy.typing import NDArray

Values = NDArray[np.float32]
ALLOWED_STEPS = 2.0  # of an output's quantization: other processors round otherwise
ALLOWED_LEVELS = 1  # of a pixel: versions of Pillow resize in another order
LEVELS = 255  # the steps of a float output, within its range
SWAPPED = "the channels are swapped (RGB for BGR, or BGR for RGB)"


def differences() -> Iterator[str]:
    """What differs, sample by sample; nothing if the app computes as the export did."""
    model = App()
    grid = output_grid(model)
    for sample in model.contract["golden"]:
        if line := of_sample(model, sample, grid):
            yield f"{sample['image']}: {line}"


def of_sample(model: App, sample: dict[str, Any], grid: list[float]) -> str:
    """What differs of one sample in the first stage that differs; "" if nothing does.

    Each stage gets what was recorded of the stage before it.
    """
    contract, folder = model.contract, model.folder
    own = preprocess.pixels(preprocess.read(folder / sample["image"]), contract)
    pixels = np.fromfile(folder / sample["pixels"], np.uint8).reshape(contract["image"]["shape"])
    if line := pixel_difference(own, pixels):
        return f"the input differs: {line}"
    expected = np.fromfile(folder / sample["input"], contract["input"]["dtype"])
    expected = expected.reshape(contract["input"]["shape"])
    if line := input_difference(preprocess.tensor(pixels, contract), expected, contract["layout"]):
        return f"the input differs: {line}"
    outputs = recorded_outputs(model, sample)
    if wrong := answer_difference(decode.decode(outputs, contract), sample["answer"]):
        return f"the answer to the recorded outputs differs in {wrong}: see decode.py"
    steps = output_steps(model.outputs(expected), outputs, grid, contract)
    if steps <= ALLOWED_STEPS:
        return ""
    return (
        f"the outputs differ by {steps:.3g} steps, {ALLOWED_STEPS:g} are allowed: another model "
        "file, another runtime, or outputs that are read wrongly"
    )


def pixel_difference(own: NDArray[np.uint8], expected: NDArray[np.uint8]) -> str:
    """What is wrong with the pixels that the model sees; "" if they are as recorded."""
    if own.shape != expected.shape:
        return f"the model sees {list(own.shape)} pixels, not {list(expected.shape)}"
    error = np.abs(own.astype(int) - expected)
    if error.max() <= ALLOWED_LEVELS:
        return ""
    if np.abs(own[..., ::-1].astype(int) - expected).max() <= ALLOWED_LEVELS:
        return SWAPPED
    return (
        f"another crop, resize or image decoder (pixels are {error.mean():.3g} grey levels off "
        f"on the average, {error.max()} at most)"
    )


def input_difference(own: NDArray[Any], expected: NDArray[Any], layout: str) -> str:
    """What is wrong with an input tensor of the recorded pixels; "" if it is as recorded."""
    if own.dtype != expected.dtype:
        return f"its numbers are {own.dtype}, the model takes {expected.dtype}"
    if own.size != expected.size:
        return f"it has {own.size} numbers, the model takes {expected.size}"
    mine, wanted = own.astype(np.float64), expected.astype(np.float64)
    # Codes are exact; of floats the last digits may come from another order of the same sums.
    whole = own.dtype.kind in "iu"
    exact = 0.0 if whole else 1e-5 * float(np.abs(wanted).max())
    if own.shape == expected.shape and np.abs(mine - wanted).max() <= exact:
        return ""
    turned = wanted.transpose((0, 3, 1, 2) if layout == "NHWC" else (0, 2, 3, 1))
    if np.abs(mine.ravel() - turned.ravel()).max() <= exact:
        return f"the axes are not {layout}"
    if own.shape != expected.shape:
        return f"its shape is {list(own.shape)}, the model takes {list(expected.shape)}"
    if np.abs(np.flip(mine, 3 if layout == "NHWC" else 1) - wanted).max() <= exact:
        return SWAPPED
    error = np.abs(mine - wanted)
    if whole and error.max() <= 1:
        return f"{np.mean(error > 0):.0%} of the codes are one off: another rounding"
    return (
        f"another input range, mean, std or zero point (values are {error.mean():.3g} off on the "
        f"average, {error.max():.3g} at most)"
    )


def answer_difference(own: dict[str, Any], expected: dict[str, Any]) -> str:
    """The name of a field of an answer that differs; "" if none does."""
    for name, value in expected.items():
        if name in ("sample", "label") or not value:
            continue
        if name == "mask":
            if own.get(name) != value:
                return name
            continue
        mine, theirs = np.asarray(own.get(name, [])), np.asarray(value)
        if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=1e-5, atol=1e-6):
            return name
    return ""


def output_steps(
    own: list[Values], expected: list[Values], steps: list[float], contract: dict[str, Any]
) -> float:
    """How far the outputs are apart, in the steps of each."""
    pairs = [
        (mine.reshape(theirs.shape), theirs) for mine, theirs in zip(own, expected, strict=True)
    ]
    if len(pairs) == 4 and contract["task"] == "detection":
        # Behind the number of boxes the operator leaves whatever was in memory.
        count = int(expected[3].ravel()[0])
        pairs = [(mine[:count], theirs[:count]) for mine, theirs in pairs[:3]] + pairs[3:]
    far = [float(np.abs(mine - theirs).max(initial=0)) for mine, theirs in pairs]
    return max(error / step for error, step in zip(far, steps, strict=True))


def recorded_outputs(model: App, sample: dict[str, Any]) -> list[Values]:
    """The real values of each output of a sample, as at the export."""
    return [
        np.fromfile(model.folder / name, "<f4").reshape(end["shape"])
        for name, end in zip(sample["outputs"], model.contract["ends"], strict=True)
    ]


def output_grid(model: App) -> list[float]:
    """The step of each output: that of its quantization, or a part of its range in the samples."""
    grid = []
    samples = [recorded_outputs(model, sample) for sample in model.contract["golden"]]
    for tensor, values in zip(model.contract["outputs"], zip(*samples, strict=True), strict=True):
        largest = float(np.ptp(values)) or float(np.abs(values).max()) or 1.0
        grid.append(tensor["scale"][0] if tensor["scale"] else largest / LEVELS)
    return grid


def test_golden_samples() -> None:
    """Nothing differs."""
    assert list(differences()) == []


if __name__ == "__main__":
    lines = list(differences())
    print(
        "\n".join(lines) or f"pass: the golden samples are replayed: {Path(__file__).parent.name}"
    )
    sys.exit(bool(lines))
