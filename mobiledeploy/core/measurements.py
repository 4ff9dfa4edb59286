"""What was measured on a float graph with some images, for whoever needs it next."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from mobiledeploy.core.batches import Images

T = TypeVar("T")


class Measurements:
    """Results by a key of their kind, each with the float TFLite and the images it belongs to.

    Alternatives of a recipe share their float graphs, so most of what they measure is equal.
    Images are identified as objects: nobody may change them in place.
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, list[tuple[bytes, Images, object]]] = {}

    def get(self, key: Hashable, floats: bytes, images: Images, measure: Callable[[], T]) -> T:
        """The result `key` for this graph and these images; `measure()` gives it once."""
        results = self._results.setdefault(key, [])
        for own_floats, own_images, result in results:
            if own_images is images and own_floats == floats:
                return cast(T, result)
        result = measure()
        results.append((floats, images, result))
        return result
