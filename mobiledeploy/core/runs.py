"""Run folders: the weights of a training, and the record that describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Epoch, Run, TrainingSettings

RECORD = "run.json"
STATE = "state"
"""The folder in it with the state that an unfinished training resumes from."""


def is_run(folder: Path) -> bool:
    """Whether `folder` is the folder of a finished or running training."""
    return (folder / RECORD).is_file() or (folder / STATE / RECORD).is_file()


def best(history: Sequence[Epoch], settings: TrainingSettings) -> Epoch:
    """The epoch whose weights are kept: the highest metric, then the lowest validation loss.

    For a compression the last epoch: only then has the network the requested sparsity or clusters.
    """
    if settings.compression:
        return history[-1]
    return max(history, key=lambda epoch: (epoch.figure(settings.metric), -epoch.validation_loss))


def load(folder: Path) -> Run:
    """The finished training in `folder`; its weights are `folder / run.weights`.

    InputError if there is none, it is not finished, or its weights are not those of the record.
    """
    if not (folder / RECORD).is_file():
        if (folder / STATE / RECORD).is_file():
            raise InputError(
                f"the training in {folder} is not finished", "give its command again to resume it"
            )
        raise InputError(f"{folder} holds no training", f"give a folder with {RECORD}")
    run = read(folder / RECORD)
    weights = folder / run.weights
    if not weights.is_file() or records.sha256(weights) != run.spec.weights.sha256:
        raise InputError(
            f"{weights} is not the file that {RECORD} describes",
            "give the training's command again to restore it, or train into another --out",
        )
    return run


def restore(folder: Path, run: Run) -> bool:
    """Restores the weights of a finished training, if its state still has them."""
    for copy in (folder / STATE).glob("*.h5"):
        if records.sha256(copy) == run.spec.weights.sha256:
            records.write_atomic(folder / run.weights, inputs.read(copy, inputs.MODEL))
            return True
    return False


def read(path: Path) -> Run:
    """The record at `path`; InputError if it is not valid."""
    run = records.loads(Run, inputs.read(path, inputs.RECORD), str(path))
    # Records are untrusted input too.
    if Path(run.weights).name != run.weights or not run.history:
        raise InputError(f"{path}: weights or history are not valid", "train into another --out")
    return run
