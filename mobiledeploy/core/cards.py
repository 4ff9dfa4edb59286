"""Model cards: ``<name>.toml`` says what a model is, whose paper, and where its weights are.

The user's own folder comes first, so that a card can be added or replaced there; then the cards
that are installed with the package, which lie in the repository in an editable install.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core import preprocessing as preprocessing_
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.package import config_dir, shipped
from mobiledeploy.core.types import Argument, Preprocessing


@dataclass(frozen=True)
class CardDefaults(Record):
    """What is built when the command line does not say; no alpha where the paper has none."""

    resolution: int
    alpha: float | None = None


@dataclass(frozen=True)
class ResolutionLimits(Record):
    """Smallest and largest resolution in pixels."""

    resolution: tuple[int, int]


@dataclass(frozen=True)
class DemoFile(Record):
    """Weights that are shipped: `top1` is a fraction per resolution, by `command`."""

    file: str
    sha256: str
    top1: Mapping[str, float]
    alpha: float | None = None
    command: str = ""


@dataclass(frozen=True)
class DemoWeights(Record):
    """Weights trained on the built-in data set `data`, which has these classes."""

    classes: tuple[str, ...]
    data: str
    files: tuple[DemoFile, ...]
    crop: float = 1.0


@dataclass(frozen=True)
class ImagenetFile(Record):
    """Weights to download: `file` may hold {resolution}, one file for each of `resolutions`.

    `md5` is the publisher's own, "" where it gives none.
    """

    file: str
    resolutions: tuple[int, ...]
    alpha: float | None = None
    md5: str = ""


@dataclass(frozen=True)
class ImagenetWeights(Record):
    """Weights published by others at `base_url`."""

    base_url: str
    classes: int
    files: tuple[ImagenetFile, ...]


@dataclass(frozen=True)
class WeightSets(Record):
    """The weights that a card knows of."""

    demo: DemoWeights | None = None
    imagenet: ImagenetWeights | None = None


@dataclass(frozen=True)
class ModelCard(Record):
    """What is known of a model before it is built.

    `arguments` are those of the architecture that make this model of it (a variant's name, groups).
    `folder` is where the card lies, with `weights/` beside it.
    """

    name: str
    architecture: str
    title: str
    paper: str
    link: str
    defaults: CardDefaults
    limits: ResolutionLimits
    preprocessing: Preprocessing
    arguments: Mapping[str, Argument] = dataclasses.field(default_factory=dict)
    weights: WeightSets = WeightSets()
    folder: str = ""

    @property
    def default_alpha(self) -> float | None:
        """The width multiplier when none is said; None where the paper has none."""
        return self.defaults.alpha

    @property
    def default_resolution(self) -> int:
        """The resolution in pixels when none is said."""
        return self.defaults.resolution

    @property
    def resolution_limits(self) -> tuple[int, int]:
        """Smallest and largest resolution in pixels."""
        return self.limits.resolution


def folders() -> tuple[Path, ...]:
    """Where cards are looked for, first to last."""
    return (config_dir() / "models", shipped("models"))


def names() -> tuple[str, ...]:
    """Every card's name, sorted."""
    return listed(folders())


def load(name: str) -> ModelCard:
    """The card; UsageError for an unknown name, InputError naming file and field of a bad one."""
    return read(find("model card", name, folders()))


def listed(places: Sequence[Path]) -> tuple[str, ...]:
    """The names of all cards in these folders, sorted."""
    return tuple(sorted({path.stem for folder in places for path in folder.glob("*.toml")}))


def find(kind: str, name: str, places: Sequence[Path]) -> Path:
    """The first file of that name; UsageError that names the `kind` of card for an unknown one."""
    known = listed(places)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
        raise UsageError(f"no {kind} named {name!r}", hint)
    found = (folder / f"{name}.toml" for folder in places)
    return next(path for path in found if path.is_file())


def read(path: Path) -> ModelCard:
    """The card in a file; InputError naming file and field."""
    data = inputs.toml(path)
    if "folder" in data:
        raise InputError(f"{path}: fields folder do not fit")
    card: ModelCard = records.decode(ModelCard, data, str(path))
    _check(card, path)
    return dataclasses.replace(card, folder=str(path.parent))


def _check(card: ModelCard, path: Path) -> None:
    def demand(holds: bool, field: str, what: str) -> None:
        if not holds:
            raise InputError(f"{path}: {field} {what}")

    def check_alpha(alpha: float | None, field: str) -> None:
        if alpha is not None:
            demand(math.isfinite(alpha) and alpha > 0, field, f"is {alpha}, not above 0")

    def check_file(name: str, field: str) -> None:
        demand(Path(name).name == name and bool(name), field, f"{name!r} is not a file's name")

    demand(card.name == path.stem, "name", f"is {card.name!r}, not that of the file")
    check_alpha(card.default_alpha, "defaults.alpha")
    low, high = card.resolution_limits
    demand(0 < low <= high, "limits.resolution", "is not smallest, largest")
    demand(low <= card.default_resolution <= high, "defaults.resolution", "is beyond the limits")
    try:
        preprocessing_.validate(card.preprocessing)
    except UsageError as error:
        raise InputError(f"{path}: preprocessing: {error.message}") from error
    demo, imagenet = card.weights.demo, card.weights.imagenet
    if demo:
        where = "weights.demo"
        demand(2 <= len(demo.classes) == len(set(demo.classes)), f"{where}.classes", "repeat")
        demand(0 < demo.crop <= 1, f"{where}.crop", "is not above 0 and at most 1")
        for file in demo.files:
            check_alpha(file.alpha, f"{where}.files.alpha")
            check_file(file.file, f"{where}.files.file")
            hexadecimal = re.fullmatch("[0-9a-f]{64}", file.sha256) is not None
            demand(hexadecimal, f"{where}.files.sha256", f"{file.sha256!r} is not a sha256")
            for resolution, top1 in file.top1.items():
                fits = resolution.isdecimal() and 0 <= top1 <= 1
                demand(fits, f"{where}.files.top1", "is not a fraction per resolution")
    if imagenet:
        where = "weights.imagenet"
        web = imagenet.base_url.startswith(("https://", "http://"))
        demand(web, f"{where}.base_url", "is no web address")
        demand(imagenet.classes > 1, f"{where}.classes", "is not above 1")
        for published in imagenet.files:
            check_alpha(published.alpha, f"{where}.files.alpha")
            check_file(published.file, f"{where}.files.file")
            demand(
                re.fullmatch("([0-9a-f]{32})?", published.md5) is not None,
                f"{where}.files.md5",
                f"{published.md5!r} is not an md5",
            )
            demand(bool(published.resolutions), f"{where}.files.resolutions", "is empty")
