"""Artifacts on labelled pictures: top-1, top-5, agreement with the float model, confusion.

A pool of runner processes, one for each core, decodes, prepares and answers in parallel; this
process hands out ranges of pictures and keeps the five best classes of each answer.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts, inputs, leases, preprocessing, protocol, records
from mobiledeploy.core.errors import DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import DEVICES, FORMATS, RUNNERS, dataset
from mobiledeploy.core.ports import SILENCE, Notify, Process, Samples, Session
from mobiledeploy.core.samples import class_offset
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Doubt,
    Evaluation,
    Failed,
    FileFacts,
    Overrides,
    Prediction,
    Preprocessing,
    Split,
    Target,
)
from mobiledeploy.steps.failures import Failures
from mobiledeploy.store.database import Store

RUNTIMES_OF = {"tflite": ("litert", "tflite_runtime"), "onnx": ("onnxruntime",)}
"""The runtimes of a format, first the one that is taken where none is named.

To ask a runtime itself is to import its engine, which only a runner does.
"""
DELEGATE_OF = {"litert": "xnnpack", "tflite_runtime": "xnnpack", "onnxruntime": "none"}
"""The delegate of a runtime where none is named, the first of its own list."""
PACKAGE_OF = {
    "litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "tflite_runtime": "tflite-runtime",
}
"""The package that a runtime's version is that of."""

# Above both of them, broken pictures are the data set's fault and no accident.
BROKEN_IMAGES = 5
BROKEN_SHARE = 0.01
# Above this share of pictures, what is said of their best class hangs on the order of classes.
TIED_SHARE = 0.01
# A runner answers for a range in seconds; one that says nothing for so long never will.
PATIENCE_S = 600.0
# A range of pictures is at most so long, and shorter towards the end, so that all cores finish
# together.
_LONGEST_RANGE = 32
_RANGES_LEFT = 4


@dataclass(frozen=True)
class Evaluated:
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
    notify: Notify = SILENCE,
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
        notify: hears of progress and doubts.

    Raises:
        InputError: an artifact without its record, or one that the record does not speak of; NaN
            in an answer; more than max(5, 1 %) pictures that cannot be read.
        UsageError: an unknown runtime, or one that does not run an artifact's format; an unknown
            data set; pictures that say nothing about the model.
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
        notify=notify,
    )
    failures.check()
    return tuple(made.values())


def evaluated(paths: Sequence[Path], **given: Any) -> Evaluated:
    """`evaluate`, where each of several paths has its own answer or reason."""
    failures = Failures()
    made = each(paths, failures, **given)
    if len(paths) == 1:
        failures.check()
    return Evaluated(tuple(map(str, made)), tuple(made.values()), failures.told())


def each(
    paths: Sequence[Path],
    failures: Failures,
    *,
    data: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    overrides: Overrides | None = None,
    compare: bool = True,
    notify: Notify = SILENCE,
) -> dict[Path, Evaluation]:
    """`evaluate`, by path; what has no answer is in `failures`."""
    if not paths:
        raise UsageError("no artifact was named", "mobiledeploy evaluate build/*/*.tflite")
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads cannot work", "give 1 or more")
    pictures = _Pictures(data, overrides or Overrides())
    asked: dict[Path, Artifact] = {}
    for path in paths:
        with failures.of(path):
            artifact = artifacts.load(path)
            target(artifact, runtime)
            pictures.of(artifact)
            asked[path] = artifact
    made: dict[Path, Evaluation] = {}
    if not asked:
        return made
    with (
        Store.keeping(notify) as store,
        DEVICES.load("host").open("host", exclusive=False, notify=notify) as session,
    ):
        job = _Job(pictures, threads or leases.cores(), session, store, notify)
        for path, artifact in asked.items():
            reference = float_sibling(path, artifact, asked, notify) if compare else None
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


def target(artifact: Artifact, runtime: str | None = None) -> Target:
    """Where an artifact is evaluated, as its record will say.

    The delegate is "" for the runtime of another package: it is known when it has run.

    Raises:
        InputError: nothing here runs the artifact's format.
        UsageError: `runtime` runs other formats.
    """
    chosen = runtime or default_runtime(artifact)
    formats = [name for name, runtimes in RUNTIMES_OF.items() if chosen in runtimes]
    if formats and artifact.format not in formats:
        raise UsageError(
            f"{chosen} runs .{formats[0]} files, not {artifact.path}",
            f"--runtime {default_runtime(artifact)}, or none for the default of each file",
        )
    return Target("host", "python", chosen, 1, DELEGATE_OF.get(chosen, ""))


