"""The accuracy gate: artifacts against what was accepted before, picture by picture.

Nothing is tried again until it passes: the same files and pictures get the same verdict.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import gate
from mobiledeploy.core import artifacts, leases, records, units
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.ports import SILENCE, Notify
from mobiledeploy.core.samples import class_name
from mobiledeploy.core.types import (
    Accepted,
    Artifact,
    Baseline,
    Check,
    Doubt,
    Evaluation,
    Moved,
    Outcome,
    Overrides,
    Report,
    Verdict,
)
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps import golden
from mobiledeploy.steps.failures import Failures
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import evaluate as evaluate_verb

TITLE = "mobiledeploy check"
DEFAULT = Path("mobiledeploy-baseline.json")
# Pairs of classes that moved, as many as are worth a look.
_PAIRS = 10


@dataclass(frozen=True)
class Limits:
    """What is still accepted; all are fractions of the pictures.

    `margin` is how much top-1 may fall below the accepted model of the same recipe, `float_margin`
    below the accepted float model, `floor` what it may not fall below at all. `max_flips` is the
    share of answers that may change, None for any share (with labels) or `UNLABELLED_FLIPS`.
    """

    margin: float = 0.01
    float_margin: float = 0.02
    floor: float | None = None
    max_flips: float | None = None


UNLABELLED_FLIPS = 0.05


@dataclass(frozen=True)
class Change:
    """An entry of a baseline that was written; `flips` are answers that changed, of `images`.

    `decides` is the margin above which so many images can decide, a fraction: of top-1 lost, or
    without labels of answers changed.
    """

    model: str
    recipe: str
    format: str
    images: int
    top1_before: float | None
    top1: float | None
    flips: int | None
    artifact_before: str | None
    artifact_sha256: str
    decides: float


@dataclass(frozen=True)
class Updated:
    """The answer of `check --update-baseline`."""

    baseline: str
    changes: tuple[Change, ...]


def check(
    paths: Sequence[Path],
    *,
    baseline: Path = DEFAULT,
    data: str | None = None,
    limits: Limits | None = None,
    labelled: bool = True,
    on_inconclusive: Literal["fail", "warn"] = "fail",
    runtime: str | None = None,
    threads: int | None = None,
    overrides: Overrides | None = None,
    notify: Notify = SILENCE,
) -> Report:
    """Judges artifacts by the accepted ones of a baseline file.

    Args:
        paths: artifacts with their records beside them.
        baseline: what `update` wrote.
        data: see `evaluate`; the pictures must be those of the baseline.
        limits: what is still accepted.
        labelled: False judges by changed answers alone, as one must without labels.
        on_inconclusive: noted in the report.
        runtime: see `evaluate`, as for the three that follow.
        threads: how many runners at once.
        overrides: preprocessing, where it shall differ from the artifact's own.
        notify: hears of progress and doubts.

    Raises:
        MissingError: no baseline, or none of one of the artifacts.
        InputError: a baseline that was edited, or that speaks of other weights, ends, pictures,
            labels, preprocessing, classes, runtime or kernels; and what `evaluate` raises.
        UsageError: two artifacts of one key; margins that cannot be; pictures without labels.

    Where one of several fails the others are judged all the same, and the report says why.
    """
    limits = limits or Limits()
    _validate(limits)
    failures = Failures()
    loaded = _loaded(paths, failures)
    if not loaded:
        failures.check()
    update = _update_line(paths, baseline, data, runtime, overrides, labelled)
    known = baselines.read(baseline, update)
    entries = {baselines.key(entry): entry for entry in known.accepted}
    judged: dict[Path, Artifact] = {}
    for path, artifact in loaded.items():
        with failures.of(path):
            if baselines.key(artifact) not in entries:
                raise MissingError(
                    f"{baseline} has no {' '.join(baselines.key(artifact))} to hold {path} against",
                    update,
                )
            judged[path] = artifact
    made: dict[Path, Evaluation] = {}
    if judged:
        made = evaluate_verb.each(
            tuple(judged),
            failures,
            data=data,
            runtime=runtime,
            threads=threads,
            overrides=overrides,
            compare=False,
            notify=notify,
        )
    checks = []
    for path, evaluation in made.items():
        artifact = judged[path]
        accepted = entries[baselines.key(artifact)]
        with failures.of(path):
            found = baselines.differences(accepted, artifact, evaluation)
            if found:
                raise InputError(
                    f"{path} cannot be held against {baseline}: {'; '.join(found)}",
                    f"if that is meant, run {update}",
                )
            anchor = _float_anchor(entries, artifact, evaluation)
            one = _One(path, artifact, evaluation, accepted, anchor, limits, labelled)
            checks.append(one.check(notify))
    with Store.keeping(notify) as store:
        for check_ in checks:
            for verdict in check_.verdicts:
                store.add_verdict(check_.artifact_sha256, "check", verdict)
    if len(paths) == 1:
        failures.check()
    return Report(TITLE, tuple(checks), on_inconclusive=on_inconclusive, failed=failures.told())


def update(
    paths: Sequence[Path],
    *,
    baseline: Path = DEFAULT,
    data: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    overrides: Overrides | None = None,
    limits: Limits | None = None,
    labelled: bool = True,
    notify: Notify = SILENCE,
) -> Updated:
    """Accepts artifacts as they are: writes their entries of the baseline file.

    The float32 artifact beside one is accepted with it where the baseline has none of it on these
    pictures; one that it has stays, so that losses of many small steps are seen. Entries that
    another process writes meanwhile stay as well. Where the images are too few for the margin of
    `limits`, `notify` hears of it now: no check by this baseline could pass a changed file.

    Raises:
        UsageError: no folder for the baseline, or pictures without labels where `labelled`.
        InputError: a baseline that was edited; and what `evaluate` raises.
    """
    limits = limits or Limits()
    _validate(limits)
    failures = Failures()
    loaded = _loaded(paths, failures)
    failures.check()
    records.need_folder(baseline)
    line = _update_line(paths, baseline, data, runtime, overrides, labelled)
    entries = _entries(baseline, line)
    anchors = {}
    for path, artifact in loaded.items():
        sibling = evaluate_verb.float_sibling(path, artifact, loaded, notify)
        if sibling and sibling[0] not in loaded and sibling[1].format == artifact.format:
            anchors[sibling[0]] = sibling[1]
    everything = loaded | anchors
    made = evaluate_verb.evaluate(
        tuple(everything),
        data=data,
        runtime=runtime,
        threads=threads,
        overrides=overrides,
        compare=False,
        notify=notify,
    )
    accepted: dict[baselines.Key, Accepted] = {}
    changes = []
    for (path, artifact), evaluation in zip(everything.items(), made, strict=True):
        if labelled and any(p.label < 0 for p in evaluation.predictions):
            raise UsageError(_unlabelled(evaluation, path), "--no-labels accepts the answers alone")
        before = entries.get(baselines.key(artifact))
        comparable = before and not baselines.differences(before, artifact, evaluation)
        if path in anchors and comparable:
            continue
        after = baselines.entry(artifact, evaluation)
        accepted[baselines.key(artifact)] = after
        changes.append(_change(before, after, bool(comparable), labelled))
    if doubt := _undecided(changes, limits, labelled):
        notify.doubt(doubt)
    name = records.sha256(str(baseline.resolve()).encode())[:16]
    with leases.hold(f"baseline-{name}", exclusive=True, notify=notify):
        entries = _entries(baseline, line) | accepted
        baselines.write(baseline, Baseline(tuple(entries.values())))
    return Updated(str(baseline), tuple(changes))


def _validate(limits: Limits) -> None:
    for name, value in vars(limits).items():
        if value is not None and not 0 < value < 1:
            raise UsageError(
                f"a {name.replace('_', ' ')} of {100 * value:g} points cannot be",
                "it is a number of percentage points between 0 and 100",
            )


def _loaded(paths: Sequence[Path], failures: Failures) -> dict[Path, Artifact]:
    if not paths:
        raise UsageError("no artifact was named", "mobiledeploy check build/*/*.tflite")
    loaded = {}
    for path in paths:
        with failures.of(path):
            loaded[path] = artifacts.load(path)
    keys: dict[baselines.Key, Path] = {}
    for path, artifact in loaded.items():
        other = keys.setdefault(baselines.key(artifact), path)
        if other != path:
            raise UsageError(
                f"{other} and {path} are both {' '.join(baselines.key(artifact))}",
                "give them baselines of their own",
            )
    return loaded


def _entries(baseline: Path, line: str) -> dict[baselines.Key, Accepted]:
    """What is accepted by now."""
    try:
        return {baselines.key(entry): entry for entry in baselines.read(baseline, line).accepted}
    except MissingError:
        return {}


def _update_line(
    paths: Sequence[Path],
    baseline: Path,
    data: str | None,
    runtime: str | None,
    overrides: Overrides | None,
    labelled: bool,
) -> str:
    """The command that accepts what is judged, on the same pictures prepared in the same way."""
    argv = ["mobiledeploy", "check", *map(str, paths), "--baseline", str(baseline)]
    argv += [] if labelled else ["--no-labels"]
    said = {"data": data, "runtime": runtime, **vars(overrides or Overrides())}
    if said["labels"] is not None:
        # Whatever file they were read from.
        said["labels"] = "FILE"
    for name, value in said.items():
        if value is not None:
            text = ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
            argv += [f"--{name.replace('_', '-')}", text]
    return shlex.join([*argv, "--update-baseline"])


def _unlabelled(evaluation: Evaluation, path: Path) -> str:
    """Why there is no truth to judge by."""
    said = (d.message for d in evaluation.doubts if d.name == "labels-do-not-fit")
    return next(said, f"{evaluation.data.source} has no labels for {path}")


def _float_anchor(
    entries: dict[baselines.Key, Accepted], artifact: Artifact, evaluation: Evaluation
) -> Accepted | None:
    """The accepted float model on the same pictures: of the same format first."""
    if artifact.recipe.name == "float32":
        return None
    model = artifact.spec.name
    found = [
        entry
        for entry in entries.values()
        if (entry.model, entry.recipe) == (model, "float32")
        and (entry.data.identity, entry.samples, entry.classes, entry.images)
        == (
            evaluation.data.identity,
            baselines.samples(evaluation),
            artifact.spec.classes,
            evaluation.images,
        )
        and entry.weights_sha256 == artifact.spec.weights.sha256
        and entry.preprocessing.labels == evaluation.preprocessing.labels
    ]
    return min(found, key=lambda e: (e.format != artifact.format, e.format), default=None)


def _undecided(changes: Sequence[Change], limits: Limits, labelled: bool) -> Doubt | None:
    """Whether the fewest images can never decide the margin, and which one they can."""
    if not changes:
        return None
    one = min(changes, key=lambda change: change.images)
    margin = limits.margin if labelled else limits.max_flips or UNLABELLED_FLIPS
    if one.decides < margin:
        return None
    percent = f"{100 * margin:g}"
    asked = f"{percent} % of top-1 lost" if labelled else f"{percent} % of answers changed"
    option = "--margin" if labelled else "--max-flips"
    least = points(one.decides)
    # Without labels the bound is exact: (1 - margin)^n < 5 %.
    needed = gate.unflipped(margin) if labelled else gate.flips_needed(0, one.images, margin)
    return Doubt(
        "too-few-images",
        f"{units.several(one.images, 'image')} can never decide {asked}: that takes "
        f"{needed:,} without a single change",
        f"give more images, or {option} {least:g} or more",
    )


def points(fraction: float) -> float:
    """Percentage points, rounded up to hundredths: what is said must decide."""
    return math.ceil(1e4 * fraction) / 100


def _change(before: Accepted | None, after: Accepted, comparable: bool, labelled: bool) -> Change:
    flips = None
    if before and comparable:
        flips = int((baselines.answers(before) != baselines.answers(after)).sum())
    return Change(
        model=after.model,
        recipe=after.recipe,
        format=after.format,
        images=after.images,
        top1_before=_share(before) if before else None,
        top1=_share(after),
        flips=flips,
        artifact_before=before.artifact_sha256 if before else None,
        artifact_sha256=after.artifact_sha256,
        decides=(gate.least_margin if labelled else gate.least_flips)(after.images),
    )


def _share(entry: Accepted) -> float | None:
    return None if entry.right is None else entry.right / entry.images


@dataclass(frozen=True)
class _One:
    """One artifact beside what was accepted."""

    path: Path
    artifact: Artifact
    evaluation: Evaluation
    accepted: Accepted
    anchor: Accepted | None
    limits: Limits
    labelled: bool

    def check(self, notify: Notify) -> Check:
        """All verdicts."""
        truth = np.array([p.label for p in self.evaluation.predictions], np.int64)
        now = np.array([p.classes[0] for p in self.evaluation.predictions], np.int64)
        before = baselines.answers(self.accepted)
        if self.labelled and not (truth >= 0).all():
            raise UsageError(
                _unlabelled(self.evaluation, self.path),
                "--no-labels judges by the answers that changed",
            )
        replayed, elsewhere = self._golden(notify)
        flips = int((now != before).sum())
        doubts = [
            *self.evaluation.doubts,
            *self._doubts(flips),
            *([elsewhere] if elsewhere else []),
        ]
        verdicts: list[Verdict] = []
        losses = gains = None
        if self.labelled:
            losses = int(((before == truth) & (now != truth)).sum())
            gains = int(((before != truth) & (now == truth)).sum())
            verdicts += self._accuracy(truth, now)
            if not self.anchor and self.artifact.recipe.name != "float32":
                message = f"the baseline has no float32 {self.artifact.spec.name} on these pictures"
                advice = "losses of many small steps go unseen; accept the float32 file too"
                doubts.append(Doubt("no-float-anchor", message, advice))
        verdicts += self._flips(flips, len(now))
        if self._same_machine and flips == 0 and self._same_file:
            verdicts = [_accepted(verdict) for verdict in verdicts]
        classes, untested = self._classes(truth, before, now)
        verdicts += classes
        verdicts += [replayed] if replayed else []
        for doubt in doubts:
            notify.doubt(doubt)
        right = baselines.right(truth.tolist(), now) if self.labelled else None
        return Check(
            path=str(self.path),
            model=self.artifact.spec.name,
            recipe=self.artifact.recipe.name,
            format=self.artifact.format,
            artifact_sha256=self.artifact.sha256,
            accepted_sha256=self.accepted.artifact_sha256,
            images=len(now),
            top1=None if right is None else right / len(now),
            accepted_top1=_share(self.accepted) if self.labelled else None,
            losses=losses,
            gains=gains,
            flips=flips / len(now),
            mcnemar_p=None if losses is None or gains is None else gate.mcnemar(losses, gains),
            untested=untested,
            moved=self._moved(truth, before, now) if self.labelled else (),
            verdicts=tuple(verdicts),
            doubts=tuple(doubts),
        )

    def _golden(self, notify: Notify) -> tuple[Verdict | None, Doubt | None]:
        """The golden samples answered again; a doubt where they were left behind."""
        try:
            golden.pictures(self.path, self.artifact.golden)
        except InputError as error:
            return None, Doubt("no-golden", error.message, "keep golden/ beside the artifact")
        return golden.judge(self.artifact, golden.replay(self.path, self.artifact, notify))

    @property
    def _same_file(self) -> bool:
        return self.artifact.sha256 == self.accepted.artifact_sha256

    @property
    def _same_machine(self) -> bool:
        here = (self.evaluation.runtime_version, golden.isa())
        return here == (self.accepted.runtime_version, self.accepted.isa)

    def _doubts(self, flips: int) -> list[Doubt]:
        """What differs of the machine, which a paired comparison stands, but should be known."""
        then = self.accepted
        name = self.evaluation.target.runtime
        if not self._same_machine:
            message = (
                f"the baseline of {self.path} was made by {name} {then.runtime_version} on "
                f"{then.isa}, this is {name} {self.evaluation.runtime_version} on {golden.isa()}"
            )
            return [
                Doubt("other-machine", message, "what changed may be its kernels, not the file")
            ]
        if self._same_file and flips:
            message = f"{self.path} is the accepted file, yet {flips} of its answers are others"
            return [Doubt("not-repeatable", message, "is the machine sound?")]
        return []

    def _accuracy(self, truth: NDArray[np.int64], now: NDArray[np.int64]) -> list[Verdict]:
        verdicts = [self._loss("accuracy", self.accepted, self.limits.margin, truth, now)]
        if self.anchor:
            verdicts.append(self._loss("float", self.anchor, self.limits.float_margin, truth, now))
        if self.limits.floor is not None:
            share = float((now == truth).mean())
            kept = share >= self.limits.floor
            line = (
                f"top-1 is {100 * share:.2f} %, {'not ' if kept else ''}below the floor of "
                f"{100 * self.limits.floor:g} %"
            )
            kind: Outcome = "pass" if kept else "fail"
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
        needed = None
        lost = (losses - gains) / n
        whose = "the accepted model" if metric == "accuracy" else "the accepted float model"
        line = (
            f"top-1 fell by {100 * lost:.2f} points below {whose} ({losses} lost, {gains} gained "
            f"of {n}); 95 % bounds {100 * interval[0]:.2f} and {100 * interval[1]:.2f}, "
            f"margin {100 * margin:g}"
        )
        if lost <= 0:
            line = line.replace(f"fell by {100 * lost:.2f} points below", "did not fall below")
        if outcome == "inconclusive":
            needed = gate.images_needed(losses, gains, n, margin)
            line += f"; {_needed(needed, n)}"
        return Verdict(metric, "", outcome, lost, interval, margin, n, needed, line)

    def _flips(self, flips: int, n: int) -> list[Verdict]:
        most = self.limits.max_flips
        if most is None and not self.labelled:
            most = UNLABELLED_FLIPS
        if most is None:
            return []
        interval = gate.flip_bounds(flips, n)
        outcome = gate.outcome(interval, most)
        line = (
            f"{flips} of {n} answers changed ({100 * flips / n:.2f} %); 95 % bounds "
            f"{100 * interval[0]:.2f} and {100 * interval[1]:.2f} %, at most {100 * most:g} %"
        )
        needed = None
        if outcome == "inconclusive":
            needed = gate.flips_needed(flips, n, most)
            line += f"; {_needed(needed, n)}"
        return [Verdict("flips", "", outcome, flips / n, interval, most, n, needed, line)]

    def _classes(
        self, truth: NDArray[np.int64], before: NDArray[np.int64], now: NDArray[np.int64]
    ) -> tuple[list[Verdict], int]:
        """A verdict for each class with enough pictures, and how many have too few."""
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
            name = self._name(group.index)
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
        """What a class is taken for now, and whether that one is taken for it."""
        wrong = now[(of == index) & (now != index)]
        values, counts = np.unique(wrong, return_counts=True)
        most = int(values[np.argmax(counts)])
        text = f"; now taken for {self._name(most)} ({int(counts.max())} times)"
        back = now[of == most]
        if len(back) and (back == index).mean() > 0.5 and counts.max() > (of == index).sum() / 2:
            text += ": the two look swapped"
        return text

    def _moved(
        self, truth: NDArray[np.int64], before: NDArray[np.int64], now: NDArray[np.int64]
    ) -> tuple[Moved, ...]:
        pairs = gate.moved_pairs(truth, before, now)[:_PAIRS]
        return tuple(Moved(self._name(t), self._name(p), was, is_) for t, p, was, is_ in pairs)

    def _name(self, index: int) -> str:
        labels = self.evaluation.preprocessing.labels or self.evaluation.data.labels
        return class_name(labels, self.artifact.spec.classes, index)


def _accepted(verdict: Verdict) -> Verdict:
    """A verdict on the accepted file itself, which needs no images: nothing can have been lost."""
    if verdict.outcome != "inconclusive":
        return verdict
    line = f"{verdict.line.rpartition('; ')[0]}; it is the accepted file, and answers as it did"
    return replace(verdict, outcome="pass", needed=None, line=line)


def _needed(needed: int | None, n: int) -> str:
    if needed is None:
        return f"the loss is as good as the margin: no number of images decides ({n} here)"
    return f"about {needed:,} images like these would decide ({n:,} here)"
