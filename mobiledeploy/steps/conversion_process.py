"""Model -> files, in a process of its own (`steps/child_process.py`), where TensorFlow runs."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import inputs, preprocessing, records
from mobiledeploy.core.errors import BrokenImage, DeployError, InputError, MissingError
from mobiledeploy.core.plugins import FORMATS, PASSES, RECIPES, WRITERS, dataset, missing, source_of
from mobiledeploy.core.ports import Images, OpenedModel, Reporter
from mobiledeploy.core.types import (
    DataRef,
    Failed,
    InputOutput,
    ModelSpec,
    NamedWarning,
    Output,
    QuantizedGraph,
    Recipe,
    RecipeAlternative,
    Source,
)
from mobiledeploy.steps import child_process
from mobiledeploy.steps.child_process import Speaker

# Fewer than this leave activation ranges to chance.
ENOUGH_CALIBRATION_IMAGES = 10
# Below this share of the range, what a pixel varies by from image to image tells nothing.
ALIKE = 0.01
TRAINING_IMAGES = 2000
"""What quantization-aware training sees at most: more than its steps look at once."""
ENOUGH_TRAINING_IMAGES = 100
# One in so many calibration images tells a recipe's alternatives apart; what is chosen is made anew
# with all of them.
HELD_EVERY = 5


@dataclass(frozen=True)
class ConversionRequest:
    """What to make. `jobs` are (recipe, format) pairs; files go to `folder` as recipe.suffix.

    `golden` are indices into the validation split of `data`. A job that cannot be done costs that
    job: as long as another can be done, it is in `ConversionSummary.failed` where `strict`, else
    left out with a warning. `keep_float` are layers that integer files compute in float.
    `unfinished` is the folder in which a training that is broken off leaves what the next one goes
    on from; "" for nowhere that lasts.
    """

    source: Source
    jobs: tuple[tuple[str, str], ...]
    data: DataRef
    golden: tuple[int, ...]
    io: InputOutput
    output: Output
    folder: str
    strict: bool = True
    keep_float: tuple[str, ...] = ()
    unfinished: str = ""


@dataclass(frozen=True)
class ConvertedFile:
    """One file made. `seconds` is the time of its conversion alone.

    `tried` are the alternatives of its recipe, where there was a choice; `kept` what its tensors
    are called whose operators compute in float because that was asked for.
    """

    recipe: str
    format: str
    path: str
    seconds: float
    tried: tuple[RecipeAlternative, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConversionSummary:
    """The end of a request: what the model turned out to be, and its own float answers.

    `reference` are logits, a row for each golden sample. `failed` are files that were asked for by
    name and could not be made.
    """

    resolution: tuple[int, int]
    classes: int
    calibration_images: int
    reference: tuple[tuple[float, ...], ...]
    failed: tuple[Failed, ...] = ()


def produce(
    request: ConversionRequest, log: Path, reporter: Reporter
) -> tuple[tuple[ConvertedFile, ...], ConversionSummary]:
    """Runs the request in a child; its errors are raised here as they were there.

    What TensorFlow prints goes to the file `log`.
    """
    converted: list[ConvertedFile] = []
    answers = child_process.events(
        "conversion_process",
        request,
        (ConvertedFile, ConversionSummary),
        what="the conversion",
        log=log,
        temporary=Path(request.folder) / "tmp",
        reporter=reporter,
        files=child_process.read_by(request.source),
    )
    with closing(answers):
        for event in answers:
            if isinstance(event, ConversionSummary):
                return tuple(converted), event
            converted.append(event)
    raise AssertionError("the iterator ends in an error of its own")


def calibration_images(data: DataRef, spec: ModelSpec, reporter: Reporter) -> Images:
    """The calibration split of `data`, prepared, each image once: float32 [N, H, W, 3]."""
    samples = dataset(data.source).open(
        data.source, "calibration", resolution=spec.resolution, labels=data.labels
    )
    found: dict[bytes, Images] = {}
    read = 0
    for index in range(len(samples)):
        try:
            pixels = samples.image(index)
        except BrokenImage as error:
            reporter.warn(NamedWarning("broken-image", f"calibration skips {error.message}"))
            continue
        read += 1
        image = preprocessing.prepare(pixels, spec.preprocessing, spec.resolution)
        found.setdefault(hashlib.sha256(image.tobytes()).digest(), image)
    images = list(found.values())
    _warning_alike(images, read, spec, reporter)
    if len(images) < ENOUGH_CALIBRATION_IMAGES:
        reporter.warn(
            NamedWarning(
                "few-calibration-images",
                f"activation ranges come from {len(images)} image{'s' * (len(images) != 1)} only",
                "give at least 100 that look like what the model will see",
            )
        )
    if not images:
        raise InputError(f"{data.source} has no readable calibration image")
    return np.stack(images)


def training_images(data: DataRef, spec: ModelSpec, folder: Path, reporter: Reporter) -> Images:
    """The training split of `data`, prepared: float32 [N, H, W, 3], mapped from a file in `folder`.

    Of more than `TRAINING_IMAGES` so many, evenly spread.
    """
    samples = dataset(data.source).open(
        data.source, "train", resolution=spec.resolution, labels=data.labels
    )
    chosen = np.unique(np.linspace(0, len(samples) - 1, TRAINING_IMAGES, dtype=int))
    shape = (len(chosen), *spec.resolution, 3)
    with records.writing(folder):
        images: Images = np.memmap(folder / "training.f32", np.float32, "w+", shape=shape)
    read = 0
    for done, index in enumerate(chosen):
        if done % 50 == 0:
            reporter.progress("reading training images", done, len(chosen))
        try:
            pixels = samples.image(int(index))
        except BrokenImage as error:
            reporter.warn(NamedWarning("broken-image", f"training skips {error.message}"))
            continue
        images[read] = preprocessing.prepare(pixels, spec.preprocessing, spec.resolution)
        read += 1
    if not read:
        raise InputError(f"{data.source} has no readable image to train on")
    if read < ENOUGH_TRAINING_IMAGES:
        reporter.warn(
            NamedWarning(
                "few-training-images",
                f"quantization-aware training sees {read} images only",
                "give a thousand that look like what the model will see; no labels are needed",
            )
        )
    return images[:read]


def _warning_alike(
    images: Sequence[Images], read: int, spec: ModelSpec, reporter: Reporter
) -> None:
    """Says where calibration images show the network next to nothing."""
    advice = "give images as different as those that the model will see"
    if len(images) < read / 2:
        message = f"the {read} calibration images are copies of {len(images)}: each counts once"
        reporter.warn(NamedWarning("alike-calibration-images", message, advice))
    elif len(images) > 1:
        low, high = spec.preprocessing.input_range
        spread = float(np.std(images, axis=0).mean()) * float(np.mean(spec.preprocessing.std))
        share = spread / (high - low)
        if share < ALIKE:
            message = (
                f"the {len(images)} calibration images are all alike: "
                f"a pixel varies by {share:.1%} of its range"
            )
            reporter.warn(NamedWarning("alike-calibration-images", message, advice))


def _warning_range(model: OpenedModel, spec: ModelSpec, images: Images, reporter: Reporter) -> None:
    """Says where the network was trained on pixels of another range than these have."""
    better = model.likelier_range(spec.preprocessing, images)
    if better is not None:
        low, high = (f"{end:g}" for end in spec.preprocessing.input_range)
        message = (
            f"the calibration images, scaled to {low},{high}, are not what the model was trained "
            f"on: its first BatchNorm remembers pixels of {better[0]:g},{better[1]:g}"
        )
        advice = f"--input-range {better[0]:g},{better[1]:g}, unless the model says otherwise"
        reporter.warn(NamedWarning("unlike-training", message, advice))


def file_name(recipe: str, format_: str) -> str:
    """What a job's file is called."""
    return f"{recipe}{FORMATS.load(format_).SUFFIX}"


