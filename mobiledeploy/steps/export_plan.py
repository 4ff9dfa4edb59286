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
from mobiledeploy.core import cards, inputs, preprocessing, records, runs
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.package import PACKAGE
from mobiledeploy.core.plugins import FORMATS, RECIPE_ALIASES, RECIPES, dataset
from mobiledeploy.core.ports import Notify
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Doubt,
    InputOutput,
    ModelFile,
    ModelSpec,
    Output,
    Overrides,
    Preprocessing,
    Recipe,
    Source,
    Split,
    Weights,
)
from mobiledeploy.steps import card_specs, card_weights, conversion_process, model_files

# What generated pictures are drawn at to see that they are there.
ANY_RESOLUTION = (224, 224)
LARGEST_RESOLUTION = 4096
DEFAULT_ARCHITECTURE = "mobilenet_v1"
TOOLS = (
    "tensorflow",
    "tf_keras",
    "keras",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "numpy",
    "pillow",
)


@dataclass(frozen=True)
class Order:
    """What the command line asks for; None means the default of the card or of the recipes."""

    model: Path | None = None
    arch: str | None = None
    alpha: float | None = None
    groups: int | None = None
    res: int | None = None
    weights: str | None = None
    data: str | None = None
    recipes: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    io: InputOutput = "int8"
    output: Output = "model"
    keep_float: tuple[str, ...] = ()
    custom_objects: Path | None = None
    overrides: Overrides = Overrides()
    out: Path = Path("build")
    force: bool = False
    unsafe: bool = False


@dataclass(frozen=True)
class Opened:
    """The model of an order (see `Source`), and the pictures that it was trained on, if known."""

    spec: ModelSpec
    file: ModelFile | None
    weights: str | None
    data: DataRef | None


@dataclass(frozen=True)
class Plan:
    """An order that was found possible. `key` is a sha256 of all that its files depend on.

    `strict` says whether every job was asked for by name; `calibration` is the identity of the
    pictures that calibrate, `training` of those that integers are trained on, "" where none do;
    `named` are the class names that the data itself gives, () where it has numbers only; `judged`
    says whether the pictures can tell anything of accuracy.
    """

    source: Source
    jobs: tuple[tuple[str, str], ...]
    strict: bool
    data: DataRef
    calibration: str
    training: str
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
    strict = bool(order.recipes and order.formats and "all" not in order.recipes)
    jobs = _jobs(order)
    if order.io == "uint8":
        jobs = _with_uint8(jobs, strict, notify)
    if order.custom_objects is not None and order.model is None:
        raise UsageError("--custom-objects goes with a model file of yours", "name it")
    own = _own_model(order, notify) if order.model else None
    trained_on = own.data if own else None
    given = order.data or (trained_on.source if trained_on else None)
    names = sorted({recipe for recipe, _ in jobs if RECIPES.load(recipe).RECIPE.calibration})
    builtin = order.model is None and order.weights in (None, "demo", "random")
    if given is None and names and not builtin:
        raise UsageError(
            f"{', '.join(names)} needs pictures like those that the model will see",
            "give --data DIR or FILE.npz, or --recipe float32,float16",
        )
    # Only now: this may download weights.
    found = own or _from_card(order, notify)
    spec = found.spec
    source = given or card_specs.DEMO
    # A network that was trained on the built-in pictures may be judged by them.
    builtin = builtin or (trained_on is not None and trained_on.source == card_specs.DEMO)
    if source == card_specs.DEMO and not builtin:
        if given:
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
    told = found.file.preprocessing if found.file else None
    named = order.overrides.labels or trained_on or told
    labels = spec.preprocessing.labels if named else ()
    # A model file's own resolution is known only once a framework has opened it.
    look = resolution or (spec.resolution if spec.card else ANY_RESOLUTION)
    # What a network was trained on cannot judge it.
    own_data = trained_on is not None and trained_on.source == source
    trains = any(RECIPES.load(recipe).RECIPE.training for recipe, _ in jobs)
    split: Split = "held" if own_data or trains else "validation"
    held = dataset(source).open(source, split, resolution=look, labels=labels)
    data = DataRef(source, split, look, labels, held.identity)
    calibration = ""
    if names:
        fitted = dataset(source).open(source, "calibration", resolution=look, labels=labels)
        calibration = fitted.identity
    training = ""
    if trains:
        seen = dataset(source).open(source, "train", resolution=look, labels=labels)
        training = seen.identity
    numbered = held.classes == tuple(map(str, range(len(held.classes))))
    folder = _apart(order.out / _folder_name(spec, order), jobs, data, calibration, notify)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file, not a folder", "choose another --out")
    judged = given is not None or builtin
    custom = None if order.custom_objects is None else str(order.custom_objects.absolute())
    return Plan(
        Source(spec, found.file, found.weights, resolution, custom),
        jobs,
        strict,
        data,
        calibration,
        training,
        () if numbered or source == card_specs.DEMO else held.classes,
        judged,
        folder,
        _key(order, spec, found.file, data, calibration, training),
    )