def runtime_version(runtime: str) -> str:
    """The version of a runtime that is installed here; "" for another package's, or none.

    What its own `version` would say, without importing it.
    """
    try:
        return metadata.version(PACKAGE_OF.get(runtime, ""))
    except (metadata.PackageNotFoundError, ValueError):
        return ""


def default_runtime(artifact: Artifact) -> str:
    """The runtime where none is named; InputError for a format that nothing here runs."""
    if artifact.format not in RUNTIMES_OF:
        raise InputError(
            f"{artifact.path} is a {artifact.format!r}, which nothing here runs",
            f"there are {', '.join(RUNTIMES_OF)}",
        )
    return RUNTIMES_OF[artifact.format][0]


def logits(
    path: Path,
    facts: FileFacts,
    pre: Preprocessing,
    data: DataRef,
    indices: Sequence[int],
    *,
    notify: Notify,
) -> tuple[str, NDArray[np.float32]]:
    """The output of a model file without a record, for some pictures of `data`.

    Args:
        path: the model; `facts` is what its format's `inspect` told of it.
        facts: its tensors with their scales, and its layout.
        pre: how a picture becomes its input; `data.resolution` is the input's.
        data: the data set and the split that `indices` count in.
        indices: which pictures; all must be readable.
        notify: hears of a wait for the machine.

    Returns:
        The runtime's name and version, and float32 [len(indices), classes].
    """
    work = protocol.Work(
        data, pre, data.resolution, facts.layout, facts.inputs[0], facts.outputs[0]
    )
    runtime = RUNTIMES_OF[facts.format][0]
    target = Target("host", "python", runtime, 1, DELEGATE_OF[runtime])
    rows: dict[int, NDArray[np.float32]] = {}
    with DEVICES.load("host").open("host", exclusive=False, notify=notify) as session:
        pool = _Pool(session, path, target, work, 1)
        for event in pool.answers((index, index + 1) for index in indices):
            if isinstance(event, protocol.Skipped):
                raise InputError(f"picture {event.why}")
            rows[event.index] = _row(event)
    return f"{pool.ready.runtime} {pool.ready.version}", np.stack([rows[i] for i in indices])


