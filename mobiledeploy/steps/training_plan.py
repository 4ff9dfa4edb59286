"""Arguments of a training -> its initial weights, its data and its settings."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mobiledeploy.core import builtin_data, cards, preprocessing, records, runs
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import OBJECTIVES, TASKS, data_of_task, dataset
from mobiledeploy.core.ports import Reporter, Samples
from mobiledeploy.core.samples import labelled_classes
from mobiledeploy.core.types import (
    DataRef,
    ModelSpec,
    Preprocessing,
    Run,
    Schedule,
    Source,
    TrainingSettings,
    Weights,
)
from mobiledeploy.steps import (
    card_specs,
    card_weights,
    count,
    defaults,
    model_files,
    task_choice,
    training_process,
)
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.export_plan import DEFAULT_ARCHITECTURE, tools

MOST_CLUSTERS = 256
"""The number of codes of int8: more are of no use."""
LARGEST_BATCH = 65_536
SCALING = ("input_range", "mean", "std", "channels")
"""The fields of a preprocessing that decide about the values of a pixel."""
BACKBONE = "backbone"
"""The demo weights of the network that a detector stands on, as --init names them; so is the
argument of an architecture that names this network."""

SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        Schedule(
            "paper",
            "rmsprop",
            learning_rate=0.045,
            batch=96,
            decay=0.94,
            decay_epochs=2.5,
            weight_decay=4e-5,
            bn_momentum=0.9997,
            epochs=40,
            source="Howard et al. 2017, arXiv:1704.04861, section 3.2 and 3.3; TF-slim's "
            "train_image_classifier and mobilenet_v1_train (RMSprop 0.9, momentum 0.9, epsilon 1)",
        ),
        Schedule(
            "v2",
            "rmsprop",
            learning_rate=0.045,
            batch=96,
            decay=0.98,
            decay_epochs=1.0,
            weight_decay=4e-5,
            bn_momentum=0.9997,
            epochs=80,
            source="Sandler et al. 2018, arXiv:1801.04381, section 6.1",
        ),
        Schedule(
            "finetune",
            "adamw",
            learning_rate=1e-3,
            batch=32,
            decay=0.0,
            decay_epochs=0.0,
            weight_decay=0.05,
            bn_momentum=0.99,
            epochs=20,
            source="Loshchilov and Hutter, arXiv:1711.05101 (AdamW) and arXiv:1608.03983 (cosine)",
        ),
    )
}
"""Training schedules by name.