def _jobs(order: Order) -> tuple[tuple[str, str], ...]:
    """(recipe, format) pairs, TFLite first, the most precise recipe first."""
    formats = tuple(dict.fromkeys(order.formats or FORMATS.names()[::-1]))
    for format_ in formats:
        if format_ not in FORMATS.names():
            raise UsageError(
                f"no format named {format_!r}", f"there are {', '.join(FORMATS.names())}"
            )
    known = [RECIPES.load(name).RECIPE for name in RECIPES.names()]
    if order.recipes is None:
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.plain]
    elif "all" in order.recipes:
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.formats]
    else:
        names = dict.fromkeys(RECIPE_ALIASES.get(name, name) for name in order.recipes)
        asked = [RECIPES.load(name).RECIPE for name in names]
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


def _with_uint8(
    jobs: tuple[tuple[str, str], ...], strict: bool, notify: Notify
) -> tuple[tuple[str, str], ...]:
    """The jobs that can have ends of uint8, and those of floats; UsageError as `Plan.strict` says.

    What nobody asked for by name is left out with a doubt.
    """
    kept, refused = [], []
    for name, format_ in jobs:
        recipe, file = RECIPES.load(name).RECIPE, conversion_process.file_name(name, format_)
        if not recipe.full_integer or (format_ == "tflite" and recipe.activation_bits == 8):
            kept.append((name, format_))
        elif format_ != "tflite":
            error = UsageError(f"{file} cannot take uint8, which is for TFLite", "--format tflite")
            refused.append((name, format_, error))
        else:
            bits = f"{recipe.activation_bits} bits"
            error = UsageError(f"{file} cannot take uint8: its codes are of {bits}", "--io int8")
            refused.append((name, format_, error))
    for name, format_, error in refused:
        if strict or not kept:
            raise error
        notify.doubt(conversion_process.left_out(name, format_, error))
    return tuple(kept)


def _from_card(order: Order, notify: Notify) -> Opened:
    card = cards.load(order.arch or DEFAULT_ARCHITECTURE)
    source = order.weights or card_specs.DEMO
    alpha = order.alpha
    if alpha is None and source == card_specs.DEMO and card.weights.demo:
        # The widest that there are.
        alpha = max((f.alpha for f in card.weights.demo.files if f.alpha), default=None)
    fresh = card_specs.spec(card, alpha=alpha, groups=order.groups, res=order.res, classes=2)
    width = None if card.default_alpha is None else float(fresh.arguments["alpha"])
    found = card_weights.weights(
        card, source, width, fresh.resolution[0], notify, unsafe=order.unsafe
    )
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
    spec = dataclasses.replace(
        fresh, classes=found.classes, preprocessing=chosen, weights=found.weights
    )
    return Opened(spec, None, None if found.path is None else str(found.path), None)


def _trained(path: Path, order: Order) -> Opened:
    """What `mobiledeploy train` left in a folder: it knows its pictures and how they are fed."""
    run = runs.load(path)
    chosen = order.overrides.over(run.spec.preprocessing)
    assert chosen is not None
    spec = dataclasses.replace(run.spec, preprocessing=chosen)
    if order.res is not None:
        card = cards.load(spec.card or "")
        low, high = card.resolution_limits
        if not low <= order.res <= high:
            raise UsageError(f"resolution {order.res} is not within {low} to {high}")
        name = spec.name.rpartition("_")[0]
        spec = dataclasses.replace(
            spec, resolution=(order.res, order.res), name=f"{name}_{order.res}"
        )
    return Opened(spec, None, str(path / run.weights), run.data)


