"""Compares one artifact of any task but classification with its accepted version: the verdicts.

Classification has its own comparison, which says more of its classes (`accuracy_check`). What both
have in common comes from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mobiledeploy.analysis import gate
from mobiledeploy.core import units
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Annotation, Check, Evaluation, Outcome, Prediction, Verdict
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps.accuracy_check import (
    ArtifactCheck,
    enough_images,
    pass_same_file,
    unlabelled,
)
from mobiledeploy.steps.baseline import Accepted
from mobiledeploy.steps.task_judge import ClassChange, JudgedAnswers, MetricLoss, TaskJudge


@dataclass(frozen=True)
class TaskCheck:
    """One artifact of a task beside its entry in the baseline.

    `annotations` are what its answers are judged by. None where there is nothing to judge by.
    `names` are the data's names of the classes.
    """

    common: ArtifactCheck
    annotations: Sequence[Annotation] | None
    names: Sequence[str]

    def check(self, reporter: Reporter) -> Check:
        """All verdicts; UsageError without annotations, unless only changes are to be judged."""
        one = self.common
        task = TASKS.load(one.evaluation.task)
        before = baselines.predictions(one.entry, one.evaluation)
        now = baselines.rounded(one.evaluation.predictions)
        flips = sum(not task.agrees(*pair) for pair in zip(before, now, strict=True))
        changed = sum(old != new for old, new in zip(before, now, strict=True))
        replayed, elsewhere = one.golden_verdict(reporter)
        warnings = [
            *one.evaluation.warnings,
            *one.machine_warnings(changed),
            *([elsewhere] if elsewhere else []),
        ]
        verdicts: list[Verdict] = []
        classes: tuple[ClassChange, ...] = ()
        figure = accepted = changes = None
        untested, class_margin = 0, gate.CLASS_MARGIN
        if one.labelled:
            if self.annotations is None:
                raise UsageError(
                    unlabelled(one.evaluation, one.path),
                    "--no-labels judges by the answers that changed",
                )
            judge = TaskJudge(one.evaluation, self.annotations)
            old, new = judge.answers(before), judge.answers(now)
            loss = judge.loss(old, new)
            classes, untested = judge.classes(old, new)
            figure, accepted, changes = new.figure, old.figure, loss.changed
            verdicts.append(metric_verdict("metric", judge, old, new, loss, one.limits.margin))
            verdicts += self._float(judge, new)
            verdicts += self._floor(judge, new)
            warnings += one.anchor_warnings()
        elif task.ANNOTATION == "label" and before[0].classes:
            classes, untested = _changed_classes(before, now)
            class_margin = gate.CLASS_FLIPS
        verdicts += one.flip_verdicts(flips, len(now))
        if one.same_machine and one.same_file and not changed:
            verdicts = [pass_same_file(verdict) for verdict in verdicts]
        verdicts += [self._of_class(change, class_margin) for change in classes]
        verdicts += [replayed] if replayed else []
        for warning in warnings:
            reporter.warn(warning)
        return Check(
            path=str(one.path),
            model=one.artifact.spec.name,
            recipe=one.artifact.recipe.name,
            format=one.artifact.format,
            artifact_sha256=one.artifact.sha256,
            accepted_sha256=one.entry.artifact_sha256,
            images=len(now),
            top1=None,
            accepted_top1=None,
            losses=changes and changes[0],
            gains=changes and changes[1],
            flips=flips / len(now),
            mcnemar_p=None if changes is None else gate.mcnemar(*changes),
            untested=untested,
            moved=(),
            verdicts=tuple(one.placed(verdict) for verdict in verdicts),
            warnings=tuple(warnings),
            **one.place(),
            task=one.evaluation.task,
            metric=task.METRICS[0],
            metric_now=figure,
            metric_accepted=accepted,
        )

    def _float(self, judge: TaskJudge, now: JudgedAnswers) -> list[Verdict]:
        one = self.common
        # The answers of a task without annotations are judged by the float model already.
        if one.anchor is None or not judge.task.ANNOTATION:
            return []
        floats = judge.answers(baselines.predictions(one.anchor, one.evaluation))
        loss = judge.loss(floats, now)
        return [metric_verdict("float", judge, floats, now, loss, one.limits.float_margin)]

    def _floor(self, judge: TaskJudge, now: JudgedAnswers) -> list[Verdict]:
        floor = self.common.limits.floor
        if floor is None:
            return []
        share, n = now.share, judge.count(now)
        above_floor = share >= floor
        words = units.metric(now.figure, judge.metric.unit, 2)
        if judge.task.GATE == "mean":
            words += f", a score of {100 * share:.2f} %"
        line = (
            f"{judge.metric.title} is {words}, {'not ' if above_floor else ''}below the floor of "
            f"{100 * floor:g} %"
        )
        kind: Outcome = "pass" if above_floor else "fail"
        return [Verdict("floor", "", kind, share, None, floor, n, None, line)]

    def _of_class(self, change: ClassChange, margin: float) -> Verdict:
        name = self._name_of(change.index)
        kind: Outcome = "fail" if change.regressed else "pass"
        line = f"class {name}: {change.words}"
        return Verdict("class", name, kind, change.loss, None, margin, change.n, None, line)

    def _name_of(self, index: int) -> str:
        names = self.common.evaluation.preprocessing.labels or self.names
        return names[index] if index < len(names) else str(index)


def reference(anchor: Accepted, evaluation: Evaluation) -> tuple[Annotation, ...]:
    """The accepted float model's numbers, by which a task without annotations is judged."""
    floats = baselines.predictions(anchor, evaluation)
    return tuple(Annotation(values=p.values) for p in floats)


