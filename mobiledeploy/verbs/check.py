"""The accuracy gate: compares artifacts with accepted ones, image by image.

There are no retries: the same files and images get the same verdict.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import gate
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import leases, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Artifact, ChannelOrder, Evaluation, NamedWarning, Report, Resize
from mobiledeploy.steps import arguments, evaluations
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps.accuracy_check import (
    ArtifactCheck,
    GateLimits,
    points,
    top1_share,
    unlabelled,
)
from mobiledeploy.steps.arguments import AnyPath, AnyPaths, Labels, Overrides, Triple
from mobiledeploy.steps.baseline import Accepted, Baseline
from mobiledeploy.steps.defaults import BASELINE, UNLABELLED_FLIPS
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.store.database import Store

TITLE = "mobiledeploy check"
DEFAULT = Path(BASELINE)
MARGIN, FLOAT_MARGIN = 1.0, 2.0
"""Percentage points."""


@dataclass(frozen=True)
class BaselineChange(Record):
    """An entry of a written baseline; `flips` is the number of changed answers, of `images`.

    So many images can decide a margin above `decides`, a fraction of lost top-1, or of changed
    answers without labels.
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

    def tables(self) -> tuple[Table, ...]:
        """A row for each written entry."""
        headers = ("model", "recipe", "format", "images", "top-1 before", "top-1", "flips")
        rows = tuple(
            (
                change.model,
                change.recipe,
                change.format,
                str(change.images),
                units.percent(change.top1_before, 2),
                units.percent(change.top1, 2),
                "–" if change.flips is None else str(change.flips),
            )
            for change in self.changes
        )
        return (Table(headers, rows, self.baseline),)


def check(
    artifacts: AnyPaths,
    *,
    baseline: AnyPath = DEFAULT,
    data: AnyPath | None = None,
    margin: float = MARGIN,
    float_margin: float = FLOAT_MARGIN,
    floor: float | None = None,
    max_flips: float | None = None,
    no_labels: bool = False,
    on_inconclusive: Literal["fail", "warn"] = "fail",
    junit: AnyPath | None = None,
    markdown: AnyPath | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    input_range: tuple[float, float] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    channels: ChannelOrder | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    labels: Labels | None = None,
    reporter: Reporter | None = None,
) -> Report:
    """Compares artifacts with the accepted ones of a baseline file: pass, fail or inconclusive.

    Example:
        >>> report = md.check("build/int8_best.tflite", baseline="accuracy.json")
        >>> [check.outcome for check in report.checks]

    Args:
        artifacts: one file or several, with their records beside them.
        baseline: a file of `update_baseline`.
        data: images, as for `evaluate`; they must be those of the baseline.
        margin: how many points of top-1 (percent) may be lost against the accepted artifact.
        float_margin: how many points may be lost against the accepted float32 artifact.
        floor: the least top-1 in percent.
        max_flips: how many answers may change, in percent; the default is 5 with `no_labels`, else
            any.
        no_labels: judges only by the number of changed answers.
        on_inconclusive: whether too few images count as failed; the report holds it.
        junit: a file for the report as JUnit XML.
        markdown: a file for the report as Markdown.
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        threads: the number of runners at once; the default is one per core.
        input_range: (low, high), the values for pixels 0 and 255. The artifact has the defaults of
            this and the next six.
        mean: subtracted from each channel, after `input_range`.
        std: each channel is divided by it, after `mean`.
        channels: `rgb` or `bgr`.
        resize: `bilinear` or `bicubic`.
        crop: the central fraction of each side to keep, above 0 and at most 1.
        labels: class names in the model's order, or a file with one per line.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        A `Check` for each artifact, with its `outcome`. If one of several cannot be judged, it is
        in `failed` with the reason.

    Raises:
        MissingError: no baseline, or no entry for an artifact.
        InputError: an edited baseline, or one of other weights, inputs and outputs, images, labels,
            preprocessing, classes, runtime or kernels; and the errors of `evaluate`.
        UsageError: two artifacts of one key; impossible margins; images without labels.
    """
    reporter = reporter or PythonReporter()
    paths, baseline, source = arguments.paths(artifacts), Path(baseline), arguments.text(data)
    overrides = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    limits = _limits(margin, float_margin, floor, max_flips)
    report_files = {"junit": arguments.path(junit), "markdown": arguments.path(markdown)}
    files = {name: path for name, path in report_files.items() if path is not None}
    for path in files.values():
        records.need_folder(path)
    report = _report(
        paths,
        baseline,
        source,
        limits,
        not no_labels,
        on_inconclusive,
        runtime,
        threads,
        overrides,
        reporter,
    )
    for name, path in files.items():
        records.write_atomic(path, REPORTS.load(name).render(report))
    return report