def _own_model(order: Order, notify: Notify) -> Opened:
    path = order.model
    assert path is not None
    for name, given in (
        ("--arch", order.arch),
        ("--alpha", order.alpha),
        ("--groups", order.groups),
        ("--weights", order.weights),
    ):
        if given is not None:
            raise UsageError(f"{name} does not go with a model file", "leave it away")
    if runs.is_run(path):
        return _trained(path, order)
    if order.res is not None and not 1 <= order.res <= LARGEST_RESOLUTION:
        raise UsageError(f"resolution {order.res} is not within 1 to {LARGEST_RESOLUTION}")
    custom = order.custom_objects is not None
    file = model_files.detect(path, unsafe=order.unsafe, custom=custom, notify=notify)
    if custom and file.format not in ("h5", "keras"):
        raise UsageError(f"{path.name} names no objects of Keras", "leave --custom-objects away")
    if file.content == "weights":
        raise InputError(
            f"{path.name} holds weights without a model",
            f"mobiledeploy export --weights {path} --alpha A --res R",
        )
    chosen = order.overrides.over(file.preprocessing)
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
    return Opened(spec, file, None, None)


def _text(name: str) -> str:
    """A file's name that a record can hold, also where the name is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _folder_name(spec: ModelSpec, order: Order) -> str:
    """<arch>_<alpha>_<res>_<weights>; a model of the user's own: its file's name."""
    if spec.card is None:
        name = spec.name if order.res is None else f"{spec.name}_{order.res}"
    else:
        name = f"{spec.name}_{spec.weights.source}"
    return re.sub(r"[^\w.-]", "-", name).lstrip(".") or "model"


def _apart(
    folder: Path, jobs: Sequence[tuple[str, str]], data: DataRef, calibration: str, notify: Notify
) -> Path:
    """`folder`, or one of these pictures' own where files of others would stay in it.

    Files of one folder are held against each other: of half of them replaced, nobody would see.
    """
    replaced = {conversion_process.file_name(recipe, format_) for recipe, format_ in jobs}
    for record in sorted(folder.glob("*.json")):
        if record.stem in replaced:
            continue
        try:
            text = inputs.read(record, inputs.RECORD)
            other = records.loads(Artifact, text, str(record))
        except InputError:
            # No record of ours.
            continue
        alike = data.source == other.data.source == card_specs.DEMO or (
            data.identity == other.data.identity
            and (calibration == other.calibration or "" in (calibration, other.calibration))
        )
        if not alike:
            own = folder.with_name(f"{folder.name}_{data.identity[:8]}")
            notify.say(f"{folder} holds {record.stem} of other images: these go to {own}")
            return own
    return folder


def _key(
    order: Order,
    spec: ModelSpec,
    model: ModelFile | None,
    data: DataRef,
    calibration: str,
    training: str,
) -> str:
    """What a file depends on but for its own recipe: inputs, choices, and the code that makes it.

    Every export to one folder renames into the same files: the key in their records tells whose
    they are.
    """
    code = hashlib.sha256()
    # Locks too: they say what is in the environments that a source calls.
    for path in sorted((*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.lock"))):
        code.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    parts = {
        "code": code.hexdigest(),
        "tools": tools(),
        "spec": records.encode(spec),
        "model": model.sha256 if model else None,
        "data": records.encode(data),
        "calibration": calibration,
        "training": training,
        "keep_float": list(order.keep_float),
        "io": order.io,
        "output": order.output,
        "res": order.res,
        "custom_objects": _hash(order.custom_objects),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash(path: Path | None) -> str | None:
    return None if path is None else records.sha256(inputs.read(path, inputs.TABLE))


def tools() -> dict[str, str]:
    """Versions of what takes part in a conversion, "" for what is not installed."""
    versions = {"mobiledeploy": __version__}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return versions
