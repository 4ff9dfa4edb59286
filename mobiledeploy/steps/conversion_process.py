"""Model -> files, in a process of its own (`steps/child_process.py`), where TensorFlow runs."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import detectors, inputs, preprocessing, records
from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import BrokenImage, DeployError, InputError, MissingError
from mobiledeploy.core.measurements import Measurements
from mobiledeploy.core.plugins import (
    FORMATS,
    PASSES,
    RECIPES,
    TASKS,
    WRITERS,
    dataset,
    missing,
    source_of,
)
from mobiledeploy.core.ports import ExactPass, OpenedModel, Reporter
from mobiledeploy.core.types import (
    DataRef,
    Failed,
    InputOutput,
    ModelInput,
    ModelSpec,
    NamedWarning,
    Output,
    QuantizedGraph,
    Recipe,
    RecipeAlternative,
    ShrunkLayer,
    Signature,
    Source,
)
from mobiledeploy.steps import child_process, task_choice
from mobiledeploy.steps.child_process import Speaker

Floats = NDArray[np.float32]
# Fewer than this leave activation ranges to chance.
ENOUGH_CALIBRATION_IMAGES = 10
# If pixels vary from image to image by less than this share of the range, images are too alike.
ALIKE = 0.01
_PIXELS = (0.0, 255.0)
EMBEDDING = "embedding"
"""The task of a model that is cut at its last pooling, and the name of its output."""
# dB, of the whole float TFLite where a file ends elsewhere: see `file_checks.LEAST_SQNR`.
LEAST_RAW_SQNR = 60.0
REPORT = "please report it, with the model if you can"
TRAINING_IMAGES = 2000
"""The most images for quantization-aware training; more than its steps use once."""
ENOUGH_TRAINING_IMAGES = 100
# One in so many calibration images is held back to judge the alternatives of a recipe. The best
# alternative is made again with all images.
HELD_EVERY = 5
_JUDGING = 40
"""The most images for the choice of the input's codes, which costs an inference each."""
MULTIPLE = 8
"""Channels are left out by so many (`ExactPass`), unless the forms of a file are counted."""
_HALF_PIXEL = 0.51
"""In pixels, with room for the rounding of a range that is told in decimals."""
HALF = 16
HALF_NOT_SEEN = "half-not-seen"
"""Bits of weights in half precision."""
_ARM = ("aarch64", "arm64")
_FLOATS, _RECORD = "floats.tflite", "floats.json"
"""The files of `ConversionRequest.opened`."""


