"""Model cards: ``<name>.toml`` describes a model, its paper, and where its weights are.

The user's own folder is searched first, so that a user can add or replace a card there. Then come
the cards that are installed with the package (in an editable install: those of the repository).
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
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.types import Argument, Preprocessing


@dataclass(frozen=True)
class CardDefaults(Record):
    """What is built if the command line gives nothing else; alpha is None if the paper has none."""

    resolution: int
    alpha: float | None = None


@dataclass(frozen=True)
class ResolutionLimits(Record):
    """Smallest and largest resolution in pixels."""

    resolution: tuple[int, int]


@dataclass(frozen=True)
class DemoFile(Record):
    """Weights that come with the package: `metric` is a fraction per resolution.

    It is the first figure of the card's task. Cards of earlier versions name it `top1`. `command`
    made the weights.
    """

    file: str
    sha256: str
    top1: Mapping[str, float] = dataclasses.field(default_factory=dict)
    alpha: float | None = None
    command: str = ""
    metric: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def figures(self) -> Mapping[str, float]:
        """The figure per resolution, whatever its name."""
        return self.metric or self.top1


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

    `md5` is the one that the publisher gives, "" if there is none.
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
    """The weights that a card lists."""

    demo: DemoWeights | None = None
    imagenet: ImagenetWeights | None = None


@dataclass(frozen=True)
class ModelCard(Record):
    """The facts about a model that are known before it is built.

    `task` is what it answers, a file of `tasks/`. `arguments` are the architecture's arguments for
    this model (a variant's name, groups). `folder` is the card's folder, with `weights/` in it.
    """

    name: str
    architecture: str
    title: str
    paper: str
    link: str
    defaults: CardDefaults
    limits: ResolutionLimits
    preprocessing: Preprocessing
    task: str = "classification"
    arguments: Mapping[str, Argument] = dataclasses.field(default_factory=dict)
    weights: WeightSets = WeightSets()
    folder: str = ""

    @property
    def default_alpha(self) -> float | None:
        """The default width multiplier; None if the paper has none."""
        return self.defaults.alpha

    @property
    def default_resolution(self) -> int:
        """The default resolution in pixels."""
        return self.defaults.resolution

    @property
    def resolution_limits(self) -> tuple[int, int]:
        """Smallest and largest resolution in pixels."""
        return self.limits.resolution


def folders() -> tuple[Path, ...]:
    """The folders that are searched for cards, in this order."""
    return (config_dir() / "models", shipped("models"))


def names() -> tuple[str, ...]:
    """Every card's name, sorted."""
    return names_in(folders())


def load(name: str) -> ModelCard:
    """The card; UsageError for an unknown name, InputError naming file and field of a bad one."""
    return read(find("model card", name, folders()))


def names_in(places: Sequence[Path]) -> tuple[str, ...]:
    """The names of all cards in these folders, sorted."""
    return tuple(sorted({path.stem for folder in places for path in folder.glob("*.toml")}))


def find(kind: str, name: str, places: Sequence[Path]) -> Path:
    """The first file of that name.

    For an unknown name a UsageError that names the `kind` of card.
    """
    available = names_in(places)
    if name not in available:
        matches = difflib.get_close_matches(name, available, n=1)
        hint = (
            f"did you mean {matches[0]}?"
            if matches
            else f"there are {', '.join(available) or 'none'}"
        )
        raise UsageError(f"no {kind} named {name!r}", hint)
    candidates = (folder / f"{name}.toml" for folder in places)
    return next(path for path in candidates if path.is_file())


def read(path: Path) -> ModelCard:
    """The card in a file; InputError naming file and field."""
    data = inputs.toml(path)
    if "folder" in data:
        raise InputError(f"{path}: fields folder do not fit")
    card: ModelCard = records.decode(ModelCard, data, str(path))
    _check(card, path)
    return dataclasses.replace(card, folder=str(path.parent))


def _check(card: ModelCard, path: Path) -> None:
    def require(condition: bool, field: str, what: str) -> None:
        if not condition:
            raise InputError(f"{path}: {field} {what}")

    def check_alpha(alpha: float | None, field: str) -> None:
        if alpha is not None:
            require(math.isfinite(alpha) and alpha > 0, field, f"is {alpha}, not above 0")

    def check_file(name: str, field: str) -> None:
        require(Path(name).name == name and bool(name), field, f"{name!r} is not a file's name")

    require(card.name == path.stem, "name", f"is {card.name!r}, not that of the file")
    tasks = TASKS.names()
    require(card.task in tasks, "task", f"is {card.task!r}, none of {', '.join(tasks)}")
    check_alpha(card.default_alpha, "defaults.alpha")
    low, high = card.resolution_limits
    require(0 < low <= high, "limits.resolution", "is not smallest, largest")
    require(low <= card.default_resolution <= high, "defaults.resolution", "is beyond the limits")
    try:
        preprocessing_.validate(card.preprocessing)
    except UsageError as error:
        raise InputError(f"{path}: preprocessing: {error.message}") from error
    demo, imagenet = card.weights.demo, card.weights.imagenet
    if demo:
        where = "weights.demo"
        require(2 <= len(demo.classes) == len(set(demo.classes)), f"{where}.classes", "repeat")
        require(0 < demo.crop <= 1, f"{where}.crop", "is not above 0 and at most 1")
        for file in demo.files:
            check_alpha(file.alpha, f"{where}.files.alpha")
            check_file(file.file, f"{where}.files.file")
            hexadecimal = re.fullmatch("[0-9a-f]{64}", file.sha256) is not None
            require(hexadecimal, f"{where}.files.sha256", f"{file.sha256!r} is not a sha256")
            for name, figures in (("top1", file.top1), ("metric", file.metric)):
                for resolution, figure in figures.items():
                    is_valid = resolution.isdecimal() and 0 <= figure <= 1
                    require(is_valid, f"{where}.files.{name}", "is not a fraction per resolution")
    if imagenet:
        where = "weights.imagenet"
        is_web_address = imagenet.base_url.startswith(("https://", "http://"))
        require(is_web_address, f"{where}.base_url", "is no web address")
        require(imagenet.classes > 1, f"{where}.classes", "is not above 1")
        for file_ in imagenet.files:
            check_alpha(file_.alpha, f"{where}.files.alpha")
            check_file(file_.file, f"{where}.files.file")
            require(
                re.fullmatch("([0-9a-f]{32})?", file_.md5) is not None,
                f"{where}.files.md5",
                f"{file_.md5!r} is not an md5",
            )
            require(bool(file_.resolutions), f"{where}.files.resolutions", "is empty")