def failure(recipe: str, format_: str, error: DeployError) -> Failed:
    """What is said of a job that was asked for by name, and that cannot be done."""
    return Failed(file_name(recipe, format_), str(error), error.exit_code)


def left_out(recipe: str, format_: str, error: DeployError) -> NamedWarning:
    """What is said of a job that nobody asked for by name, and that cannot be done."""
    name = file_name(recipe, format_)
    said = error.message.removeprefix(f"{name} ")
    return NamedWarning("left-out", f"{name} is left out: {said}", error.hint)


def _work(request: ConversionRequest, speak: Speaker) -> None:
    speak.progress("opening the model", 0, 1)
    model = source_of(request.source).open(request.source)
    spec = dataclasses.replace(
        request.source.spec, resolution=model.resolution, classes=model.classes
    )
    speak.progress("opening the model", 1, 1)
    reference = _reference(request, spec, model)
    calibrate = any(RECIPES.load(recipe).RECIPE.calibration for recipe, _ in request.jobs)
    images = (
        calibration_images(request.data, spec, speak)
        if calibrate
        else np.empty((0, *spec.resolution, 3), np.float32)
    )
    if len(images):
        _warning_range(model, spec, images, speak)
    floats = model.floats(request.output)
    # All files begin from that; a large network's weights need not stay twice.
    del model
    press = _Press(request, spec, floats, images, speak)
    refused: list[DeployError] = []
    failed: list[Failed] = []
    for done, (recipe, format_) in enumerate(request.jobs):
        speak.progress("converting", done, len(request.jobs))
        try:
            speak.event(_convert(request, press, recipe, format_))
        except (InputError, MissingError) as error:
            refused.append(error)
            if len(refused) == len(request.jobs):
                raise
            if request.strict:
                failed.append(failure(recipe, format_, error))
            else:
                speak.warn(left_out(recipe, format_, error))
    speak.progress("converting", len(request.jobs), len(request.jobs))
    speak.event(
        ConversionSummary(spec.resolution, spec.classes, len(images), reference, tuple(failed))
    )


