"""Trains or fine-tunes a network; the same call resumes an interrupted training.

The order: everything is checked and the images are identified before anything is written; a child
process (`steps/training_process.py`) trains and commits each epoch to the run's folder; weights and
record come last.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobiledeploy.core import artifacts, locks, records, runs, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import ChannelOrder, Resize, Run
from mobiledeploy.steps import arguments, child_process, defaults
from mobiledeploy.steps.arguments import AnyPath, Labels, Triple
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.training_plan import TrainConfig, TrainingPlan, facts, plan


@dataclass(frozen=True)
class TrainResult(Record):
    """The answer of `train`. `reused` says that the folder already held the finished training."""

    folder: str
    reused: bool
    run: Run

    def tables(self) -> tuple[Table, ...]:
        """Ten epochs at most, with the first, the last and the best."""
        run = self.run
        judged = TASKS.load(run.spec.task).METRICS
        # A classifier's top-5 has no column: its accuracy in training is compared with top-1.
        is_classifier = run.spec.task == "classification"
        shown = judged[:1] if is_classifier else judged
        headers = (
            "epoch",
            "loss",
            *(("accuracy",) if is_classifier else ()),
            "validation loss",
            *(f"validation {metric.title}" for metric in shown),
            "images/s",
        )
        rows = tuple(
            (
                f"{epoch.number} (kept)" if epoch.number == run.best else str(epoch.number),
                f"{epoch.loss:.3f}",
                *((units.percent(epoch.accuracy),) if is_classifier else ()),
                f"{epoch.validation_loss:.3f}",
                *(units.metric(epoch.figure(metric.name), metric.unit) for metric in shown),
                f"{epoch.images_per_second:.0f}",
            )
            for epoch in (run.history[i] for i in _some(len(run.history), run.best - 1))
        )
        title = f"{self.folder}: {run.spec.name}, {run.images} images, "
        return (Table(headers, rows, f"{title}judged on {run.validation_images}"),)


def _some(count: int, best: int) -> list[int]:
    step = max(1, -(-count // 8))
    return sorted({*range(0, count, step), best, count - 1})


def train(
    *,
    arch: str | None = None,
    alpha: float | None = None,
    groups: int | None = None,
    res: int | None = None,
    data: AnyPath = "demo",
    epochs: int | None = None,
    out: AnyPath | None = None,
    init: AnyPath | None = None,
    freeze: bool = False,
    schedule: str | None = None,
    teacher: AnyPath | None = None,
    strategy: Literal["none", "mirrored", "multiworker"] = "none",
    ema: bool = False,
    label_smoothing: float = 0.0,
    prune: float | None = None,
    cluster: int | None = None,
    prune_channels: float | None = None,
    max_mult_adds: int | None = None,
    max_instructions: int | None = None,
    core: str | None = None,
    batch: int = 32,
    seed: int = 0,
    task: str | None = None,
    unsafe: bool = False,
    input_range: tuple[float, float] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    channels: ChannelOrder | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    labels: Labels | None = None,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Trains or fine-tunes a network; the same call resumes an interrupted training.

    The kept weights are those of the epoch with the best top-1 on the validation images, or the
    best mAP of a detector (with `ema`, the averaged weights of that epoch). So this figure is a
    little too good; only images that took no part show how good the network is. `export` takes the
    folder as its model.

    Example:
        >>> done = md.train(alpha=0.25, res=96, init="demo", data="photos")
        >>> md.export(done.folder)

    Args:
        arch: a card of `models`; the default is mobilenet_v1.
        alpha: the width multiplier, above 0.
        groups: the groups of the pointwise convolutions (ShuffleNet).
        res: height and width of the input, in pixels.
        data: annotated images: for a classifier a folder with a folder of images per class,
            optionally inside `train` and `validation`; an .npz; COCO's .json for a detector; or
            `demo`, the built-in ones for the task.
        epochs: the number of epochs; the default is the schedule's.
        out: the run's folder; the default is runs/<arch>_<alpha>_<res>_<data>.
        init: initial weights: `demo`, `imagenet`, a file, or a run's folder; the default is random.
            `backbone` is the demo weights of the classifier that a detector stands on.
        freeze: trains only what `init` did not bring, or the classifier.
        schedule: `paper`, `v2` or `finetune`; the default is paper, or finetune with `init`.
        teacher: a trained model for distillation: as `init`, or a Keras model or SavedModel.
        strategy: the strategy of tf.distribute; multiworker reads TF_CONFIG.
        ema: keeps a moving average of the weights.
        label_smoothing: the share of each label that is spread over all classes, from 0 to below 1.
        prune: trains until this share of each layer's weights is zero. It shrinks the download,
            not the latency.
        cluster: trains with so many different weights per layer. It shrinks the download, too.
        prune_channels: trains `init` until this share of its channels is zero, above 0 and below 1;
            `export` leaves them out. A classifier learns from its unpruned self, unless `teacher`
            names another.
        max_mult_adds: as `prune_channels`, until the network has no more mult-adds than that.
        max_instructions: as `prune_channels`, until its `int8_ptq.tflite` takes no more
            instructions than that on an emulated core.
        core: that core; the default is cortex-a76. This is `--for` on the command line.
        batch: images per step; the learning rate grows with it.
        seed: the seed of weights, order and augmentation.
        task: `classification` or `detection`; the default is that of `arch`.
        unsafe: opens a teacher even if it can run its own code.
        input_range: (low, high), the values for pixels 0 and 255. The defaults of this and the next
            six are those of `init`, or the card's.
        mean: subtracted from each channel, after `input_range`.
        std: each channel is divided by it, after `mean`.
        channels: `rgb` or `bgr`.
        resize: `bilinear` or `bicubic`.
        crop: the central fraction of each side to keep, above 0 and at most 1.
        labels: class names in the model's order, or a file with one per line.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        The folder, and the results of each epoch.

    Raises:
        UsageError: an impossible option, a folder that cannot be written, a broken TF_CONFIG.
        InputError: images or weights that do not fit, or a folder of another training.
        MissingError: TensorFlow or weights are missing; `max_instructions` without an emulator.
    """
    reporter = reporter or PythonReporter()
    config = TrainConfig(
        arch=arch,
        alpha=alpha,
        groups=groups,
        res=res,
        data=os.fspath(data),
        epochs=epochs,
        out=arguments.path(out),
        init=arguments.text(init),
        freeze=freeze,
        schedule=schedule,
        teacher=arguments.text(teacher),
        strategy=strategy,
        ema=ema,
        label_smoothing=label_smoothing,
        prune=prune,
        cluster=cluster,
        prune_channels=prune_channels,
        max_mult_adds=max_mult_adds,
        max_instructions=max_instructions,
        core=core,
        batch=batch,
        seed=seed,
        task=task or "",
        unsafe=unsafe,
        overrides=arguments.overrides(input_range, mean, std, channels, resize, crop, labels),
    )
    planned = plan(config, reporter)
    if not planned.chief:
        with artifacts.scratch() as own:
            return _train(planned, own, reporter)
    with _alone(planned.folder):
        return _train(planned, planned.folder, reporter)


