"""Which task a model has, where nobody says: what its outputs leave no doubt of, else `tensors`."""

from __future__ import annotations

from collections.abc import Sequence

from mobiledeploy.core import samples as samples_
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Reporter, Samples
from mobiledeploy.core.types import ModelOutput, NamedWarning, Signature

_ANY = "tensors"
_ROW = 1
_MAP = 3
_SAYS = {
    "label": "one class of each sample",
    "labels": "all right classes of each sample",
    "values": "numbers",
    "boxes": "boxes",
    "mask": "masks",
}
_LOOKED_AT = 20


def choose(signature: Signature, requested: str, classes: int, reporter: Reporter) -> str:
    """The name of the task.

    Args:
        signature: the model's.
        requested: the task that the user or the card names; "" for none.
        classes: the number of classes that the data has labels of, 0 without labels.
        reporter: is told what was chosen and why, unless it was requested.

    Raises:
        UsageError: an unknown task, or one that the outputs cannot have.
    """
    outputs = signature.outputs
    if requested:
        reason = TASKS.load(requested).mismatch(outputs)
        if reason:
            fitting = [name for name, task in TASKS.each() if not task.mismatch(outputs)]
            raise UsageError(
                f"the task of this model is not {requested}: {reason}",
                f"--task {' or '.join(fitting)}",
            )
        return requested
    task, reason = by_outputs(outputs, classes)
    reporter.say(f"task: {task}, since {reason}; --task names another")
    return task


def require_classes(task: str, samples: Samples) -> None:
    """InputError where a task is judged by one label a sample, and all samples have the same."""
    if task and TASKS.load(task).ANNOTATION == "label":
        samples_.require_two_classes(samples)


def unfit_annotations(task: str, samples: Samples) -> NamedWarning | None:
    """A warning for data that says something of its samples, but not what the task is judged by.

    The first samples are looked at.
    """
    needed = TASKS.load(task).ANNOTATION
    if not needed:
        return None
    there: set[str] = set()
    for index in range(min(len(samples), _LOOKED_AT)):
        truth = samples.annotation(index)
        says = {name for name in _SAYS if name != "label" and getattr(truth, name)}
        there |= says | ({"label"} if truth.label >= 0 else set())
        if needed in there:
            return None
    if not there:
        return None
    what = " and ".join(_SAYS[name] for name in _SAYS if name in there)
    return NamedWarning(
        "other-annotations",
        f"{samples.source} has {what}, and {task} is judged by {_SAYS[needed]}",
        "give other data, or --task if the model is of another one",
    )


def by_outputs(outputs: Sequence[ModelOutput], classes: int) -> tuple[str, str]:
    """The task that a model with these outputs has, and why; `tensors` where it may be several.

    `classes` is the number of classes that the data has labels of, 0 without labels.
    """
    if not TASKS.load("detection").mismatch(outputs):
        return "detection", "the outputs are boxes and scores"
    if len(outputs) > 1:
        return _ANY, f"there are {len(outputs)} outputs"
    (output,) = outputs
    size = output.shape[-1] if output.shape else 1
    if len(output.shape) == _ROW and size > 1:
        return _of_row(size, output.activation, classes)
    if len(output.shape) == _ROW and size == 1:
        if output.activation == "sigmoid":
            return "binary", "the output is one number behind a sigmoid"
        if classes == 2:
            return "binary", "the output is one number, and the data has two classes"
        return _ANY, "the output is one number, which may mean anything"
    if len(output.shape) == _MAP and output.activation != "none":
        return "segmentation", f"the output is a map of classes behind a {output.activation}"
    return _ANY, f"the output is {list(output.shape)}, which may mean anything"


def _of_row(size: int, activation: str, classes: int) -> tuple[str, str]:
    if activation == "softmax":
        return "classification", f"the output is a softmax over {size} classes"
    if activation == "sigmoid":
        return "multilabel", f"the outputs are {size} numbers behind a sigmoid"
    # A model may have a background class more than its data, or one less.
    if classes and abs(size - classes) <= 1:
        return "classification", f"the output is {size} numbers, and the data has {classes} classes"
    return _ANY, f"the output is {size} numbers, which may mean anything"
