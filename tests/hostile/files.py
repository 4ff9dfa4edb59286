"""What a hostile file of the corpus is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hostile:
    """A file that a stranger could send.

    Attributes:
        name: of its test.
        write: (folder, canary) -> the model within the folder. Whatever the file brings to run
            would create a file whose name begins with that of `canary`.
        said: a part of what the refusal names.
        runs: whether a bare framework that loads and calls it does create the canary. Else the
            harm is another: it reads a file, or needs a library that is not here.
    """

    name: str
    write: Callable[[Path, Path], Path]
    said: str
    runs: bool = True


def touched(canary: Path) -> list[str]:
    """The files that are there once something has run."""
    return [path.name for path in canary.parent.glob(f"{canary.name}*")]