def _train(planned: TrainingPlan, own: Path, reporter: Reporter) -> TrainResult:
    request, folder = planned.request, planned.folder
    epochs = request.settings.epochs
    finished_run = _earlier(folder / runs.RECORD, planned)
    if finished_run and len(finished_run.history) >= epochs:
        try:
            run = runs.load(folder)
        except InputError as error:
            if not runs.restore(folder, finished_run):
                raise InputError(error.message, "train into another --out") from error
            reporter.say(f"{folder / finished_run.weights} was not whole and is brought back")
            run = runs.load(folder)
        for warning in run.warnings:
            reporter.warn(warning)
        return TrainResult(str(folder), True, run)
    unfinished_run = _earlier(folder / runs.STATE / runs.RECORD, planned)
    if finished_run and not unfinished_run:
        raise InputError(
            f"{folder} holds a finished training without the {runs.STATE} to continue it",
            "choose another --out, with --init to start from its weights",
        )
    if unfinished_run and len(unfinished_run.history) > epochs:
        raise InputError(
            f"{folder} holds {len(unfinished_run.history)} epochs, more than --epochs {epochs}",
            "ask for as many, or choose another --out",
        )
    if unfinished_run:
        reporter.say(f"going on after epoch {len(unfinished_run.history)} of {epochs} in {folder}")
    request = dataclasses.replace(request, own=str(own), earlier=unfinished_run)
    aside = own / runs.STATE
    with records.writing(own):
        aside.mkdir(parents=True, exist_ok=True)
    answers = child_process.events(
        "training_process",
        request,
        (Run,),
        what="the training",
        log=aside / "log",
        temporary=aside / "tmp",
        reporter=reporter,
        files=[Path(request.init).name] if request.init else (),
    )
    try:
        with closing(answers):
            for run in answers:
                return TrainResult(str(folder), False, run)
    finally:
        shutil.rmtree(aside / "tmp", ignore_errors=True)
    raise AssertionError("the iterator raises an error before it ends")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second training out of `folder`; removes new folders after a refusal."""
    state = folder / runs.STATE
    new_folders = [place for place in (folder, *folder.parents) if not place.exists()]
    with records.writing(folder):
        state.mkdir(parents=True, exist_ok=True)
        records.refuse_irregular(state / "lock")
        # Not "w", because it may be a link to a file that is not ours.
        lock = (state / "lock").open("a")
    try:
        with lock:
            try:
                locks.lock(lock, wait=False)
            except BlockingIOError as error:
                raise UsageError(
                    f"another training is at work in {folder}",
                    "wait for it, or choose another --out",
                ) from error
            yield
    except DeployError:
        if folder in new_folders and not runs.is_run(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for place in new_folders[1:]:
                if not any(place.iterdir()):
                    place.rmdir()
        raise
    finally:
        own = Path(defaults.RUNS)
        if own in new_folders and own.exists():
            records.keep_out_of_git(own)


def _earlier(path: Path, planned: TrainingPlan) -> Run | None:
    """The record at `path`, None for none; InputError if it is of another training."""
    if not path.is_file():
        return None
    run = runs.read(path)
    request = planned.request
    then = facts(run.spec, run.data, run.trained_on, run.settings)
    now = facts(request.spec, request.validation, request.train.identity, request.settings)
    for name in now:
        if then.get(name) != now[name]:
            raise InputError(
                f"{planned.folder} holds a training with {name} {then.get(name)}, not {now[name]}",
                "choose another --out, or remove it",
            )
    return run
