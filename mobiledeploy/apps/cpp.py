"""C++17: .tflite by LiteRT's C API, built by CMake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Literal

from mobiledeploy.apps import _templates
from mobiledeploy.core import units
from mobiledeploy.core.types import AppContract, AppSample, ModelOutput, Tensor

SUMMARY = "C++17, LiteRT's C API"
FORMATS: tuple[str, ...] = ("tflite",)
TASKS: tuple[str, ...] = (
    "binary",
    "classification",
    "detection",
    "embedding",
    "multilabel",
    "regression",
    "segmentation",
)
IMAGES: Literal[".png", ".ppm"] = ".ppm"
COMMANDS: tuple[str, ...] = (
    "pip install --no-deps --target litert -r requirements.txt",
    "cmake -B build",
    "cmake --build build",
    "ctest --test-dir build --output-on-failure",
)


def files(contract: AppContract) -> Mapping[str, bytes]:
    """Its code, the contract and the labels as lines of text, and LiteRT's exact version."""
    labels = map(units.one_line, contract.labels)
    return _templates.read("cpp-app") | {
        "contract.txt": _text(_lines(contract)),
        "labels.txt": _text(labels),
        "requirements.txt": _text([f"{contract.runtime}=={contract.runtime_version}"]),
    }


def _text(lines: Iterator[str] | list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _lines(contract: AppContract) -> Iterator[str]:
    """A keyword and its values on each line; contract.cpp reads them."""
    how = contract.image.preprocessing
    assert how is not None
    yield f"model {contract.model}"
    yield f"task {contract.task}"
    yield f"layout {contract.layout}"
    yield _line("image", *contract.image.shape)
    yield f"channels {how.channels}"
    yield f"resize {how.resize}"
    yield _line("crop", how.crop)
    yield _line("range", *how.input_range)
    yield _line("mean", *how.mean)
    yield _line("std", *how.std)
    yield _tensor("input", contract.input)
    for tensor, end in zip(contract.outputs, contract.ends, strict=True):
        yield _tensor("output", tensor, end)
    for end in contract.ends:
        if end.anchors is not None:
            yield _line("anchors", *end.anchors.scales)
            for level in end.anchors.levels:
                yield _line("level", *level.grid, *chain.from_iterable(level.sizes))
    for sample in contract.golden:
        yield from _sample(sample)


def _tensor(key: str, tensor: Tensor, end: ModelOutput | None = None) -> str:
    """The tensor's type, scale (0 for none) and zero point, what its end says, and its name."""
    scale, zero = (*tensor.scale, 0.0)[0], (*tensor.zero_point, 0)[0]
    more = (end.activation, len(end.shape), *end.shape) if end else ()
    return _line(key, tensor.dtype, scale, zero, *more, units.one_line(tensor.name))


def _sample(sample: AppSample) -> Iterator[str]:
    answer = sample.answer
    yield f"sample {sample.image.removesuffix(IMAGES)}"
    yield _line("answer classes", *answer.classes)
    yield _line("answer scores", *answer.scores)
    yield _line("answer values", *answer.values)
    yield _line("answer boxes", *chain.from_iterable(answer.boxes))
    if answer.mask is not None:
        yield _line("answer mask", *answer.mask.size, *answer.mask.runs)


def _line(key: str, *values: object) -> str:
    return " ".join((key, *(str(value) for value in values)))