@dataclass(frozen=True)
class ConversionRequest:
    """The files to make. `jobs` are (recipe, format) pairs; files go to `folder` as recipe.suffix.

    `golden` are indices into the validation split of `data`, which has so many `classes`, 0 if it
    has no labels. A job that cannot be done does not
    stop the others: it is in `ConversionSummary.failed` if `strict`, else left out with a warning.
    `keep_float` are layers that integer files compute in float. An interrupted training leaves its
    parts in the folder `unfinished`, and the next training resumes there; "" for no lasting folder.
    `shrink` leaves out what no answer depends on. The folder `opened` is for what the files of one
    model are made from: the first request leaves it there, and others, which differ in `jobs` and
    `keep_float` only, need not open the model again; "" for no such folder. `forms` asks for every
    form of each file (`steps/target_core.py`).
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
    classes: int = 0
    shrink: bool = True
    opened: str = ""
    forms: bool = False


@dataclass(frozen=True)
class OpenedFloats:
    """What all files of a model are made from, beside its float TFLite.

    `output_names` are the model's own. `likelier_range` is the range of pixels that its statistics
    fit better than its preprocessing, None without one or without calibration samples. The rest is
    as in `ConversionSummary`.
    """

    spec: ModelSpec
    signature: Signature
    output: Output
    output_names: tuple[str, ...]
    reference: tuple[tuple[float, ...], ...]
    shrunk_layers: tuple[ShrunkLayer, ...]
    likelier_range: tuple[float, float] | None


@dataclass(frozen=True)
class ConvertedFile:
    """One converted file, or a form of it. `seconds` is the time of its conversion alone.

    `tried` are the alternatives of its recipe, if there was a choice; `kept` are the names of the
    tensors whose operators compute in float, as `keep_float` or a pass decided, and `float_outputs`
    the places of the outputs among them. `inputs` are its inputs, with the preprocessing that the
    file itself states. `shrunk_layers` are the layers that lost filters in it: tensors keep a
    `multiple` of channels. `pairs` says whether its first convolution reads pairs of pixels.
    """

    recipe: str
    format: str
    path: str
    seconds: float
    tried: tuple[RecipeAlternative, ...] = ()
    kept: tuple[str, ...] = ()
    float_outputs: tuple[int, ...] = ()
    inputs: tuple[ModelInput, ...] = ()
    shrunk_layers: tuple[ShrunkLayer, ...] = ()
    multiple: int = MULTIPLE
    pairs: bool = False


@dataclass(frozen=True)
class ConversionSummary:
    """The end of a request: facts of the model, and its own float answers.

    `spec` is that of the request with what the model itself says. `reference` is a row for each
    golden sample (`analysis.accuracy.golden_row`). `failed` are files that were requested by
    name and could not be made. `output` is what the files end in: that of the request, or `pooled`
    for an embedding that was cut out of a model.
    """

    spec: ModelSpec
    signature: Signature
    calibration_images: int
    reference: tuple[tuple[float, ...], ...]
    failed: tuple[Failed, ...] = ()
    output: Output = "model"


def produce(
    request: ConversionRequest, log: Path, reporter: Reporter
) -> tuple[tuple[ConvertedFile, ...], ConversionSummary]:
    """Runs the request in a child process and raises its errors here.

    The output of TensorFlow goes to the file `log`.
    """
    files: list[ConvertedFile] = []
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
                return tuple(files), event
            files.append(event)
    raise AssertionError("the iterator raises an error before it ends")


def calibration_samples(
    data: DataRef, spec: ModelSpec, signature: Signature, reporter: Reporter
) -> Batch:
    """The calibration split of `data`, prepared, each sample once."""
    samples = dataset(data.source).open(
        data.source, "calibration", resolution=spec.resolution, labels=data.labels
    )
    distinct: dict[bytes, list[NDArray[np.float32]]] = {}
    readable = 0
    for index in range(len(samples)):
        if index % 50 == 0:
            reporter.progress("reading calibration images", index, len(samples))
        try:
            tensors = preprocessing.sample_inputs(samples, index, signature.inputs)
        except BrokenImage as error:
            reporter.warn(NamedWarning("broken-image", f"calibration skips {error.message}"))
            continue
        readable += 1
        digest = hashlib.sha256(b"".join(tensor.tobytes() for tensor in tensors)).digest()
        distinct.setdefault(digest, tensors)
    reporter.progress("reading calibration images", len(samples), len(samples))
    rows = list(distinct.values())
    _warn_alike(rows, readable, signature, reporter)
    if len(rows) < ENOUGH_CALIBRATION_IMAGES:
        reporter.warn(
            NamedWarning(
                "few-calibration-images",
                f"activation ranges come from {len(rows)} image{'s' * (len(rows) != 1)} only",
                "give at least 100 that look like what the model will see",
            )
        )
    if not rows:
        raise InputError(f"{data.source} has no readable calibration image")
    return Batch(tuple(np.stack(column) for column in zip(*rows, strict=True)))


def _need_classifier(recipe: Recipe, spec: ModelSpec) -> None:
    """InputError for another task: the training compares the softmax of two classifiers."""
    if spec.task != "classification":
        raise InputError(
            f"{recipe.name} trains classifiers only, the task of this model is {spec.task}",
            "--recipe int8_best needs no training",
        )


def training_images(
    data: DataRef, spec: ModelSpec, folder: Path, reporter: Reporter
) -> NDArray[np.float32]:
    """The training split of `data`, prepared: float32 [N, H, W, 3], mapped from a file in `folder`.

    If there are more than `TRAINING_IMAGES`, so many of them, evenly spread.
    """
    samples = dataset(data.source).open(
        data.source, "train", resolution=spec.resolution, labels=data.labels
    )
    indices = np.unique(np.linspace(0, len(samples) - 1, TRAINING_IMAGES, dtype=int))
    shape = (len(indices), *spec.resolution, 3)
    with records.writing(folder):
        images: NDArray[np.float32] = np.memmap(
            folder / "training.f32", np.float32, "w+", shape=shape
        )
    readable = 0
    for number, index in enumerate(indices):
        if number % 50 == 0:
            reporter.progress("reading training images", number, len(indices))
        try:
            pixels = samples.image(int(index))
        except BrokenImage as error:
            reporter.warn(NamedWarning("broken-image", f"training skips {error.message}"))
            continue
        images[readable] = preprocessing.prepare(pixels, spec.preprocessing, spec.resolution)
        readable += 1
    reporter.progress("reading training images", len(indices), len(indices))
    if not readable:
        raise InputError(f"{data.source} has no readable image to train on")
    if readable < ENOUGH_TRAINING_IMAGES:
        reporter.warn(
            NamedWarning(
                "few-training-images",
                f"quantization-aware training sees {readable} images only",
                "give a thousand that look like what the model will see; no labels are needed",
            )
        )
    return images[:readable]


def _warn_alike(
    images: Sequence[Sequence[NDArray[np.float32]]],
    readable: int,
    signature: Signature,
    reporter: Reporter,
) -> None:
    """Warns if the calibration samples are copies, or if their images are all alike."""
    advice = "give images as different as those that the model will see"
    if len(images) < readable / 2:
        message = f"the {readable} calibration images are copies of {len(images)}: each counts once"
        reporter.warn(NamedWarning("alike-calibration-images", message, advice))
    elif len(images) > 1 and signature.image is not None:
        place = signature.inputs.index(signature.image)
        how = signature.image.preprocessing
        assert how is not None
        low, high = how.input_range
        spread = float(np.std([row[place] for row in images], axis=0).mean())
        spread *= float(np.mean(how.std))
        share = spread / (high - low)
        if share < ALIKE:
            message = (
                f"the {len(images)} calibration images are all alike: "
                f"a pixel varies by {share:.1%} of its range"
            )
            reporter.warn(NamedWarning("alike-calibration-images", message, advice))


def _warn_range(better: tuple[float, float] | None, spec: ModelSpec, reporter: Reporter) -> None:
    """Warns if the network was trained on pixels of another range."""
    if better is not None:
        low, high = (f"{end:g}" for end in spec.preprocessing.input_range)
        message = (
            f"the calibration images, scaled to {low},{high}, are not what the model was trained "
            f"on: the statistics of its first BatchNorm fit pixels of {better[0]:g},{better[1]:g}"
        )
        advice = f"--input-range {better[0]:g},{better[1]:g}, unless the model says otherwise"
        reporter.warn(NamedWarning("unlike-training", message, advice))


def file_name(recipe: str, format_: str) -> str:
    """The name of a job's file."""
    return f"{recipe}{FORMATS.load(format_).SUFFIX}"


