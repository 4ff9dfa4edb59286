"""The inputs of many samples at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """An array [N, ...] for each input of a model, in the order of its inputs.

    It is sliced and counted as a single array [N, ...] of images would be.
    """

    arrays: tuple[NDArray[Any], ...]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, samples: Any) -> Batch:
        return Batch(tuple(array[samples] for array in self.arrays))

    def __iter__(self) -> Iterator[Batch]:
        """Each sample, as a batch of one."""
        return (self[number : number + 1] for number in range(len(self)))


Images = NDArray[np.float32] | Batch
"""float32 [N, H, W, C], preprocessed, of a model with one image; a batch for any model."""


def batch(images: Images) -> Batch:
    """A single array as a batch."""
    return images if isinstance(images, Batch) else Batch((images,))
