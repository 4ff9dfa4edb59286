"""The folder that a training leaves: weights, and the record that says what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Epoch, Run, TrainingSettings

RECORD = "run.json"
STATE = "state"
"""Folder within it of what an unfinished training goes on from."""


def is_run(folder: Path) -> bool:
    """Whether `folder` is one that a training made or is making."""
    return (folder / RECORD).is_file() or (folder / STATE / RECORD).is_file()


def best(history: Sequence[Epoch], settings: TrainingSettings) -> Epoch:
    """The epoch whose weights are kept: the highest top-1, then the lowest validation loss.

    Of a compression the last: only there has the network what was asked for.
    """
    if settings.compression:
        return history[-1]
    return max(history, key=lambda epoch: (epoch.top1, -epoch.validation_loss))


def load(folder: Path) -> Run:
    """The finished training in `folder`; its weights are `folder / run.weights`.

    InputError where there is none, it is not finished, or its weights are not those that it
    speaks of.
    """
    if not (folder / RECORD).is_file():
        if (folder / STATE / RECORD).is_file():
            raise InputError(
                f"the training in {folder} is not finished", "give its command again, it goes on"
            )
        raise InputError(f"{folder} holds no training", f"a folder with {RECORD} is wanted")
    run = read(folder / RECORD)
    weights = folder / run.weights
    if not weights.is_file() or records.sha256(weights) != run.spec.weights.sha256:
        raise InputError(
            f"{weights} is not the file that {RECORD} speaks of",
            "give the training's command again, which brings it back, or train into another --out",
        )
    return run


def restore(folder: Path, run: Run) -> bool:
    """Brings the kept weights of a finished training back, if its state still has them."""
    for kept in (folder / STATE).glob("*.h5"):
        if records.sha256(kept) == run.spec.weights.sha256:
            records.write_atomic(folder / run.weights, inputs.read(kept, inputs.MODEL))
            return True
    return False


def read(path: Path) -> Run:
    """The record at `path`; InputError where it cannot be."""
    run = records.loads(Run, inputs.read(path, inputs.RECORD), str(path))
    # Records are input like any other file.
    if Path(run.weights).name != run.weights or not run.history:
        raise InputError(f"{path}: weights or history cannot be so", "train into another --out")
    return run
