"""The accuracy gate: compares artifacts with accepted ones, image by image.

There are no retries: the same files and images get the same verdict.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import gate
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import leases, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeviceError, InputError, MissingError, UsageError
from mobiledeploy.core.plugins import REPORTS, TASKS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    Annotation,
    Artifact,
    ChannelOrder,
    Evaluation,
    Metric,
    NamedWarning,
    Report,
    Resize,
)
from mobiledeploy.steps import arguments, bundled_artifacts, evaluations
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps.accuracy_check import (
    ArtifactCheck,
    GateLimits,
    points,
    top1_share,
    unlabelled,
)
from mobiledeploy.steps.arguments import AnyPath, AnyPaths, Labels, Overrides, Triple
from mobiledeploy.steps.baseline import CLASSIFICATION, Accepted, Baseline
from mobiledeploy.steps.bundled_artifacts import UnpackedArtifacts, is_bundle, unpacked
from mobiledeploy.steps.defaults import BASELINE, UNLABELLED_FLIPS
from mobiledeploy.steps.evaluation_images import EvaluationImages, View
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.predictors import HOST, PredictionOptions, Predictor
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.task_check import TaskCheck, reference
from mobiledeploy.steps.task_judge import Resolution, TaskJudge
from mobiledeploy.store.database import Store

TITLE = "mobiledeploy check"
DEFAULT = Path(BASELINE)
MARGIN, FLOAT_MARGIN = 1.0, 2.0
"""Percentage points."""


@dataclass(frozen=True)
class BaselineChange(Record):
    """An entry of a written baseline; `flips` is the number of changed answers, of `images`.

    So many images can decide a margin above `decides`, a fraction of lost top-1, or of changed
    answers without labels. Of a task other than classification, `metric` is what decides,
    `metric_before` and `metric_now` are its values, and `decides` is a fraction of it or of its
    bound.
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
    task: str = CLASSIFICATION
    metric: Metric | None = None
    metric_before: float | None = None
    metric_now: float | None = None

    def figures(self) -> tuple[str, str, str]:
        """What decides, for people: its name, its value before and now."""
        if self.metric is None:
            return "top-1", units.percent(self.top1_before, 2), units.percent(self.top1, 2)
        before, now = (
            units.metric(value, self.metric.unit, 2)
            for value in (self.metric_before, self.metric_now)
        )
        return self.metric.title, before, now