def failure(recipe: str, format_: str, error: DeployError) -> Failed:
    """The failure of a job that was requested by name."""
    return Failed(file_name(recipe, format_), str(error), error.exit_code)


def left_out(recipe: str, format_: str, error: DeployError) -> NamedWarning:
    """The warning about an impossible job that was not requested by name."""
    name = file_name(recipe, format_)
    reason = error.message.removeprefix(f"{name} ")
    return NamedWarning("left-out", f"{name} is left out: {reason}", error.hint)


def _work(request: ConversionRequest, speak: Speaker) -> None:
    kept = Path(request.opened) if request.opened else None
    if kept is not None and (kept / _RECORD).is_file():
        # This folder is our own, and no user's.
        text = inputs.read(kept / _RECORD, inputs.RECORD)
        opened = records.loads(OpenedFloats, text, _RECORD)
        floats = inputs.read(kept / _FLOATS, inputs.MODEL)
        samples = _samples(request, opened.spec, opened.signature, speak)
    else:
        opened, floats, samples = _open(request, speak)
        if kept is not None:
            records.write_atomic(kept / _FLOATS, floats)
            records.write_atomic(kept / _RECORD, records.dumps(opened))
    spec, signature, output_names = opened.spec, opened.signature, opened.output_names
    if len(samples):
        _warn_range(opened.likelier_range, spec, speak)
    golden = _golden(request, spec, signature)
    press = _Press(
        request,
        spec,
        signature,
        floats,
        output_names,
        samples,
        golden,
        speak,
        opened.shrunk_layers,
    )
    presses = [press, *_without_dead(press)] if request.forms and request.shrink else [press]
    refusals: list[DeployError] = []
    failed: list[Failed] = []
    for number, (recipe, format_) in enumerate(request.jobs):
        speak.progress("converting", number, len(request.jobs))
        try:
            for file in _converted(presses, recipe, format_):
                speak.event(file)
        except (InputError, MissingError) as error:
            refusals.append(error)
            if len(refusals) == len(request.jobs):
                raise
            if request.strict:
                failed.append(failure(recipe, format_, error))
            else:
                speak.warn(left_out(recipe, format_, error))
    speak.progress("converting", len(request.jobs), len(request.jobs))
    summary = ConversionSummary(
        spec,
        press.written,
        len(samples),
        opened.reference,
        tuple(failed),
        opened.output,
    )
    speak.event(summary)


def _open(request: ConversionRequest, speak: Speaker) -> tuple[OpenedFloats, bytes, Batch]:
    """Opens the model: its facts, its float TFLite, simplified, and the calibration samples."""
    speak.progress("opening the model", 0, 1)
    model = source_of(request.source).open(request.source)
    speak.progress("opening the model", 1, 1)
    speak.progress("writing the float model", 0, 1)
    output, floats, whole = _floats(request, model)
    output_names = (EMBEDDING,) if output == "pooled" else tuple(model.output_names)
    signature = _signature(model, floats, output_names, request.source.spec)
    file = request.source.file
    if file and not file.images and signature.image:
        raise InputError(f"{signature.image.name} is an image, which {file.path} does not show")
    task = task_choice.choose(signature, request.source.spec.task, request.classes, speak)
    signature = _named(signature, task)
    spec = _spec(request.source.spec, signature, task)
    golden = _golden(request, spec, signature)
    ending = _decoded(floats, signature) if output == "detections" else floats
    reference = _reference(request, golden, model, whole, ending)
    speak.progress("writing the float model", 1, 1)
    samples = _samples(request, spec, signature, speak)
    better = model.likelier_range(spec.preprocessing, samples) if len(samples) else None
    # All files are made from `floats`; the weights of a large network need not be in memory twice.
    del model, whole, ending
    shrunk_layers: tuple[ShrunkLayer, ...] = ()
    if request.shrink:
        floats, shrunk_layers = simplified(floats, _extents(signature))
    opened = OpenedFloats(spec, signature, output, output_names, reference, shrunk_layers, better)
    return opened, floats, samples