No schedule decays depthwise kernels, which have few weights (Howard et al. 2017, section 3.2). Our
numbers of epochs differ from those of the papers: see `--epochs`.
"""
TF_CONFIG_EXAMPLE = (
    'for the first of two: TF_CONFIG=\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)


_FEWER_CHANNELS = ("prune_channels", "max_mult_adds", "max_instructions")
"""The options that say how many channels a training takes."""
DEFAULT_CORE = "cortex-a76"
"""The core that counts; it has dot products of int8, as phones since 2018."""


@dataclass(frozen=True)
class TrainConfig:
    """The arguments of a training; None means the default of the card or of the schedule."""

    arch: str | None = None
    alpha: float | None = None
    groups: int | None = None
    res: int | None = None
    data: str = card_specs.DEMO
    epochs: int | None = None
    out: Path | None = None
    init: str | None = None
    freeze: bool = False
    schedule: str | None = None
    teacher: str | None = None
    strategy: Literal["none", "mirrored", "multiworker"] = "none"
    ema: bool = False
    label_smoothing: float = 0.0
    prune: float | None = None
    cluster: int | None = None
    prune_channels: float | None = None
    max_mult_adds: int | None = None
    max_instructions: int | None = None
    core: str | None = None
    batch: int = 32
    seed: int = 0
    task: str = ""
    unsafe: bool = False
    overrides: Overrides = Overrides()


@dataclass(frozen=True)
class TrainingPlan:
    """A training that has passed its checks: the child's request.

    Only a chief writes the folder.
    """

    request: training_process.TrainingRequest
    folder: Path
    chief: bool


def plan(config: TrainConfig, reporter: Reporter) -> TrainingPlan:
    """Plans a training; DeployError for everything that can be refused before the work."""
    if config.freeze and not config.init:
        raise UsageError("--freeze keeps weights that --init brings", "give --init")
    chief = is_chief() if config.strategy == "multiworker" else True
    schedule = _schedule(config)
    card = _card(config)
    _check_task(card.task, config)
    data = data_of_task(config.data, card.task)
    alpha = _alpha(card, config)
    spec = card_specs.spec(card, alpha=alpha, groups=config.groups, res=config.res, classes=2)
    init, source, source_preprocessing = _init(config, data, card, spec, reporter)
    base = config.overrides.over(source_preprocessing)
    if base is None:
        raise UsageError(
            "what pixels were scaled to when this model was trained is not in its file",
            "say --input-range 0,1 or -1,1 or 0,255",
        )
    preprocessing.validate(base)
    labels = config.overrides.labels or ()
    train_samples = dataset(data).open(data, "train", resolution=spec.resolution, labels=labels)
    classes = train_samples.classes
    _check_annotations(card.task, train_samples)
    spec = card_specs.spec(
        card, alpha=alpha, groups=config.groups, res=config.res, classes=len(classes)
    )
    spec = dataclasses.replace(spec, preprocessing=dataclasses.replace(base, labels=classes))
    held_samples = dataset(data).open(data, "held", resolution=spec.resolution, labels=classes)
    task_choice.require_classes(card.task, held_samples)
    reporter.say(
        f"{data} has {len(train_samples)} images for training and "
        f"{len(held_samples)} for validation"
    )
    teacher = (
        _teacher(config, card, spec, reporter)
        if config.teacher
        else _unpruned(config, spec, init, source, source_preprocessing, reporter)
    )
    settings = TrainingSettings(
        schedule=schedule,
        epochs=schedule.epochs if config.epochs is None else config.epochs,
        batch=config.batch,
        seed=config.seed,
        init=source,
        frozen=config.freeze,
        teacher=teacher.spec.weights if teacher else None,
        ema=config.ema,
        label_smoothing=config.label_smoothing,
        strategy=config.strategy,
        prune=config.prune,
        cluster=config.cluster,
        prune_channels=config.prune_channels,
        max_mult_adds=config.max_mult_adds,
        max_instructions=config.max_instructions,
        core=_core(config),
        metric=TASKS.load(card.task).METRICS[0].name,
    )
    _check_settings(settings)
    if settings.core is not None:
        count.need_core(settings.core)
    folder = config.out or Path(defaults.RUNS) / _name(f"{spec.name}_{Path(data).stem}")
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file, not a folder", "choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not is_ours(folder):
        raise UsageError(f"{folder} holds something else", "choose another --out")
    for name in (training_process.WEIGHTS, runs.RECORD, training_process.LOG):
        records.refuse_irregular(folder / name)
    request = training_process.TrainingRequest(
        spec=spec,
        train=_ref(data, "train", spec, train_samples.identity),
        validation=_ref(data, "held", spec, held_samples.identity),
        settings=settings,
        init=str(init) if init else None,
        teacher=teacher,
        folder=str(folder),
        own=str(folder),
        earlier=None,
        tools=tools(),
    )
    return TrainingPlan(request, folder, chief)


def _card(config: TrainConfig) -> ModelCard:
    """The card of `--arch`, or the first one of `--task`; UsageError if they do not go together."""
    if config.arch is None:
        if config.task in ("", cards.load(DEFAULT_ARCHITECTURE).task):
            return cards.load(DEFAULT_ARCHITECTURE)
        TASKS.load(config.task)
        fitting = _cards_of(config.task)
        if not fitting:
            trained = ", ".join(OBJECTIVES.names())
            raise UsageError(
                f"no model card is of the task {config.task}", f"networks are trained for {trained}"
            )
        return fitting[0]
    card = cards.load(config.arch)
    if config.task and config.task != card.task:
        names = [fitting.name for fitting in _cards_of(config.task)]
        raise UsageError(
            f"the task of {card.name} is {card.task}, not {config.task}",
            f"--arch {' or '.join(names)}" if names else "leave out --task",
        )
    return card


def _cards_of(task: str) -> list[ModelCard]:
    return [card for card in map(cards.load, cards.names()) if card.task == task]


def _check_task(task: str, config: TrainConfig) -> None:
    """UsageError for options that speak of a softmax, and InputError for a task without losses."""
    if task not in OBJECTIVES.names():
        raise InputError(f"networks of the task {task} are not trained here")
    if task == "classification":
        return
    for option, is_given in (
        ("--teacher", config.teacher is not None),
        ("--label-smoothing", config.label_smoothing > 0),
    ):
        if is_given:
            raise UsageError(f"{option} is for classifiers, the task is {task}", "leave it out")


def _check_annotations(task: str, samples: Samples) -> None:
    """InputError for data that does not say what the task learns from."""
    classes, source = samples.classes, samples.source
    if TASKS.load(task).ANNOTATION != "label":
        needed = TASKS.load(task).ANNOTATION
        if not any(getattr(samples.annotation(index), needed) for index in range(len(samples))):
            kind = {"boxes": "boxes", "mask": "masks"}.get(needed, needed)
            raise InputError(
                f"{source} has no {kind}",
                f"{task} is learnt from images with {kind} (docs/data.md)",
            )
        if needed == "mask" and len(classes) < 2:
            raise InputError(
                f"{source} does not name the classes of its masks",
                "add classes.txt or give --labels FILE: one name a line, in the order of indices",
            )
        return
    if not labelled_classes(samples):
        raise InputError(
            f"{source} has no class for each image",
            "training needs the class of every image: put the images of each class into a folder",
        )
    if len(classes) < 2:
        raise InputError(
            f"{source} has training images of one class only, {classes[0]!r}",
            "add images of another class",
        )


def _ref(source: str, split: Literal["train", "held"], spec: ModelSpec, identity: str) -> DataRef:
    return DataRef(source, split, spec.resolution, spec.preprocessing.labels, identity)


def _schedule(config: TrainConfig) -> Schedule:
    name = config.schedule or ("finetune" if config.init else "paper")
    if name not in SCHEDULES:
        raise UsageError(f"no schedule named {name!r}", f"there are {', '.join(SCHEDULES)}")
    return SCHEDULES[name]


def _check_settings(settings: TrainingSettings) -> None:
    limits = (
        ("--epochs", settings.epochs, 1, 100_000),
        ("--batch", settings.batch, 2, LARGEST_BATCH),
        ("--seed", settings.seed, 0, 2**32 - 1),
    )
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise UsageError(f"{name} {value} is not within {low} to {high}")
    if not 0 <= settings.label_smoothing < 1:
        raise UsageError(f"--label-smoothing {settings.label_smoothing:g} is not within 0 to 1")
    if settings.prune is not None and not 0 < settings.prune < 1:
        raise UsageError(
            f"--prune {settings.prune:g} is not above 0 and below 1", "try --prune 0.5"
        )
    if settings.cluster is not None and not 2 <= settings.cluster <= MOST_CLUSTERS:
        raise UsageError(
            f"--cluster {settings.cluster} is not within 2 to {MOST_CLUSTERS}", "try --cluster 16"
        )
    share = settings.prune_channels
    if share is not None and not 0 < share < 1:
        raise UsageError(
            f"--prune-channels {share:g} is not above 0 and below 1", "try --prune-channels 0.5"
        )
    if settings.max_mult_adds is not None and settings.max_mult_adds < 1:
        raise UsageError(
            f"--max-mult-adds {settings.max_mult_adds} is not above 0", "try --max-mult-adds 20M"
        )
    if settings.max_instructions is not None and settings.max_instructions < 1:
        raise UsageError(
            f"--max-instructions {settings.max_instructions} is not above 0",
            "try --max-instructions 5M",
        )
    _check_compression(settings)


def _core(config: TrainConfig) -> str | None:
    """The core that counts instructions, None without a limit of them."""
    if config.max_instructions is None:
        if config.core is not None:
            raise UsageError("--for goes with --max-instructions", "leave it out, or give both")
        return None
    return config.core or DEFAULT_CORE


def _check_compression(settings: TrainingSettings) -> None:
    """UsageError for two compressions, and for what a compression does not go with."""
    options = [
        f"--{name.replace('_', '-')}"
        for name in ("prune", "cluster", *_FEWER_CHANNELS)
        if getattr(settings, name) is not None
    ]
    if not options:
        return
    option, *others = options
    fewer_channels = [f"--{name.replace('_', '-')}" for name in _FEWER_CHANNELS]
    if option in fewer_channels and others:
        raise UsageError(f"{option} and {others[0]} are one choice", "leave one out")
    if others:
        raise UsageError(
            f"{option} and {others[0]} are two trainings",
            f"one after the other: train with {option}, then --init RUN with {others[0]}",
        )
    if settings.frozen:
        raise UsageError(f"--freeze does not go with {option}", "leave it out")
    if settings.ema or settings.strategy != "none":
        other = "--ema" if settings.ema else "--strategy"
        raise UsageError(f"{other} does not go with {option}", "leave it out")
    if option in fewer_channels and settings.init is None:
        raise UsageError(
            f"{option} takes channels from a trained network", "train it first, then --init RUN"
        )


def _alpha(card: ModelCard, config: TrainConfig) -> float | None:
    """The requested alpha, or that of the initial weights."""
    if config.alpha is not None or not config.init:
        return config.alpha
    if config.init in (card_specs.DEMO, BACKBONE):
        return _widest_demo(card if config.init == card_specs.DEMO else _backbone(card))
    folder = Path(config.init)
    if folder.is_dir():
        return runs.load(folder).spec.alpha
    return None


def _widest_demo(card: ModelCard) -> float | None:
    files = card.weights.demo.files if card.weights.demo else ()
    return max((file.alpha for file in files if file.alpha), default=None)


def _init(
    config: TrainConfig, data: str, card: ModelCard, spec: ModelSpec, reporter: Reporter
) -> tuple[Path | None, Weights | None, Preprocessing | None]:
    """The initial weights and the preprocessing of their images, None if it is not known."""
    own = dataclasses.replace(
        card.preprocessing,
        # The built-in images have no border to crop.
        crop=1.0 if data in builtin_data.NAMES else card.preprocessing.crop,
    )
    if not config.init:
        return None, None, own
    path = Path(config.init)
    if config.init not in (card_specs.DEMO, BACKBONE, "imagenet"):
        if path.is_dir():
            run = runs.load(path)
            _same_network(run, spec, path)
            return path / run.weights, run.spec.weights, run.spec.preprocessing
        # Only its weights are read, so no code in it can run.
        file = model_files.detect(path, unsafe=True)
        if file.format != "h5" or file.framework != "tf_keras":
            raise InputError(
                f"{path} is not a Keras 2 HDF5 file", "give one, or the folder of an earlier run"
            )
        weights = Weights(records.file_name(path.name), file.sha256, False)
        return path, weights, None if file.content == "model" else own
    kind, holder = config.init, card
    if kind == BACKBONE:
        kind, holder = card_specs.DEMO, _backbone(card)
    elif kind == "imagenet" and card.weights.imagenet is None and BACKBONE in card.arguments:
        holder = _backbone(card)
    weights_ = card_weights.weights(holder, kind, spec.alpha, spec.resolution[0], reporter)
    return weights_.path, weights_.weights, dataclasses.replace(own, labels=weights_.labels)


def _backbone(card: ModelCard) -> ModelCard:
    """The card of the network that this one stands on; UsageError if it stands alone."""
    if BACKBONE not in card.arguments:
        raise UsageError(f"{card.name} has no backbone", "--init demo, imagenet, FILE or RUN")
    return cards.load(str(card.arguments[BACKBONE]))


def _same_network(run: Run, spec: ModelSpec, path: Path) -> None:
    stands_on = spec.arguments.get(BACKBONE)
    if (run.spec.card, run.spec.alpha) == (stands_on, spec.alpha):
        return
    if (run.spec.architecture, run.spec.arguments) != (spec.architecture, spec.arguments):
        raise InputError(
            f"{path} holds a {run.spec.name}, which is no {spec.name}", "is it of another --alpha?"
        )


def _teacher(config: TrainConfig, card: ModelCard, spec: ModelSpec, reporter: Reporter) -> Source:
    """The teacher for distillation, at the student's resolution."""
    name = config.teacher
    assert name is not None
    labels: tuple[str, ...] = ()
    if name in (card_specs.DEMO, "imagenet"):
        alpha = _widest_demo(card) if name == card_specs.DEMO else card.default_alpha
        weights_ = card_weights.weights(card, name, alpha, spec.resolution[0], reporter)
        fresh = card_specs.spec(card, alpha=alpha, res=spec.resolution[0], classes=weights_.classes)
        labels = weights_.labels
        _same_scaling(card.preprocessing, spec.preprocessing, name)
        source = Source(
            dataclasses.replace(fresh, weights=weights_.weights), weights=str(weights_.path)
        )
    elif Path(name).is_dir() and runs.is_run(Path(name)):
        run = runs.load(Path(name))
        labels = run.spec.preprocessing.labels
        _same_scaling(run.spec.preprocessing, spec.preprocessing, name)
        source = Source(
            dataclasses.replace(run.spec, resolution=spec.resolution),
            weights=str(Path(name) / run.weights),
        )
    else:
        file = model_files.detect(Path(name), unsafe=config.unsafe, reporter=reporter)
        if file.content == "weights":
            raise InputError(f"{name} holds weights without a model", "a whole model is wanted")
        model_files.need_layers(file, "a teacher is a Keras model or a SavedModel")
        weights = Weights(records.file_name(Path(name).name), file.sha256, False)
        own = dataclasses.replace(
            spec,
            name=weights.source,
            card=None,
            architecture=file.framework,
            arguments={},
            weights=weights,
        )
        return Source(own, file=file, resolution=spec.resolution)
    if source.spec.classes != spec.classes or (labels and labels != spec.preprocessing.labels):
        raise InputError(
            f"the teacher {name} knows other classes than the data",
            "a teacher must have learnt the same classes, in the same order",
        )
    return source


