"""Plans an export: checks its arguments and computes its key before anything is written.

Everything that can be refused without a framework is refused here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mobiledeploy import __version__
from mobiledeploy.core import builtin_data, cards, inputs, preprocessing, records, runs
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import DeployError, InputError, NoSplit, UsageError
from mobiledeploy.core.package import PACKAGE
from mobiledeploy.core.plugins import (
    FORMATS,
    RECIPE_ALIASES,
    RECIPES,
    RUNTIMES,
    data_of_task,
    dataset,
)
from mobiledeploy.core.ports import Reporter, Samples
from mobiledeploy.core.samples import labelled_classes
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    ExportArguments,
    InputOutput,
    ModelFile,
    ModelSpec,
    NamedWarning,
    Output,
    Preprocessing,
    Recipe,
    Source,
    Split,
    Weights,
)
from mobiledeploy.steps import (
    card_specs,
    card_weights,
    conversion_process,
    count,
    model_files,
    task_choice,
)
from mobiledeploy.steps.arguments import Overrides, need_model_file

# The resolution at which generated images are drawn to check that they exist.
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


# Rooms and files that do not take part in a conversion: a change there does not change the key.
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
    """The arguments of an export; None means the default of the card or of the recipes."""

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
    shrink: bool = True
    core: str | None = None
    task: str = ""
    custom_objects: Path | None = None
    overrides: Overrides = Overrides()
    out: Path = Path("build")
    force: bool = False
    unsafe: bool = False


def arguments(config: ExportConfig) -> ExportArguments:
    """The arguments of an export for the records of its files."""
    changes = config.overrides
    return ExportArguments(
        model=None if config.model is None else records.file_name(config.model),
        arch=config.arch,
        alpha=config.alpha,
        groups=config.groups,
        res=config.res,
        weights=None if config.weights is None else records.file_name(config.weights),
        data=None if config.data is None else records.file_name(config.data),
        recipes=config.recipes or (),
        formats=config.formats or (),
        io=config.io,
        output=config.output,
        keep_float=config.keep_float,
        shrink=config.shrink,
        task=config.task,
        custom_objects=(
            None if config.custom_objects is None else records.file_name(config.custom_objects)
        ),
        unsafe=config.unsafe,
        labels=changes.labels is not None,
        input_range=changes.input_range,
        mean=changes.mean,
        std=changes.std,
        channels=changes.channels,
        resize=changes.resize,
        crop=changes.crop,
        core=config.core,
    )


@dataclass(frozen=True)
class PlannedSource:
    """The model of an export (see `Source`), and the images of its training, if known."""

    spec: ModelSpec
    file: ModelFile | None
    weights: str | None
    data: DataRef | None


@dataclass(frozen=True)
class ExportPlan:
    """An export that has passed its checks. `key` is a sha256 of everything its files depend on.

    `strict` says whether every job was requested by name; `calibration` is the identity of the
    calibration images, `training` of those of quantization-aware training, "" for none;
    `class_names` are those of the data, () if it has only numbers; `classes` is how many classes
    the user's data has labels of, 0 for none; `evaluates` says whether the
    images can measure accuracy.
    """

    source: Source
    jobs: tuple[tuple[str, str], ...]
    strict: bool
    data: DataRef
    calibration: str
    training: str
    class_names: tuple[str, ...]
    classes: int
    evaluates: bool
    folder: Path
    key: str


def plan(config: ExportConfig, reporter: Reporter) -> ExportPlan:
    """Plans an export; DeployError for everything that can be refused before the work."""
    if config.data == "":
        raise UsageError("--data is empty", "give DIR or FILE.npz")
    default_preprocessing = config.overrides.over(Preprocessing((-1.0, 1.0)))
    assert default_preprocessing is not None
    preprocessing.validate(default_preprocessing)
    if config.core is not None:
        count.need_core(config.core)
    strict = bool(config.recipes and config.formats and "all" not in config.recipes)
    jobs = _jobs(config)
    if config.io == "uint8":
        jobs = _with_uint8(jobs, strict, reporter)
    if config.output == "detections":
        jobs = _with_tflite(jobs, config)
    if config.custom_objects is not None and config.model is None:
        raise UsageError("--custom-objects goes with a model file of yours", "name it")
    own = _own_model(config, reporter) if config.model else None
    trained_on = own.data if own else None
    data_source = config.data or (trained_on.source if trained_on else None)
    names = sorted({recipe for recipe, _ in jobs if RECIPES.load(recipe).RECIPE.calibration})
    builtin = config.model is None and config.weights in (None, "demo", "random")
    if data_source is None and names and not builtin:
        raise UsageError(
            f"{', '.join(names)} needs images like those that the model will see",
            "give --data DIR or FILE.npz, or --recipe float32,float16",
        )
    # Not earlier, because this may download weights.
    planned = own or _from_card(config, reporter)
    spec = _of_task(planned.spec, config)
    source = data_of_task(data_source or builtin_data.DEMO, spec.task)
    if config.data is None and trained_on is not None and not _is_here(source):
        raise UsageError(
            f"{config.model} was trained on {source}, which is not here",
            "give --data with these images, or start where the training started",
        )
    if builtin and source not in (builtin_data.DEMO, data_source):
        reporter.say(f"the demo images of {spec.task} are {source}")
    if (
        config.model is None
        and config.weights in (None, "demo")
        and source not in builtin_data.NAMES
    ):
        reporter.warn(
            NamedWarning(
                "demo-weights",
                f"the demo weights know the built-in images, and not what is in {source}",
                f"mobiledeploy train --init demo --data {shlex.quote(source)} trains them on it",
            )
        )
    # The built-in images can evaluate a network that was trained on them.
    builtin = builtin or (trained_on is not None and trained_on.source in builtin_data.NAMES)
    if source in builtin_data.NAMES and not builtin:
        if data_source:
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
    file_preprocessing = planned.file.preprocessing if planned.file else None
    has_labels = config.overrides.labels or trained_on or file_preprocessing
    labels = spec.preprocessing.labels if has_labels else ()
    # The resolution of a model file is known only after a framework opens it.
    look = resolution or (spec.resolution if spec.card else ANY_RESOLUTION)
    # The training images of a network cannot evaluate it.
    moved = None if trained_on is None else _moved(trained_on, source, look, labels)
    own_data = moved is not None or (trained_on is not None and source == trained_on.source)
    trains = any(RECIPES.load(recipe).RECIPE.training for recipe, _ in jobs)
    split: Split = "held" if own_data or trains else "validation"
    evaluates = data_source is not None or builtin
    try:
        samples = moved
        if samples is None:
            samples = dataset(source).open(source, split, resolution=look, labels=labels)
    except NoSplit as error:
        if not names or trains:
            raise
        reporter.warn(
            NamedWarning("no-data", f"{error.message}: nothing is said of accuracy", error.hint)
        )
        evaluates, split = False, "calibration"
        samples = dataset(source).open(source, split, resolution=look, labels=labels)
    task_choice.require_classes(spec.task, samples)
    data = DataRef(source, split, look, labels, samples.identity)
    calibration = ""
    if names:
        calibration_samples = dataset(source).open(
            source, "calibration", resolution=look, labels=labels
        )
        calibration = calibration_samples.identity
    training = ""
    if trains:
        training_samples = dataset(source).open(source, "train", resolution=look, labels=labels)
        training = training_samples.identity
    numbered = samples.classes == tuple(map(str, range(len(samples.classes))))
    folder = _apart(config.out / _folder_name(spec, config), jobs, data, calibration, reporter)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file, not a folder", "choose another --out")
    custom = None if config.custom_objects is None else str(config.custom_objects.absolute())
    return ExportPlan(
        Source(spec, planned.file, planned.weights, resolution, custom),
        jobs,
        strict,
        data,
        calibration,
        training,
        () if numbered or source in builtin_data.NAMES else samples.classes,
        labelled_classes(samples) if evaluates else 0,
        evaluates,
        folder,
        _key(config, spec, planned.file, data, calibration, training),
    )


def _of_task(spec: ModelSpec, config: ExportConfig) -> ModelSpec:
    """The model with the task that the user names; another name for what is cut out of it.

    So the files of an embedding do not replace those of its classifier.
    """
    task = config.task or spec.task
    cut = (
        task == conversion_process.EMBEDDING
        and spec.card is not None
        and spec.task != conversion_process.EMBEDDING
    )
    if config.output == "pooled":
        if config.task not in ("", conversion_process.EMBEDDING):
            raise UsageError(
                f"--output pooled gives an embedding, and --task names {task}", "leave out one"
            )
        task, cut = conversion_process.EMBEDDING, True
    name = f"{spec.name}_{conversion_process.EMBEDDING}" if cut else spec.name
    return dataclasses.replace(spec, name=name, task=task)


def _jobs(config: ExportConfig) -> tuple[tuple[str, str], ...]:
    """(recipe, format) pairs, TFLite first, the most precise recipe first."""
    formats = tuple(dict.fromkeys(config.formats or FORMATS.names()[::-1]))
    for format_ in formats:
        if format_ not in FORMATS.names():
            raise UsageError(
                f"no format named {format_!r}", f"there are {', '.join(FORMATS.names())}"
            )
    recipes = [RECIPES.load(name).RECIPE for name in RECIPES.names()]
    if config.recipes is None:
        jobs = [(recipe, f) for recipe in recipes for f in formats if f in recipe.plain]
    elif "all" in config.recipes:
        jobs = [(recipe, f) for recipe in recipes for f in formats if f in recipe.formats]
    else:
        names = dict.fromkeys(RECIPE_ALIASES.get(name, name) for name in config.recipes)
        requested = [RECIPES.load(name).RECIPE for name in names]
        for recipe in requested:
            for f in config.formats or ():
                _refuse_impossible(recipe, f, recipes)
        jobs = [(recipe, f) for recipe in requested for f in formats if f in recipe.formats]
    jobs.sort(key=lambda j: (formats.index(j[1]), -j[0].weight_bits, -j[0].activation_bits))
    return tuple((recipe.name, format_) for recipe, format_ in jobs)


def _refuse_impossible(recipe: Recipe, format_: str, recipes: Sequence[Recipe]) -> None:
    if format_ not in recipe.formats:
        can = ", ".join(other.name for other in recipes if format_ in other.formats)
        raise InputError(f"{format_} cannot do {recipe.name}", f"it can do {can}")


def _with_uint8(
    jobs: tuple[tuple[str, str], ...], strict: bool, reporter: Reporter
) -> tuple[tuple[str, str], ...]:
    """The jobs that can have uint8 inputs and outputs, and those of floats; UsageError if `strict`.

    Other jobs that were not requested by name are left out with a warning.
    """
    possible, refusals = [], []
    for name, format_ in jobs:
        recipe, file = RECIPES.load(name).RECIPE, conversion_process.file_name(name, format_)
        if not recipe.full_integer or (format_ == "tflite" and recipe.activation_bits == 8):
            possible.append((name, format_))
        elif format_ != "tflite":
            error = UsageError(f"{file} cannot take uint8, which is for TFLite", "--format tflite")
            refusals.append((name, format_, error))
        else:
            bits = f"{recipe.activation_bits} bits"
            error = UsageError(f"{file} cannot take uint8: its codes are of {bits}", "--io int8")
            refusals.append((name, format_, error))
    for name, format_, error in refusals:
        if strict or not possible:
            raise error
        reporter.warn(conversion_process.left_out(name, format_, error))
    return tuple(possible)


def _with_tflite(
    jobs: tuple[tuple[str, str], ...], config: ExportConfig
) -> tuple[tuple[str, str], ...]:
    """The jobs that can end in an operator of TFLite; UsageError if others were requested."""
    others = {format_ for _, format_ in jobs} - {"tflite"}
    if others & set(config.formats or ()):
        raise UsageError(
            f"--output detections is an operator of TFLite, and {others.pop()} has none",
            "--format tflite, or leave out --output",
        )
    return tuple(job for job in jobs if job[1] == "tflite")


def _from_card(config: ExportConfig, reporter: Reporter) -> PlannedSource:
    card = cards.load(config.arch or DEFAULT_ARCHITECTURE)
    source = config.weights or card_specs.DEMO
    alpha = config.alpha
    if alpha is None and source == card_specs.DEMO and card.weights.demo:
        # The widest demo weights.
        alpha = max((f.alpha for f in card.weights.demo.files if f.alpha), default=None)
    res = config.res
    if source == card_specs.DEMO and (trained := _trained_at(card, alpha)):
        if res not in (None, trained):
            reporter.warn(
                NamedWarning(
                    "untrained-resolution",
                    f"the demo weights of {card.name} were trained at {trained}: at {res} their "
                    "answers are worse",
                    "leave out --res, or train at that resolution",
                )
            )
        res = res or trained
    fresh = card_specs.spec(card, alpha=alpha, groups=config.groups, res=res, classes=2)
    weights = card_weights.weights(
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
        weights.preprocessing
        if weights.labels == ()
        else dataclasses.replace(weights.preprocessing, labels=weights.labels)
    )
    chosen_preprocessing = config.overrides.over(base)
    assert chosen_preprocessing is not None
    spec = dataclasses.replace(
        fresh, classes=weights.classes, preprocessing=chosen_preprocessing, weights=weights.weights
    )
    return PlannedSource(spec, None, None if weights.path is None else str(weights.path), None)


def _trained_at(card: ModelCard, alpha: float | None) -> int | None:
    """The resolution at which the demo weights are best; None for classifiers.

    Anchors are fractions of the image and features are not, so that a detector is good at the
    resolution of its training only. A segmentation loses less, but a lot.
    """
    if card.task == "classification" or card.weights.demo is None:
        return None
    for file in card.weights.demo.files:
        if file.alpha == alpha and file.figures:
            return int(max(file.figures, key=lambda resolution: file.figures[resolution]))
    return None


def _is_here(source: str) -> bool:
    return source in builtin_data.NAMES or Path(source).exists()


def _moved(
    trained_on: DataRef, source: str, resolution: tuple[int, int], labels: tuple[str, ...]
) -> Samples | None:
    """The held samples of `source` if it has those of a training by another path."""
    if source == trained_on.source or source in builtin_data.NAMES:
        return None
    with contextlib.suppress(DeployError):
        held = dataset(source).open(source, "held", resolution=resolution, labels=labels)
        return held if held.identity == trained_on.identity else None
    return None


def _from_run(path: Path, config: ExportConfig) -> PlannedSource:
    """The model of a run folder of `mobiledeploy train`, which holds its data and preprocessing."""
    run = runs.load(path)
    chosen_preprocessing = config.overrides.over(run.spec.preprocessing)
    assert chosen_preprocessing is not None
    spec = dataclasses.replace(run.spec, preprocessing=chosen_preprocessing)
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
    options = {
        "--arch": config.arch,
        "--alpha": config.alpha,
        "--groups": config.groups,
        "--weights": config.weights,
    }
    need_model_file(path, options)
    if runs.is_run(path):
        return _from_run(path, config)
    if config.res is not None and not 1 <= config.res <= LARGEST_RESOLUTION:
        raise UsageError(f"resolution {config.res} is not within 1 to {LARGEST_RESOLUTION}")
    custom = config.custom_objects is not None
    file = model_files.detect(path, unsafe=config.unsafe, custom=custom, reporter=reporter)
    if custom and file.format not in ("h5", "keras"):
        raise UsageError(f"{path.name} has no Keras objects", "leave out --custom-objects")
    if file.content == "weights":
        raise InputError(
            f"{path.name} holds weights without a model",
            f"mobiledeploy export --weights {path} --alpha A --res R",
        )
    # A model without images has no use for it, but its record holds one.
    base = file.preprocessing if file.images else Preprocessing((0.0, 1.0))
    chosen_preprocessing = config.overrides.over(base)
    if chosen_preprocessing is None:
        raise UsageError(
            "what pixels were scaled to when this model was trained is not in its file",
            "say --input-range 0,1 or -1,1 or 0,255",
        )
    spec = ModelSpec(
        name=records.file_name(path.stem),
        card=None,
        architecture=file.framework,
        arguments={},
        resolution=(0, 0),
        classes=0,
        preprocessing=chosen_preprocessing,
        weights=Weights(records.file_name(path.name), file.sha256, pinned=False),
        task=config.task or file.task,
    )
    return PlannedSource(spec, file, None, None)


def _folder_name(spec: ModelSpec, config: ExportConfig) -> str:
    """<arch>_<alpha>_<res>_<weights>, or the name of a training or of the user's model file."""
    if spec.card is None:
        name = spec.name if config.res is None else f"{spec.name}_{config.res}"
    else:
        source = spec.weights.source
        # A training's folder has the network's name already.
        name = source if source.startswith(f"{spec.name}_") else f"{spec.name}_{source}"
    return re.sub(r"[^\w.-]", "-", name).lstrip(".") or "model"


