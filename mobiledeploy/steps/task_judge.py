"""What the answers of one task lost against accepted ones, in all and by class."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import class_losses, gate, paired
from mobiledeploy.analysis.class_losses import DrawnClasses
from mobiledeploy.analysis.corpus import Mean
from mobiledeploy.analysis.paired import PairedLoss
from mobiledeploy.core import records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import ClassCorpus, Corpus
from mobiledeploy.core.types import Annotation, Evaluation, Outcome, Prediction
from mobiledeploy.steps import baseline as baselines


@dataclass(frozen=True)
class MetricLoss:
    """What a metric lost on `n` samples: a fraction of it, or of its bound, with 95 % bounds.

    Where each answer is right or wrong, `changed` are the (losses, gains); else `paired` has what
    the bounds come from.
    """

    loss: float
    interval: tuple[float, float]
    n: int
    changed: tuple[int, int] | None = None
    paired: PairedLoss | None = None

    def outcome(self, margin: float) -> Outcome:
        """The outcome for a margin."""
        if self.paired is not None:
            return paired.outcome(self.paired, margin)
        return gate.outcome(self.interval, margin)

    def needed(self, margin: float) -> int | None:
        """How many samples like these would decide; None if no number does."""
        if self.paired is not None:
            return paired.samples_needed(self.paired, margin)
        assert self.changed is not None
        return gate.images_needed(*self.changed, self.n, margin)


@dataclass(frozen=True)
class ClassChange:
    """One class of `n` samples: the loss as a fraction, and what became of it in words."""

    index: int
    n: int
    loss: float
    regressed: bool
    words: str


@dataclass(frozen=True)
class Resolution:
    """The smallest margin that `n` samples can decide, which is that of a model that lost nothing.

    `weight` is as in `PairedLoss`.
    """

    margin: float
    n: int
    weight: float

    def needed(self, margin: float) -> int | None:
        """How many samples can decide a margin; None if no number does."""
        if self.weight <= 1:
            return gate.unflipped(margin)
        return paired.samples_needed(PairedLoss(0, 0, 0, self.n, 0, self.weight), margin)


class JudgedAnswers:
    """The answers of one model, judged by annotations; each figure is computed once.

    Args:
        task: the name of the task.
        predictions: the answers.
        annotations: what is true of each.
    """

    def __init__(
        self, task: str, predictions: Sequence[Prediction], annotations: Sequence[Annotation]
    ) -> None:
        self._name = task
        self._task = TASKS.load(task)
        self._predictions = predictions
        self._annotations = annotations

    @functools.cached_property
    def scores(self) -> NDArray[np.float64]:
        """[N], as the task's."""
        return self._task.scores(self._predictions, self._annotations)

    @functools.cached_property
    def corpus(self) -> Corpus:
        """As the task's; a `DrawnClasses` if it has classes."""
        corpus = self._task.corpus(self._predictions, self._annotations)
        return DrawnClasses(corpus) if isinstance(corpus, ClassCorpus) else corpus

    @functools.cached_property
    def figure(self) -> float | None:
        """The task's first metric; None where it is no number."""
        if self._task.GATE == "corpus":
            value = self.corpus.metric(np.ones(len(self._predictions), np.int64))
            return value if math.isfinite(value) else None
        return baselines.deciding_metric(self._name, self._predictions, self._annotations)

    @property
    def share(self) -> float:
        """The metric as a fraction: of an error the mean of its bounded scores."""
        return (
            (self.figure or 0.0) if self._task.GATE == "corpus" else float(np.nanmean(self.scores))
        )

    @property
    def heaviest(self) -> float | None:
        """The largest part of the metric that one sample carries; None if all carry the same."""
        if self._task.GATE == "corpus" and isinstance(self.corpus, DrawnClasses):
            return class_losses.heaviest(self.corpus.corpus)
        return None