@dataclass
class _Press:
    """Makes files of one model; what another file is made from is made once."""

    request: ConversionRequest
    spec: ModelSpec
    model: bytes
    images: Images
    speak: Speaker
    made: dict[str, bytes] = field(default_factory=dict)
    tried: dict[str, tuple[RecipeAlternative, ...]] = field(default_factory=dict)
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def file(self, recipe: str, format_: str) -> bytes:
        """The model by `recipe` in `format_`, unsealed."""
        if recipe not in self.made:
            self.made[recipe] = self._tflite(RECIPES.load(recipe).RECIPE)
        return WRITERS.load(format_).write(self.made[recipe])

    def _tflite(self, recipe: Recipe) -> bytes:
        from mobiledeploy.graphs import quantized

        if not recipe.full_integer:
            return quantized.without_calibration(self.model, recipe)
        quantized_graph = self._trained(recipe)
        self.kept[recipe.name] = quantized_graph.kept
        return quantized.finish(quantized_graph)

    def _trained(self, recipe: Recipe) -> QuantizedGraph:
        """The recipe's draft, after its training if it has one, which goes on where it was."""
        folder = Path(self.request.unfinished or self.request.folder)
        places = [folder / f"{recipe.name}-{done}.npz" for done in range(len(recipe.training) + 1)]
        if not recipe.training:
            return self._quantized_graph(recipe)
        from mobiledeploy.graphs import quantized

        done = max((n for n, place in enumerate(places) if place.is_file()), default=0)
        if done:
            quantized_graph = quantized.restore(
                inputs.read(places[done], inputs.MODEL), recipe, self.request.io
            )
            self.speak.say(
                f"{recipe.name}: training goes on after part {done} of {len(places) - 1}"
            )
        else:
            quantized_graph = self._quantized_graph(recipe)
        if done < len(recipe.training):
            try:
                from mobiledeploy.training import qat
            except ModuleNotFoundError as error:
                raise missing(error.name or "tensorflow") from error
            training_set = training_images(
                self.request.data, self.spec, Path(self.request.folder), self.speak
            )
        for number in range(done, len(recipe.training)):
            part = f"part {number + 1} of {len(recipe.training)}"

            def progress(what: str, at: int, of: int, part: str = part) -> None:
                self.speak.progress(f"{what}, {part}", at, of)

            quantized_graph = qat.apply(quantized_graph, training_set, progress)
            with records.writing(places[number + 1].parent):
                places[number + 1].parent.mkdir(parents=True, exist_ok=True)
            records.write_atomic(places[number + 1], quantized.save(quantized_graph))
            places[number].unlink(missing_ok=True)
        return quantized_graph

    def _quantized_graph(self, recipe: Recipe) -> QuantizedGraph:
        """The recipe's draft, by that of its alternatives which keeps most of the float answers."""
        floats, images = self.model, self.images
        if len(recipe.passes) > 1 and len(images) >= ENOUGH_CALIBRATION_IMAGES:
            held = np.arange(len(images)) % HELD_EVERY == HELD_EVERY - 1
            chosen = self._best(recipe, floats, images[~held], images[held])
            return self._passed(recipe, chosen, floats, images, {})
        if len(recipe.passes) > 1:
            self.speak.warn(
                NamedWarning(
                    "no-choice",
                    f"{recipe.name} is the plain {' and '.join(recipe.passes[0]) or 'int8'}: "
                    f"{len(images)} calibration images are too few to choose by",
                    f"give {ENOUGH_CALIBRATION_IMAGES} or more",
                )
            )
        return self._passed(recipe, recipe.passes[0], floats, images, {})

    def _best(self, recipe: Recipe, floats: bytes, fit: Images, held: Images) -> tuple[str, ...]:
        """That order of passes, fitted to `fit`, whose answers diverge least on `held`."""
        from mobiledeploy.graphs import execution, quantized

        reference = execution.logits(floats, held)
        warm = accuracy.temperature(reference)
        tried = []
        known: dict[tuple[str, ...], QuantizedGraph] = {}
        for number, names in enumerate(recipe.passes):
            self.speak.progress(f"choosing {recipe.name}", number, len(recipe.passes))
            quantized_graph = self._passed(recipe, names, floats, fit, known)
            logits = execution.logits(quantized.integers(quantized_graph), held)
            result = RecipeAlternative(
                names,
                accuracy.divergence(reference, logits, warm),
                warm,
                accuracy.sqnr_db(reference, logits),
                float(np.mean(logits.argmax(axis=1) == reference.argmax(axis=1))),
                len(held),
            )
            tried.append(result)
        self.speak.progress(f"choosing {recipe.name}", len(tried), len(tried))
        self.tried[recipe.name] = tuple(tried)
        taken = min(tried, key=lambda one: one.divergence)
        self.speak.say(
            f"{recipe.name}: {', '.join(taken.passes) or 'no pass'}, the best of {len(tried)} "
            f"alternatives on {taken.images} images held back: it diverges from float by "
            f"{taken.divergence:.2g} nats, the plain one by {tried[0].divergence:.2g}"
        )
        return taken.passes

    def _passed(
        self,
        recipe: Recipe,
        names: tuple[str, ...],
        floats: bytes,
        images: Images,
        known: dict[tuple[str, ...], QuantizedGraph],
    ) -> QuantizedGraph:
        """The quantized graph through these passes; `known` keeps what alternatives began with."""
        from mobiledeploy.graphs import quantized

        if names not in known:
            if names:
                before = self._passed(recipe, names[:-1], floats, images, known)
                known[names] = PASSES.load(names[-1]).apply(before, images)
            else:
                kept = self.request.keep_float
                known[names] = quantized.start(floats, recipe, self.request.io, images, kept)
            if self.request.io == "uint8":
                # Code p is pixel p, whatever the calibration images leave out.
                ends = preprocessing.extent(self.spec.preprocessing)
                known[names] = quantized.spanning(known[names], *ends)
        return known[names]


