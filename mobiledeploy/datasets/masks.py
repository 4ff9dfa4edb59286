"""Images and their masks: ``DIR/images/*.jpg`` and ``DIR/masks/*.png``, of the same stems.

A mask is a PNG of the size of its image. Its pixels are indices of classes: of a gray PNG the
values, of a paletted PNG the indices into the palette. 255 is a pixel that nobody annotated.
`classes.txt` or `labels.txt` in DIR may name the classes, one a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import masks
from mobiledeploy.core import inputs, samples
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.types import Annotation, Split
from mobiledeploy.datasets import _images

NOT_ANNOTATED = 255
_IMAGES, _MASKS = "images", "masks"
_NAMES = ("classes.txt", "labels.txt")
_MODES = ("1", "L", "P", "I;16", "I")


class MaskFolder(_images.ImageFiles):
    """One split of images with masks; `places` are the model's classes of the masks' indices.

    Without names of classes `places` is None, and an index is its own class.
    """

    def __init__(
        self,
        source: str,
        split: Split,
        pairs: Sequence[tuple[str, Path, Path]],
        classes: tuple[str, ...],
        places: tuple[int, ...] | None,
    ) -> None:
        super().__init__(
            "masks", source, split, [p for _, p, _ in pairs], [n for n, _, _ in pairs], classes
        )
        self._masks = tuple(mask for _, _, mask in pairs)
        self._places = places

    def facts(self, index: int) -> str:
        """The hash of its mask, and what the classes are."""
        places = "" if self._places is None else ",".join(map(str, self._places))
        return f"\0{_images.content_hash(self._masks[index])}\0{places}"

    def label(self, index: int) -> int:
        """-1: a mask is no class of the image."""
        return -1

    def annotation(self, index: int) -> Annotation:
        """Its mask, at the size of the image; InputError for one that is no mask of classes."""
        table = _decoded(self._masks[index])
        known = table != NOT_ANNOTATED
        if self._places is not None:
            top = int(table[known].max(initial=0))
            if top >= len(self._places):
                raise InputError(
                    f"{self._masks[index]} has class {top}, but there are {len(self._places)} "
                    "names of classes",
                    "255 is for pixels without a class",
                )
            table = np.asarray(self._places, np.int64)[np.where(known, table, 0)]
        return Annotation(mask=masks.encode(np.where(known, table, -1)))


def accepts(source: str) -> bool:
    """Whether `source` is a folder with the folders images and masks."""
    return all(_images.is_folder(Path(source, name)) for name in (_IMAGES, _MASKS))


def open(
    source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Samples:
    """The images of `split` by `core.samples.part`, in the order of their names.

    Args:
        source: the folder that holds images and masks.
        split: see `core.samples.part`.
        resolution: not used: images have their own size.
        labels: class names in the model's order. Names in the folder are matched with them, else
            the masks hold indices into `labels`.

    Raises:
        InputError: no images, an image without a mask or a mask without an image, a mask that is no
            PNG or of another size than its image, or names that do not match.
    """
    root = Path(source)
    if not accepts(source):
        raise InputError(f"{source} has no folders images and masks")
    pairs = _pairs(root, source)
    part = [pairs[index] for index in samples.part_of(source, len(pairs), split)]
    for _, image, mask in part:
        own, other = _images.size(mask), _images.size(image)
        if own and other and own != other:
            texts = (f"{height} × {width}" for height, width in (own, other))
            raise InputError(
                f"{mask} has the size {' and its image '.join(texts)}",
                "make the mask as large as its image",
            )
    _refuse_white(part, source)
    names = _class_names(root, source)
    places: tuple[int, ...] | None = None
    if names or labels:
        places = samples.match(names or labels, labels, source)
    return MaskFolder(source, split, part, labels or names, places)


def _pairs(root: Path, source: str) -> list[tuple[str, Path, Path]]:
    """The name, the image and the mask of each sample, sorted."""
    images, tables = (_by_stem(root / name) for name in (_IMAGES, _MASKS))
    if not images:
        raise InputError(f"{root / _IMAGES} holds no JPEG or PNG image")
    for stems, others, what in ((images, tables, "mask"), (tables, images, "image")):
        alone = sorted(set(stems) - set(others))
        if alone:
            raise InputError(
                f"{len(alone)} of {len(stems)} files have no {what}: {stems[alone[0]]}",
                "give images and masks the same names; images without masks go elsewhere",
            )
    for mask in tables.values():
        if mask.suffix.lower() != ".png":
            raise InputError(f"{mask} is no PNG", "other formats change the classes of pixels")
    named = ((_images.printable(images[stem].name), stem) for stem in images)
    return sorted((name, images[stem], tables[stem]) for name, stem in named)


def _by_stem(folder: Path) -> dict[str, Path]:
    inside = _images.folders(folder)
    if inside:
        raise InputError(f"{folder} holds the folder {inside[0].name}", "put the files into it")
    stems: dict[str, Path] = {}
    for path in _images.loose(folder):
        if path.stem in stems:
            raise InputError(f"{stems[path.stem]} and {path.name} have one name", "rename one")
        stems[path.stem] = path
    return stems


def _class_names(root: Path, source: str) -> tuple[str, ...]:
    there = [name for name in _NAMES if (root / name).exists()]
    if len(there) > 1:
        raise InputError(f"{source} has {' and '.join(there)}", "keep one of them")
    if not there:
        return ()
    path = root / there[0]
    names = samples.label_names(inputs.text(path, inputs.TABLE).rstrip().splitlines(), str(path))
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path} does not name classes, each once, one a line")
    return names


def _decoded(path: Path) -> NDArray[np.int64]:
    """[H, W]: the class of each pixel; InputError for a PNG of colours or a broken one."""
    try:
        with _images.opened(path, str(path), ("PNG",)) as image:
            mode, table = image.mode, np.array(image)
    except BrokenImage as error:
        raise InputError(error.message, error.hint) from error
    if mode not in _MODES:
        raise InputError(
            f"{path} is a PNG of colours ({mode}), not of classes",
            "save it as a gray or paletted PNG that holds the index of each pixel's class",
        )
    return table.astype(np.int64)


def _refuse_white(pairs: Sequence[tuple[str, Path, Path]], source: str) -> None:
    """InputError where masks hold 0 and 255 alone, which is how programs paint black and white.

    Masks are decoded up to the first one that has another class.
    """
    values: set[int] = set()
    for _, _, mask in pairs:
        values.update(np.unique(_decoded(mask)).tolist())
        if not values <= {0, NOT_ANNOTATED}:
            return
    if NOT_ANNOTATED in values and 0 in values:
        raise InputError(
            f"the masks of {source} hold 0 and 255 only, and 255 is a pixel without a class",
            "save class 1 as 1, not as white",
        )
