"""What the loaders of model files share: files under the right name, errors in one line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import ModelFile

Shape = tuple[int | None, ...]

REFUSALS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What frameworks raise on a file that they cannot make sense of."""


@contextmanager
def refusing(what: str, *own: type[Exception]) -> Iterator[None]:
    """Turns a framework's error, `own` ones too, into an InputError with its first useful line."""
    refusals: tuple[type[Exception], ...] = (*REFUSALS, *own)
    try:
        yield
    except refusals as error:
        raise InputError(f"{what}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says anything, shortened to 200 characters."""
    lines = (line.strip() for line in str(error).splitlines())
    line = next((line for line in lines if line), type(error).__name__)
    return line if len(line) <= 200 else f"{line[:199]}…"


@contextmanager
def under_its_format(file: ModelFile, suffix: str) -> Iterator[Path]:
    """The file, unchanged since it was looked into, under a name that ends in `suffix`.

    Keras tells a file's format by its name, we by its content.
    """
    with tempfile.TemporaryDirectory(prefix="mobiledeploy-") as folder:
        copy = Path(folder) / f"model{suffix}"
        try:
            shutil.copyfile(file.path, copy)
        except OSError as error:
            raise InputError(f"{file.path} cannot be read: {error.strerror}") from error
        if records.sha256(copy) != file.sha256:
            raise InputError(f"{file.path} was changed while it was read", "try again")
        yield copy


def finite(arrays: Sequence[tuple[str, Any]], where: str) -> None:
    """InputError naming the first of (name, array) that holds NaN or an infinity."""
    for name, array in arrays:
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{where}: the weights {name} hold NaN or infinite values")


def only(kind: str, values: Sequence[Any], where: str) -> Any:
    """The one value; InputError for none or many."""
    if len(values) != 1:
        raise InputError(
            f"{where} has {len(values)} {kind}s; one image in and one row of scores out is needed"
        )
    return values[0]


def checked(
    input_: tuple[Sequence[int | None] | None, str], output: Sequence[int | None] | None, where: str
) -> tuple[Shape, Shape]:
    """Shapes of (shape, dtype) in and shape out; InputError unless an RGB picture makes scores."""
    shape, dtype = input_
    if shape is None or len(shape) != 4 or shape[3] not in (3, None):
        raise InputError(
            f"{where} takes {_words(shape)}; a batch of RGB pictures [N, H, W, 3] is needed"
        )
    if dtype != "float32":
        raise InputError(f"{where} takes {dtype}; float32 is needed")
    if output is None or len(output) != 2:
        raise InputError(f"{where} gives {_words(output)}; scores [N, classes] are needed")
    return tuple(shape), tuple(output)


def _words(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return "any shape"
    return f"[{', '.join('N' if side is None else str(side) for side in shape)}]"