def _report(
    paths: Sequence[Path],
    baseline: Path,
    data: str | None,
    limits: GateLimits,
    labelled: bool,
    on_inconclusive: Literal["fail", "warn"],
    runtime: str | None,
    threads: int | None,
    overrides: Overrides,
    reporter: Reporter,
) -> Report:
    failures = Failures()
    by_path = _load(paths, failures)
    if not by_path:
        failures.check()
    update = _update_line(paths, baseline, data, runtime, overrides, labelled)
    baseline_ = baselines.read(baseline, update)
    entries = {baselines.key(entry): entry for entry in baseline_.accepted}
    artifacts: dict[Path, Artifact] = {}
    for path, artifact in by_path.items():
        with failures.of(path):
            if baselines.key(artifact) not in entries:
                raise MissingError(
                    f"{baseline} has no {' '.join(baselines.key(artifact))} to compare {path} with",
                    update,
                )
            artifacts[path] = artifact
    results: dict[Path, Evaluation] = {}
    if artifacts:
        results = evaluations.each(
            tuple(artifacts),
            failures,
            data=data,
            runtime=runtime,
            threads=threads,
            overrides=overrides,
            compare=False,
            reporter=reporter,
        )
    checks = []
    for path, evaluation in results.items():
        artifact = artifacts[path]
        entry = entries[baselines.key(artifact)]
        with failures.of(path):
            reasons = baselines.differences(entry, artifact, evaluation)
            if reasons:
                raise InputError(
                    f"{path} cannot be compared with {baseline}: {'; '.join(reasons)}",
                    f"if that is meant, run {update}",
                )
            anchor = _float_anchor(entries, artifact, evaluation)
            one = ArtifactCheck(path, artifact, evaluation, entry, anchor, limits, labelled)
            checks.append(one.check(reporter))
    with Store.keeping(reporter) as store:
        for check_ in checks:
            for verdict in check_.verdicts:
                store.add_verdict(check_.artifact_sha256, "check", verdict)
    if len(paths) == 1:
        failures.check()
    return Report(TITLE, tuple(checks), on_inconclusive=on_inconclusive, failed=failures.records())


def update_baseline(
    artifacts: AnyPaths,
    *,
    baseline: AnyPath = DEFAULT,
    data: AnyPath | None = None,
    margin: float = MARGIN,
    max_flips: float | None = None,
    no_labels: bool = False,
    runtime: str | None = None,
    threads: int | None = None,
    input_range: tuple[float, float] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    channels: ChannelOrder | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    labels: Labels | None = None,
    reporter: Reporter | None = None,
) -> BaselineUpdate:
    """Accepts artifacts as they are: writes their entries to the baseline file.

    This is `check --update-baseline` on the command line. The float32 artifact beside it is
    accepted too, unless the baseline has one on these images. An existing float32 entry stays, so
    that many small losses add up visibly. Entries that another process writes meanwhile stay too. A
    warning says if there are too few images for the margin: then no check with this baseline can
    pass a changed file.

    Example:
        >>> md.update_baseline("build/int8_best.tflite", baseline="accuracy.json")

    Args:
        artifacts: one file or several, with their records beside them.
        baseline: the file; keep it under version control.
        data: images, as for `evaluate`.
        margin: the margin of later checks, in points of top-1 (percent).
        max_flips: with `no_labels`, the limit of later checks, in percent of the answers.
        no_labels: accepts the answers without labels.
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        threads: the number of runners at once; the default is one per core.
        input_range: (low, high), the values for pixels 0 and 255. The artifact has the defaults of
            this and the next six.
        mean: subtracted from each channel, after `input_range`.
        std: each channel is divided by it, after `mean`.
        channels: `rgb` or `bgr`.
        resize: `bilinear` or `bicubic`.
        crop: the central fraction of each side to keep, above 0 and at most 1.
        labels: class names in the model's order, or a file with one per line.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        The change of each entry.

    Raises:
        UsageError: no folder for the baseline, or images without labels.
        InputError: an edited baseline; and the errors of `evaluate`.
    """
    reporter = reporter or PythonReporter()
    paths, baseline, source = arguments.paths(artifacts), Path(baseline), arguments.text(data)
    overrides = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    limits, labelled = _limits(margin, FLOAT_MARGIN, None, max_flips), not no_labels
    failures = Failures()
    by_path = _load(paths, failures)
    failures.check()
    records.need_folder(baseline)
    line = _update_line(paths, baseline, source, runtime, overrides, labelled)
    entries = _entries(baseline, line)
    anchors = {}
    for path, artifact in by_path.items():
        sibling = evaluations.float_sibling(path, artifact, by_path, reporter)
        if sibling and sibling[0] not in by_path and sibling[1].format == artifact.format:
            anchors[sibling[0]] = sibling[1]
    everything = by_path | anchors
    results = evaluations.each(
        tuple(everything),
        failures,
        data=source,
        runtime=runtime,
        threads=threads,
        overrides=overrides,
        compare=False,
        reporter=reporter,
    )
    failures.check()
    new_entries: dict[baselines.Key, Accepted] = {}
    changes = []
    for (path, artifact), evaluation in zip(everything.items(), results.values(), strict=True):
        if labelled and any(p.label < 0 for p in evaluation.predictions):
            raise UsageError(unlabelled(evaluation, path), "--no-labels accepts the answers alone")
        before = entries.get(baselines.key(artifact))
        comparable = before and not baselines.differences(before, artifact, evaluation)
        if path in anchors and comparable:
            continue
        after = baselines.entry(artifact, evaluation)
        new_entries[baselines.key(artifact)] = after
        changes.append(_change(before, after, bool(comparable), labelled))
    if warning := _undecided(changes, limits, labelled):
        reporter.warn(warning)
    name = records.sha256(str(baseline.resolve()).encode())[:16]
    with leases.hold(f"baseline-{name}", exclusive=True, reporter=reporter):
        entries = _entries(baseline, line) | new_entries
        baselines.write(baseline, Baseline(tuple(entries.values())))
    return BaselineUpdate(str(baseline), tuple(changes))


