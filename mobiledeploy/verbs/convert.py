"""Model -> files, in a process of its own: the one place where TensorFlow runs.

The parent (`produce`) stays light, answers Ctrl-C at once, and has TensorFlow's memory back when
the child ends. Request and events are records, one a line, on the child's standard streams.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from mobiledeploy.core import preprocessing, records
from mobiledeploy.core.errors import BrokenImage, DeployError, InputError, MissingError, UsageError
from mobiledeploy.core.plugins import CONVERTERS, FORMATS, FRAMEWORKS, RECIPES, dataset
from mobiledeploy.core.ports import Images, Notify
from mobiledeploy.core.types import (
    DataRef,
    Doubt,
    Failure,
    InputOutput,
    Model,
    ModelFile,
    ModelSpec,
    Output,
    Progress,
)

# Fewer than this leave activation ranges to chance.
ENOUGH_CALIBRATION_IMAGES = 10


@dataclass(frozen=True)
class Request:
    """What to make. `jobs` are (recipe, format) pairs; files go to `folder` as recipe.suffix.

    `model` is a user's whole model; without it the spec's architecture is built and `weights`
    loaded (None: seeded random ones). `golden` are indices into the validation split of `data`.
    """

    spec: ModelSpec
    resolution: tuple[int, int] | None
    model: ModelFile | None
    weights: str | None
    jobs: tuple[tuple[str, str], ...]
    data: DataRef
    golden: tuple[int, ...]
    io: InputOutput
    output: Output
    folder: str


@dataclass(frozen=True)
class Converted:
    """One file made. `seconds` is the time of its conversion alone."""

    recipe: str
    format: str
    path: str
    seconds: float


@dataclass(frozen=True)
class Finished:
    """The end of a request: what the model turned out to be, and its own float answers.

    `reference` are logits, a row for each golden sample.
    """

    resolution: tuple[int, int]
    classes: int
    calibration_images: int
    reference: tuple[tuple[float, ...], ...]


def produce(request: Request, log: Path, notify: Notify) -> tuple[tuple[Converted, ...], Finished]:
    """Runs the request in a child; its errors are raised here as they were there.

    What TensorFlow prints goes to the file `log`.
    """
    # -P: a numpy.py that lies in the current folder is not our numpy.
    argv = [sys.executable, "-P", "-m", "mobiledeploy.verbs.convert"]
    converted: list[Converted] = []
    # tf2onnx walks sets of names: without a fixed hash seed no two files would be the same.
    # What TensorFlow leaves in its temporary folder goes with the request's own.
    temporary = Path(request.folder) / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONHASHSEED": "0", "TMPDIR": str(temporary)}
    # A session of its own, so that the terminal's Ctrl-C reaches the parent alone.
    with log.open("wb") as stderr, subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
        start_new_session=True, env=environment,
    ) as child:  # fmt: skip
        try:
            assert child.stdin and child.stdout
            # A child that died at once is found out by its silence.
            with suppress(BrokenPipeError):
                child.stdin.write(records.line(request) + "\n")
                child.stdin.flush()
            for text in child.stdout:
                event = _event(text)
                if isinstance(event, Progress):
                    notify.progress(event.what, event.done, event.total)
                elif isinstance(event, Doubt):
                    notify.doubt(event)
                elif isinstance(event, Converted):
                    converted.append(event)
                elif isinstance(event, Failure):
                    raise _error(event)
                else:
                    return tuple(converted), event
            child.wait()
        finally:
            child.kill()
    raise DeployError(
        f"the conversion process died with status {child.returncode}", _last_line(log)
    )


Event = Progress | Doubt | Converted | Finished | Failure
_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (Progress, Doubt, Converted, Finished, Failure)
}


def _event(text: str) -> Event:
    for name, kind in _EVENTS.items():
        if f'"record":"{name}"' in text:
            return records.loads(kind, text, "the conversion's answer")
    raise DeployError(f"the conversion process said {text.strip()[:80]!r}")


def _error(failure: Failure) -> DeployError:
    kinds = {kind.exit_code: kind for kind in (UsageError, MissingError, InputError)}
    return kinds.get(failure.exit_code, DeployError)(failure.message, failure.hint)


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def calibration_images(data: DataRef, spec: ModelSpec, notify: Notify) -> Images:
    """The calibration split of `data`, prepared: float32 [N, H, W, 3]."""
    samples = dataset(data.source).open(
        data.source, "calibration", resolution=spec.resolution, labels=data.labels
    )
    images = []
    for index in range(len(samples)):
        try:
            picture = samples.image(index)
        except BrokenImage as error:
            notify.doubt(Doubt("broken-image", f"calibration skips {error.message}"))
            continue
        images.append(preprocessing.prepare(picture, spec.preprocessing, spec.resolution))
    if len(images) < ENOUGH_CALIBRATION_IMAGES:
        notify.doubt(
            Doubt(
                "few-calibration-images",
                f"activation ranges come from {len(images)} images only",
                "give at least 100 that look like what the model will see",
            )
        )
    if not images:
        raise InputError(f"{data.source} has no readable calibration image")
    return np.stack(images)


class _Speaker:
    """A Notify that tells the parent."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def event(self, record: Event) -> None:
        self.stream.write(records.line(record) + "\n")
        self.stream.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        self.event(Progress(what, done, total))

    def doubt(self, doubt: Doubt) -> None:
        self.event(doubt)

    def say(self, line: str) -> None:
        """The child has nothing to say that is not an event."""