def _samples(
    request: ConversionRequest, spec: ModelSpec, signature: Signature, speak: Speaker
) -> Batch:
    """The calibration samples if a recipe needs some, else none."""
    if any(RECIPES.load(recipe).RECIPE.calibration for recipe, _ in request.jobs):
        return calibration_samples(request.data, spec, signature, speak)
    return Batch(tuple(np.empty((0, *end.shape), np.float32) for end in signature.inputs))


def simplified(
    floats: bytes, extents: Sequence[tuple[float, float] | None], multiple: int = MULTIPLE
) -> tuple[bytes, tuple[ShrunkLayer, ...]]:
    """The float TFLite after every exact pass (`ExactPass`), and the layers that lost filters."""
    shrunk_layers: tuple[ShrunkLayer, ...] = ()
    for _, one in PASSES.each():
        if isinstance(one, ExactPass):
            floats, layers = one.simplify(floats, extents, multiple)
            shrunk_layers += layers
    return floats, shrunk_layers


def _extents(signature: Signature) -> list[tuple[float, float] | None]:
    """The smallest and the largest value of each input, None of one that is no image."""
    return [
        None if end.preprocessing is None else preprocessing.extent(end.preprocessing)
        for end in signature.inputs
    ]


def _floats(request: ConversionRequest, model: OpenedModel) -> tuple[Output, bytes, bytes]:
    """What the files end in, and the float TFLite.

    If its end is not the model's own, also the TFLite with the model's own end, else b"". An
    embedding is cut out of a model that does not end in one vector, such as a classifier with its
    softmax. InputError where it cannot be cut.
    """
    from mobiledeploy.graphs import ends, pooled
    from mobiledeploy.graphs.graph import Graph

    if request.output in ("pooled", "detections"):
        whole = model.floats("model")
        return request.output, pooled.cut(whole) if request.output == "pooled" else whole, whole
    floats = model.floats(request.output)
    if (request.source.spec.task, request.output) == (EMBEDDING, "model"):
        outputs = ends.signature(Graph(floats), model.inputs, model.output_names).outputs
        if TASKS.load(EMBEDDING).mismatch(outputs):
            return "pooled", pooled.cut(floats), floats
    return request.output, floats, b""


def _decoded(floats: bytes, signature: Signature) -> bytes:
    """The float TFLite of a detector with its boxes decoded and chosen."""
    from mobiledeploy.graphs import postprocess

    return postprocess.append(floats, signature)


def _signature(
    model: OpenedModel, floats: bytes, names: Sequence[str], spec: ModelSpec
) -> Signature:
    """The signature of a float TFLite, its images prepared and its boxes relative as `spec` says.

    InputError for uint8 images with another range than their own.
    """
    from mobiledeploy.graphs import ends
    from mobiledeploy.graphs.graph import Graph

    inputs, how = [], spec.preprocessing
    for end in model.inputs:
        if end.kind == "image":
            if end.dtype == "uint8" and (how.input_range, *how.std) != (_PIXELS, 1.0, 1.0, 1.0):
                raise InputError(
                    f"the model takes pixels of uint8 as {end.name}, and scales them itself",
                    "--input-range 0,255, without --mean and --std",
                )
            own = how.for_channels(end.shape[-1])
            end = dataclasses.replace(end, preprocessing=own, dtype="float32")
        inputs.append(end)
    signature = ends.signature(Graph(floats), inputs, names)
    image = signature.image
    if image is None:
        return signature
    height, width, _ = image.shape
    anchors = detectors.anchors_of(dataclasses.replace(spec, resolution=(height, width)))
    return Signature(signature.inputs, detectors.with_anchors(signature.outputs, anchors))


def _named(signature: Signature, task: str) -> Signature:
    """The signature of a classifier has the names of all classifiers; others keep their own."""
    if task != "classification" or len(signature.inputs) > 1:
        return signature
    return Signature(
        (dataclasses.replace(signature.inputs[0], name="image"),),
        (dataclasses.replace(signature.outputs[0], name="scores"),),
    )


def _spec(spec: ModelSpec, signature: Signature, task: str) -> ModelSpec:
    image = signature.image
    return dataclasses.replace(
        spec,
        resolution=(0, 0) if image is None else (image.shape[0], image.shape[1]),
        # A detector's first output has boxes.
        classes=spec.classes or (signature.outputs[0].shape or (1,))[-1],
        preprocessing=(image and image.preprocessing) or spec.preprocessing,
        task=task,
    )


@dataclass(frozen=True)
class _Basis:
    """What files of integers are made from: a float TFLite, its inputs and calibration samples.

    `spans`: the codes of the images cover all pixels, whatever the calibration gave.
    """

    floats: bytes
    inputs: tuple[ModelInput, ...]
    images: Batch
    spans: bool


