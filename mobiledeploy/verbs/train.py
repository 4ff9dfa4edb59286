"""Train or fine-tune a network; a training that was broken off goes on where it was.

The order: everything is checked and the pictures are identified before anything is written; a child
(`verbs/fit`) trains, and commits each epoch to the run's folder; weights and record come last.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mobiledeploy.core import artifacts, preprocessing, records, runs
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import SILENCE, Notify
from mobiledeploy.core.types import (
    DataRef,
    ModelSpec,
    Overrides,
    Preprocessing,
    Run,
    Schedule,
    Source,
    TrainingSettings,
    Weights,
)
from mobiledeploy.steps import child_process, training_process
from mobiledeploy.steps.export_plan import DEFAULT_ARCHITECTURE, tools
from mobiledeploy.verbs import models

RUNS = Path("runs")
MOST_CLUSTERS = 256
"""As many as int8 has codes: more gain nothing."""
LARGEST_BATCH = 65_536

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
"""How networks are trained, by name. No schedule decays depthwise kernels, which have so few
weights (Howard et al. 2017, section 3.2). The papers' epochs are not ours: see `--epochs`."""

TF_CONFIG_EXAMPLE = (
    'for the first of two: TF_CONFIG=\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)


@dataclass(frozen=True)
class Order:
    """What the command line asks for; None means the default of the card or of the schedule."""

    arch: str | None = None
    alpha: float | None = None
    groups: int | None = None
    res: int | None = None
    data: str = models.DEMO
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
    batch: int = 32
    seed: int = 0
    unsafe: bool = False
    overrides: Overrides = Overrides()


@dataclass(frozen=True)
class Trained:
    """The answer of `train`. `reused` says that the folder held the finished training already."""

    folder: str
    reused: bool
    run: Run


@dataclass(frozen=True)
class Plan:
    """An order that was found possible: what the child is asked for. `chief` writes the folder."""

    request: training_process.Request
    folder: Path
    chief: bool


def train(order: Order, notify: Notify = SILENCE) -> Trained:
    """Trains as `order` says, goes on with what was broken off, or finds it done.

    The kept weights are those of the epoch with the best top-1 on the validation pictures (with
    `ema`, the averaged weights of that epoch), so that this top-1 is a little too good: pictures
    that took no part tell how good the network is.

    Raises:
        UsageError: an option, a folder that cannot be written, TF_CONFIG.
        InputError: pictures or weights that do not fit, or a folder with another training.
        MissingError: weights that cannot be had.
    """
    planned = plan(order, notify)
    if not planned.chief:
        with artifacts.scratch() as own:
            return _train(planned, own, notify)
    with _alone(planned.folder):
        return _train(planned, planned.folder, notify)


def _train(planned: Plan, own: Path, notify: Notify) -> Trained:
    request, folder = planned.request, planned.folder
    epochs = request.settings.epochs
    finished = _earlier(folder / runs.RECORD, planned)
    if finished and len(finished.history) >= epochs:
        try:
            run = runs.load(folder)
        except InputError as error:
            if not runs.restore(folder, finished):
                raise InputError(error.message, "train into another --out") from error
            notify.say(f"{folder / finished.weights} was not whole and is brought back")
            run = runs.load(folder)
        for doubt in run.doubts:
            notify.doubt(doubt)
        return Trained(str(folder), True, run)
    earlier = _earlier(folder / runs.STATE / runs.RECORD, planned)
    if finished and not earlier:
        raise InputError(
            f"{folder} holds a finished training without the {runs.STATE} that it could go on from",
            "choose another --out, with --init to start from its weights",
        )
    if earlier and len(earlier.history) > epochs:
        raise InputError(
            f"{folder} holds {len(earlier.history)} epochs, more than --epochs {epochs}",
            "ask for as many, or choose another --out",
        )
    if earlier:
        notify.say(f"going on after epoch {len(earlier.history)} of {epochs} in {folder}")
    request = dataclasses.replace(request, own=str(own), earlier=earlier)
    aside = own / runs.STATE
    with records.writing(own):
        aside.mkdir(parents=True, exist_ok=True)
    answers = child_process.events(
        "fit",
        request,
        (Run,),
        what="the training",
        log=aside / "log",
        temporary=aside / "tmp",
        notify=notify,
        files=[Path(request.init).name] if request.init else (),
    )
    try:
        with closing(answers):
            for run in answers:
                return Trained(str(folder), False, run)
    finally:
        shutil.rmtree(aside / "tmp", ignore_errors=True)
    raise AssertionError("the iterator ends in an error of its own")


def plan(order: Order, notify: Notify) -> Plan:
    """All that a training depends on; DeployError for whatever can be refused beforehand."""
    if order.freeze and not order.init:
        raise UsageError("--freeze keeps weights that --init brings", "give --init")
    chief = _is_chief() if order.strategy == "multiworker" else True
    schedule = _schedule(order)
    (card,) = models.models(order.arch or DEFAULT_ARCHITECTURE)
    alpha = _alpha(card, order)
    spec = models.spec(card, alpha=alpha, groups=order.groups, res=order.res, classes=2)
    init, source, said = _init(order, card, spec, notify)
    base = order.overrides.over(said)
    if base is None:
        raise UsageError(
            "what pixels were scaled to when this model was trained is not in its file",
            "say --input-range 0,1 or -1,1 or 0,255",
        )
    preprocessing.validate(base)
    labels = order.overrides.labels or ()
    opened = dataset(order.data).open(
        order.data, "train", resolution=spec.resolution, labels=labels
    )
    classes = opened.classes
    if len(classes) < 2:
        raise InputError(
            f"{order.data} has training pictures of one class only, {classes[0]!r}",
            "add pictures of another class",
        )
    spec = models.spec(card, alpha=alpha, groups=order.groups, res=order.res, classes=len(classes))
    spec = dataclasses.replace(spec, preprocessing=dataclasses.replace(base, labels=classes))
    held = dataset(order.data).open(order.data, "held", resolution=spec.resolution, labels=classes)
    notify.say(f"{len(opened)} pictures to train on, {len(held)} to judge by, of {order.data}")
    teacher = _teacher(order, card, spec, notify) if order.teacher else None
    settings = TrainingSettings(
        schedule=schedule,
        epochs=schedule.epochs if order.epochs is None else order.epochs,
        batch=order.batch,
        seed=order.seed,
        init=source,
        frozen=order.freeze,
        teacher=teacher.spec.weights if teacher else None,
        ema=order.ema,
        label_smoothing=order.label_smoothing,
        strategy=order.strategy,
        prune=order.prune,
        cluster=order.cluster,
    )
    _check_settings(settings)
    folder = order.out or RUNS / _name(f"{spec.name}_{Path(order.data).stem}")
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file, not a folder", "choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not _ours(folder):
        raise UsageError(f"{folder} holds something else", "choose another --out")
    for name in (training_process.WEIGHTS, runs.RECORD, training_process.LOG):
        records.refuse_irregular(folder / name)
    request = training_process.Request(
        spec=spec,
        train=_ref(order.data, "train", spec, opened.identity),
        validation=_ref(order.data, "held", spec, held.identity),
        settings=settings,
        init=str(init) if init else None,
        teacher=teacher,
        folder=str(folder),
        own=str(folder),
        earlier=None,
        tools=tools(),
    )
    return Plan(request, folder, chief)


def _ref(source: str, split: Literal["train", "held"], spec: ModelSpec, identity: str) -> DataRef:
    return DataRef(source, split, spec.resolution, spec.preprocessing.labels, identity)


def _schedule(order: Order) -> Schedule:
    name = order.schedule or ("finetune" if order.init else "paper")
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
    if settings.prune is not None and settings.cluster is not None:
        raise UsageError(
            "--prune and --cluster are two trainings", "prune, then --init RUN --cluster 16"
        )
    if settings.compression and settings.frozen:
        raise UsageError(f"--freeze does not go with --{settings.compression[0]}", "leave it away")
    if settings.compression and (settings.ema or settings.strategy != "none"):
        other = "--ema" if settings.ema else "--strategy"
        raise UsageError(f"{other} does not go with --{settings.compression[0]}", "leave it away")


def _alpha(card: ModelCard, order: Order) -> float | None:
    """What was asked for, or that of the weights to start from."""
    if order.alpha is not None or not order.init:
        return order.alpha
    if order.init == models.DEMO:
        return _widest_demo(card)
    folder = Path(order.init)
    if folder.is_dir():
        given = runs.load(folder).spec.arguments.get("alpha")
        return None if given is None else float(given)
    return None


def _widest_demo(card: ModelCard) -> float | None:
    files = card.weights.demo.files if card.weights.demo else ()
    return max((file.alpha for file in files if file.alpha), default=None)


def _init(
    order: Order, card: ModelCard, spec: ModelSpec, notify: Notify
) -> tuple[Path | None, Weights | None, Preprocessing | None]:
    """The weights to start from, and how their pictures were prepared, None where nobody knows."""
    own = dataclasses.replace(
        card.preprocessing,
        # Drawn pictures have nothing at their edges to be cut off.
        crop=1.0 if order.data == models.DEMO else card.preprocessing.crop,
    )
    if not order.init:
        return None, None, own
    path = Path(order.init)
    if order.init not in (models.DEMO, "imagenet"):
        if path.is_dir():
            run = runs.load(path)
            _same_network(run, spec, path)
            return path / run.weights, run.spec.weights, run.spec.preprocessing
        # Only its weights are read, so that no code of its own can run.
        file = models.detect(path, unsafe=True)
        if file.format != "h5" or file.framework != "tf_keras":
            raise InputError(
                f"{path} is not a Keras 2 HDF5 file", "give one, or the folder of an earlier run"
            )
        weights = Weights(os.fsencode(path.name).decode("utf-8", "replace"), file.sha256, False)
        return path, weights, None if file.content == "model" else own
    found = models.weights(card, order.init, _width(spec), spec.resolution[0], notify)
    return found.path, found.weights, own


def _same_network(run: Run, spec: ModelSpec, path: Path) -> None:
    if (run.spec.architecture, run.spec.arguments) != (spec.architecture, spec.arguments):
        raise InputError(
            f"{path} holds a {run.spec.name}, which is no {spec.name}", "is it of another --alpha?"
        )


def _width(spec: ModelSpec) -> float | None:
    alpha = spec.arguments.get("alpha")
    return None if alpha is None else float(alpha)


def _teacher(order: Order, card: ModelCard, spec: ModelSpec, notify: Notify) -> Source:
    """The model to be distilled, at the student's resolution."""
    name = order.teacher
    assert name is not None
    labels: tuple[str, ...] = ()
    if name in (models.DEMO, "imagenet"):
        alpha = _widest_demo(card) if name == models.DEMO else card.default_alpha
        found = models.weights(card, name, alpha, spec.resolution[0], notify)
        fresh = models.spec(card, alpha=alpha, res=spec.resolution[0], classes=found.classes)
        labels = found.labels
        _same_scaling(card.preprocessing, spec.preprocessing, name)
        source = Source(dataclasses.replace(fresh, weights=found.weights), weights=str(found.path))
    elif Path(name).is_dir() and runs.is_run(Path(name)):
        run = runs.load(Path(name))
        labels = run.spec.preprocessing.labels
        _same_scaling(run.spec.preprocessing, spec.preprocessing, name)
        source = Source(
            dataclasses.replace(run.spec, resolution=spec.resolution),
            weights=str(Path(name) / run.weights),
        )
    else:
        file = models.detect(Path(name), unsafe=order.unsafe, notify=notify)
        if file.content == "weights":
            raise InputError(f"{name} holds weights without a model", "a whole model is wanted")
        models.need_layers(file, "a teacher is a Keras model or a SavedModel")
        weights = Weights(
            os.fsencode(Path(name).name).decode("utf-8", "replace"), file.sha256, False
        )
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


def _same_scaling(theirs: Preprocessing, ours: Preprocessing, name: str) -> None:
    for field in ("input_range", "mean", "std", "channels"):
        if getattr(theirs, field) != getattr(ours, field):
            option = f"--{field.replace('_', '-')}"
            raise InputError(
                f"the teacher {name} was trained with {option} {getattr(theirs, field)}",
                "student and teacher see the same pixels: train the student with it too",
            )


def _is_chief() -> bool:
    """Whether this worker writes the run's folder; UsageError for a TF_CONFIG that cannot be."""
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


def _ours(folder: Path) -> bool:
    return runs.is_run(folder) or (folder / runs.STATE).is_dir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second training out of `folder`; what was made for nothing is removed."""
    state = folder / runs.STATE
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    with records.writing(folder):
        state.mkdir(parents=True, exist_ok=True)
        records.refuse_irregular(state / "lock")
        # Not "w": it may be a link, and what it leads to is not ours.
        lock = (state / "lock").open("a")
    try:
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"another training is at work in {folder}",
                    "wait for it, or choose another --out",
                ) from error
            yield
    except DeployError:
        if folder in created and not runs.is_run(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for place in created[1:]:
                if not any(place.iterdir()):
                    place.rmdir()
        raise


def _earlier(path: Path, planned: Plan) -> Run | None:
    """The record at `path`, None for none; InputError where it is of another training."""
    if not path.is_file():
        return None
    run = runs.read(path)
    request = planned.request
    then = _facts(run.spec, run.data, run.trained_on, run.settings)
    now = _facts(request.spec, request.validation, request.train.identity, request.settings)
    for name in now:
        if then.get(name) != now[name]:
            raise InputError(
                f"{planned.folder} holds a training with {name} {then.get(name)}, not {now[name]}",
                "choose another --out, or remove it",
            )
    return run


def _facts(
    spec: ModelSpec, data: DataRef, trained_on: str, settings: TrainingSettings
) -> dict[str, str]:
    """What must be the same for a training to go on; its length may grow."""
    whole = {
        "network": records.encode(dataclasses.replace(spec, weights=models.RANDOM)),
        "training pictures": trained_on[:12],
        "validation pictures": data.identity[:12],
    } | records.encode(settings)
    return {name: text for name, text in _leaves(whole, "") if name != "epochs"}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name} {key}".strip())
    else:
        # 0 and 0.0 are the same setting; JSON remembers which it was.
        whole = isinstance(value, float) and value.is_integer()
        text = json.dumps(int(value) if whole else value).strip('"')
        yield name, "none" if value is None else text
