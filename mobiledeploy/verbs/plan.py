"""What an export will do: checked and keyed before anything is written.

Everything that can be refused without a framework is refused here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mobiledeploy import __version__
from mobiledeploy.core import preprocessing, records
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import CONVERTERS, PACKAGE, RECIPES, dataset
from mobiledeploy.core.ports import Notify
from mobiledeploy.core.types import (
    DataRef,
    Doubt,
    InputOutput,
    ModelFile,
    ModelSpec,
    Output,
    Overrides,
    Preprocessing,
    Recipe,
    Weights,
)
from mobiledeploy.verbs import models

# What generated pictures are drawn at to see that they are there.
ANY_RESOLUTION = (224, 224)
# TFLite's flatbuffers end at 2 GB: alpha 10 of the widest network here stays below.
LARGEST_ALPHA = 10.0
LARGEST_RESOLUTION = 4096
DEFAULT_ARCHITECTURE = "mobilenet_v1"
TOOLS = (
    "tensorflow", "tf_keras", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy",
    "pillow",
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What the command line asks for; None means the default of the card or of the recipes."""

    model: Path | None = None
    arch: str | None = None
    alpha: float | None = None
    res: int | None = None
    weights: str | None = None
    data: str | None = None
    recipes: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    io: InputOutput = "int8"
    output: Output = "softmax"
    overrides: Overrides = Overrides()
    out: Path = Path("build")
    force: bool = False
    unsafe: bool = False


@dataclass(frozen=True)
class Plan:
    """An order that was found possible. `key` is a sha256 of all that its files depend on.

    `resolution` is None where the model file alone knows it; `calibration` is the identity of the
    pictures that calibrate, "" where none do; `named` are the class names that the data itself
    gives, () where it has numbers only; `judged` says whether the pictures can tell anything of
    accuracy.
    """

    spec: ModelSpec
    resolution: tuple[int, int] | None
    model: ModelFile | None
    weights: str | None
    jobs: tuple[tuple[str, str], ...]
    data: DataRef
    calibration: str
    named: tuple[str, ...]
    judged: bool
    folder: Path
    key: str


def plan(order: Order, notify: Notify) -> Plan:
    """Everything that an export depends on; DeployError for whatever can be refused beforehand."""
    if order.data == "":
        raise UsageError("--data is empty", "give DIR or FILE.npz")
    said = order.overrides.over(Preprocessing((-1.0, 1.0)))
    assert said is not None
    preprocessing.validate(said)
    jobs = _jobs(order)
    own = _own_model(order) if order.model else None
    names = sorted({recipe for recipe, _ in jobs if RECIPES.load(recipe).RECIPE.calibration})
    builtin = order.model is None and order.weights in (None, "demo", "random")
    if order.data is None and names and not builtin:
        raise UsageError(
            f"{', '.join(names)} needs pictures like those that the model will see",
            "give --data DIR or FILE.npz, or --recipe float32,float16",
        )
    # Only now: this may download weights.
    spec, model, weights = own or _from_card(order, notify)
    source = order.data or "demo"
    if source == "demo" and not builtin:
        if order.data:
            raise UsageError(
                "the demo pictures say nothing about a model that was not trained on them",
                "give --data DIR or FILE.npz",
            )
        notify.doubt(
            Doubt(
                "no-data",
                "no pictures were given: nothing is said of accuracy",
                "--data DIR or FILE.npz",
            )
        )
    resolution = None if order.res is None else (order.res, order.res)
    labels = spec.preprocessing.labels if order.overrides.labels else ()
    # A model file's own resolution is known only once a framework has opened it.
    look = resolution or (spec.resolution if spec.card else ANY_RESOLUTION)
    held = dataset(source).open(source, "validation", resolution=look, labels=labels)
    data = DataRef(source, "validation", look, labels, held.identity)
    calibration = ""
    if names:
        fitted = dataset(source).open(source, "calibration", resolution=look, labels=labels)
        calibration = fitted.identity
    numbered = held.classes == tuple(map(str, range(len(held.classes))))
    folder = order.out / _folder_name(spec, order)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file, not a folder", "choose another --out")
    judged = order.data is not None or builtin
    return Plan(
        spec, resolution, model, weights, jobs, data, calibration,
        () if numbered or source == "demo" else held.classes, judged, folder,
        _key(order, spec, model, data, calibration),
    )  # fmt: skip


def _jobs(order: Order) -> tuple[tuple[str, str], ...]:
    """(recipe, format) pairs, TFLite first, the most precise recipe first."""
    formats = tuple(dict.fromkeys(order.formats or CONVERTERS.names()[::-1]))
    for format_ in formats:
        if format_ not in CONVERTERS.names():
            raise UsageError(
                f"no format named {format_!r}", f"there are {', '.join(CONVERTERS.names())}"
            )
    known = [RECIPES.load(name).RECIPE for name in RECIPES.names()]
    if order.recipes is None:
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.plain]
    elif "all" in order.recipes:
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.formats]
    else:
        asked = [RECIPES.load(name).RECIPE for name in dict.fromkeys(order.recipes)]
        for recipe in asked:
            for f in order.formats or ():
                _refuse_impossible(recipe, f, known)
        jobs = [(recipe, f) for recipe in asked for f in formats if f in recipe.formats]
    jobs.sort(key=lambda j: (formats.index(j[1]), -j[0].weight_bits, -j[0].activation_bits))
    return tuple((recipe.name, format_) for recipe, format_ in jobs)