def every_logits(
    path: Path, artifact: Artifact, *, notify: Notify
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(index, logits [classes]) of every readable picture that judges an artifact, in no order."""
    shelf, data = FORMATS.load(artifact.format), artifact.data
    samples = dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )
    count = len(samples)
    with (
        artifacts.scratch() as folder,
        DEVICES.load("host").open("host", exclusive=False, notify=notify) as session,
    ):
        tap = folder / f"tap-{path.name}"
        tapped = shelf.tap(inputs.read(path, inputs.FINISHED), artifact.logits)
        tap.write_bytes(tapped)
        facts = shelf.inspect(tapped)
        work = protocol.Work(
            data,
            artifact.spec.preprocessing,
            data.resolution,
            facts.layout,
            facts.inputs[0],
            facts.outputs[0],
        )
        pool = _Pool(session, tap, target(artifact), work, min(leases.cores(), count))
        for done, event in enumerate(pool.answers(_ranges(count, pool.workers)), start=1):
            notify.progress(f"logits of {path.name}", done, count)
            if isinstance(event, protocol.Answer):
                yield event.index, _row(event)


# --- which pictures ------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """The pictures for one artifact, and how their labels meet its classes.

    `offset` is what makes a label a class of the model, None where labels do not fit.
    """

    samples: Samples
    ref: DataRef
    preprocessing: Preprocessing
    offset: int | None
    doubts: tuple[Doubt, ...]


class _Pictures:
    """Opens the data for artifacts; once, where several take the same."""

    def __init__(self, source: str | None, overrides: Overrides) -> None:
        self._source = source
        self._overrides = overrides
        self._known: dict[tuple[object, ...], Samples] = {}

    def of(self, artifact: Artifact) -> _View:
        pre = self._overrides.over(artifact.spec.preprocessing)
        assert pre is not None
        preprocessing.validate(pre)
        own = artifact.data
        source = self._source or own.source
        trained = (own.source, own.split) == ("demo", "held")
        builtin = artifact.spec.card and (
            trained or artifact.spec.weights.source in ("demo", "random")
        )
        if source == "demo" and not builtin:
            raise UsageError(
                "the demo pictures say nothing about a model that was not trained on them",
                "give --data DIR or FILE.npz",
            )
        doubts: list[Doubt] = []
        split: Split = "all"
        labels = pre.labels
        if self._are_own(source, artifact, doubts):
            split = own.split
            labels = self._overrides.labels or own.labels
        elif source == "demo":
            # Its splits are apart from each other: what trains or calibrates is not in this one.
            split = "validation"
        samples = self._open(source, split, artifact, labels)
        offset = class_offset(len(samples.classes), artifact.spec.classes)
        doubts += _label_doubts(len(samples.classes), artifact, offset)
        ref = DataRef(source, split, artifact.spec.resolution, labels, samples.identity)
        return _View(samples, ref, pre, offset, tuple(doubts))

    def _are_own(self, source: str, artifact: Artifact, doubts: list[Doubt]) -> bool:
        """Whether the pictures are those that the artifact was exported with."""
        own = artifact.data
        named_alike = same_place(source, own.source)
        try:
            found = self._open(source, own.split, artifact, own.labels).identity
        except InputError:
            if named_alike:
                raise
            return False
        if named_alike and found != own.identity:
            doubts.append(
                Doubt(
                    "changed-data",
                    f"{source} is not as it was when {artifact.path} was exported: "
                    "some of its pictures may have calibrated it",
                    "export again, or give --data with other pictures",
                )
            )
        return named_alike or found == own.identity

    def _open(
        self, source: str, split: Split, artifact: Artifact, labels: tuple[str, ...]
    ) -> Samples:
        key = (source, split, artifact.spec.resolution, labels)
        if key not in self._known:
            self._known[key] = dataset(source).open(
                source, split, resolution=artifact.spec.resolution, labels=labels
            )
        return self._known[key]


def same_place(one: str, other: str) -> bool:
    """Whether two `--data` name the same pictures, be it by two paths."""
    if one == other:
        return True
    first, second = Path(one), Path(other)
    return (
        first.exists()
        and second.exists()
        and first.samefile(second)
        # A folder called demo is ./demo: demo alone is the drawn pictures.
        and dataset(one) is dataset(other)
    )


def _label_doubts(labels: int, artifact: Artifact, offset: int | None) -> list[Doubt]:
    classes = artifact.spec.classes
    if offset is None:
        message = f"the data has {labels} classes, {artifact.path} has {classes}: no top-1 is given"
        return [Doubt("labels-do-not-fit", message, "--labels FILE with the model's classes")]
    if offset:
        more = "model" if offset > 0 else "data"
        message = f"the {more} has one class more ({labels} labels, {classes} outputs)"
        advice = "it is taken for a background class before all others"
        return [Doubt("background-class", message, advice)]
    return []


def float_sibling(
    path: Path, artifact: Artifact, asked: dict[Path, Artifact], notify: Notify
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
                lost.append(Doubt("no-reference", f"no comparison with float: {error.message}"))
    fitting = [
        (other.format != artifact.format, place, other_path, other)
        for place, (other_path, other) in enumerate(found.items())
        if other.recipe.name == "float32" and other.spec == artifact.spec
    ]
    if fitting:
        return min(fitting)[2:]
    for doubt in lost:
        notify.doubt(doubt)
    return None


# --- the work ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What is the same for all artifacts of one call."""

    pictures: _Pictures
    workers: int
    session: Session
    store: Store
    notify: Notify

    def run(
        self, path: Path, artifact: Artifact, reference: Evaluation | None, runtime: str | None
    ) -> Evaluation:
        """One artifact's evaluation, in the store when it returns."""
        view = self.pictures.of(artifact)
        for doubt in view.doubts:
            self.notify.doubt(doubt)
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
        pool = _Pool(self.session, path, where, work, min(self.workers, count))
        predictions: dict[int, Prediction] = {}
        skipped: dict[int, str] = {}
        allowed = max(BROKEN_IMAGES, int(BROKEN_SHARE * count))
        for event in pool.answers(_ranges(count, pool.workers)):
            if isinstance(event, protocol.Skipped):
                skipped[event.index] = event.why
                if len(skipped) > allowed:
                    raise InputError(
                        f"{view.ref.source} has more than {allowed} pictures that cannot be read, "
                        f"one is {event.why}"
                    )
            else:
                predictions[event.index] = _prediction(event, view.offset)
            self._progress(path, len(predictions) + len(skipped), count, pool)
        if not predictions:
            raise InputError(f"{view.ref.source} has no picture that can be read")
        evaluation = _evaluation(
            artifact,
            view,
            pool,
            tuple(predictions[i] for i in sorted(predictions)),
            tuple(skipped[i] for i in sorted(skipped)),
            reference,
            self.notify,
        )
        self.store.add_evaluation(evaluation)
        return evaluation

    def _progress(self, path: Path, done: int, count: int, pool: _Pool) -> None:
        # The name of a step is the bar's identity, so the speed is told once, at the end.
        self.notify.progress(f"evaluating {path.name}", done, count)
        if done == count:
            self.notify.say(f"{path.name}: {count} images, {done / pool.seconds():.0f} images/s")


def _evaluation(
    artifact: Artifact,
    view: _View,
    pool: _Pool,
    predictions: tuple[Prediction, ...],
    skipped: tuple[str, ...],
    reference: Evaluation | None,
    notify: Notify,
) -> Evaluation:
    doubts = list(view.doubts)
    if skipped:
        doubt = Doubt("broken-image", f"left out of the pictures: {', '.join(skipped)}")
        notify.doubt(doubt)
        doubts.append(doubt)
    for doubt in _tie_doubts(artifact, predictions):
        notify.doubt(doubt)
        doubts.append(doubt)
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
        doubts=tuple(doubts),
    )


