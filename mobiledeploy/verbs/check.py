"""The accuracy gate: artifacts against what was accepted before, image by image.

Nothing is tried again until it passes: the same files and images get the same verdict.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import gate
from mobiledeploy.core import artifacts, leases, records, units
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact, Evaluation, NamedWarning, Overrides, Report
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps import evaluations
from mobiledeploy.steps.accuracy_check import (
    UNLABELLED_FLIPS,
    ArtifactCheck,
    GateLimits,
    points,
    top1_share,
    unlabelled,
)
from mobiledeploy.steps.baseline import Accepted, Baseline
from mobiledeploy.steps.failures import Failures
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import evaluate as evaluate_verb

TITLE = "mobiledeploy check"
DEFAULT = Path("mobiledeploy-baseline.json")


@dataclass(frozen=True)
class BaselineChange(Record):
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
class BaselineUpdate(Record):
    """The answer of `check --update-baseline`."""

    baseline: str
    changes: tuple[BaselineChange, ...]


def check(
    paths: Sequence[Path],
    *,
    baseline: Path = DEFAULT,
    data: str | None = None,
    limits: GateLimits | None = None,
    labelled: bool = True,
    on_inconclusive: Literal["fail", "warn"] = "fail",
    runtime: str | None = None,
    threads: int | None = None,
    overrides: Overrides | None = None,
    reporter: Reporter = SILENT,
) -> Report:
    """Judges artifacts by the accepted ones of a baseline file.

    Args:
        paths: artifacts with their records beside them.
        baseline: what `update` wrote.
        data: see `evaluate`; the images must be those of the baseline.
        limits: what is still accepted.
        labelled: False judges by changed answers alone, as one must without labels.
        on_inconclusive: noted in the report.
        runtime: see `evaluate`, as for the three that follow.
        threads: how many runners at once.
        overrides: preprocessing, where it shall differ from the artifact's own.
        reporter: hears of progress and warnings.

    Raises:
        MissingError: no baseline, or none of one of the artifacts.
        InputError: a baseline that was edited, or that speaks of other weights, ends, images,
            labels, preprocessing, classes, runtime or kernels; and what `evaluate` raises.
        UsageError: two artifacts of one key; margins that cannot be; images without labels.

    Where one of several fails the others are judged all the same, and the report says why.
    """
    limits = limits or GateLimits()
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
        made = evaluations.each(
            tuple(judged),
            failures,
            data=data,
            runtime=runtime,
            threads=threads,
            overrides=overrides,
            compare=False,
            reporter=reporter,
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
            one = ArtifactCheck(path, artifact, evaluation, accepted, anchor, limits, labelled)
            checks.append(one.check(reporter))
    with Store.keeping(reporter) as store:
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
    limits: GateLimits | None = None,
    labelled: bool = True,
    reporter: Reporter = SILENT,
) -> BaselineUpdate:
    """Accepts artifacts as they are: writes their entries of the baseline file.

    The float32 artifact beside one is accepted with it where the baseline has none of it on these
    images; one that it has stays, so that losses of many small steps are seen. Entries that
    another process writes meanwhile stay as well. Where the images are too few for the margin of
    `limits`, `reporter` hears of it now: no check by this baseline could pass a changed file.

    Raises:
        UsageError: no folder for the baseline, or images without labels where `labelled`.
        InputError: a baseline that was edited; and what `evaluate` raises.
    """
    limits = limits or GateLimits()
    _validate(limits)
    failures = Failures()
    loaded = _loaded(paths, failures)
    failures.check()
    records.need_folder(baseline)
    line = _update_line(paths, baseline, data, runtime, overrides, labelled)
    entries = _entries(baseline, line)
    anchors = {}
    for path, artifact in loaded.items():
        sibling = evaluations.float_sibling(path, artifact, loaded, reporter)
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
        reporter=reporter,
    )
    accepted: dict[baselines.Key, Accepted] = {}
    changes = []
    for (path, artifact), evaluation in zip(everything.items(), made, strict=True):
        if labelled and any(p.label < 0 for p in evaluation.predictions):
            raise UsageError(unlabelled(evaluation, path), "--no-labels accepts the answers alone")
        before = entries.get(baselines.key(artifact))
        comparable = before and not baselines.differences(before, artifact, evaluation)
        if path in anchors and comparable:
            continue
        after = baselines.entry(artifact, evaluation)
        accepted[baselines.key(artifact)] = after
        changes.append(_change(before, after, bool(comparable), labelled))
    if warning := _undecided(changes, limits, labelled):
        reporter.warn(warning)
    name = records.sha256(str(baseline.resolve()).encode())[:16]
    with leases.hold(f"baseline-{name}", exclusive=True, reporter=reporter):
        entries = _entries(baseline, line) | accepted
        baselines.write(baseline, Baseline(tuple(entries.values())))
    return BaselineUpdate(str(baseline), tuple(changes))


def _validate(limits: GateLimits) -> None:
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
    """The command that accepts what is judged, on the same images prepared in the same way."""
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


def _float_anchor(
    entries: dict[baselines.Key, Accepted], artifact: Artifact, evaluation: Evaluation
) -> Accepted | None:
    """The accepted float model on the same images: of the same format first."""
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


def _undecided(
    changes: Sequence[BaselineChange], limits: GateLimits, labelled: bool
) -> NamedWarning | None:
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
    return NamedWarning(
        "too-few-images",
        f"{units.several(one.images, 'image')} can never decide {asked}: that takes "
        f"{needed:,} without a single change",
        f"give more images, or {option} {least:g} or more",
    )


def _change(
    before: Accepted | None, after: Accepted, comparable: bool, labelled: bool
) -> BaselineChange:
    flips = None
    if before and comparable:
        flips = int((baselines.answers(before) != baselines.answers(after)).sum())
    return BaselineChange(
        model=after.model,
        recipe=after.recipe,
        format=after.format,
        images=after.images,
        top1_before=top1_share(before) if before else None,
        top1=top1_share(after),
        flips=flips,
        artifact_before=before.artifact_sha256 if before else None,
        artifact_sha256=after.artifact_sha256,
        decides=(gate.least_margin if labelled else gate.least_flips)(after.images),
    )