class TaskJudge:
    """Judges answers of one task to the same samples by their annotations.

    Args:
        evaluation: names the task, the samples and the data.
        annotations: what is true of each of its predictions.
    """

    def __init__(self, evaluation: Evaluation, annotations: Sequence[Annotation]) -> None:
        self.task = TASKS.load(evaluation.task)
        self.metric = self.task.METRICS[0]
        self._name = evaluation.task
        self._source = evaluation.data.source
        # From the data, so that nobody can choose it.
        self._seed = int(records.sha256(evaluation.data.identity.encode())[:8], 16)
        # Of the other tasks the scores tell it, and no box or label is an annotation too.
        masks = self.task.ANNOTATION == "mask"
        self._places = [n for n, a in enumerate(annotations) if not masks or a.mask is not None]
        self._annotations = [annotations[n] for n in self._places]

    def answers(self, predictions: Sequence[Prediction]) -> JudgedAnswers:
        """The answers of a model; UsageError if the annotations say nothing of the first metric."""
        own = [predictions[n] for n in self._places]
        judged = JudgedAnswers(self._name, own, self._annotations)
        corpus = self.task.GATE == "corpus"
        if judged.figure is None if corpus else np.isnan(judged.scores).all():
            raise UsageError(
                f"{self._source} says nothing of {self.metric.title}",
                "--no-labels judges by the answers that changed",
            )
        return judged

    def count(self, judged: JudgedAnswers) -> int:
        """The number of samples that the metric is of."""
        if self.task.GATE == "corpus":
            return len(self._places)
        return int(np.count_nonzero(~np.isnan(judged.scores)))

    def loss(self, before: JudgedAnswers, now: JudgedAnswers) -> MetricLoss:
        """What `now` lost against `before`."""
        n = self.count(before)
        if self.task.GATE == "exact":
            losses = int((before.scores > now.scores).sum())
            gains = int((now.scores > before.scores).sum())
            interval = gate.bounds(losses, gains, n)
            return MetricLoss((losses - gains) / n, interval, n, changed=(losses, gains))
        lost = (
            paired.mean_bounds(before.scores, now.scores)
            if self.task.GATE == "mean"
            else paired.corpus_bounds(
                before.corpus, now.corpus, n, seed=self._seed, share=before.heaviest
            )
        )
        return MetricLoss(lost.loss, lost.bounds, lost.n, paired=lost)

    def classes(
        self, before: JudgedAnswers, now: JudgedAnswers
    ) -> tuple[tuple[ClassChange, ...], int]:
        """What became of each class, and how many have too few samples; after `loss`."""
        if self.task.GATE == "exact":
            return self._labelled_classes(before, now)
        if self.task.GATE == "mean" or not (
            isinstance(before.corpus, DrawnClasses) and isinstance(now.corpus, DrawnClasses)
        ):
            return (), 0
        classes, untested = class_losses.class_losses(before.corpus, now.corpus)
        title = self.metric.title.removeprefix("m")
        changes = [
            ClassChange(
                c.index,
                c.n,
                c.before - c.now,
                c.regressed,
                f"{title} {100 * c.now:.2f} %, {100 * c.before:.2f} % before "
                f"(in {c.n} images, p = {c.p:.2g})",
            )
            for c in classes
        ]
        return tuple(changes), untested

    def resolution(self, predictions: Sequence[Prediction]) -> Resolution:
        """The smallest margin that these samples can decide."""
        judged = self.answers(predictions)
        n, share = self.count(judged), judged.heaviest
        least = gate.least_margin(n)
        if self.task.GATE != "corpus":
            return Resolution(least, n, 1.0)
        nothing = Mean(np.zeros(n))
        upper = paired.corpus_bounds(nothing, nothing, n, seed=self._seed, share=share).upper
        return Resolution(max(upper, least), n, 1.0 if share is None else share * n)

    def _labelled_classes(
        self, before: JudgedAnswers, now: JudgedAnswers
    ) -> tuple[tuple[ClassChange, ...], int]:
        known = ~np.isnan(before.scores)
        labels = np.array([a.label for a in self._annotations])[known]
        was, is_ = before.scores[known] > 0, now.scores[known] > 0
        groups, untested = gate.regressed_classes(labels, was & ~is_, is_ & ~was)
        changes = []
        for group in groups:
            mine = labels == group.index
            words = (
                f"{is_[mine].sum()} of {group.n} right, {was[mine].sum()} before "
                f"(p = {group.p:.2g})"
            )
            loss = (group.worse - group.better) / group.n
            changes.append(ClassChange(group.index, group.n, loss, group.regressed, words))
        return tuple(changes), untested
