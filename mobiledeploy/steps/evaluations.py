"""Artifacts evaluated on labelled images, each kept in the store as soon as it exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts, leases, protocol
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import DEVICES
from mobiledeploy.core.ports import SILENT, Reporter, Session
from mobiledeploy.core.types import (
    Artifact,
    Evaluation,
    NamedWarning,
    Overrides,
    Prediction,
    Target,
)
from mobiledeploy.steps.evaluation_images import EvaluationImages, View
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.runner_pool import RunnerPool, answer_row, image_ranges
from mobiledeploy.steps.runtimes import target
from mobiledeploy.store.database import Store

# Above both of them, broken images are the data set's fault and no accident.
BROKEN_IMAGES = 5
BROKEN_SHARE = 0.01
# Above this share of images, what is said of their best class hangs on the order of classes.
TIED_SHARE = 0.01


def each(
    paths: Sequence[Path],
    failures: Failures,
    *,
    data: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    overrides: Overrides | None = None,
    compare: bool = True,
    reporter: Reporter = SILENT,
) -> dict[Path, Evaluation]:
    """`evaluate`, by path; what has no answer is in `failures`."""
    if not paths:
        raise UsageError("no artifact was named", "mobiledeploy evaluate build/*/*.tflite")
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads cannot work", "give 1 or more")
    images = EvaluationImages(data, overrides or Overrides())
    asked: dict[Path, Artifact] = {}
    for path in paths:
        with failures.of(path):
            artifact = artifacts.load(path)
            target(artifact, runtime)
            images.of(artifact)
            asked[path] = artifact
    made: dict[Path, Evaluation] = {}
    if not asked:
        return made
    with (
        Store.keeping(reporter) as store,
        DEVICES.load("host").open("host", exclusive=False, reporter=reporter) as session,
    ):
        job = _EvaluationJob(images, threads or leases.cores(), session, store, reporter)
        for path, artifact in asked.items():
            reference = float_sibling(path, artifact, asked, reporter) if compare else None
            if reference and reference[0] not in made and reference[0] not in failures:
                # One that nobody named takes the runtime that was asked for only where it fits.
                fits = reference[0] in asked or reference[1].format == artifact.format
                with failures.of(reference[0]):
                    made[reference[0]] = job.run(*reference, None, runtime if fits else None)
            if path not in made and path not in failures:
                known = made.get(reference[0]) if reference else None
                with failures.of(path):
                    made[path] = job.run(path, artifact, known, runtime)
    return {path: made[path] for path in asked if path in made}


def float_sibling(
    path: Path, artifact: Artifact, asked: dict[Path, Artifact], reporter: Reporter
) -> tuple[Path, Artifact] | None:
    """The float32 artifact of the same model: same format first, those asked for first."""
    if artifact.recipe.name == "float32":
        return None
    found, lost = dict(asked), []
    for record in sorted(path.parent.glob("float32.*.json")):
        sibling = record.with_suffix("")
        if sibling not in found:
            try:
                found[sibling] = artifacts.load(sibling)
            except InputError as error:
                lost.append(
                    NamedWarning("no-reference", f"no comparison with float: {error.message}")
                )
    fitting = [
        (other.format != artifact.format, place, other_path, other)
        for place, (other_path, other) in enumerate(found.items())
        if other.recipe.name == "float32" and other.spec == artifact.spec
    ]
    if fitting:
        return min(fitting)[2:]
    for warning in lost:
        reporter.warn(warning)
    return None


@dataclass(frozen=True)
class _EvaluationJob:
    """What is the same for all artifacts of one call."""

    images: EvaluationImages
    workers: int
    session: Session
    store: Store
    reporter: Reporter

    def run(
        self, path: Path, artifact: Artifact, reference: Evaluation | None, runtime: str | None
    ) -> Evaluation:
        """One artifact's evaluation, in the store when it returns."""
        view = self.images.of(artifact)
        for warning in view.warnings:
            self.reporter.warn(warning)
        count = len(view.samples)
        work = protocol.Work(
            view.ref,
            view.preprocessing,
            artifact.spec.resolution,
            artifact.layout,
            artifact.inputs[0],
            artifact.outputs[0],
        )
        where = target(artifact, runtime)
        pool = RunnerPool(self.session, path, where, work, min(self.workers, count))
        predictions: dict[int, Prediction] = {}
        skipped: dict[int, str] = {}
        allowed = max(BROKEN_IMAGES, int(BROKEN_SHARE * count))
        for event in pool.answers(image_ranges(count, pool.workers)):
            if isinstance(event, protocol.Skipped):
                skipped[event.index] = event.why
                if len(skipped) > allowed:
                    raise InputError(
                        f"{view.ref.source} has more than {allowed} images that cannot be read, "
                        f"one is {event.why}"
                    )
            else:
                predictions[event.index] = _prediction(event, view.offset)
            self._progress(path, len(predictions) + len(skipped), count, pool)
        if not predictions:
            raise InputError(f"{view.ref.source} has no image that can be read")
        evaluation = _evaluation(
            artifact,
            view,
            pool,
            tuple(predictions[i] for i in sorted(predictions)),
            tuple(skipped[i] for i in sorted(skipped)),
            reference,
            self.reporter,
        )
        self.store.add_evaluation(evaluation)
        return evaluation

    def _progress(self, path: Path, done: int, count: int, pool: RunnerPool) -> None:
        # The name of a step is the bar's identity, so the speed is told once, at the end.
        self.reporter.progress(f"evaluating {path.name}", done, count)
        if done == count:
            self.reporter.say(f"{path.name}: {count} images, {done / pool.seconds():.0f} images/s")