def metric_verdict(
    metric: Literal["metric", "float"],
    judge: TaskJudge,
    before: JudgedAnswers,
    now: JudgedAnswers,
    loss: MetricLoss,
    margin: float,
) -> Verdict:
    """The verdict on what `now` lost against `before`, for a margin as a fraction."""
    outcome = loss.outcome(margin)
    whose = "the accepted model" if metric == "metric" else "the accepted float model"
    title = judge.metric.title
    old, new = (units.metric(side.figure, judge.metric.unit, 2) for side in (before, now))
    low, high = (100 * bound for bound in loss.interval)
    if judge.task.GATE == "mean":
        line = (
            f"{title} is {new}, {old} with {whose}: {100 * loss.loss:.2f} points of its bound lost"
        )
    elif loss.loss > 0:
        line = f"{title} fell by {100 * loss.loss:.2f} points below {whose}"
    else:
        line = f"{title} did not fall below {whose}"
    if loss.changed is not None:
        line += f" ({loss.changed[0]} lost, {loss.changed[1]} gained of {loss.n})"
    elif judge.task.GATE == "mean":
        line += f" (of {loss.n})"
    else:
        line += f" ({new}, {old} before, of {loss.n})"
    line += f"; 95 % bounds {low:.2f} and {high:.2f}, margin {100 * margin:g}"
    needed = None
    if outcome == "inconclusive":
        needed = loss.needed(margin)
        line += f"; {enough_images(needed, loss.n)}"
    subject = judge.metric.name if metric == "metric" else ""
    return Verdict(metric, subject, outcome, loss.loss, loss.interval, margin, loss.n, needed, line)


def _changed_classes(
    before: Sequence[Prediction], now: Sequence[Prediction]
) -> tuple[tuple[ClassChange, ...], int]:
    """What became of each class that was answered, and how many were answered too seldom."""
    old, new = (np.array([p.classes[0] for p in side]) for side in (before, now))
    groups, untested = gate.changed_classes(old, old != new)
    return tuple(
        ClassChange(
            group.index,
            group.n,
            group.worse / group.n,
            group.regressed,
            f"{group.worse} of its {group.n} answers changed (p = {group.p:.2g})",
        )
        for group in groups
    ), untested