def _limits(
    margin: float, float_margin: float, floor: float | None, max_flips: float | None
) -> GateLimits:
    """The limits as fractions; UsageError for impossible values."""
    limits = {
        "margin": margin,
        "float margin": float_margin,
        "floor": floor,
        "max flips": max_flips,
    }
    for name, value in limits.items():
        if value is not None and not 0 < value < 100:
            raise UsageError(
                f"a {name} of {value:g} points cannot be",
                "it is a number of percentage points between 0 and 100",
            )
    share = {name: None if value is None else value / 100 for name, value in limits.items()}
    return GateLimits(margin / 100, float_margin / 100, share["floor"], share["max flips"])


def _load(paths: Sequence[Path], failures: Failures) -> dict[Path, Artifact]:
    if not paths:
        raise UsageError("no artifact was named", "mobiledeploy check build/*/*.tflite")
    by_path = {}
    for path in paths:
        with failures.of(path):
            by_path[path] = artifacts_.load(path)
    keys: dict[baselines.Key, Path] = {}
    for path, artifact in by_path.items():
        other = keys.setdefault(baselines.key(artifact), path)
        if other != path:
            raise UsageError(
                f"{other} and {path} are both {' '.join(baselines.key(artifact))}",
                "give them baselines of their own",
            )
    return by_path


def _entries(baseline: Path, line: str) -> dict[baselines.Key, Accepted]:
    """The current entries of the baseline."""
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
    """The command that accepts these artifacts, on the same images with the same preprocessing."""
    argv = ["mobiledeploy", "check", *map(str, paths), "--baseline", str(baseline)]
    argv += [] if labelled else ["--no-labels"]
    options = {"data": data, "runtime": runtime, **vars(overrides or Overrides())}
    if options["labels"] is not None:
        # The name of the labels' file is not known here.
        options["labels"] = "FILE"
    for name, value in options.items():
        if value is not None:
            text = ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
            argv += [f"--{name.replace('_', '-')}", text]
    return shlex.join([*argv, "--update-baseline"])


def _float_anchor(
    entries: dict[baselines.Key, Accepted], artifact: Artifact, evaluation: Evaluation
) -> Accepted | None:
    """The accepted float model on the same images, preferably of the same format."""
    if artifact.recipe.name == "float32":
        return None
    model = artifact.spec.name
    fits = [
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
    return min(fits, key=lambda e: (e.format != artifact.format, e.format), default=None)


def _undecided(
    changes: Sequence[BaselineChange], limits: GateLimits, labelled: bool
) -> NamedWarning | None:
    """A warning if the fewest images can never decide the margin, with a margin that they can."""
    if not changes:
        return None
    one = min(changes, key=lambda change: change.images)
    margin = limits.margin if labelled else limits.max_flips or UNLABELLED_FLIPS
    if one.decides < margin:
        return None
    percent = f"{100 * margin:g}"
    question = f"{percent} % of top-1 lost" if labelled else f"{percent} % of answers changed"
    option = "--margin" if labelled else "--max-flips"
    least = points(one.decides)
    # Without labels the bound is exact: (1 - margin)^n < 5 %.
    image_count = gate.unflipped(margin) if labelled else gate.flips_needed(0, one.images, margin)
    return NamedWarning(
        "too-few-images",
        f"{units.several(one.images, 'image')} can never decide {question}: that takes "
        f"{image_count:,} without a single change",
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