def _refuse_impossible(recipe: Recipe, format_: str, known: Sequence[Recipe]) -> None:
    if format_ not in recipe.formats:
        can = ", ".join(other.name for other in known if format_ in other.formats)
        raise InputError(f"{format_} cannot do {recipe.name}", f"it can do {can}")


def _from_card(order: Order, notify: Notify) -> tuple[ModelSpec, None, str | None]:
    (card,) = models.models(order.arch or DEFAULT_ARCHITECTURE)
    source = order.weights or "demo"
    alpha = _default_alpha(card, source) if order.alpha is None else order.alpha
    size = card.default_resolution if order.res is None else order.res
    low, high = card.resolution_limits
    if not 0 < alpha <= LARGEST_ALPHA:
        raise UsageError(f"alpha {alpha:g} is not above 0 and at most {LARGEST_ALPHA:g}")
    if not low <= size <= high:
        raise UsageError(f"resolution {size} is not within {low} to {high}")
    found = models.weights(card, source, alpha, size, notify, unsafe=order.unsafe)
    if source == "random":
        notify.doubt(
            Doubt(
                "random-weights",
                "the weights are random: sizes and times mean something, accuracy does not",
            )
        )
    base = (
        found.preprocessing
        if found.labels == ()
        else dataclasses.replace(found.preprocessing, labels=found.labels)
    )
    chosen = order.overrides.over(base)
    assert chosen is not None
    spec = ModelSpec(
        name=f"{card.name}_{alpha:g}_{size}",
        card=card.name,
        architecture=card.architecture,
        arguments={"alpha": alpha},
        resolution=(size, size),
        classes=found.classes,
        preprocessing=chosen,
        weights=found.weights,
        paper=card.paper,
    )
    return spec, None, None if found.path is None else str(found.path)


def _default_alpha(card: ModelCard, source: str) -> float:
    """The card's, or for the demo weights the widest that there are."""
    if source == "demo" and card.weights.demo and card.weights.demo.files:
        return max(file.alpha for file in card.weights.demo.files)
    return card.default_alpha


def _own_model(order: Order) -> tuple[ModelSpec, ModelFile, None]:
    path = order.model
    assert path is not None
    for name, given in (
        ("--arch", order.arch), ("--alpha", order.alpha), ("--weights", order.weights)
    ):  # fmt: skip
        if given is not None:
            raise UsageError(f"{name} does not go with a model file", "leave it away")
    if order.res is not None and not 1 <= order.res <= LARGEST_RESOLUTION:
        raise UsageError(f"resolution {order.res} is not within 1 to {LARGEST_RESOLUTION}")
    file = models.detect(path, unsafe=order.unsafe)
    if file.content == "weights":
        raise InputError(
            f"{path.name} holds weights without a model",
            f"mobiledeploy export --weights {path} --alpha A --res R",
        )
    chosen = order.overrides.over(None)
    if chosen is None:
        raise UsageError(
            "what pixels were scaled to when this model was trained is not in its file",
            "say --input-range 0,1 or -1,1 or 0,255",
        )
    spec = ModelSpec(
        name=_text(path.stem),
        card=None,
        architecture=file.framework,
        arguments={},
        resolution=(0, 0),
        classes=0,
        preprocessing=chosen,
        weights=Weights(_text(path.name), file.sha256, pinned=False),
    )
    return spec, file, None


def _text(name: str) -> str:
    """A file's name that a record can hold, also where the name is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _folder_name(spec: ModelSpec, order: Order) -> str:
    """<arch>_<alpha>_<res>_<weights>; a model of the user's own: its file's name."""
    if spec.card is None:
        name = spec.name if order.res is None else f"{spec.name}_{order.res}"
    else:
        name = f"{spec.name}_{spec.weights.source}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".") or "model"


def _key(
    order: Order, spec: ModelSpec, model: ModelFile | None, data: DataRef, calibration: str
) -> str:
    """What a file depends on but for its own recipe: inputs, choices, and the code that makes it.

    Every export to one folder renames into the same files: the key in their records tells whose
    they are.
    """
    code = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        code.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    parts = {
        "code": code.hexdigest(),
        "tools": tools(),
        "spec": records.encode(spec),
        "model": model.sha256 if model else None,
        "data": records.encode(data),
        "calibration": calibration,
        "io": order.io,
        "output": order.output,
        "res": order.res,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tools() -> dict[str, str]:
    """Versions of what takes part in a conversion, "" for what is not installed."""
    versions = {"mobiledeploy": __version__}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return versions