@dataclass(frozen=True)
class BaselineUpdate(Record):
    """The answer of `check --update-baseline`."""

    baseline: str
    changes: tuple[BaselineChange, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each written entry."""
        plain = all(change.metric is None for change in self.changes)
        what = "top-1" if plain else "metric"
        headers = ("model", "recipe", "format", "images", f"{what} before", what, "flips")
        rows = tuple(
            (
                change.model,
                change.recipe,
                change.format,
                str(change.images),
                *_cells(change),
                "–" if change.flips is None else str(change.flips),
            )
            for change in self.changes
        )
        return (Table(headers, rows, self.baseline),)


def _cells(change: BaselineChange) -> tuple[str, str]:
    title, before, now = change.figures()
    return before, now if change.metric is None else f"{title} {now}"


def check(
    artifacts: AnyPaths,
    *,
    baseline: AnyPath | None = None,
    data: AnyPath | None = None,
    task: str | None = None,
    margin: float = MARGIN,
    float_margin: float = FLOAT_MARGIN,
    floor: float | None = None,
    max_flips: float | None = None,
    no_labels: bool = False,
    on_inconclusive: Literal["fail", "warn"] = "fail",
    junit: AnyPath | None = None,
    markdown: AnyPath | None = None,
    device: str = HOST,
    runtime: str | None = None,
    delegate: str | None = None,
    strict: bool = False,
    threads: int | None = None,
    limit: int | None = None,
    record: AnyPath | None = None,
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
        artifacts: one file or several, of `export` or of any other tool; a .zip is a bundle, which
            is checked as `bundle_verify` does, and whose artifacts are judged.
        baseline: a file of `update_baseline`, or a bundle that holds one. The default is
            `mobiledeploy-baseline.json`; if that is not there, the one in the bundle.
        data: images, as for `evaluate`; they must be those of the baseline.
        task: a name of `tasks/`, as for `evaluate`.
        margin: how many points of top-1 (percent) may be lost against the accepted artifact; of
            another task, of its first metric, or of its bound.
        float_margin: how many points may be lost against the accepted float32 artifact.
        floor: the least top-1, or first metric, in percent.
        max_flips: how many answers may change, in percent; the default is 5 with `no_labels`, else
            any.
        no_labels: judges only by the number of changed answers.
        on_inconclusive: whether too few images count as failed; the report holds it.
        junit: a file for the report as JUnit XML.
        markdown: a file for the report as Markdown.
        device: where the files run, as for `evaluate`.
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        delegate: `xnnpack`, `none`, or `gpu` with the native runner; the default is the first of
            the runtime.
        strict: the delegate must take all operators.
        threads: the number of runners at once; the default is one per core, and one on a phone or
            board.
        limit: takes at most so many images, drawn from all classes, the same ones each time.
        record: a file for the recording of the session, for `replay:FILE`.
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
            preprocessing, classes, runtime or kernels; a bundle that was changed; and the errors of
            `evaluate`.
        UsageError: two artifacts of one key; impossible margins; images without labels; no images
            for an artifact of a bundle, which does not hold them.
    """
    reporter = reporter or PythonReporter()
    paths, source = arguments.paths(artifacts), arguments.text(data)
    baseline_file = arguments.path(baseline)
    overrides = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    limits = _limits(margin, float_margin, floor, max_flips)
    report_files = {"junit": arguments.path(junit), "markdown": arguments.path(markdown)}
    files = {name: path for name, path in report_files.items() if path is not None}
    for path in files.values():
        records.need_folder(path)
    options = PredictionOptions(device, runtime, delegate, threads, arguments.path(record), strict)
    update_file = DEFAULT if baseline_file is None or is_bundle(baseline_file) else baseline_file
    update = _update_line(
        paths, update_file, source, task, options, limit, overrides, not no_labels
    )
    failures = Failures()
    with (
        unpacked(paths, source, failures, reporter) as opened,
        Predictor(options, "check", opened.reporter) as predictor,
    ):
        report = _report(
            opened,
            baseline_file,
            update,
            EvaluationImages(source, overrides, task or "", opened.reporter, limit),
            task or "",
            limits,
            not no_labels,
            on_inconclusive,
            predictor,
            failures,
        )
    for name, path in files.items():
        records.write_atomic(path, REPORTS.load(name).render(report))
    return report


def _report(
    opened: UnpackedArtifacts,
    baseline_file: Path | None,
    update: str,
    images: EvaluationImages,
    task: str,
    limits: GateLimits,
    labelled: bool,
    on_inconclusive: Literal["fail", "warn"],
    predictor: Predictor,
    failures: Failures,
) -> Report:
    reporter = opened.reporter
    by_path = _load(opened.paths, failures)
    if not by_path:
        failures.check()
    baseline, accepted, own_baseline = _accepted(baseline_file, opened, update)
    entries = {baselines.key(entry): entry for entry in accepted.accepted}
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
    for path, artifact in artifacts.items():
        with failures.of(path):
            _warn_limit(images.of(artifact), limits, labelled, reporter)
    asked = tuple(path for path in artifacts if path not in failures)
    if asked:
        results = evaluations.each(
            asked,
            failures,
            predictor=predictor,
            images=images,
            compare=False,
            reporter=reporter,
        )
    checks = []
    for path, evaluation in results.items():
        artifact = artifacts[path]
        with failures.of(path):
            mine = entries
            view = images.of(artifact)
            if view.places is not None:
                mine = {
                    k: baselines.narrowed(e, view.samples, evaluation) for k, e in entries.items()
                }
            entry = mine[baselines.key(artifact)]
            annotations = _annotations(images, artifact, evaluation, labelled)
            reasons = baselines.differences(entry, artifact, evaluation, annotations)
            if reasons:
                advice = f"if that is meant, run {update}"
                if evaluation.task != (entry.task or CLASSIFICATION) and not task:
                    advice = f"--task {entry.task or CLASSIFICATION}, or {advice}"
                elif evaluation.images != entry.images < len(view.samples):
                    # The baseline may be of a part of these images.
                    advice = f"--limit {entry.images}, or {advice}"
                raise InputError(
                    f"{path} cannot be compared with {baseline}: {'; '.join(reasons)}", advice
                )
            named = None
            if baselines.of_another_tool(artifact):
                named = evaluations.float_sibling(path, artifact, artifacts, reporter)
            anchor = _float_anchor(mine, named, artifact, evaluation)
            judged = labelled and _judged(evaluation.task, anchor)
            one = ArtifactCheck(
                path, artifact, evaluation, entry, anchor, limits, judged, predictor
            )
            if evaluation.task == CLASSIFICATION:
                checks.append(one.check(reporter))
                continue
            if anchor and not TASKS.load(evaluation.task).ANNOTATION:
                annotations = reference(anchor, evaluation)
            names = images.of(artifact).samples.classes
            checks.append(TaskCheck(one, annotations, names).check(reporter))
    if own_baseline:
        reporter.warn(own_baseline)
        checks = [replace(one, warnings=(*one.warnings, own_baseline)) for one in checks]
    with Store.keeping(reporter) as store:
        for check_ in checks:
            for verdict in check_.verdicts:
                store.add_verdict(check_.artifact_sha256, "check", verdict)
    failed = failures.records()
    if len(checks) + len(failed) == 1:
        failures.check()
    if predictor.is_recorded:
        failures.check(DeviceError)
    return opened.named(
        Report(TITLE, tuple(checks), on_inconclusive=on_inconclusive, failed=failed)
    )


def _accepted(
    baseline_file: Path | None, opened: UnpackedArtifacts, update: str
) -> tuple[Path, Baseline, NamedWarning | None]:
    """The baseline to judge by, its place for people, and a warning if nobody chose it."""
    if baseline_file is not None:
        if is_bundle(baseline_file):
            return baseline_file, bundled_artifacts.baseline_of(baseline_file), None
        return baseline_file, baselines.read(baseline_file, update), None
    for path, contents in opened.bundles.items():
        holds_all = len(contents.bundled) == len(opened.paths)
        if contents.accepted and holds_all and not DEFAULT.exists():
            warning = NamedWarning(
                "own-baseline",
                f"there is no {DEFAULT}: {path} is judged by the baseline in it, which is of the "
                "same files: this shows that they answer as they did, not that they lost nothing",
                "--baseline with the file, or the bundle, that you accepted before",
            )
            return path, Baseline(contents.accepted), warning
    return DEFAULT, baselines.read(DEFAULT, update), None


def update_baseline(
    artifacts: AnyPaths,
    *,
    baseline: AnyPath | None = None,
    data: AnyPath | None = None,
    task: str | None = None,
    margin: float = MARGIN,
    max_flips: float | None = None,
    no_labels: bool = False,
    device: str = HOST,
    runtime: str | None = None,
    delegate: str | None = None,
    strict: bool = False,
    threads: int | None = None,
    limit: int | None = None,
    record: AnyPath | None = None,
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
        artifacts: one file or several, of `export` or of any other tool, or a bundle, as for
            `check`.
        baseline: the file; keep it under version control. The default is
            `mobiledeploy-baseline.json`.
        data: images, as for `evaluate`.
        task: a name of `tasks/`, as for `evaluate`.
        margin: the margin of later checks, in points of top-1 (percent) or of the task's metric.
        max_flips: with `no_labels`, the limit of later checks, in percent of the answers.
        no_labels: accepts the answers without labels.
        device: where the files run, as for `evaluate`.
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        delegate: `xnnpack`, `none`, or `gpu` with the native runner; the default is the first of
            the runtime.
        strict: the delegate must take all operators.
        threads: the number of runners at once; the default is one per core, and one on a phone or
            board.
        limit: takes at most so many images, drawn from all classes, the same ones each time.
        record: a file for the recording of the session, for `replay:FILE`.
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
        UsageError: no folder for the baseline, or a bundle in its place; images without labels, or
            none for an artifact of a bundle.
        InputError: an edited baseline, or a bundle that was changed; and the errors of `evaluate`.
    """
    reporter = reporter or PythonReporter()
    paths, source = arguments.paths(artifacts), arguments.text(data)
    place = DEFAULT if baseline is None else Path(baseline)
    if is_bundle(place):
        raise UsageError(f"{place} is a bundle, which is never changed", "name a .json file")
    overrides = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    limits, labelled = _limits(margin, FLOAT_MARGIN, None, max_flips), not no_labels
    records.need_folder(place)
    options = PredictionOptions(device, runtime, delegate, threads, arguments.path(record), strict)
    line = _update_line(paths, place, source, task, options, limit, overrides, labelled)
    failures = Failures()
    with (
        unpacked(paths, source, failures, reporter) as opened,
        Predictor(options, "check", opened.reporter) as predictor,
    ):
        return _update(
            opened,
            place,
            line,
            EvaluationImages(source, overrides, task or "", opened.reporter, limit),
            limits,
            labelled,
            predictor,
            failures,
        )


def _update(
    opened: UnpackedArtifacts,
    baseline: Path,
    line: str,
    images: EvaluationImages,
    limits: GateLimits,
    labelled: bool,
    predictor: Predictor,
    failures: Failures,
) -> BaselineUpdate:
    reporter = opened.reporter
    by_path = _load(opened.paths, failures)
    failures.check()
    entries = _entries(baseline, line)
    anchors, siblings = {}, {}
    for path, artifact in by_path.items():
        siblings[path] = sibling = evaluations.float_sibling(path, artifact, by_path, reporter)
        if (
            sibling
            and sibling[0] not in by_path
            and sibling[1].format == artifact.format
            and baselines.weights(sibling[1]) == baselines.weights(artifact)
        ):
            anchors[sibling[0]] = sibling[1]
    everything = by_path | anchors
    baselines.need_device(baseline, entries.values(), predictor.device)
    results = evaluations.each(
        tuple(everything),
        failures,
        predictor=predictor,
        images=images,
        compare=False,
        reporter=reporter,
    )
    failures.check()
    new_entries: dict[baselines.Key, Accepted] = {}
    changes: dict[Path, BaselineChange] = {}
    resolutions: dict[Path, Resolution | None] = {}
    # Float files first: other files are judged by them.
    order = sorted(results, key=lambda path: everything[path].recipe.name != "float32")
    for path in order:
        artifact, evaluation = everything[path], results[path]
        annotations = _annotations(images, artifact, evaluation, labelled)
        if labelled and _lacks_labels(evaluation, annotations):
            raise UsageError(unlabelled(evaluation, path), "--no-labels accepts the answers alone")
        before = entries.get(baselines.key(artifact))
        comparable = before and not baselines.differences(before, artifact, evaluation, annotations)
        if path in anchors and comparable:
            continue
        anchor = _float_anchor(entries | new_entries, siblings.get(path), artifact, evaluation)
        judged = labelled and _judged(evaluation.task, anchor)
        if anchor and judged and not TASKS.load(evaluation.task).ANNOTATION:
            annotations = reference(anchor, evaluation)
        after = baselines.entry(artifact, evaluation, annotations)
        new_entries[baselines.key(artifact)] = after
        resolutions[path] = _resolution(after, evaluation, annotations) if judged else None
        changes[path] = _change(before, after, evaluation, bool(comparable), resolutions[path])
    ordered = [path for path in everything if path in changes]
    if warning := _undecided([(changes[p], resolutions[p]) for p in ordered], limits):
        reporter.warn(warning)
    name = records.sha256(str(baseline.resolve()).encode())[:16]
    with leases.hold(f"baseline-{name}", exclusive=True, reporter=reporter):
        entries = _entries(baseline, line) | new_entries
        baselines.write(baseline, Baseline(tuple(entries.values())))
    return BaselineUpdate(str(baseline), tuple(changes[path] for path in ordered))


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
    task: str | None,
    predicted: PredictionOptions,
    limit: int | None,
    overrides: Overrides,
    labelled: bool,
) -> str:
    """The command that accepts these artifacts, on the same images with the same preprocessing."""
    argv = ["mobiledeploy", "check", *map(str, paths), "--baseline", str(baseline)]
    argv += [] if labelled else ["--no-labels"]
    options = {
        "data": data,
        "task": task or None,
        "device": None if predicted.device == HOST else predicted.device,
        "runtime": predicted.runtime,
        "delegate": predicted.delegate,
        "limit": limit,
        **vars(overrides),
    }
    if options["labels"] is not None:
        # The name of the labels' file is not known here.
        options["labels"] = "FILE"
    for name, value in options.items():
        if value is not None:
            text = ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
            argv += [f"--{name.replace('_', '-')}", text]
    return shlex.join([*argv, "--update-baseline"])


def _warn_limit(view: View, limits: GateLimits, labelled: bool, reporter: Reporter) -> None:
    """Warns before a slow device starts if the chosen images can never decide the margin."""
    exact = TASKS.load(view.task).GATE == "exact"
    if view.places is None or not (exact or not labelled):
        return
    margin = limits.margin if labelled else limits.max_flips or UNLABELLED_FLIPS
    needed = gate.unflipped(margin) if labelled else gate.flips_needed(0, view.count, margin)
    if needed is not None and view.count < needed:
        reporter.warn(
            NamedWarning(
                "too-few-images",
                f"{units.several(view.count, 'image')} can never decide {100 * margin:g} %: that "
                f"takes {needed:,} without a single change",
                f"--limit {needed}, or a larger margin",
            )
        )


def _annotations(
    images: EvaluationImages, artifact: Artifact, evaluation: Evaluation, labelled: bool
) -> Sequence[Annotation] | None:
    """What the data says of the predicted samples; None if it says nothing, or is not asked."""
    kind = TASKS.load(evaluation.task).ANNOTATION
    if evaluation.task == CLASSIFICATION or not labelled or not kind:
        return None
    return images.of(artifact).annotations(evaluation.predictions, kind)


def _judged(task: str, anchor: Accepted | None) -> bool:
    """Whether answers can be judged: a task without annotations needs an accepted float model."""
    return bool(TASKS.load(task).ANNOTATION) or anchor is not None


def _lacks_labels(evaluation: Evaluation, annotations: Sequence[Annotation] | None) -> bool:
    if evaluation.task == CLASSIFICATION:
        return any(p.label < 0 for p in evaluation.predictions)
    return bool(TASKS.load(evaluation.task).ANNOTATION) and annotations is None


def _float_anchor(
    entries: dict[baselines.Key, Accepted],
    sibling: tuple[Path, Artifact] | None,
    artifact: Artifact,
    evaluation: Evaluation,
) -> Accepted | None:
    """The accepted float model on the same images, preferably of the same format.

    Files of other tools do not say which model they are of: `sibling` is the float file that was
    named together with one.
    """
    if artifact.recipe.name == "float32":
        return None
    models = {artifact.spec.name}
    if sibling and all(map(baselines.of_another_tool, (artifact, sibling[1]))):
        models.add(sibling[1].spec.name)
    fits = [
        entry
        for entry in entries.values()
        if (entry.model in models and entry.recipe == "float32")
        and (entry.task or CLASSIFICATION) == evaluation.task
        and (entry.data.identity, entry.samples, entry.classes, entry.images)
        == (
            evaluation.data.identity,
            baselines.samples(evaluation),
            artifact.spec.classes,
            evaluation.images,
        )
        and entry.weights_sha256 == baselines.weights(artifact)
        and entry.preprocessing.labels == evaluation.preprocessing.labels
    ]
    return min(fits, key=lambda e: (e.format != artifact.format, e.format), default=None)


def _resolution(
    entry: Accepted, evaluation: Evaluation, annotations: Sequence[Annotation] | None
) -> Resolution:
    """What margin the samples can decide; UsageError if annotations say nothing of the metric."""
    if entry.task is None:
        return Resolution(gate.least_margin(entry.images), entry.images, 1.0)
    assert annotations is not None
    return TaskJudge(evaluation, annotations).resolution(evaluation.predictions)


def _undecided(
    changes: Sequence[tuple[BaselineChange, Resolution | None]], limits: GateLimits
) -> NamedWarning | None:
    """A warning if the fewest images can never decide the margin, with a margin that they can."""
    short = [
        (change, resolution)
        for change, resolution in changes
        if change.decides >= _margin(resolution, limits)
    ]
    if not short:
        return None
    one, resolution = max(short, key=lambda pair: pair[0].decides)
    margin = _margin(resolution, limits)
    least = f"{points(one.decides):g}"
    lost = f"of {_decided_by(one)} lost"
    option, what = ("--margin", lost) if resolution else ("--max-flips", "of answers changed")
    # Without labels the bound is exact: (1 - margin)^n < 5 %.
    image_count = (
        resolution.needed(margin) if resolution else gate.flips_needed(0, one.images, margin)
    )
    takes = (
        f"that takes {image_count:,} without a single change"
        if image_count
        else "a few of them carry all of some class"
    )
    return NamedWarning(
        "too-few-images",
        f"{units.several(one.images, 'image')} can never decide {100 * margin:g} % {what}: {takes}",
        f"give more images, or {option} {least} or more",
    )


def _margin(resolution: Resolution | None, limits: GateLimits) -> float:
    return limits.margin if resolution else limits.max_flips or UNLABELLED_FLIPS


def _decided_by(change: BaselineChange) -> str:
    """What a loss is a share of: an error has a bound for that."""
    if change.metric is None:
        return "top-1"
    mean = TASKS.load(change.task).GATE == "mean"
    return f"the bound of {change.metric.title}" if mean else change.metric.title


def _change(
    before: Accepted | None,
    after: Accepted,
    evaluation: Evaluation,
    comparable: bool,
    resolution: Resolution | None,
) -> BaselineChange:
    flips = metric = None
    task = TASKS.load(evaluation.task)
    if before and comparable and after.task is None:
        flips = int((baselines.answers(before) != baselines.answers(after)).sum())
    elif before and comparable:
        pairs = zip(
            baselines.predictions(before, evaluation),
            baselines.rounded(evaluation.predictions),
            strict=True,
        )
        flips = sum(not task.agrees(*pair) for pair in pairs)
    if after.task is not None:
        metric = task.METRICS[0]
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
        decides=resolution.margin if resolution else gate.least_flips(after.images),
        task=evaluation.task,
        metric=metric,
        metric_before=before.metric if before and before.task == after.task else None,
        metric_now=after.metric,
    )