def _unpruned(
    config: TrainConfig,
    spec: ModelSpec,
    init: Path | None,
    weights: Weights | None,
    theirs: Preprocessing | None,
    reporter: Reporter,
) -> Source | None:
    """The initial network as the teacher of one that loses channels; None if it is to have none."""
    loses_channels = any(getattr(config, name) is not None for name in _FEWER_CHANNELS)
    if not loses_channels or init is None or weights is None or spec.task != "classification":
        return None
    ours = spec.preprocessing
    same = theirs is not None and theirs.labels == ours.labels
    if not same or any(getattr(theirs, field) != getattr(ours, field) for field in SCALING):
        reporter.say(
            f"the training learns from labels alone: {config.init} was not trained on the classes "
            "and the pixel range of the data, or does not say so (--teacher names another network)"
        )
        return None
    return Source(dataclasses.replace(spec, weights=weights), weights=str(init))


def _same_scaling(theirs: Preprocessing, ours: Preprocessing, name: str) -> None:
    for field in SCALING:
        if getattr(theirs, field) != getattr(ours, field):
            option = f"--{field.replace('_', '-')}"
            raise InputError(
                f"the teacher {name} was trained with {option} {getattr(theirs, field)}",
                "student and teacher see the same pixels: train the student with it too",
            )


