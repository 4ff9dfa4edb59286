"""A contract as lines of text, for languages without JSON; their images are .ppm files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from mobiledeploy.core import units
from mobiledeploy.core.types import AppContract, AppSample, ModelOutput, Tensor


def files(contract: AppContract) -> dict[str, bytes]:
    """The contract, and the names of the classes by their number, one on each line."""
    return {
        "contract.txt": _text(_lines(contract)),
        "labels.txt": _text(map(units.one_line, contract.labels)),
    }


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _lines(contract: AppContract) -> Iterator[str]:
    """A keyword and its values on each line; the app reads them."""
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
    yield f"sample {sample.image.removesuffix('.ppm')}"
    yield _line("answer classes", *answer.classes)
    yield _line("answer scores", *answer.scores)
    yield _line("answer values", *answer.values)
    yield _line("answer boxes", *chain.from_iterable(answer.boxes))
    if answer.mask is not None:
        yield _line("answer mask", *answer.mask.size, *answer.mask.runs)


def _line(key: str, *values: object) -> str:
    return " ".join((key, *(str(value) for value in values)))