def _evaluation(
    artifact: Artifact,
    view: View,
    pool: RunnerPool,
    predictions: tuple[Prediction, ...],
    skipped: tuple[str, ...],
    reference: Evaluation | None,
    reporter: Reporter,
) -> Evaluation:
    warnings = list(view.warnings)
    if skipped:
        warning = NamedWarning("broken-image", f"left out of the images: {', '.join(skipped)}")
        reporter.warn(warning)
        warnings.append(warning)
    for warning in _tie_warnings(artifact, predictions):
        reporter.warn(warning)
        warnings.append(warning)
    ready = pool.ready
    judged = view.offset is not None
    return Evaluation(
        artifact_sha256=artifact.sha256,
        data=view.ref,
        preprocessing=view.preprocessing,
        target=Target("host", "python", ready.runtime, ready.threads, ready.delegate),
        runtime_version=ready.version,
        images=len(predictions),
        top1=accuracy.top(predictions, 1) if judged else None,
        top5=accuracy.top(predictions, accuracy.BEST) if judged else None,
        agreement=accuracy.agreement(predictions, reference.predictions) if reference else None,
        images_per_second=len(predictions) / pool.seconds(),
        confusion=accuracy.confusion(predictions) if judged else (),
        predictions=predictions,
        skipped=skipped,
        warnings=tuple(warnings),
    )


def _tie_warnings(artifact: Artifact, predictions: tuple[Prediction, ...]) -> list[NamedWarning]:
    tied = sum(len(p.scores) > 1 and p.scores[0] == p.scores[1] for p in predictions)
    if tied <= TIED_SHARE * len(predictions):
        return []
    message = (
        f"{artifact.path} gives its best score to several classes on "
        f"{100 * tied / len(predictions):.1f} % of the images: the first of them counts"
    )
    finer = "export with --output logits: a softmax rounds small differences away"
    return [NamedWarning("tied-scores", message, finer if artifact.output == "softmax" else "")]


def _prediction(answer: protocol.Answer, offset: int | None) -> Prediction:
    classes, scores = accuracy.best(answer_row(answer))
    known = answer.label >= 0 and offset is not None
    label = answer.label + offset if known and offset is not None else -1
    return Prediction(answer.sample, label, classes, scores)
