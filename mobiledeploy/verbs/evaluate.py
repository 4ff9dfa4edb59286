"""Artifacts on labelled images: top-1, top-5, agreement with the float model, confusion.

A pool of runner processes, one for each core, decodes, prepares and answers in parallel; this
process hands out ranges of images and keeps the five best classes of each answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobiledeploy.core import units
from mobiledeploy.core.display import Record, Table
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

    `failed` are the paths that have none, each with its reason.
    """

    paths: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    failed: tuple[Failed, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """A row for each file."""
        headers = ("file", "runtime", "images", "top-1", "top-5", "agrees with float", "images/s")
        rows = tuple(
            (
                path,
                e.target.runtime,
                str(e.images),
                units.percent(e.top1),
                units.percent(e.top5),
                units.percent(e.agreement),
                f"{e.images_per_second:.0f}",
            )
            for path, e in zip(self.paths, self.evaluations, strict=True)
        )
        return (Table(headers, rows),)


def evaluate(
    artifacts: AnyPaths,
    *,
    data: AnyPath | None = None,
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
    """Judges artifacts on labelled images; each result is in the store as soon as it exists.

    Example:
        >>> done = md.evaluate("build/mobilenet_v1_0.5_160_demo/int8_best.tflite")
        >>> done.evaluations[0].top1

    Args:
        artifacts: one file or several that `export` made, their records beside them.
        data: `demo`, a folder with a folder of images for each class, or an .npz. By default what
            each artifact was exported with; of that the images are taken that calibrated nothing,
            of any other data all.
        runtime: by default litert for TFLite and onnxruntime for ONNX.
        threads: how many runners at once, each with one thread; by default one for each core.
        input_range: (low, high), what pixels 0 to 255 become. This and the next six are by default
            the artifact's own.
        mean: subtracted from each channel, after `input_range`.
        std: what each channel is divided by, after `mean`.
        channels: `rgb` or `bgr`.
        resize: `bilinear` or `bicubic`.
        crop: the central fraction of each side that is kept, above 0 and at most 1.
        labels: names of the classes in the model's order, or a file with one a line.
        reporter: hears of progress and warnings; by default a `PythonReporter`.

    Returns:
        An evaluation for each artifact. Where one of several fails, the others have theirs, and
        `failed` says why.

    Raises:
        InputError: an artifact without its record, or one that the record does not speak of; NaN
            in an answer; more than max(5, 1 %) images that cannot be read.
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
        reporter=reporter or PythonReporter(),
    )
    if len(paths) == 1:
        failures.check()
    return EvaluateResult(
        tuple(map(str, evaluations)), tuple(evaluations.values()), failures.records()
    )