def _apart(
    folder: Path,
    jobs: Sequence[tuple[str, str]],
    data: DataRef,
    calibration: str,
    reporter: Reporter,
) -> Path:
    """`folder`, or a separate one for these images if files of other images would stay in it.

    Files of one folder are compared with each other, so all must come from the same images.
    """
    new_names = {conversion_process.file_name(recipe, format_) for recipe, format_ in jobs}
    for record in sorted(folder.glob("*.json")):
        if record.stem in new_names:
            continue
        try:
            text = inputs.read(record, inputs.RECORD)
            other = records.loads(Artifact, text, str(record))
        except InputError:
            # Not one of our records.
            continue
        alike = (data.source == other.data.source and data.source in builtin_data.NAMES) or (
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
    """Hashes what all files depend on: inputs, options, and the code of the conversion.

    All exports to one folder write the same file names; the key in a record tells the exports
    apart.
    """
    code = hashlib.sha256()
    # Locks too, because they list the packages of the environments that sources use.
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
        "shrink": config.shrink,
        "core": config.core,
        "io": config.io,
        "output": config.output,
        "res": config.res,
        "custom_objects": _hash(config.custom_objects),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash(path: Path | None) -> str | None:
    return None if path is None else records.sha256(inputs.read(path, inputs.TABLE))


def tools() -> dict[str, str]:
    """The versions of the packages that take part in a conversion, "" for those not installed."""
    versions = {"mobiledeploy": __version__}
    # Runtimes too, because a record holds their golden answers.
    engines = [runtime.PACKAGE for _, runtime in RUNTIMES.each() if runtime.PREFERRED]
    for name in (*TOOLS, *engines):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return versions