@dataclass
class _Press:
    """Makes the files of one model; what several files are made from is made once.

    `output_names` are the model's own, `signature` has those of the files. A press that
    `dataclasses.replace` makes has made nothing yet.
    """

    request: ConversionRequest
    spec: ModelSpec
    signature: Signature
    model: bytes
    output_names: Sequence[str]
    images: Batch
    golden: Batch
    speak: Speaker
    shrunk_layers: tuple[ShrunkLayer, ...]
    multiple: int = MULTIPLE
    tflites: dict[str, bytes] = field(init=False, default_factory=dict)
    alternatives: dict[str, tuple[RecipeAlternative, ...]] = field(init=False, default_factory=dict)
    float_tensors: dict[str, tuple[str, ...]] = field(init=False, default_factory=dict)
    float_outputs: dict[str, tuple[int, ...]] = field(init=False, default_factory=dict)
    on_codes: _Basis | None = field(init=False, default=None)

    def inputs(self, recipe: str) -> tuple[ModelInput, ...]:
        """The inputs of the file by `recipe`."""
        return self._basis(RECIPES.load(recipe).RECIPE).inputs

    def _basis(self, recipe: Recipe) -> _Basis:
        """The model as it is, or moved onto the input's codes.

        A file of integers that takes float numbers keeps the preprocessing of the float file, which
        it shall replace in an app as it is.
        """
        plain = _Basis(self.model, self.signature.inputs, self.images, self.request.io == "uint8")
        if not recipe.full_integer or recipe.activation_bits != 8 or self.request.io == "float":
            return plain
        if self.on_codes is None:
            self.on_codes = self._nearest_basis(plain)
        return self.on_codes

    def _nearest_basis(self, plain: _Basis) -> _Basis:
        """The basis whose input codes alone change the float answers less."""
        from mobiledeploy.graphs import execution

        moved = _moved(plain)
        if moved is None or not len(plain.images):
            return plain
        few = slice(0, _JUDGING)
        reference = execution.answers(plain.floats, plain.images[few])
        warm = self._temperature(reference)
        rounded = _rounded(plain.images[few], _extents(self.signature))
        before, after = (
            self._divergence(reference, execution.answers(floats, images), warm)
            for floats, images in ((plain.floats, rounded), (moved.floats, moved.images[few]))
        )
        self.speak.say(
            "input codes: one for each value of a pixel diverges from float by "
            f"{self._shown(after)}, the usual ones by {self._shown(before)}"
        )
        return moved if after <= before else plain

    @property
    def written(self) -> Signature:
        """The signature of the files: that of the model, or with the outputs of `postprocess`."""
        if self.request.output != "detections":
            return self.signature
        from mobiledeploy.graphs import postprocess

        return dataclasses.replace(self.signature, outputs=postprocess.outputs())

    def file(self, recipe: str, format_: str) -> bytes:
        """The model by `recipe` in `format_`, unsealed."""
        if recipe not in self.tflites:
            content = self._tflite(RECIPES.load(recipe).RECIPE)
            if self.request.output == "detections":
                from mobiledeploy.graphs import postprocess

                content = postprocess.append(content, self.signature)
            self.tflites[recipe] = content
        file = WRITERS.load(format_).write(self.tflites[recipe])
        chosen = RECIPES.load(recipe).RECIPE
        if chosen.weight_bits == HALF:
            facts = FORMATS.load(format_).inspect(file)
            halves = {
                tensor.name
                for layer in facts.layers
                for tensor in layer.outputs
                if tensor.dtype == "float16" or chosen.activation_bits == HALF
            }
            if halves:
                self._check_range(file_name(recipe, format_), halves)
        return file

    def _check_range(self, name: str, halves: set[str]) -> None:
        """InputError if one of `halves`, tensors that a file computes in float16, leaves its range.

        It is judged by the float values of the golden samples, since this machine may compute the
        file in float32.
        """
        from mobiledeploy.graphs import float16, ranges

        for tensor, extent in ranges.measure(self.model, self.golden).items():
            # ONNX names the operators for a TFLite operator after the first path of its tensor.
            stem = tensor.partition(";")[0]
            own = tensor in halves or any(
                half == stem or half.startswith(f"{stem}/") for half in halves
            )
            largest = max(map(abs, extent))
            if own and not largest <= float16.LARGEST:
                raise InputError(
                    f"{name} would compute {stem} in float16, whose largest number is "
                    f"{float16.LARGEST:.0f}, and a golden sample gives {largest:.3g} there",
                    "the float32 and int8 recipes have no such limit",
                )
        if platform.machine() not in _ARM:
            self.speak.warn(
                NamedWarning(
                    HALF_NOT_SEEN,
                    f"{name} is judged here by float32 arithmetic, where this machine has no other",
                    f"`mobiledeploy evaluate {name} --device emulator:cortex-a76 --limit 100` "
                    "judges it in float16",
                )
            )

    def _tflite(self, recipe: Recipe) -> bytes:
        from mobiledeploy.graphs import float16, quantized

        if recipe.weight_bits == HALF:
            self._warn_large(recipe, float16.large_constants(self.model))
        if not recipe.full_integer:
            return quantized.without_calibration(self.model, recipe)
        quantized_graph = self._trained_graph(recipe)
        places = quantized.float_outputs(quantized_graph)
        # Outputs have the names of the signature in the finished file.
        renamed = tuple(self.signature.outputs[place].name for place in places)
        self.float_tensors[recipe.name] = (*quantized_graph.kept, *renamed)
        self.float_outputs[recipe.name] = places
        return quantized.finish(quantized_graph)

    def _warn_large(self, recipe: Recipe, constants: Sequence[str]) -> None:
        """Names the constants that stay float32."""
        if constants:
            self.speak.warn(
                NamedWarning(
                    "beyond-float16",
                    f"{recipe.name} keeps {', '.join(constants)} in float32: values above 65504, "
                    "the largest number of float16",
                    "are these weights what the training gave?",
                )
            )

    def _trained_graph(self, recipe: Recipe) -> QuantizedGraph:
        """The quantized graph, after the training of the recipe, if any, which is resumed."""
        folder = Path(self.request.unfinished or self.request.folder)
        places = [
            folder / f"{recipe.name}-{part_count}.npz"
            for part_count in range(len(recipe.training) + 1)
        ]
        if not recipe.training:
            return self._quantized_graph(recipe)
        from mobiledeploy.graphs import quantized

        part_count = max((n for n, place in enumerate(places) if place.is_file()), default=0)
        if part_count:
            quantized_graph = quantized.restore(
                inputs.read(places[part_count], inputs.MODEL), recipe, self.request.io
            )
            self.speak.say(
                f"{recipe.name}: training goes on after part {part_count} of {len(places) - 1}"
            )
        else:
            # A training needs the memory, and not what passes measured.
            quantized_graph = dataclasses.replace(
                self._quantized_graph(recipe), measurements=Measurements()
            )
        if part_count < len(recipe.training):
            try:
                from mobiledeploy.training import qat
            except ModuleNotFoundError as error:
                raise missing(error.name or "tensorflow") from error
            _need_classifier(recipe, self.spec)
            spec = _spec(self.spec, Signature(self.inputs(recipe.name), ()), self.spec.task)
            training_set = training_images(
                self.request.data, spec, Path(self.request.folder), self.speak
            )
        for number in range(part_count, len(recipe.training)):
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
        """The quantized graph by the alternative of the recipe that is nearest to float."""
        basis = self._basis(recipe)
        images = basis.images
        if len(recipe.passes) > 1 and len(images) >= ENOUGH_CALIBRATION_IMAGES:
            passes = self._best(recipe, basis)
            result = self._graph_after(recipe, passes, basis, {})
            self._warn_float_outputs(recipe, result)
            return result
        if len(recipe.passes) > 1:
            self.speak.warn(
                NamedWarning(
                    "no-choice",
                    f"{recipe.name} is the plain {' and '.join(recipe.passes[0]) or 'int8'}: "
                    f"{len(images)} calibration images are too few to choose by",
                    f"give {ENOUGH_CALIBRATION_IMAGES} or more",
                )
            )
        return self._graph_after(recipe, recipe.passes[0], basis, {})

    def _warn_float_outputs(self, recipe: Recipe, result: QuantizedGraph) -> None:
        """Says which outputs are float although integers were requested."""
        from mobiledeploy.graphs import postprocess, quantized
        from mobiledeploy.graphs.graph import Graph

        if postprocess.chosen(Graph(result.floats)):
            return
        places = quantized.float_outputs(result)
        if places and self.request.io == "int8" and not self.request.keep_float:
            names = " and ".join(self.signature.outputs[place].name for place in places)
            self.speak.warn(
                NamedWarning(
                    "float-output",
                    f"{recipe.name} answers {names} in float: the values are "
                    "of several units, and one int8 scale would leave few codes for some",
                    "--recipe int8_ptq keeps int8, with that loss",
                )
            )

    def _best(self, recipe: Recipe, basis: _Basis) -> tuple[str, ...]:
        """The passes whose answers diverge least from float on images that did not fit them."""
        from mobiledeploy.graphs import execution, quantized

        is_held_back = np.arange(len(basis.images)) % HELD_EVERY == HELD_EVERY - 1
        fit = dataclasses.replace(basis, images=basis.images[~is_held_back])
        held_back = basis.images[is_held_back]
        # Of the model as it is: that of another basis differs from it at the border.
        reference = execution.answers(self.model, self.images[is_held_back])
        warm = self._temperature(reference)
        results = []
        graphs: dict[tuple[str, ...], QuantizedGraph] = {}
        for number, names in enumerate(recipe.passes):
            self.speak.progress(f"choosing {recipe.name}", number, len(recipe.passes))
            quantized_graph = self._graph_after(recipe, names, fit, graphs)
            answers = execution.answers(quantized.integers(quantized_graph), held_back)
            results.append(self._alternative(names, reference, answers, warm))
        self.speak.progress(f"choosing {recipe.name}", len(results), len(results))
        self.alternatives[recipe.name] = tuple(results)
        best = min(results, key=lambda one: one.divergence)
        self.speak.say(
            f"{recipe.name}: {', '.join(best.passes) or 'no pass'}, the best of {len(results)} "
            f"alternatives on {best.images} images held back: it diverges from float by "
            f"{self._shown(best.divergence)}, the plain one by "
            f"{self._shown(results[0].divergence)}"
        )
        return best.passes

    def _temperature(self, reference: Sequence[Floats]) -> float:
        return accuracy.temperature(reference[0]) if self.spec.task == "classification" else 1.0

    def _shown(self, divergence: float) -> str:
        """A divergence for people, in the unit of the table of `export`."""
        classifies = self.spec.task == "classification"
        return f"{1e3 * divergence:.2g} mnats" if classifies else f"{divergence:.2g}"

    def _divergence(
        self, reference: Sequence[Floats], answers: Sequence[Floats], warm: float
    ) -> float:
        """How far answers [N, ...] are from those of the float model, as their task measures it."""
        if self.spec.task == "classification":
            return accuracy.divergence(reference[0], answers[0], warm)
        ends = accuracy.before_softmax(self.signature.outputs)
        return float(np.mean(TASKS.load(self.spec.task).divergence(reference, answers, ends)))

    def _alternative(
        self,
        names: tuple[str, ...],
        reference: Sequence[Floats],
        answers: Sequence[Floats],
        warm: float,
    ) -> RecipeAlternative:
        """How far an alternative's answers [N, ...] are from those of the float model."""
        ends = accuracy.before_softmax(self.signature.outputs)
        task = TASKS.load(self.spec.task)
        pairs = [
            (
                task.decode([x[number] for x in reference], ends),
                task.decode([x[number] for x in answers], ends),
            )
            for number in range(len(reference[0]))
        ]
        return RecipeAlternative(
            names,
            self._divergence(reference, answers, warm),
            warm,
            accuracy.sqnr_db(np.concatenate(reference, None), np.concatenate(answers, None)),
            float(np.mean([task.agrees(one, other) for one, other in pairs])),
            len(pairs),
        )

    def _graph_after(
        self,
        recipe: Recipe,
        names: tuple[str, ...],
        basis: _Basis,
        graphs: dict[tuple[str, ...], QuantizedGraph],
    ) -> QuantizedGraph:
        """The quantized graph after these passes; `graphs` caches those of fewer passes."""
        from mobiledeploy.graphs import quantized

        if names not in graphs:
            if names:
                before = self._graph_after(recipe, names[:-1], basis, graphs)
                graphs[names] = PASSES.load(names[-1]).apply(before, basis.images)
            else:
                start = quantized.start(
                    basis.floats,
                    recipe,
                    self.request.io,
                    basis.images,
                    self.request.keep_float,
                    self.output_names,
                )
                # With uint8, the user has said what the outputs are.
                free = self.request.io != "uint8" and not TASKS.load(self.spec.task).ONE_UNIT
                graphs[names] = dataclasses.replace(start, may_float=free)
            if basis.spans:
                # Every pixel has its code, also if no calibration image has such pixels.
                extents = _extents(Signature(basis.inputs, ()))
                graphs[names] = quantized.spanning(graphs[names], extents)
        return graphs[names]


