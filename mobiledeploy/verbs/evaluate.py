"""Evaluates artifacts on labelled images: top-1, top-5, agreement with float, confusion.

A pool of runner processes, one per core, decodes, prepares and answers in parallel. This process
gives each of them ranges of images and keeps the five best classes of each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobiledeploy.core import units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import ChannelOrder, Evaluation, Failed, Resize
from mobiledeploy.steps import arguments
from mobiledeploy.steps.arguments import AnyPath, AnyPaths, Labels, Triple
from mobiledeploy.steps.evaluations import each
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.reporters import PythonReporter


@dataclass(frozen=True)
class EvaluateResult(Record):
    """The answer of `evaluate`: an evaluation for each path, in their order.

    `failed` are the paths without an evaluation, each with its reason.
    """

    paths: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    failed: tuple[Failed, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """A row for each file, with the metrics of its task; a table for each task."""
        by_task: dict[str, list[tuple[str, Evaluation]]] = {}
        for path, e in zip(self.paths, self.evaluations, strict=True):
            by_task.setdefault(e.task, []).append((path, e))
        return tuple(_table(task, rows) for task, rows in by_task.items())


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
            f"{e.images_per_second:.0f}",
        )
        for path, e in evaluations
    )
    title = "" if name == "classification" else name
    headers += ("agrees with float", "images/s")
    return Table(headers, rows, title, optional=("images/s", "images"))


def evaluate(
    artifacts: AnyPaths,
    *,
    data: AnyPath | None = None,
    task: str | None = None,
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
        runtime: the default is litert for TFLite and onnxruntime for ONNX.
        threads: the number of runners at once, with one thread each; the default is one per core.
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
        UsageError: an unknown runtime, or one that does not run an artifact's format; an unknown
            data set; images that say nothing about the model.
        DeviceError: a runner died or hangs.
    """
    failures = Failures()
    paths = arguments.paths(artifacts)
    evaluations = each(
        paths,
        failures,
        data=arguments.text(data),
        runtime=runtime,
        threads=threads,
        overrides=arguments.overrides(input_range, mean, std, channels, resize, crop, labels),
        task=task or "",
        reporter=reporter or PythonReporter(),
    )
    if len(paths) == 1:
        failures.check()
    return EvaluateResult(
        tuple(map(str, evaluations)), tuple(evaluations.values()), failures.records()
    )
