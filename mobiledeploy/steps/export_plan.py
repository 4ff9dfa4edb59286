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
from mobiledeploy.core.plugins import FORMATS, RECIPE_ALIASES, RECIPES, RUNTIMES, dataset
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    InputOutput,
    ModelFile,
    ModelSpec,
    NamedWarning,
    Output,
    Overrides,
    Preprocessing,
    Recipe,
    Source,
    Split,
    Weights,
)
from mobiledeploy.steps import card_specs, card_weights, conversion_process, model_files

# What generated images are drawn at to see that they are there.
ANY_RESOLUTION = (224, 224)
LARGEST_RESOLUTION = 4096
DEFAULT_ARCHITECTURE = "mobilenet_v1"
TOOLS = (
    "tensorflow",
    "tf_keras",
    "keras",
    "onnx",
    "ai-edge-quantizer",
    "numpy",
    "pillow",
)


# Rooms and files that no conversion runs: a change there leaves artifacts as they are.
NOT_CONVERTING = frozenset(
    (
        "__init__.py",
        "__main__.py",
        "cli",
        "executors",
        "pytest_plugin.py",
        "reports",
        "store",
        "verbs",
    )
)


@dataclass(frozen=True)
class ExportConfig:
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
class PlannedSource:
    """The model of an order (see `Source`), and the images that it was trained on, if known."""

    spec: ModelSpec
    file: ModelFile | None
    weights: str | None
    data: DataRef | None


@dataclass(frozen=True)
class ExportPlan:
    """An order that was found possible. `key` is a sha256 of all that its files depend on.

    `strict` says whether every job was asked for by name; `calibration` is the identity of the
    images that calibrate, `training` of those that integers are trained on, "" where none do;
    `named` are the class names that the data itself gives, () where it has numbers only; `judged`
    says whether the images can tell anything of accuracy.
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


def plan(config: ExportConfig, reporter: Reporter) -> ExportPlan:
    """Everything that an export depends on; DeployError for whatever can be refused beforehand."""
    if config.data == "":
        raise UsageError("--data is empty", "give DIR or FILE.npz")
    said = config.overrides.over(Preprocessing((-1.0, 1.0)))
    assert said is not None
    preprocessing.validate(said)
    strict = bool(config.recipes and config.formats and "all" not in config.recipes)
    jobs = _jobs(config)
    if config.io == "uint8":
        jobs = _with_uint8(jobs, strict, reporter)
    if config.custom_objects is not None and config.model is None:
        raise UsageError("--custom-objects goes with a model file of yours", "name it")
    own = _own_model(config, reporter) if config.model else None
    trained_on = own.data if own else None
    given = config.data or (trained_on.source if trained_on else None)
    names = sorted({recipe for recipe, _ in jobs if RECIPES.load(recipe).RECIPE.calibration})
    builtin = config.model is None and config.weights in (None, "demo", "random")
    if given is None and names and not builtin:
        raise UsageError(
            f"{', '.join(names)} needs images like those that the model will see",
            "give --data DIR or FILE.npz, or --recipe float32,float16",
        )
    # Only now: this may download weights.
    found = own or _from_card(config, reporter)
    spec = found.spec
    source = given or card_specs.DEMO
    # A network that was trained on the built-in images may be judged by them.
    builtin = builtin or (trained_on is not None and trained_on.source == card_specs.DEMO)
    if source == card_specs.DEMO and not builtin:
        if given:
            raise UsageError(
                "the demo images say nothing about a model that was not trained on them",
                "give --data DIR or FILE.npz",
            )
        reporter.warn(
            NamedWarning(
                "no-data",
                "no images were given: nothing is said of accuracy",
                "--data DIR or FILE.npz",
            )
        )
    resolution = None if config.res is None else (config.res, config.res)
    told = found.file.preprocessing if found.file else None
    named = config.overrides.labels or trained_on or told
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
    folder = _apart(config.out / _folder_name(spec, config), jobs, data, calibration, reporter)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file, not a folder", "choose another --out")
    judged = given is not None or builtin
    custom = None if config.custom_objects is None else str(config.custom_objects.absolute())
    return ExportPlan(
        Source(spec, found.file, found.weights, resolution, custom),
        jobs,
        strict,
        data,
        calibration,
        training,
        () if numbered or source == card_specs.DEMO else held.classes,
        judged,
        folder,
        _key(config, spec, found.file, data, calibration, training),
    )


def _jobs(config: ExportConfig) -> tuple[tuple[str, str], ...]:
    """(recipe, format) pairs, TFLite first, the most precise recipe first."""
    formats = tuple(dict.fromkeys(config.formats or FORMATS.names()[::-1]))
    for format_ in formats:
        if format_ not in FORMATS.names():
            raise UsageError(
                f"no format named {format_!r}", f"there are {', '.join(FORMATS.names())}"
            )
    known = [RECIPES.load(name).RECIPE for name in RECIPES.names()]
    if config.recipes is None:
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.plain]
    elif "all" in config.recipes:
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.formats]
    else:
        names = dict.fromkeys(RECIPE_ALIASES.get(name, name) for name in config.recipes)
        asked = [RECIPES.load(name).RECIPE for name in names]
        for recipe in asked:
            for f in config.formats or ():
                _refuse_impossible(recipe, f, known)
        jobs = [(recipe, f) for recipe in asked for f in formats if f in recipe.formats]
    jobs.sort(key=lambda j: (formats.index(j[1]), -j[0].weight_bits, -j[0].activation_bits))
    return tuple((recipe.name, format_) for recipe, format_ in jobs)


def _refuse_impossible(recipe: Recipe, format_: str, known: Sequence[Recipe]) -> None:
    if format_ not in recipe.formats:
        can = ", ".join(other.name for other in known if format_ in other.formats)
        raise InputError(f"{format_} cannot do {recipe.name}", f"it can do {can}")


def _with_uint8(
    jobs: tuple[tuple[str, str], ...], strict: bool, reporter: Reporter
) -> tuple[tuple[str, str], ...]:
    """The jobs that can have ends of uint8, and those of floats; UsageError where `strict`.

    What nobody asked for by name is left out with a warning.
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
        reporter.warn(conversion_process.left_out(name, format_, error))
    return tuple(kept)