def _without_dead(press: _Press) -> list[_Press]:
    """A press of the model without the dead channels that stayed; none if none did."""
    floats, rest = simplified(press.model, _extents(press.signature), 1)
    if not rest:
        return []
    layers = {layer.layer: layer for layer in press.shrunk_layers}
    for layer in rest:
        before = layers.get(layer.layer, dataclasses.replace(layer, left_out=0))
        left_out = before.left_out + layer.left_out
        layers[layer.layer] = dataclasses.replace(before, left_out=left_out)
    shrunk_layers = tuple(layers.values())
    return [dataclasses.replace(press, model=floats, shrunk_layers=shrunk_layers, multiple=1)]


def _converted(presses: Sequence[_Press], recipe: str, format_: str) -> list[ConvertedFile]:
    """The file of a job, and its other forms behind it if the request asks for them."""
    from mobiledeploy.graphs import pixel_pairs

    files: list[ConvertedFile] = []
    for press in presses:
        # Another training gives other weights: then these are no forms of the same file.
        if press.multiple != MULTIPLE and RECIPES.load(recipe).RECIPE.training:
            continue
        start = time.perf_counter()
        content = press.file(recipe, format_)
        files.append(_sealed(press, recipe, format_, content, len(files), start))
        pairs = None
        if press.request.forms and format_ == "tflite":
            pairs = pixel_pairs.paired(content)
        if pairs is not None:
            file = _sealed(press, recipe, format_, pairs, len(files), start)
            files.append(dataclasses.replace(file, pairs=True))
    return files


