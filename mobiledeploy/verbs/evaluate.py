"""Artifacts on labelled images: top-1, top-5, agreement with the float model, confusion.

A pool of runner processes, one for each core, decodes, prepares and answers in parallel; this
process hands out ranges of images and keeps the five best classes of each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledeploy.core.display import Record
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Evaluation, Failed, Overrides
from mobiledeploy.steps.evaluations import each
from mobiledeploy.steps.failures import Failures


@dataclass(frozen=True)
class EvaluateResult(Record):
    """The answer of the command: an evaluation for each path, in their order.

    `failed` are the paths that have none, each with its reason.
    """

    paths: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    failed: tuple[Failed, ...] = ()


def evaluate(
    paths: Sequence[Path],
    *,
    data: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    overrides: Overrides | None = None,
    compare: bool = True,
    reporter: Reporter = SILENT,
) -> tuple[Evaluation, ...]:
    """Judges artifacts; each result is in the store as soon as it exists.

    Args:
        paths: artifacts with their records beside them.
        data: what `--data` says; by default what each artifact was exported with. Of that data the
            validation split is taken, which calibrated nothing; of any other all of it.
        runtime: by default litert for TFLite and onnxruntime for ONNX.
        threads: how many runners at once, each with one thread; by default one for each core.
        overrides: preprocessing, where it shall differ from the artifact's own.
        compare: whether to tell the agreement with the float artifact, which takes its evaluation.
        reporter: hears of progress and warnings.

    Raises:
        InputError: an artifact without its record, or one that the record does not speak of; NaN
            in an answer; more than max(5, 1 %) images that cannot be read.
        UsageError: an unknown runtime, or one that does not run an artifact's format; an unknown
            data set; images that say nothing about the model.
        DeviceError: a runner died or hangs.

    Where one of several fails the others are judged all the same; then the gravest error is raised.
    """
    failures = Failures()
    made = each(
        paths,
        failures,
        data=data,
        runtime=runtime,
        threads=threads,
        overrides=overrides,
        compare=compare,
        reporter=reporter,
    )
    failures.check()
    return tuple(made.values())


def evaluated(paths: Sequence[Path], **given: Any) -> EvaluateResult:
    """`evaluate`, where each of several paths has its own answer or reason."""
    failures = Failures()
    made = each(paths, failures, **given)
    if len(paths) == 1:
        failures.check()
    return EvaluateResult(tuple(map(str, made)), tuple(made.values()), failures.told())


# --- which images ------------------------------------------------------------------------


# --- the work ------------------------------------------------------------------------------