def _from_card(config: ExportConfig, reporter: Reporter) -> PlannedSource:
    card = cards.load(config.arch or DEFAULT_ARCHITECTURE)
    source = config.weights or card_specs.DEMO
    alpha = config.alpha
    if alpha is None and source == card_specs.DEMO and card.weights.demo:
        # The widest that there are.
        alpha = max((f.alpha for f in card.weights.demo.files if f.alpha), default=None)
    fresh = card_specs.spec(card, alpha=alpha, groups=config.groups, res=config.res, classes=2)
    found = card_weights.weights(
        card, source, fresh.alpha, fresh.resolution[0], reporter, unsafe=config.unsafe
    )
    if source == "random":
        reporter.warn(
            NamedWarning(
                "random-weights",
                "the weights are random: sizes and times mean something, accuracy does not",
            )
        )
    base = (
        found.preprocessing
        if found.labels == ()
        else dataclasses.replace(found.preprocessing, labels=found.labels)
    )
    chosen = config.overrides.over(base)
    assert chosen is not None
    spec = dataclasses.replace(
        fresh, classes=found.classes, preprocessing=chosen, weights=found.weights
    )
    return PlannedSource(spec, None, None if found.path is None else str(found.path), None)


def _trained(path: Path, config: ExportConfig) -> PlannedSource:
    """What `mobiledeploy train` left in a folder: it knows its images and how they are fed."""
    run = runs.load(path)
    chosen = config.overrides.over(run.spec.preprocessing)
    assert chosen is not None
    spec = dataclasses.replace(run.spec, preprocessing=chosen)
    if config.res is not None:
        card = cards.load(spec.card or "")
        low, high = card.resolution_limits
        if not low <= config.res <= high:
            raise UsageError(f"resolution {config.res} is not within {low} to {high}")
        name = card_specs.name(card.name, spec.arguments, config.res)
        spec = dataclasses.replace(spec, resolution=(config.res, config.res), name=name)
    return PlannedSource(spec, None, str(path / run.weights), run.data)


def _own_model(config: ExportConfig, reporter: Reporter) -> PlannedSource:
    path = config.model
    assert path is not None
    for name, given in (
        ("--arch", config.arch),
        ("--alpha", config.alpha),
        ("--groups", config.groups),
        ("--weights", config.weights),
    ):
        if given is not None:
            raise UsageError(f"{name} does not go with a model file", "leave it away")
    if runs.is_run(path):
        return _trained(path, config)
    if config.res is not None and not 1 <= config.res <= LARGEST_RESOLUTION:
        raise UsageError(f"resolution {config.res} is not within 1 to {LARGEST_RESOLUTION}")
    custom = config.custom_objects is not None
    file = model_files.detect(path, unsafe=config.unsafe, custom=custom, reporter=reporter)
    if custom and file.format not in ("h5", "keras"):
        raise UsageError(f"{path.name} names no objects of Keras", "leave --custom-objects away")
    if file.content == "weights":
        raise InputError(
            f"{path.name} holds weights without a model",
            f"mobiledeploy export --weights {path} --alpha A --res R",
        )
    chosen = config.overrides.over(file.preprocessing)
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
    return PlannedSource(spec, file, None, None)


def _text(name: str) -> str:
    """A file's name that a record can hold, also where the name is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _folder_name(spec: ModelSpec, config: ExportConfig) -> str:
    """<arch>_<alpha>_<res>_<weights>; a model of the user's own: its file's name."""
    if spec.card is None:
        name = spec.name if config.res is None else f"{spec.name}_{config.res}"
    else:
        name = f"{spec.name}_{spec.weights.source}"
    return re.sub(r"[^\w.-]", "-", name).lstrip(".") or "model"


def _apart(
    folder: Path,
    jobs: Sequence[tuple[str, str]],
    data: DataRef,
    calibration: str,
    reporter: Reporter,
) -> Path:
    """`folder`, or one of these images' own where files of others would stay in it.

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
            reporter.say(f"{folder} holds {record.stem} of other images: these go to {own}")
            return own
    return folder


def _key(
    config: ExportConfig,
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
        name = path.relative_to(PACKAGE)
        if name.parts[0] not in NOT_CONVERTING:
            code.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    parts = {
        "code": code.hexdigest(),
        "tools": tools(),
        "spec": records.encode(spec),
        "model": model.sha256 if model else None,
        "data": records.encode(data),
        "calibration": calibration,
        "training": training,
        "keep_float": list(config.keep_float),
        "io": config.io,
        "output": config.output,
        "res": config.res,
        "custom_objects": _hash(config.custom_objects),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash(path: Path | None) -> str | None:
    return None if path is None else records.sha256(inputs.read(path, inputs.TABLE))


def tools() -> dict[str, str]:
    """Versions of what takes part in a conversion, "" for what is not installed."""
    versions = {"mobiledeploy": __version__}
    # Runtimes too: a record holds their golden answers.
    engines = [runtime.PACKAGE for _, runtime in RUNTIMES.each() if runtime.PREFERRED]
    for name in (*TOOLS, *engines):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return versions