def _sealed(
    press: _Press, recipe: str, format_: str, content: bytes, number: int, start: float
) -> ConvertedFile:
    signature = press.written
    data = FORMATS.load(format_).seal(
        content,
        [end.name for end in signature.inputs],
        [end.name for end in signature.outputs],
    )
    folder = Path(press.request.folder)
    if number:
        folder = folder / f"form-{number}"
        folder.mkdir(exist_ok=True)
    path = folder / file_name(recipe, format_)
    records.write_atomic(path, data)
    seconds = time.perf_counter() - start
    return ConvertedFile(
        recipe,
        format_,
        str(path),
        seconds,
        press.alternatives.get(recipe, ()),
        press.float_tensors.get(recipe, ()),
        press.float_outputs.get(recipe, ()),
        press.inputs(recipe),
        press.shrunk_layers,
        press.multiple,
    )


def _moved(plain: _Basis) -> _Basis | None:
    """The basis in which pixel p of an image has the code p - 128 (`preprocessing.on_codes`).

    A zero that moves by more than half a pixel is for layers without padding only. None if no image
    needs it, or one cannot be moved: all images of a file are prepared alike.
    """
    from mobiledeploy.graphs import input_offset

    floats, ends, arrays = plain.floats, list(plain.inputs), list(plain.images.arrays)
    for place, end in enumerate(plain.inputs):
        how = end.preprocessing and preprocessing.on_codes(end.preprocessing)
        if not how:
            continue
        assert end.preprocessing is not None
        ratio, change = preprocessing.between(end.preprocessing, how)
        pixel, _ = preprocessing.scaling(end.preprocessing)
        may_pad = bool((np.abs(change / pixel) <= _HALF_PIXEL).all())
        content = input_offset.moved(floats, place, ratio, change, may_pad=may_pad)
        if content is None:
            return None
        floats = content
        ends[place] = dataclasses.replace(end, preprocessing=how)
        arrays[place] = ((arrays[place] - change) / ratio).astype(np.float32)
    if floats is plain.floats:
        return None
    return _Basis(floats, tuple(ends), Batch(tuple(arrays)), spans=True)


