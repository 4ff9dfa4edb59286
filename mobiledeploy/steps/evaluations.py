"""Evaluates artifacts on labelled images and adds each evaluation to the store at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from mobiledeploy.analysis import accuracy, label_order
from mobiledeploy.core import artifacts, protocol, units
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import SILENT, Reporter, Task
from mobiledeploy.core.samples import class_name
from mobiledeploy.core.types import (
    Annotation,
    Artifact,
    ChangedAnswer,
    Evaluation,
    NamedWarning,
    Prediction,
    Target,
)
from mobiledeploy.core.unrecorded import ARCHITECTURE
from mobiledeploy.steps import instruction_sets
from mobiledeploy.steps.answers import with_pixels
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.evaluation_images import EvaluationImages, View
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.predictors import Predictor
from mobiledeploy.steps.runner_pool import RunnerPool, answer_outputs
from mobiledeploy.steps.runtimes import runtime_version, target
from mobiledeploy.store.database import Store

# More broken images than both limits mean that the data set itself is bad.
BROKEN_IMAGES = 5
BROKEN_SHARE = 0.01
# Above this share of images, the accuracy depends on the order of the classes.
TIED_SHARE = 0.01
# A file that agrees less with the float file that was taken for its own may be of another model.
LEAST_AGREEMENT = 0.5
# Fewer images per second than these are told with two decimals.
SLOW = 10.0
# The order of more labels than these fills a screen.
NAMED_LABELS = 20


def each(
    paths: Sequence[Path],
    failures: Failures,
    *,
    predictor: Predictor | None = None,
    images: EvaluationImages | None = None,
    data: str | None = None,
    overrides: Overrides | None = None,
    task: str = "",
    compare: bool = True,
    pixels: Path | None = None,
    known: Mapping[str, Evaluation] | None = None,
    reporter: Reporter = SILENT,
) -> dict[Path, Evaluation]:
    """The evaluations by path; failures of single paths go to `failures`.

    `images` takes the place of `data`, `overrides` and `task`, for a caller that reads annotations.
    `pixels` is a folder for the images (`core.pixels`), which the caller removes; by default there
    is one for this call. `known` are evaluations by sha256 that are not made again. `predictor` is
    the machine that predicts; the default is this host.
    """
    if not paths:
        raise UsageError("no artifact was named", "mobiledeploy evaluate build/*/*.tflite")
    if predictor is None:
        with Predictor(reporter=reporter) as predictor:
            return each(
                paths,
                failures,
                predictor=predictor,
                images=images,
                data=data,
                overrides=overrides,
                task=task,
                compare=compare,
                pixels=pixels,
                known=known,
                reporter=reporter,
            )
    if images is None:
        images = EvaluationImages(data, overrides or Overrides(), task, reporter)
    requested: dict[Path, Artifact] = {}
    for path in paths:
        with failures.of(path):
            artifact = artifacts.load(path)
            predictor.target(artifact)
            images.of(artifact)
            requested[path] = artifact
    evaluations: dict[Path, Evaluation] = {}
    if not requested:
        return evaluations
    references = {
        path: float_sibling(path, artifact, requested, reporter) if compare else None
        for path, artifact in requested.items()
    }
    every = requested | dict(reference for reference in references.values() if reference)
    for path, artifact in every.items():
        if known and artifact.sha256 in known:
            evaluations[path] = known[artifact.sha256]
    # One file needs its images once. A recording says the same whenever it is made.
    keeps_pixels = len(every) > 1 and not predictor.is_recorded
    own_folder = artifacts.scratch() if keeps_pixels and not pixels else nullcontext(pixels)
    with own_folder as folder, Store.keeping(reporter) as store:
        job = _EvaluationJob(images, predictor, folder if keeps_pixels else None, store, reporter)
        for path, artifact in requested.items():
            reference = references[path]
            if reference and reference[0] not in evaluations and reference[0] not in failures:
                # A reference that is not among `paths` has the runtime that was chosen only if
                # that fits its format.
                fits = reference[0] in requested or reference[1].format == artifact.format
                with failures.of(reference[0]):
                    where = predictor.target(reference[1], default_runtime=not fits)
                    evaluations[reference[0]] = job.run(*reference, None, where)
            if path not in evaluations and path not in failures:
                other = evaluations.get(reference[0]) if reference else None
                assumed = reference[0] if reference and unsaid(reference[1], artifact) else None
                with failures.of(path):
                    where = predictor.target(artifact)
                    evaluations[path] = job.run(path, artifact, other, where, assumed)
    return {path: evaluations[path] for path in requested if path in evaluations}


def all_of(
    paths: Sequence[Path],
    reporter: Reporter,
    pixels: Path | None = None,
    known: Mapping[str, Evaluation] | None = None,
) -> dict[Path, Evaluation]:
    """`each` with the defaults of each artifact; the gravest error if one of them fails."""
    failures = Failures()
    evaluations = each(paths, failures, pixels=pixels, known=known, reporter=reporter)
    failures.check()
    return evaluations


def stored(artifacts_: Mapping[str, Artifact], reporter: Reporter) -> dict[str, Evaluation]:
    """The evaluations of artifacts, by sha256, on their own images; new where the store has none.

    Args:
        artifacts_: by path.
        reporter: is told of progress and warnings.
    """
    with Store.open() as store:
        from_store = {
            a.sha256: store.evaluation(
                a.sha256, a.data, a.spec.preprocessing, to, runtime_version(to.runtime)
            )
            for a in artifacts_.values()
            for to in (target(a),)
        }
    absent = [Path(path) for path, a in artifacts_.items() if from_store[a.sha256] is None]
    new = all_of(absent, reporter) if absent else {}
    return {sha: e for sha, e in from_store.items() if e} | {
        e.artifact_sha256: e for e in new.values()
    }


def float_sibling(
    path: Path, artifact: Artifact, requested: dict[Path, Artifact], reporter: Reporter
) -> tuple[Path, Artifact] | None:
    """The float32 artifact of the same model; the same format first, then those of `requested`.

    Where the files do not say whether they are of one model, it must be named in the command, and
    be the only one that fits.
    """
    if artifact.recipe.name == "float32":
        return None
    candidates, warnings = dict(requested), []
    for record in sorted(path.parent.glob("float32.*.json")):
        sibling = record.with_suffix("")
        if sibling not in candidates:
            try:
                candidates[sibling] = artifacts.load(sibling)
            except InputError as error:
                warnings.append(
                    NamedWarning("no-reference", f"no comparison with float: {error.message}")
                )
    fitting = [
        (unsaid(other, artifact), other.format != artifact.format, place, other_path, other)
        for place, (other_path, other) in enumerate(candidates.items())
        if other.recipe.name == "float32" and same_model(other, artifact)
    ]
    siblings = sorted(one for one in fitting if one[3] in requested or not one[0])
    rivals = [one[3].name for one in siblings if one[:2] == siblings[0][:2]]
    if len(rivals) > 1 and siblings[0][0]:
        message = (
            f"no comparison with float: {' and '.join(rivals)} have the inputs and outputs of "
            f"{path.name}"
        )
        advice = "name only the float file that it was made from"
        warnings.append(NamedWarning("no-reference", message, advice))
    elif siblings:
        return siblings[0][3:]
    for warning in warnings:
        reporter.warn(warning)
    return None


def unsaid(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts do not say that they are of one model: a file has no record."""
    return ARCHITECTURE in (one.spec.architecture, other.spec.architecture)


