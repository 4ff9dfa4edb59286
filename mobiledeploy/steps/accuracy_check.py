"""Compares one artifact with its accepted version, image by image: the verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import gate
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.samples import class_name
from mobiledeploy.core.types import (
    Artifact,
    Check,
    Evaluation,
    MovedAnswers,
    NamedWarning,
    Outcome,
    Target,
    Verdict,
)
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps import golden
from mobiledeploy.steps.baseline import Accepted, of_another_tool
from mobiledeploy.steps.defaults import UNLABELLED_FLIPS
from mobiledeploy.steps.predictors import HOST, Predictor

_ANNOTATIONS = {"boxes": "boxes", "mask": "masks", "values": "targets"}
# The most pairs of classes that a check lists.
_PAIRS = 10


@dataclass(frozen=True)
class GateLimits:
    """The limits of a check, as fractions of the images.

    Top-1 may fall by `margin` below the accepted model of the same recipe, by `float_margin` below
    the accepted float model, and not below `floor`. `max_flips` is the share of answers that may
    change; None means any share with labels, and `UNLABELLED_FLIPS` without.
    """

    margin: float = 0.01
    float_margin: float = 0.02
    floor: float | None = None
    max_flips: float | None = None


def points(fraction: float) -> float:
    """Percentage points, rounded up to hundredths: the printed number must decide."""
    return math.ceil(1e4 * fraction) / 100


class Place(TypedDict):
    """Fields of a `Check`: where the answers come from."""

    target: Target
    runtime_version: str
    isa: str


@dataclass(frozen=True)
class ArtifactCheck:
    """One artifact beside its entry in the baseline."""

    path: Path
    artifact: Artifact
    evaluation: Evaluation
    entry: Accepted
    anchor: Accepted | None
    limits: GateLimits
    labelled: bool
    predictor: Predictor

    def check(self, reporter: Reporter) -> Check:
        """All verdicts."""
        truth = np.array([p.label for p in self.evaluation.predictions], np.int64)
        now = np.array([p.classes[0] for p in self.evaluation.predictions], np.int64)
        before = baselines.answers(self.entry)
        if self.labelled and not (truth >= 0).all():
            raise UsageError(
                unlabelled(self.evaluation, self.path),
                "--no-labels judges by the answers that changed",
            )
        replayed, elsewhere = self.golden_verdict(reporter)
        flips = int((now != before).sum())
        warnings = [
            *self.evaluation.warnings,
            *self.machine_warnings(flips),
            *([elsewhere] if elsewhere else []),
        ]
        verdicts: list[Verdict] = []
        losses = gains = None
        if self.labelled:
            losses = int(((before == truth) & (now != truth)).sum())
            gains = int(((before != truth) & (now == truth)).sum())
            verdicts += self._accuracy(truth, now)
            warnings += self.anchor_warnings()
        verdicts += self.flip_verdicts(flips, len(now))
        if self.same_machine and flips == 0 and self.same_file:
            verdicts = [pass_same_file(verdict) for verdict in verdicts]
        classes, untested = self._classes(truth, before, now)
        verdicts += classes
        verdicts += [replayed] if replayed else []
        for warning in warnings:
            reporter.warn(warning)
        right = baselines.right(truth.tolist(), now) if self.labelled else None
        return Check(
            path=str(self.path),
            model=self.artifact.spec.name,
            recipe=self.artifact.recipe.name,
            format=self.artifact.format,
            artifact_sha256=self.artifact.sha256,
            accepted_sha256=self.entry.artifact_sha256,
            images=len(now),
            top1=None if right is None else right / len(now),
            accepted_top1=top1_share(self.entry) if self.labelled else None,
            losses=losses,
            gains=gains,
            flips=flips / len(now),
            mcnemar_p=None if losses is None or gains is None else gate.mcnemar(losses, gains),
            untested=untested,
            moved=self._moved_answers(truth, before, now) if self.labelled else (),
            verdicts=tuple(self.placed(verdict) for verdict in verdicts),
            warnings=tuple(warnings),
            **self.place(),
        )

    def place(self) -> Place:
        """Where the answers come from: fields of a `Check`."""
        e = self.evaluation
        return {"target": e.target, "runtime_version": e.runtime_version, "isa": e.isa}

    def placed(self, verdict: Verdict) -> Verdict:
        """A verdict whose line names the device, unless that is this host."""
        target = self.evaluation.target
        if target.device == HOST or verdict.metric == "golden":
            return verdict
        return replace(verdict, line=f"on {target.device}: {verdict.line}")

    def golden_verdict(self, reporter: Reporter) -> tuple[Verdict | None, NamedWarning | None]:
        """The verdict on the golden samples; a warning if their images are not there.

        Neither for a file that never had any: those of other tools.
        """
        if not self.artifact.golden.images:
            return None, None
        try:
            golden.images(self.path, self.artifact.golden)
        except InputError as error:
            return None, NamedWarning(
                "no-golden", error.message, "keep golden/ beside the artifact"
            )
        # On this host golden samples are run as at the export, whatever runtime is checked.
        elsewhere = None if self.predictor.is_host else self.predictor
        return golden.judge(
            self.artifact, golden.replay(self.path, self.artifact, reporter, elsewhere)
        )

    @property
    def same_file(self) -> bool:
        """Whether it is the accepted file itself."""
        return self.artifact.sha256 == self.entry.artifact_sha256

    @property
    def same_machine(self) -> bool:
        """Whether the accepted answers come from this device, runtime and these instructions."""
        e, then = self.evaluation, self.entry
        return (e.target.device, e.runtime_version, e.isa) == (
            then.target.device,
            then.runtime_version,
            then.isa,
        )

    def anchor_warnings(self) -> list[NamedWarning]:
        """A warning if there is no accepted float model to sum many small losses against.

        Of files of other tools nobody knows whether there is one.
        """
        artifact = self.artifact
        if self.anchor or artifact.recipe.name == "float32" or of_another_tool(artifact):
            return []
        message = f"the baseline has no float32 {artifact.spec.name} on these images"
        advice = "losses of many small steps go unseen; accept the float32 file too"
        return [NamedWarning("no-float-anchor", message, advice)]

    def machine_warnings(self, flips: int) -> list[NamedWarning]:
        """Warnings about another machine, which a paired comparison tolerates."""
        then = self.entry
        name = self.evaluation.target.runtime
        if not self.same_machine:
            e, then_at, now_at = self.evaluation, then.isa, self.evaluation.isa
            if e.target.device != then.target.device:
                then_at, now_at = (
                    f"{target.device} ({isa})"
                    for target, isa in ((then.target, then.isa), (e.target, e.isa))
                )
            message = (
                f"the baseline was made by {name} {then.runtime_version} on "
                f"{then_at}, this is {name} {e.runtime_version} on {now_at}"
            )
            return [
                NamedWarning(
                    "other-machine",
                    message,
                    "what changed may be its kernels, not the file",
                    str(self.path),
                )
            ]
        if self.same_file and flips:
            message = f"it is the accepted file, yet {flips} of its answers are others"
            return [
                NamedWarning("not-repeatable", message, "is the machine sound?", str(self.path))
            ]
        return []

    def _accuracy(self, truth: NDArray[np.int64], now: NDArray[np.int64]) -> list[Verdict]:
        verdicts = [self._loss("accuracy", self.entry, self.limits.margin, truth, now)]
        if self.anchor:
            verdicts.append(self._loss("float", self.anchor, self.limits.float_margin, truth, now))
        if self.limits.floor is not None:
            share = float((now == truth).mean())
            above_floor = share >= self.limits.floor
            line = (
                f"top-1 is {100 * share:.2f} %, {'not ' if above_floor else ''}below the floor of "
                f"{100 * self.limits.floor:g} %"
            )
            kind: Outcome = "pass" if above_floor else "fail"
            verdicts.append(
                Verdict("floor", "", kind, share, None, self.limits.floor, len(now), None, line)
            )
        return verdicts

    def _loss(
        self,
        metric: Literal["accuracy", "float"],
        other: Accepted,
        margin: float,
        truth: NDArray[np.int64],
        now: NDArray[np.int64],
    ) -> Verdict:
        before = baselines.answers(other)
        n = len(now)
        losses = int(((before == truth) & (now != truth)).sum())
        gains = int(((before != truth) & (now == truth)).sum())
        interval = gate.bounds(losses, gains, n)
        outcome = gate.outcome(interval, margin)
        image_count = None
        loss = (losses - gains) / n
        whose = "the accepted model" if metric == "accuracy" else "the accepted float model"
        line = (
            f"top-1 fell by {100 * loss:.2f} points below {whose} ({losses} lost, {gains} gained "
            f"of {n}); 95 % bounds {100 * interval[0]:.2f} and {100 * interval[1]:.2f}, "
            f"margin {100 * margin:g}"
        )
        if loss <= 0:
            line = line.replace(f"fell by {100 * loss:.2f} points below", "did not fall below")
        if outcome == "inconclusive":
            image_count = gate.images_needed(losses, gains, n, margin)
            line += f"; {enough_images(image_count, n)}"
        return Verdict(metric, "", outcome, loss, interval, margin, n, image_count, line)

    def flip_verdicts(self, flips: int, n: int) -> list[Verdict]:
        """The verdict on so many changed answers, where it is asked for."""
        most = self.limits.max_flips
        if most is None and not self.labelled:
            most = UNLABELLED_FLIPS
        if most is None:
            return []
        return [flip_verdict(flips, n, most)]

    def _classes(
        self, truth: NDArray[np.int64], before: NDArray[np.int64], now: NDArray[np.int64]
    ) -> tuple[list[Verdict], int]:
        """A verdict for each class with enough images, and the number of the other classes."""
        if self.labelled:
            margin, of = gate.CLASS_MARGIN, truth
            groups, untested = gate.regressed_classes(
                truth, (before == truth) & (now != truth), (before != truth) & (now == truth)
            )
        else:
            margin, of = gate.CLASS_FLIPS, before
            groups, untested = gate.changed_classes(before, now != before)
        verdicts = []
        for group in groups:
            mine = of == group.index
            name = self.name_of(group.index)
            if self.labelled:
                line = (
                    f"class {name}: {int((now[mine] == group.index).sum())} of {group.n} right, "
                    f"{int((before[mine] == group.index).sum())} before (p = {group.p:.2g})"
                )
            else:
                line = (
                    f"class {name}: {group.worse} of its {group.n} answers changed "
                    f"(p = {group.p:.2g})"
                )
            if group.regressed:
                line += self._destination(group.index, of, now)
            verdicts.append(
                Verdict(
                    "class",
                    name,
                    "fail" if group.regressed else "pass",
                    (group.worse - group.better) / group.n,
                    None,
                    margin,
                    group.n,
                    None,
                    line,
                )
            )
        return verdicts, untested

    def _destination(self, index: int, of: NDArray[np.int64], now: NDArray[np.int64]) -> str:
        """The class that a class is now mistaken for, and whether the two look swapped."""
        wrong = now[(of == index) & (now != index)]
        values, counts = np.unique(wrong, return_counts=True)
        most = int(values[np.argmax(counts)])
        text = f"; now taken for {self.name_of(most)} ({int(counts.max())} times)"
        back = now[of == most]
        if len(back) and (back == index).mean() > 0.5 and counts.max() > (of == index).sum() / 2:
            text += ": the two look swapped"
        return text

    def _moved_answers(
        self, truth: NDArray[np.int64], before: NDArray[np.int64], now: NDArray[np.int64]
    ) -> tuple[MovedAnswers, ...]:
        pairs = gate.moved_pairs(truth, before, now)[:_PAIRS]
        return tuple(
            MovedAnswers(self.name_of(t), self.name_of(p), was, is_) for t, p, was, is_ in pairs
        )

    def name_of(self, index: int) -> str:
        """The name of a class for people."""
        labels = self.evaluation.preprocessing.labels or self.evaluation.data.labels
        return class_name(labels, self.artifact.spec.classes, index)


def flip_verdict(flips: int, n: int, most: float) -> Verdict:
    """The verdict on `flips` changed answers of `n`, of which a share of `most` may change."""
    interval = gate.flip_bounds(flips, n)
    outcome = gate.outcome(interval, most)
    line = (
        f"{flips} of {n} answers changed ({100 * flips / n:.2f} %); 95 % bounds "
        f"{100 * interval[0]:.2f} and {100 * interval[1]:.2f} %, at most {100 * most:g} %"
    )
    image_count = None
    if outcome == "inconclusive":
        image_count = gate.flips_needed(flips, n, most)
        line += f"; {enough_images(image_count, n)}"
    return Verdict("flips", "", outcome, flips / n, interval, most, n, image_count, line)


def pass_same_file(verdict: Verdict) -> Verdict:
    """A verdict on the accepted file itself: it passes, because the file cannot have changed."""
    if verdict.outcome != "inconclusive":
        return verdict
    line = f"{verdict.line.rpartition('; ')[0]}; it is the accepted file, and answers as it did"
    return replace(verdict, outcome="pass", needed=None, line=line)


def enough_images(image_count: int | None, n: int) -> str:
    """What an inconclusive verdict ends with: how many images would decide."""
    if image_count is None:
        return f"the loss is as good as the margin: no number of images decides ({n} here)"
    return f"about {image_count:,} images like these would decide ({n:,} here)"


def unlabelled(evaluation: Evaluation, path: Path) -> str:
    """Why there are no labels to judge by."""
    messages = (d.message for d in evaluation.warnings if d.name == "labels-do-not-fit")
    kind = TASKS.load(evaluation.task).ANNOTATION
    what = _ANNOTATIONS.get(kind, "labels")
    return next(messages, f"{evaluation.data.source} has no {what} for {path}")


def top1_share(entry: Accepted) -> float | None:
    """The accepted top-1, a fraction; None without labels."""
    return None if entry.right is None else entry.right / entry.images
