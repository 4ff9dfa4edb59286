"""Train or fine-tune a network; a training that was broken off goes on where it was.

The order: everything is checked and the images are identified before anything is written; a child
(`verbs/fit`) trains, and commits each epoch to the run's folder; weights and record come last.
"""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import artifacts, records, runs
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Run
from mobiledeploy.steps import child_process
from mobiledeploy.steps.training_plan import TrainConfig, TrainingPlan, facts, plan


@dataclass(frozen=True)
class TrainResult(Record):
    """The answer of `train`. `reused` says that the folder held the finished training already."""

    folder: str
    reused: bool
    run: Run


def train(config: TrainConfig, reporter: Reporter = SILENT) -> TrainResult:
    """Trains as `config` says, goes on with what was broken off, or finds it done.

    The kept weights are those of the epoch with the best top-1 on the validation images (with
    `ema`, the averaged weights of that epoch), so that this top-1 is a little too good: images
    that took no part tell how good the network is.

    Raises:
        UsageError: an option, a folder that cannot be written, TF_CONFIG.
        InputError: images or weights that do not fit, or a folder with another training.
        MissingError: weights that cannot be had.
    """
    planned = plan(config, reporter)
    if not planned.chief:
        with artifacts.scratch() as own:
            return _train(planned, own, reporter)
    with _alone(planned.folder):
        return _train(planned, planned.folder, reporter)


def _train(planned: TrainingPlan, own: Path, reporter: Reporter) -> TrainResult:
    request, folder = planned.request, planned.folder
    epochs = request.settings.epochs
    finished = _earlier(folder / runs.RECORD, planned)
    if finished and len(finished.history) >= epochs:
        try:
            run = runs.load(folder)
        except InputError as error:
            if not runs.restore(folder, finished):
                raise InputError(error.message, "train into another --out") from error
            reporter.say(f"{folder / finished.weights} was not whole and is brought back")
            run = runs.load(folder)
        for warning in run.warnings:
            reporter.warn(warning)
        return TrainResult(str(folder), True, run)
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
        reporter.say(f"going on after epoch {len(earlier.history)} of {epochs} in {folder}")
    request = dataclasses.replace(request, own=str(own), earlier=earlier)
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
    raise AssertionError("the iterator ends in an error of its own")


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


def _earlier(path: Path, planned: TrainingPlan) -> Run | None:
    """The record at `path`, None for none; InputError where it is of another training."""
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