def _rounded(images: Batch, extents: Sequence[tuple[float, float] | None]) -> Batch:
    """The images as real values of their int8 codes, whose range is the extent of their pixels."""
    arrays = []
    for values, extent in zip(images.arrays, extents, strict=True):
        if extent is not None:
            low, high = min(extent[0], 0.0), max(extent[1], 0.0)
            scale = (high - low) / 255
            # A half is rounded down, as for the file's own zero point.
            zero = np.ceil(-128.5 - low / scale - 1e-6)
            codes = np.clip(np.rint(values / np.float32(scale)) + zero, -128, 127)
            values = ((codes - zero) * scale).astype(np.float32)
        arrays.append(values)
    return Batch(tuple(arrays))


def _golden(request: ConversionRequest, spec: ModelSpec, signature: Signature) -> Batch:
    data = request.data
    samples = dataset(data.source).open(
        data.source, data.split, resolution=spec.resolution, labels=data.labels
    )
    task_choice.require_classes(spec.task, samples)
    rows = [preprocessing.sample_inputs(samples, i, signature.inputs) for i in request.golden]
    return Batch(tuple(np.stack(column) for column in zip(*rows, strict=True)))


def _reference(
    request: ConversionRequest, samples: Batch, model: OpenedModel, whole: bytes, ending: bytes
) -> tuple[tuple[float, ...], ...]:
    """The answers of the float model to the golden samples, a row for each.

    They are those of the model's own framework. It has none for another end: then they are those of
    the float TFLite `ending`, and InputError if `whole`, which ends as the model, does not answer
    as the framework does.
    """
    answers = model.answers(samples)
    if whole:
        from mobiledeploy.graphs import execution

        own = execution.answers(whole, samples)
        sqnr = accuracy.sqnr_db(np.concatenate(answers, None), np.concatenate(own, None))
        if not sqnr >= LEAST_RAW_SQNR:
            raise InputError(
                f"the float TFLite does not answer as its model does: {sqnr:.0f} dB", REPORT
            )
        answers = execution.answers(ending, samples)
    if not all(np.isfinite(answer).all() for answer in answers):
        raise InputError("the model answers with NaN or infinity", "check its weights")
    if request.output == "softmax" and not model.ends_in_softmax():
        _refuse_probabilities(answers[0])
    return _rows(answers)


def _rows(answers: Sequence[Floats]) -> tuple[tuple[float, ...], ...]:
    each_sample = zip(*answers, strict=True)
    return tuple(tuple(map(float, accuracy.golden_row(sample))) for sample in each_sample)


def _refuse_probabilities(rows: NDArray[np.float32]) -> None:
    """InputError if `rows` [N, classes] are already probabilities.

    A model that ends in its own form of softmax would get a second one. A row of probabilities has
    no number below 0, and sums to 1 within 1e-3.
    """
    if (rows >= 0).all() and (abs(rows.sum(axis=1) - 1) <= 1e-3).all():
        raise InputError(
            "the model's answers are probabilities already, but no softmax stands at its end",
            "leave out --output: the file answers as the model does",
        )


if __name__ == "__main__":
    child_process.serve(ConversionRequest, _work, what="the conversion")