def _tie_doubts(artifact: Artifact, predictions: tuple[Prediction, ...]) -> list[Doubt]:
    tied = sum(len(p.scores) > 1 and p.scores[0] == p.scores[1] for p in predictions)
    if tied <= TIED_SHARE * len(predictions):
        return []
    message = (
        f"{artifact.path} gives its best score to several classes on "
        f"{100 * tied / len(predictions):.1f} % of the pictures: the first of them counts"
    )
    finer = "export with --output logits: a softmax rounds small differences away"
    return [Doubt("tied-scores", message, finer if artifact.output == "softmax" else "")]


def _prediction(answer: protocol.Answer, offset: int | None) -> Prediction:
    classes, scores = accuracy.best(_row(answer))
    known = answer.label >= 0 and offset is not None
    label = answer.label + offset if known and offset is not None else -1
    return Prediction(answer.sample, label, classes, scores)


def _row(answer: protocol.Answer) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(answer.row, validate=True)
        return np.frombuffer(data, "<f4")
    except ValueError as error:
        raise DeviceError(f"the runner's answer for {answer.sample} is no row of scores") from error


def _ranges(count: int, workers: int) -> Iterator[tuple[int, int]]:
    """0..count in ranges that get shorter towards the end."""
    start = 0
    while start < count:
        length = max(1, min(_LONGEST_RANGE, (count - start) // (_RANGES_LEFT * workers)))
        yield start, start + length
        start += length


class _Pool:
    """Runner processes that answer for ranges of pictures, each with the next range in hand."""

    def __init__(
        self, session: Session, path: Path, target: Target, work: protocol.Work, workers: int
    ) -> None:
        self.ready: protocol.Ready
        self.workers = workers
        self._session = session
        self._argv = RUNNERS.load(target.runner).predict(session.push(path), target)
        self._work = work
        self._listener = protocol.Listener(path.name, PATIENCE_S)
        self._begun = self._ended = 0.0

    def seconds(self) -> float:
        """From when all runners were ready to the last answer so far."""
        return max(self._ended - self._begun, 1e-9)

    def answers(
        self, ranges: Iterator[tuple[int, int]]
    ) -> Iterator[protocol.Answer | protocol.Skipped]:
        """Every answer, in no order; the runners are gone when this ends, however it ends."""
        processes: list[Process] = []
        try:
            for number in range(self.workers):
                processes.append(self._session.run(self._argv))
                processes[-1].send(records.line(self._work))
                self._listener.listen(number, processes[-1])
            self._wait_until_ready()
            yield from self._share(processes, ranges)
        finally:
            for process in processes:
                process.kill()

    def _wait_until_ready(self) -> None:
        for _ in range(self.workers):
            _, event = self._listener.next()
            if not isinstance(event, protocol.Ready):
                raise DeviceError(f"the runner said {type(event).__name__} before it was ready")
            self.ready = event
        self._begun = self._ended = time.perf_counter()

    def _share(
        self, processes: Sequence[Process], ranges: Iterator[tuple[int, int]]
    ) -> Iterator[protocol.Answer | protocol.Skipped]:
        # What each runner has been asked for and has not answered: the range that it works on,
        # and one more, so that it never waits for us.
        waiting: list[list[tuple[int, int]]] = [[] for _ in processes]

        def refill(number: int) -> None:
            while len(waiting[number]) < 2 and (given := next(ranges, None)):
                waiting[number].append(given)
                processes[number].send(f"{given[0]} {given[1]}")

        for number in range(len(processes)):
            refill(number)
        while any(waiting):
            number, event = self._listener.next()
            if not isinstance(event, protocol.Answer | protocol.Skipped) or not waiting[number]:
                raise DeviceError(f"the runner said {type(event).__name__}, which was not asked")
            start, stop = waiting[number][0]
            if event.index != start:
                raise DeviceError(f"the runner answered for picture {event.index}, not {start}")
            waiting[number][0] = (start + 1, stop)
            self._ended = time.perf_counter()
            if start + 1 == stop:
                del waiting[number][0]
                refill(number)
            yield event