def judged_in_half(artifact: Artifact) -> bool:
    """Whether the store has an evaluation of the file where float16 is computed as such."""
    with Store.open() as store:
        return any(
            e.artifact_sha256 == artifact.sha256
            and instruction_sets.HALF in e.isa.split()
            # The builtin kernels of LiteRT compute in float32.
            and (e.runtime, e.delegate) != ("litert", "none")
            for e in store.evaluations()
        )


def unlike(path: Path, reference: Path, agreement: float | None) -> NamedWarning | None:
    """A warning if a file has so few answers of its float file that it may be of another model."""
    if agreement is None or agreement >= LEAST_AGREEMENT:
        return None
    return NamedWarning(
        "unlike-reference",
        f"{path.name} agrees with {reference.name} on {100 * agreement:.0f} % of the images: "
        "it is of another model, or has lost its answers",
        "name the float file that it was made from",
    )


def same_model(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts are of one model.

    Files of other tools do not say it: of these, equal inputs and outputs are enough.
    """
    if not unsaid(one, other):
        return artifacts.same_spec(one, other)
    shapes = [
        (
            [(end.kind, end.shape) for end in artifacts.signature(artifact).inputs],
            [end.shape for end in artifacts.signature(artifact).outputs],
        )
        for artifact in (one, other)
    ]
    return shapes[0] == shapes[1]


@dataclass(frozen=True)
class _EvaluationJob:
    """The common parts of the evaluations of one call."""

    images: EvaluationImages
    predictor: Predictor
    pixels: Path | None
    store: Store
    reporter: Reporter

    def run(
        self,
        path: Path,
        artifact: Artifact,
        reference: Evaluation | None,
        where: Target,
        assumed: Path | None = None,
    ) -> Evaluation:
        """Evaluates one artifact and adds the evaluation to the store.

        `assumed` is the file of `reference` where no record says that it is of the same model.
        """
        view = self.images.of(artifact)
        for warning in view.warnings:
            self.reporter.warn(warning)
        count = view.count
        work = with_pixels(
            artifacts.work(artifact, view.ref, view.preprocessing), self.pixels, count
        )
        pool = self.predictor.pool(path, where, work, count)
        task, ends = TASKS.load(view.task), artifacts.signature(artifact).outputs
        predictions: dict[int, Prediction] = {}
        skipped: dict[int, str] = {}
        allowed = max(BROKEN_IMAGES, int(BROKEN_SHARE * count))
        for event in pool.answers(view.ranges(pool.workers)):
            if isinstance(event, protocol.Skipped):
                skipped[event.index] = event.why
                if len(skipped) > allowed:
                    raise InputError(
                        f"{view.ref.source} has more than {allowed} images that cannot be read, "
                        f"one is {event.why}"
                    )
            else:
                decoded = task.decode(answer_outputs(event, ends), ends)
                label = _label(event, view.offset)
                predictions[event.index] = replace(decoded, sample=event.sample, label=label)
            self.reporter.progress(
                f"evaluating {path.name}", len(predictions) + len(skipped), count
            )
        self._tell_end(path, count, pool)
        if not predictions:
            raise InputError(f"{view.ref.source} has no image that can be read")
        evaluation = _evaluation(
            artifact,
            view,
            self.predictor,
            pool,
            tuple(predictions[i] for i in sorted(predictions)),
            tuple(skipped[i] for i in sorted(skipped)),
            reference,
            self.reporter,
        )
        if assumed:
            self.reporter.say(
                f"{path.name} is compared with {assumed.name}, which has its inputs and outputs"
            )
            unlike_warning = unlike(path, assumed, evaluation.agreement)
            if unlike_warning:
                self.reporter.warn(unlike_warning)
                evaluation = replace(evaluation, warnings=(*evaluation.warnings, unlike_warning))
        self.store.add_evaluation(evaluation, self.predictor.recorded_at)
        return evaluation

    def _tell_end(self, path: Path, count: int, pool: RunnerPool) -> None:
        line = f"{path.name}: {units.several(count, 'image')} evaluated"
        # The result has the speed of all other places.
        if self.predictor.emulated:
            speed = count / pool.seconds()
            line += (
                f", {speed:.{0 if speed >= SLOW else 2}f} images/s on the emulator, which says "
                "nothing of a device's speed"
            )
        self.reporter.say(line)


def _evaluation(
    artifact: Artifact,
    view: View,
    predictor: Predictor,
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
    if view.task == "classification":
        for warning in _tie_warnings(artifact, predictions):
            reporter.warn(warning)
            warnings.append(warning)
    for warning in _order_warnings(artifact, view, predictions):
        reporter.warn(warning)
        warnings.append(warning)
    ready = pool.ready
    task = TASKS.load(view.task)
    has_labels = view.task == "classification" and view.offset is not None
    metrics = _metrics(task, view, predictions, reference)
    pairs = _pairs(predictions, reference) if reference else []
    class_count = task.classes(artifacts.signature(artifact).outputs)
    agreeing = [task.agrees(*pair) for pair in pairs]
    return Evaluation(
        artifact_sha256=artifact.sha256,
        data=view.ref,
        preprocessing=view.preprocessing,
        target=Target(predictor.device, pool.runner, ready.runtime, ready.threads, ready.delegate),
        runtime_version=ready.version,
        images=len(predictions),
        top1=metrics.get("top1"),
        top5=metrics.get("top5"),
        agreement=sum(agreeing) / len(agreeing) if agreeing else None,
        images_per_second=len(predictions) / pool.seconds(),
        confusion=accuracy.confusion(predictions) if has_labels else (),
        predictions=predictions,
        skipped=skipped,
        warnings=tuple(warnings),
        task=view.task,
        metrics=metrics,
        isa=predictor.isa(ready),
        changed_answers=tuple(
            _change(task, view, class_count or 0, *pair)
            for pair, same in zip(pairs, agreeing, strict=True)
            if not same
        ),
        class_count=class_count,
    )


def _metrics(
    task: Task, view: View, predictions: tuple[Prediction, ...], reference: Evaluation | None
) -> dict[str, float]:
    """The figures of the task; {} if the data has not what they are computed from."""
    if task.ANNOTATION:
        annotations = view.annotations(predictions, task.ANNOTATION)
    else:
        annotations = None if reference is None else _of_reference(predictions, reference)
    return {} if annotations is None else dict(task.metrics(predictions, annotations))


def _of_reference(
    predictions: tuple[Prediction, ...], reference: Evaluation
) -> tuple[Annotation, ...]:
    """The numbers of the float model, for a task that is judged by these alone."""
    others = {prediction.sample: prediction.values for prediction in reference.predictions}
    return tuple(Annotation(values=others.get(p.sample, ())) for p in predictions)


def _pairs(
    predictions: Sequence[Prediction], reference: Evaluation
) -> list[tuple[Prediction, Prediction]]:
    """Each answer with the float model's to the same sample, where it has one."""
    others = {prediction.sample: prediction for prediction in reference.predictions}
    return [(p, others[p.sample]) for p in predictions if p.sample in others]


def _change(
    task: Task, view: View, class_count: int, now: Prediction, before: Prediction
) -> ChangedAnswer:
    labels = view.preprocessing.labels or view.ref.labels

    def name(index: int) -> str:
        return "" if index < 0 else class_name(labels, class_count, index)

    # Elsewhere the best class is not the answer: it is boxes, a mask, or several classes.
    one_class = task.ANNOTATION == "label" and now.classes and before.classes
    answers = (name(before.classes[0]), name(now.classes[0])) if one_class else ("", "")
    return ChangedAnswer(now.sample, name(now.label), *answers)


def _tie_warnings(artifact: Artifact, predictions: tuple[Prediction, ...]) -> list[NamedWarning]:
    ties = sum(len(p.scores) > 1 and p.scores[0] == p.scores[1] for p in predictions)
    if ties <= TIED_SHARE * len(predictions):
        return []
    message = (
        f"{artifact.path} gives its best score to several classes on "
        f"{100 * ties / len(predictions):.1f} % of the images: the first of them counts"
    )
    finer = "export with --output logits: a softmax rounds small differences away"
    return [NamedWarning("tied-scores", message, finer if artifact.output == "softmax" else "")]


def _order_warnings(
    artifact: Artifact, view: View, predictions: tuple[Prediction, ...]
) -> list[NamedWarning]:
    """A warning if the answers are right in another order of the labels."""
    if view.task not in ("binary", "classification") or view.offset != 0:
        return []
    names = view.samples.classes
    better = label_order.better_order(
        [p.classes[0] for p in predictions], [p.label for p in predictions], len(names)
    )
    if better is None:
        return []
    now = sum(p.classes[0] == p.label for p in predictions if p.label >= 0)
    share = now / sum(p.label >= 0 for p in predictions)
    message = (
        f"another order of labels would give {artifact.path} {100 * better.top1:.0f} % "
        f"instead of {100 * share:.0f} %"
    )
    if len(names) > NAMED_LABELS:
        order = "the classes in the model's order"
    else:
        order = f"the lines {', '.join(names[place] for place in better.order)}"
    return [NamedWarning("label-order", message, f"check it, and give --labels FILE with {order}")]


def _label(answer: protocol.Answer, offset: int | None) -> int:
    return -1 if answer.label < 0 or offset is None else answer.label + offset
