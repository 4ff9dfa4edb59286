"""Evaluates artifacts on labelled images: top-1, top-5, agreement with float, confusion.

A pool of runner processes, one per core, decodes, prepares and answers in parallel. This process
gives each of them ranges of images and keeps the five best classes of each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobiledeploy.core import units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeviceError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.samples import class_name
from mobiledeploy.core.types import ChannelOrder, Evaluation, Failed, Resize
from mobiledeploy.steps import arguments
from mobiledeploy.steps.arguments import AnyPath, AnyPaths, Labels, Triple
from mobiledeploy.steps.evaluation_images import EvaluationImages
from mobiledeploy.steps.evaluations import each
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.predictors import HOST, PredictionOptions, Predictor
from mobiledeploy.steps.reporters import PythonReporter

CONFUSIONS = 3
"""The most pairs of confused classes of a file in its table."""
CHANGES = 5
"""The most images with a changed answer that the table of a file names."""


@dataclass(frozen=True)
class EvaluateResult(Record):
    """The answer of `evaluate`: an evaluation for each path, in their order.

    `failed` are the paths without an evaluation, each with its reason.
    """

    paths: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    failed: tuple[Failed, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """For each task a row for each file, with its metrics; confusions; changed answers."""
        each_ = tuple(zip(self.paths, self.evaluations, strict=True))
        by_task: dict[str, list[tuple[str, Evaluation]]] = {}
        for path, e in each_:
            by_task.setdefault(e.task, []).append((path, e))
        confusions = tuple((path, _confusions(e)) for path, e in each_ if e.confusion)
        return (
            *(_table(task, rows) for task, rows in by_task.items()),
            *([Table(("file", "takes most often"), confusions)] if confusions else []),
            *(_changes(path, e) for path, e in each_ if e.changed_answers),
        )


def _table(name: str, evaluations: Sequence[tuple[str, Evaluation]]) -> Table:
    metrics = TASKS.load(name).METRICS
    headers = ("file", "runtime", "images", *(metric.title for metric in metrics))
    rows = tuple(
        (
            path,
            e.target.runtime,
            str(e.images),
            *(units.metric(e.metrics.get(metric.name), metric.unit) for metric in metrics),
            units.percent(e.agreement),
            "–" if _emulated(e) else f"{e.images_per_second:.0f}",
        )
        for path, e in evaluations
    )
    title = ", ".join(
        part for part in ("" if name == "classification" else name, _where(evaluations)) if part
    )
    headers += ("agrees with float", "images/s")
    return Table(headers, rows, title, optional=("images/s", "images"))


def _confusions(evaluation: Evaluation) -> str:
    labels = evaluation.preprocessing.labels or evaluation.data.labels

    def name(index: int) -> str:
        return class_name(labels, evaluation.class_count or 0, index)

    return ", ".join(
        f"{name(true)} for {name(predicted)} ({'once' if count == 1 else f'{count} times'})"
        for true, predicted, count in evaluation.confusion[:CONFUSIONS]
    )


def _changes(path: str, evaluation: Evaluation) -> Table:
    changes = evaluation.changed_answers
    rows = tuple(
        (change.sample, change.reference or "–", change.answer or "–", change.label or "–")
        for change in changes[:CHANGES]
    )
    title = f"{path}: {len(changes)} of {evaluation.images} answers differ from the float model's"
    if len(changes) > len(rows):
        title += f", the first {len(rows)} (--json names all)"
    headers = ("image", "float", "this file", "label")
    # Some tasks have no class to name, and some images no label.
    told = [place for place, cells in enumerate(zip(*rows, strict=True)) if set(cells) != {"–"}]
    return Table(
        tuple(headers[place] for place in told),
        tuple(tuple(row[place] for place in told) for row in rows),
        title,
        names=headers,
    )


def _emulated(evaluation: Evaluation) -> bool:
    """Whether its speed is that of an emulator, and says nothing."""
    return evaluation.target.device.startswith("emulator")


def _where(evaluations: Sequence[tuple[str, Evaluation]]) -> str:
    """Where the files ran, unless that is this host."""
    places = dict.fromkeys(
        f"on {e.target.device} ({e.isa}), {e.target.delegate}"
        for _, e in evaluations
        if e.target.device != HOST
    )
    return "; ".join(places)


def evaluate(
    artifacts: AnyPaths,
    *,
    data: AnyPath | None = None,
    task: str | None = None,
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
) -> EvaluateResult:
    """Evaluates artifacts on labelled images; each result goes to the store at once.

    Example:
        >>> done = md.evaluate("build/mobilenet_v1_0.5_160_demo/int8_best.tflite")
        >>> done.evaluations[0].top1

    Args:
        artifacts: one file or several, of `export` or of any other tool.
        data: `demo`, a folder with a folder of images per class, or an .npz. The default is the
            data of each artifact's export, without its calibration images. Of other data, all
            images count. A file without a record needs it.
        task: a name of `tasks/`; the default is the record's, or what the outputs leave no doubt
            of.
        device: where the files run: `host`, a phone (`adb`, `adb:SERIAL`, `pixel`), a board
            (`ssh:[USER@]HOST[:PORT]`), `emulator:CORE`, or `replay:FILE`. Images are prepared on
            this computer. A recording keeps its own runtime and delegate.
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        delegate: `xnnpack`, `none`, or `gpu` with the native runner; the default is the first of
            the runtime.
        strict: the delegate must take all operators.
        threads: the number of runners at once, with one thread each; the default is one per core of
            this computer, and one on a phone or board.
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
        An evaluation for each artifact. If one of several fails, it is in `failed` with the reason.

    Raises:
        InputError: an artifact with the record of another file; NaN in an answer; more than
            max(5, 1 %) broken images.
        UsageError: an unknown device, runtime or delegate, or a runtime that does not run an
            artifact's format; an unknown data set; images that say nothing about the model.
        DeviceError: a runner died or hangs, or the device was lost.
        MissingError: the emulator is not installed.
    """
    failures = Failures()
    paths, reporter = arguments.paths(artifacts), reporter or PythonReporter()
    overrides = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    options = PredictionOptions(device, runtime, delegate, threads, arguments.path(record), strict)
    with Predictor(options, "evaluate", reporter) as predictor:
        evaluations = each(
            paths,
            failures,
            predictor=predictor,
            images=EvaluationImages(arguments.text(data), overrides, task or "", reporter, limit),
            reporter=reporter,
        )
        if predictor.is_recorded:
            failures.check(DeviceError)
    if len(paths) == 1:
        failures.check()
    return EvaluateResult(
        tuple(map(str, evaluations)), tuple(evaluations.values()), failures.records()
    )
