"""One small Protocol per shelf. A file of the shelf implements it as a module: no base classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.batches import Batch, Images
from mobiledeploy.core.types import (
    AcceptedDifference,
    Anchors,
    Annotation,
    AnnotationField,
    AppContract,
    Contract,
    DeviceInfo,
    FileFacts,
    FileFigures,
    Gate,
    Kind,
    Metric,
    Model,
    ModelFile,
    ModelInput,
    ModelOutput,
    ModelSpec,
    NamedWarning,
    NativeLibrary,
    Output,
    Pair,
    Prediction,
    Preprocessing,
    QuantizedGraph,
    Recipe,
    Report,
    ShrunkLayer,
    Source,
    Split,
    Target,
    Tensor,
    TrainingSettings,
)

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB, as the data set holds it
Array = NDArray[Any]
Progress = Callable[[str, int, int], None]  # the step, how many are done, of how many


def quiet(what: str, count: int, total: int) -> None:
    """A Progress that does nothing."""


class Architecture(Protocol):
    """One paper: arguments -> an untrained Keras model, of a classifier one ending in softmax."""

    PAPER: str

    @property
    def build(self) -> Callable[..., Any]:
        """The model, from keyword arguments resolution=(height, width), classes, and its own.

        Input `image` [N, height, width, 3] float32; the outputs are those of its card's task, of a
        classifier [N, classes]. With classes=None a classifier's last layers are left out: the
        output is `embedding` [N, C], the features after the last pooling, or what the last layer
        reads in a network that does not end in a pooling. The other arguments (alpha, groups,
        variant) are the paper's, as the card names them. UsageError for values that the paper's
        network cannot have.
        """
        ...


@runtime_checkable
class AnchoredArchitecture(Architecture, Protocol):
    """An architecture of detectors, whose boxes are offsets from anchors."""

    @property
    def anchors(self) -> Callable[..., Anchors]:
        """The anchors, from the keyword arguments of `build` without the classes."""
        ...


class RecipeFile(Protocol):
    """One recipe: data only."""

    RECIPE: Recipe


class Corpus(Protocol):
    """What is known of each sample for a metric that is no mean over samples (mAP, mIoU, AUC)."""

    def metric(self, counts: NDArray[np.int64]) -> float:
        """The metric where sample n counts `counts[n]` times; NaN if these say nothing."""
        ...


@runtime_checkable
class ClassCorpus(Corpus, Protocol):
    """A corpus whose metric is the mean of those of its classes.

    Attributes:
        classes: the class of each column.
        annotated: [N, C] how much each sample has of a class: pixels, boxes, or the label.
        worth: [C] what a class loses for each share of its annotations that is lost.
    """

    classes: tuple[int, ...]
    annotated: NDArray[np.int64]
    worth: NDArray[np.float64]

    def of_classes(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """[C]: the metric of each class, samples counted as in `metric`; NaN without any of it."""
        ...


class Task(Protocol):
    """What the outputs of a model mean, and how its answers are judged.

    Attributes:
        SUMMARY: what such a model answers, in a few words, for help texts.
        ANNOTATION: the field of `Annotation` that it is judged by. "" where it is judged by the
            float model's answers, which `annotations` hold as `values`.
        METRICS: the figures over samples; the first one decides a check.
        GATE: how a loss of the first one is judged. `exact`: its score is 0 or 1 for each sample.
            `mean`: it is a mean of bounded scores. `corpus`: it is no mean over samples.
        ONE_UNIT: whether all values of an output are of one unit, as scores of classes are, and
            boxes beside scores are not.
    """

    SUMMARY: str
    ANNOTATION: AnnotationField
    METRICS: tuple[Metric, ...]
    GATE: Gate
    ONE_UNIT: bool

    def mismatch(self, outputs: Sequence[ModelOutput]) -> str:
        """Why a model with these outputs is none of this task; "" if it can be one."""
        ...

    def classes(self, outputs: Sequence[ModelOutput]) -> int | None:
        """How many classes the answers of such a model name; None for none, or an unknown number.

        The outputs fit the task.
        """
        ...

    def decode(self, outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
        """The answer to one sample, without the sample's name.

        `outputs` are real values, float32, each of the shape of its `ends`.
        """
        ...

    def metrics(
        self, predictions: Sequence[Prediction], annotations: Sequence[Annotation]
    ) -> Mapping[str, float]:
        """The figures of `METRICS` by name, over all samples; without those that cannot be had.

        InputError where an annotation does not fit the task.
        """
        ...

    def scores(
        self, predictions: Sequence[Prediction], annotations: Sequence[Annotation]
    ) -> NDArray[np.float64]:
        """[N]: how good each answer is, from 0 to 1; 1 is right. NaN where nothing is annotated.

        Its mean is the first metric, or falls with it (an error, as a share of a bound). Where
        `GATE` is `corpus` it only says which samples were answered well.
        """
        ...

    def corpus(
        self, predictions: Sequence[Prediction], annotations: Sequence[Annotation]
    ) -> Corpus:
        """What the first metric is made of."""
        ...

    def divergence(
        self,
        reference: Sequence[Array],
        outputs: Sequence[Array],
        ends: Sequence[ModelOutput],
    ) -> NDArray[np.float64]:
        """[N]: how far the answers are from those of the float model, 0 for equal ones.

        Each array holds one output for N samples. It needs no annotations; the choice between
        alternatives of a recipe goes by its mean.
        """
        ...

    def agrees(self, one: Prediction, other: Prediction) -> bool:
        """Whether two answers to the same sample are the same answer."""
        ...


class Pass(Protocol):
    """One step of post-training quantization, from one paper.

    PRESERVES states whether the float function stays the same.
    """

    PRESERVES: bool

    def apply(
        self, quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
    ) -> QuantizedGraph:
        """The quantized graph, improved with the images [N, H, W, 3]."""
        ...


@runtime_checkable
class ExactPass(Pass, Protocol):
    """A pass that needs no images and keeps the float function: every export begins with it."""

    def simplify(
        self, floats: bytes, extents: Sequence[tuple[float, float] | None], multiple: int = 8
    ) -> tuple[bytes, tuple[ShrunkLayer, ...]]:
        """A simpler float TFLite, and the layers that lost filters; the same one if none did.

        `extents` are the smallest and the largest value of each input, None where unknown. A tensor
        that loses channels keeps a `multiple` of them.
        """
        ...


class Compression(Protocol):
    """A method that makes a network smaller and needs training: wrap, train, strip.

    PRESERVES states whether the float function stays the same.
    """

    PRESERVES: bool

    def wrap(
        self,
        model: Model,
        amount: float,
        steps: int,
        instructions: Callable[[Model], int] | None = None,
    ) -> Model:
        """The model, prepared for a training of `steps` batches; UsageError for a wrong amount.

        `instructions` are those of a plain model's int8 file: if given, `amount` is their number.
        """
        ...

    def callbacks(self) -> Sequence[Any]:
        """The callbacks that Keras needs during the training."""
        ...

    def strip(self, model: Model) -> Model:
        """The trained model without the wrappers."""
        ...


class Objective(Protocol):
    """How a network learns a task: its targets and its losses. The file has the task's name.

    Tensors are TensorFlow's. The loop scales and mirrors images; `moved` makes the targets follow.
    """

    def targets(self, examples: Any, spec: ModelSpec) -> tuple[Array, ...]:
        """Arrays [N, ...] of what is true of each of the `training.loop.LabelledImages`.

        InputError for annotations that cannot be learnt from.
        """
        ...

    def moved(self, targets: tuple[Any, ...], windows: Any) -> tuple[Any, ...]:
        """The targets of a batch, as they are in the `windows` of its images.

        Windows are [N, 4]: top, left, bottom and right in fractions of the image. Left is beyond
        right in a mirrored one.
        """
        ...

    def encoded(self, targets: tuple[Any, ...], spec: ModelSpec) -> Any:
        """What the losses compare the outputs with: a tensor [N, ...] for each output."""
        ...

    def losses(self, settings: TrainingSettings) -> Sequence[Callable[[Any, Any], Any]]:
        """For each output a loss: (what `encoded` gives, the output) -> [N]."""
        ...

    def figures(self) -> Sequence[Any]:
        """Keras metrics of the training images; one named `accuracy` is recorded."""
        ...


class Writer(Protocol):
    """A finished TFLite file -> the bytes of one format, without TensorFlow."""

    def write(self, content: bytes) -> bytes:
        """The file; InputError for an operator that the format cannot express."""
        ...


class Format(Protocol):
    """Reads and edits finished model files, without TensorFlow and without running them."""

    SUFFIX: str

    def inspect(self, data: bytes) -> FileFacts:
        """Inputs, outputs, layers; InputError if `data` is not such a file."""
        ...

    def float_layers(self, facts: FileFacts) -> tuple[str, ...]:
        """The operators that compute in float.

        Type changes at the inputs and outputs do not count.
        """
        ...

    def between_integers(self, facts: FileFacts) -> tuple[str, ...]:
        """Those of `float_layers` that stay in float between integers.

        Their operator has no integer form in the format, or one that is far worse.
        """
        ...

    def sparsity(self, data: bytes) -> float:
        """The share of the weights that are zero, from 0 to 1."""
        ...

    def weights(self, data: bytes) -> Mapping[str, NDArray[np.float32]]:
        """The constants of the layers by name, as real values in the format's own axis order."""
        ...

    def seal(self, data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """The final file: its inputs and outputs have these names, in their order."""
        ...

    def write_metadata(self, data: bytes, contract: Contract) -> bytes:
        """The file with `contract` in its metadata, where the usual readers of the format look."""
        ...

    def contract(self, data: bytes) -> Contract | None:
        """The contract that `write_metadata` wrote.

        None if there is none, InputError if it is damaged.
        """
        ...

    def preprocessing(self, data: bytes) -> Preprocessing | None:
        """What the file's metadata of other tools says of its first image; None for nothing."""
        ...

    def expose_tensor(self, data: bytes, tensor: str) -> bytes:
        """A copy whose only output is `tensor`: this gives the logits of a model with a softmax."""
        ...

    def activations(self, facts: FileFacts) -> tuple[Tensor, ...]:
        """The tensors between operators, in the order of execution."""
        ...

    def extract_subgraph(self, data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """A copy that reads those of the tensors `inputs` that it needs, and returns `outputs`.

        A tensor that is in both is returned as its operator computes it.
        """
        ...


class OpenedModel(Protocol):
    """A user's model, ready to become one float TFLite.

    `inputs` are its inputs, images channels-last and without preprocessing; `output_names` are the
    names of its outputs. `network` is the TensorFlow model, for its layers and for distillation;
    None without TensorFlow.
    """

    inputs: tuple[ModelInput, ...]
    output_names: tuple[str, ...]
    network: Model | None

    def floats(self, output: Output) -> bytes:
        """A float TFLite with these inputs and outputs in this order; it ends as `output` says.

        It has a static batch of 1, and images are channels-last. InputError if TFLite cannot
        express the model, and for `softmax` and `logits` of a model without one row of scores.
        """
        ...

    def answers(self, samples: Batch) -> tuple[NDArray[np.float32], ...]:
        """What the model's own framework computes, [N, ...] for each output.

        A single output is taken before a final softmax. InputError if the framework cannot run the
        model, or if the answers change from call to call.
        """
        ...

    def ends_in_softmax(self) -> bool:
        """Whether its single output ends in a softmax over the classes."""
        ...

    def likelier_range(self, pre: Preprocessing, images: Batch) -> tuple[float, float] | None:
        """An input range that makes `images` far more like the training images than `pre` does.

        `images` are prepared by `pre`. None if the range of `pre` fits as well as any, or if the
        model does not show it.
        """
        ...


class SourceFile(Protocol):
    """A kind of model file. No framework is imported before `open`.

    NEEDS are the modules that `open` imports.
    """

    NEEDS: tuple[str, ...]

    def detect(self, path: Path) -> ModelFile | None:
        """What the file is; None if it is of another kind, InputError if it is broken."""
        ...

    def open(self, source: Source) -> OpenedModel:
        """The model, opened in a process that may import its framework.

        InputError if it cannot be opened or is not an image classifier; UsageError for a resolution
        that it does not accept.
        """
        ...


class Engine(Protocol):
    """A model loaded by a runtime, with its inputs and outputs in the file's order; batch of 1.

    `opening_ns` says how long it took to load the file and to prepare it for runs; the first is
    None if the engine does both in one call.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    delegate: str
    delegated_nodes: int | None
    total_nodes: int | None
    opening_ns: tuple[int | None, int]

    def load(self, tensors: Sequence[Array]) -> None:
        """Sets the raw inputs, each of the shape and dtype of its tensor; InputError for others."""
        ...

    def invoke(self) -> None:
        """Runs the model and does nothing else: this call is timed."""
        ...

    def run(self, tensors: Sequence[Array]) -> list[Array]:
        """The raw outputs for the raw inputs: load, invoke, and copies of the outputs."""
        ...


class LoadedSubgraph(Protocol):
    """A subgraph of a model, loaded by a runtime: any number of inputs and outputs."""

    def run(self, tensors: Sequence[Array]) -> list[Array]:
        """The raw outputs for the raw inputs, both in the file's order; InputError for others."""
        ...


class Runtime(Protocol):
    """An inference engine.

    The module says all that others must know of it, and imports nothing of the engine: only
    `open` and `part` do, and they are called in the Python runner's process.

    Attributes:
        FORMATS: names of the formats that it runs.
        DELEGATES: the first is taken where none is named.
        PACKAGE: the package that its version is that of.
        PREFERRED: whether it is taken where no runtime is named; others only where none is.
        PUBLISHED_AS: names that published latencies give this engine and its forerunners.
        NATIVE: its shared library for the native runner; None where it has none.
    """

    FORMATS: tuple[str, ...]
    DELEGATES: tuple[str, ...]
    PACKAGE: str
    PREFERRED: bool
    PUBLISHED_AS: tuple[str, ...]
    NATIVE: NativeLibrary | None

    def version(self) -> str:
        """The engine's version, without loading a model."""
        ...

    def open(self, path: Path, *, threads: int, delegate: str) -> Engine:
        """The model at `path`, ready to run; InputError if the engine rejects it."""
        ...

    def part(self, path: Path, *, threads: int) -> LoadedSubgraph:
        """The subgraph of a model at `path`, on its default delegate; InputError as for `open`."""
        ...


class Runner(Protocol):
    """The program that drives an engine: what to push, and how to call it (PROTOCOL.md)."""

    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that it drives, by name."""
        ...

    def files(self, machine: str, runtime: str, delegate: str = "") -> Mapping[str, Path]:
        """The files that the runner needs on the device besides the model, by their role.

        `machine` is the device's (`facts()["machine"]`: x86_64, aarch64, android-aarch64).
        MissingError if this computer does not have them, UsageError for a `delegate` that the
        device cannot have.
        """
        ...

    def bench(
        self, model: str, target: Target, sample: str | None, files: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The argv that times `model` until standard input closes.

        `sample` is a file on the device with the raw input; None for seeded noise. `files` are the
        paths on the device of the files of `files()`.
        """
        ...

    def cold(
        self, model: str, target: Target, sample: str | None, files: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The argv that loads `model`, tells how long that took, and runs it once.

        The arguments are those of `bench`. UsageError if this runner cannot tell.
        """
        ...

    def predict(self, model: str, target: Target, files: Mapping[str, str]) -> tuple[str, ...]:
        """The argv of a program that answers for samples, for `hear_answers`.

        `files` are as for `bench`. UsageError if this runner can only time.
        """
        ...

    def hear_answers(self, process: Process, model: str) -> Process:
        """The program of `predict` as one that reads a protocol.Work and ranges, and answers them.

        `model` is its file's name, for messages.
        """
        ...

    def layers(self, target: Target) -> tuple[str, ...]:
        """The argv that runs subgraphs of models.

        It reads protocol.Feed records from standard input. UsageError if this runner can only time.
        """
        ...

    def hear(self, process: Process, target: Target) -> Process:
        """The running program as one that speaks PROTOCOL.md; its output is translated if needed.

        `target` is the one that `bench` got.
        """
        ...


class Process(Protocol):
    """A running command on a device."""

    def lines(self) -> Iterator[str]:
        """Its standard output, line by line, until it ends."""
        ...

    def send(self, line: str) -> None:
        """One line to its standard input."""
        ...

    def stop(self) -> None:
        """Closes its standard input, which asks a runner to end."""
        ...

    def wait(self) -> tuple[int, str]:
        """Its exit status and the tail of its standard error."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...


class Session(Protocol):
    """An open device, leased until its context ends."""

    def facts(self) -> Mapping[str, str]:
        """What the machine is, and its present state (clocks, load, temperature)."""
        ...

    def push(self, path: Path) -> str:
        """Copies a file to the device; returns its path there."""
        ...

    def run(self, argv: Sequence[str]) -> Process:
        """Starts a command on the device."""
        ...

    def pull(self, remote: str, path: Path) -> None:
        """Copies a file from the device."""
        ...

    def clock(self) -> float:
        """Seconds since some moment; a replayed session gives those of its recording."""
        ...

    def hold_clocks(self, on: bool) -> bool:
        """Asks for clocks that the machine can sustain; returns whether it supports that.

        The end of the session turns it off.
        """
        ...


class Device(Protocol):
    """A kind of machine.

    KIND is the kind of figure that it gives. RUNNER is the default runner. REMOTE is whether it is
    a machine of its own, a phone or a board, whose state before and after a timing makes that valid
    or void.
    """

    KIND: Kind
    RUNNER: str
    REMOTE: bool

    def available(self) -> tuple[DeviceInfo, ...]:
        """The machines of this kind that are available now; quick, and changes nothing."""
        ...

    def open(
        self, name: str, *, exclusive: bool, reporter: Reporter
    ) -> AbstractContextManager[Session]:
        """Leases the machine (`exclusive` for timing, shared for other work).

        Tells `reporter` if it has to wait for another process.
        """
        ...


class Samples(Protocol):
    """One split of a data set, opened."""

    source: str
    split: str
    classes: tuple[str, ...]

    @property
    def identity(self) -> str:
        """sha256 of the samples' content; it may have to read them all."""
        ...

    def __len__(self) -> int: ...

    def id(self, index: int) -> str:
        """A name of the image that is the same in every run."""
        ...

    def label(self, index: int) -> int:
        """Its class, an index into `classes` (or into the `labels` of `open`); -1 for none."""
        ...

    def image(self, index: int) -> Pixels:
        """The image; BrokenImage if it cannot be read."""
        ...

    def array(self, index: int, end: ModelInput) -> Array:
        """What the data has for an input of that name; InputError if it has nothing."""
        ...

    def annotation(self, index: int) -> Annotation:
        """What is true of the sample, in classes of `classes`, boxes and pixels of the image."""
        ...


class Dataset(Protocol):
    """A kind of data: samples, and what is true of each."""

    def accepts(self, source: str) -> bool:
        """Whether `--data SOURCE` is of this kind; two kinds that accept it are an error."""
        ...

    def open(
        self, source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...]
    ) -> Samples:
        """The samples of `split`; `labels`: class names in the model's order, () for its own.

        `resolution` is what a generator draws at; a data set of images ignores it.
        """
        ...


class ReportFile(Protocol):
    """One format of a report."""

    SUFFIX: str

    def render(self, report: Report) -> str:
        """The complete text of `report`, with a newline at its end."""
        ...


class SiteFile(ReportFile, Protocol):
    """A format that can also be a folder of linked pages."""

    def pages(
        self, report: Report, accepted: Sequence[AcceptedDifference]
    ) -> Iterator[tuple[str, str]]:
        """(path below the folder, its text) of each file; the front page is the last one."""
        ...


class DifferencePage(ReportFile, Protocol):
    """A format that can also draw two graphs beside each other."""

    def difference(
        self,
        paths: tuple[str, str],
        size_bytes: tuple[int, int],
        layers: Sequence[Pair],
        figures: Sequence[FileFigures],
    ) -> str:
        """The complete text of a page about the artifacts at `paths`, with a newline at its end.

        `layers` and `figures` are those of a `Difference`, the layers in any order.
        """
        ...


class AppLanguage(Protocol):
    """A language that apps are written in, with its runtime.

    Attributes:
        SUMMARY: the language, the runtime and what it answers, in a few words.
        FORMATS: names of the formats that its runtime runs.
        TASKS: the tasks whose answers its code decodes.
        IMAGES: the suffix of the images that its code reads.
        COMMANDS: command lines for the app's folder that build it and replay the golden samples.
    """

    SUMMARY: str
    FORMATS: tuple[str, ...]
    TASKS: tuple[str, ...]
    IMAGES: Literal[".png", ".ppm"]
    COMMANDS: tuple[str, ...]

    def files(self, contract: AppContract) -> Mapping[str, bytes]:
        """The content of each file of the app by its name, without the model and the samples.

        Names and labels of the contract are untrusted: they stand in files of data only.
        """
        ...


class Executor(Protocol):
    """Where the jobs of a sweep run."""

    def run(
        self, work: Callable[[str, int], str], jobs: Sequence[str], *, workers: int, address: str
    ) -> Iterator[tuple[int, str]]:
        """(number of a job, the result of `work` for it), as they finish.

        `work` is a function of a module. It takes a job and the number of the worker that runs it,
        below `workers`; it raises nothing. Closing the iterator cancels the unfinished jobs.

        Raises:
            DeviceError: the cluster at `address` cannot be reached.
        """
        ...


class Reporter(Protocol):
    """Receives a verb's messages while it works.

    The command line shows them, a test collects them.
    """

    def progress(self, what: str, count: int, total: int) -> None:
        """`count` of `total` parts of the step `what` are complete."""
        ...

    def warn(self, warning: NamedWarning) -> None:
        """Receives a warning; the record holds it too."""
        ...

    def say(self, line: str) -> None:
        """Receives a message about the current work."""
        ...


class SilentReporter:
    """A Reporter that ignores everything; the records hold the warnings."""

    def progress(self, what: str, count: int, total: int) -> None:
        """Says nothing."""

    def warn(self, warning: NamedWarning) -> None:
        """Says nothing."""

    def say(self, line: str) -> None:
        """Says nothing."""


SILENT = SilentReporter()