def is_chief() -> bool:
    """Whether this worker writes the run's folder; UsageError for a broken TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        raise UsageError("--strategy multiworker needs TF_CONFIG", TF_CONFIG_EXAMPLE)
    try:
        config: Any = json.loads(text)
        task = config["task"]
        kind, index, workers = task["type"], int(task["index"]), config["cluster"]
        sound = isinstance(workers[kind][index], str) and kind in ("chief", "worker") and index >= 0
    except (ValueError, TypeError, LookupError):
        sound = False
    if not sound:
        raise UsageError(
            "TF_CONFIG does not say a cluster of workers and which of them this is",
            TF_CONFIG_EXAMPLE,
        )
    return bool(kind == "chief" or ("chief" not in workers and index == 0))


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip(".")


def facts(
    spec: ModelSpec, data: DataRef, trained_on: str, settings: TrainingSettings
) -> dict[str, str]:
    """The facts that must be equal to resume a training; its number of epochs may grow."""
    whole = {
        "network": records.encode(dataclasses.replace(spec, weights=card_specs.RANDOM)),
        "training images": trained_on[:12],
        "validation images": data.identity[:12],
    } | records.encode(settings)
    return {name: text for name, text in _leaves(whole, "") if name != "epochs"}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name} {key}".strip())
    else:
        # 0 and 0.0 are the same setting, but JSON tells them apart.
        whole = isinstance(value, float) and value.is_integer()
        text = json.dumps(int(value) if whole else value).strip('"')
        yield name, "none" if value is None else text


def is_ours(folder: Path) -> bool:
    """Whether the folder holds a training, finished or not."""
    return runs.is_run(folder) or (folder / runs.STATE).is_dir()