def _work(request: Request, speak: _Speaker) -> None:
    speak.progress("loading TensorFlow", 0, 1)
    model, spec = _model(request)
    speak.progress("loading TensorFlow", 1, 1)
    reference = _reference(request, spec, model)
    calibrate = any(RECIPES.load(recipe).RECIPE.calibration for recipe, _ in request.jobs)
    images = (
        calibration_images(request.data, spec, speak)
        if calibrate
        else np.empty((0, *spec.resolution, 3), np.float32)
    )
    for done, (recipe, format_) in enumerate(request.jobs):
        speak.progress("converting", done, len(request.jobs))
        speak.event(_convert(request, spec, model, images, recipe, format_))
    speak.progress("converting", len(request.jobs), len(request.jobs))
    speak.event(Finished(spec.resolution, spec.classes, len(images), reference))


def _model(request: Request) -> tuple[Model, ModelSpec]:
    """The live model, and the spec with its true resolution and class count."""
    if request.model is None:
        from mobiledeploy.frameworks import tf_keras

        weights = None if request.weights is None else Path(request.weights)
        return tf_keras.build(request.spec, weights), request.spec
    framework = FRAMEWORKS.load(request.model.framework)
    model = framework.load(request.model)
    inputs, outputs = framework.shapes(model)
    classes = outputs[1]
    if classes is None or classes < 2:
        raise InputError("the model gives one score; a classifier of two or more classes is needed")
    height, width = inputs[1], inputs[2]
    resolution = request.resolution or (height or 0, width or 0)
    if 0 in resolution:
        raise UsageError("the model takes any resolution", "say which with --res")
    if any(
        fixed not in (None, asked) for fixed, asked in zip((height, width), resolution, strict=True)
    ):
        raise UsageError(f"the model takes {height}x{width} only", "leave --res away")
    spec = dataclasses.replace(request.spec, resolution=resolution, classes=classes)
    return model, spec


def _convert(
    request: Request, spec: ModelSpec, model: Model, images: Images, recipe: str, format_: str
) -> Converted:
    started = time.perf_counter()
    shelf = FORMATS.load(format_)
    data = CONVERTERS.load(format_).convert(
        model, RECIPES.load(recipe).RECIPE, images,
        resolution=spec.resolution, io=request.io, output=request.output,
    )  # fmt: skip
    path = Path(request.folder) / f"{recipe}{shelf.SUFFIX}"
    records.write_atomic(path, shelf.seal(data))
    return Converted(recipe, format_, str(path), time.perf_counter() - started)


def _reference(request: Request, spec: ModelSpec, model: Model) -> tuple[tuple[float, ...], ...]:
    from mobiledeploy.frameworks import graph

    data = request.data
    samples = dataset(data.source).open(
        data.source, "validation", resolution=spec.resolution, labels=data.labels
    )
    images = np.stack(
        [
            preprocessing.prepare(samples.image(i), spec.preprocessing, spec.resolution)
            for i in request.golden
        ]
    )
    frozen = graph.freeze(model, spec.resolution)
    logits = frozen.run(images)
    if not np.isfinite(logits).all():
        raise InputError("the model answers with NaN or infinity", "check its weights")
    if request.output == "softmax":
        graph.check_logits(frozen, logits)
    return tuple(tuple(float(v) for v in row) for row in logits)


def _die_with_parent() -> None:
    """Ends this process when its standard input closes, which is when the parent is gone."""
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """The child: one request in, events out."""
    # Libraries print on standard output too; only events may go to the parent.
    speak = _Speaker(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    try:
        request = records.loads(Request, sys.stdin.readline(), "the request")
        threading.Thread(target=_die_with_parent, daemon=True).start()
        _work(request, speak)
    except DeployError as error:
        speak.event(Failure(error.exit_code, error.message, error.hint))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        speak.event(Failure(2, f"the conversion cannot read or write a file: {reason}{where}", ""))
    os._exit(0)  # TensorFlow's own teardown takes a second and gains nothing.


if __name__ == "__main__":
    main()