def _convert(request: ConversionRequest, press: _Press, recipe: str, format_: str) -> ConvertedFile:
    started = time.perf_counter()
    data = FORMATS.load(format_).seal(press.file(recipe, format_))
    path = Path(request.folder) / file_name(recipe, format_)
    records.write_atomic(path, data)
    seconds = time.perf_counter() - started
    return ConvertedFile(
        recipe, format_, str(path), seconds, press.tried.get(recipe, ()), press.kept.get(recipe, ())
    )


def _reference(
    request: ConversionRequest, spec: ModelSpec, model: OpenedModel
) -> tuple[tuple[float, ...], ...]:
    data = request.data
    samples = dataset(data.source).open(
        data.source, data.split, resolution=spec.resolution, labels=data.labels
    )
    images = np.stack(
        [
            preprocessing.prepare(samples.image(i), spec.preprocessing, spec.resolution)
            for i in request.golden
        ]
    )
    logits = model.answers(images)
    if not np.isfinite(logits).all():
        raise InputError("the model answers with NaN or infinity", "check its weights")
    if request.output == "softmax" and not model.ends_in_softmax():
        _refuse_probabilities(logits)
    return tuple(tuple(float(v) for v in row) for row in logits)


def _refuse_probabilities(rows: NDArray[np.float32]) -> None:
    """InputError where `rows` [N, classes] are probabilities already.

    A model that ends in a softmax of its own making would get a second one. A row of probabilities
    has no number below 0, and sums to 1 within 1e-3.
    """
    if (rows >= 0).all() and (abs(rows.sum(axis=1) - 1) <= 1e-3).all():
        raise InputError(
            "the model's answers are probabilities already, but no softmax stands at its end",
            "leave --output away: the file answers as the model does",
        )


if __name__ == "__main__":
    child_process.serve(ConversionRequest, _work, what="the conversion")
