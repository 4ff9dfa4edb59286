"""One small Protocol per shelf. A file of the shelf implements it as a module: no base classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.types import (
    Contract,
    DeviceInfo,
    FileFacts,
    Kind,
    Model,
    ModelFile,
    NamedWarning,
    NativeLibrary,
    Output,
    Preprocessing,
    QuantizedGraph,
    Recipe,
    Report,
    Source,
    Split,
    Target,
    Tensor,
)

Images = NDArray[np.float32]  # [N, H, W, 3], preprocessed
Pixels = NDArray[np.uint8]  # [H, W, 3], RGB, as the data set holds it
Array = NDArray[Any]
Progress = Callable[[str, int, int], None]  # what is being done, how many done, of how many


def quiet(what: str, done: int, total: int) -> None:
    """A Progress that nobody hears."""


class Architecture(Protocol):
    """One paper: arguments -> an untrained Keras model ending in softmax."""

    PAPER: str

    @property
    def build(self) -> Callable[..., Any]:
        """The model, from keyword arguments resolution=(height, width), classes, and its own.

        Input `image` [N, height, width, 3] float32, output [N, classes]. Its own arguments
        (alpha, groups, variant) are the paper's, as the card names them; UsageError for values that
        the paper's network cannot have.
        """
        ...


class RecipeFile(Protocol):
    """One recipe: data only."""

    RECIPE: Recipe


class Pass(Protocol):
    """One step of post-training quantization, from one paper.

    PRESERVES states whether the float function stays what it was.
    """

    PRESERVES: bool

    def apply(
        self, quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
    ) -> QuantizedGraph:
        """The quantized graph, improved by what the images [N, H, W, 3] show."""
        ...


class Compression(Protocol):
    """What makes a network smaller and needs training: wrap, train on, strip.

    PRESERVES states whether the float function stays what it was.
    """

    PRESERVES: bool

    def wrap(self, model: Model, amount: float, steps: int) -> Model:
        """The model, made ready for a training of `steps` batches; UsageError for the amount."""
        ...

    def callbacks(self) -> Sequence[Any]:
        """What Keras has to call while it trains."""
        ...

    def strip(self, model: Model) -> Model:
        """The trained model, plain again."""
        ...


class Writer(Protocol):
    """A finished TFLite file -> the bytes of one format, without TensorFlow."""

    def write(self, content: bytes) -> bytes:
        """The file; InputError for what has no form in the format."""
        ...


class Format(Protocol):
    """What a finished model file is and holds, without TensorFlow and without running it."""

    SUFFIX: str

    def inspect(self, data: bytes) -> FileFacts:
        """Inputs, outputs, layers; InputError where `data` is not such a file."""
        ...

    def float_layers(self, facts: FileFacts) -> tuple[str, ...]:
        """The operators that would compute in float; type changes at the ends do not count."""
        ...

    def between_integers(self, facts: FileFacts) -> tuple[str, ...]:
        """Of `float_layers` those that are the format's only form of an operator among integers."""
        ...

    def sparsity(self, data: bytes) -> float:
        """The share of the weights that are zero, from 0 to 1."""
        ...

    def weights(self, data: bytes) -> Mapping[str, NDArray[np.float32]]:
        """The constants that layers read, as real values in the format's own order, by name."""
        ...

    def seal(self, data: bytes) -> bytes:
        """The file as it is shipped: its tensors named `image` and `scores`."""
        ...

    def write_metadata(self, data: bytes, contract: Contract) -> bytes:
        """The file with `contract` in its metadata, where the format's usual readers look."""
        ...

    def contract(self, data: bytes) -> Contract | None:
        """What `write_metadata` wrote; None where it did not, InputError where it is damaged."""
        ...

    def expose_tensor(self, data: bytes, tensor: str) -> bytes:
        """A copy whose one output is `tensor`: how logits are read behind a softmax."""
        ...

    def activations(self, facts: FileFacts) -> tuple[Tensor, ...]:
        """What the operators hand on to each other, in the order in which it is made."""
        ...

    def extract_subgraph(self, data: bytes, given: Sequence[str], wanted: Sequence[str]) -> bytes:
        """A copy that takes the tensors `given`, as far as they are read, and answers `wanted`.

        A tensor that is both is answered as its operator makes it.
        """
        ...


class OpenedModel(Protocol):
    """A model that somebody brought, ready to become one float TFLite.

    `resolution` is (height, width). `network` is the live model of TensorFlow behind it, for its
    layers and for distillation; None without TensorFlow.
    """

    resolution: tuple[int, int]
    classes: int
    network: Model | None

    def floats(self, output: Output) -> bytes:
        """A float TFLite that ends as `output` says.

        A static batch of 1, and the signature serving_default, image -> scores. InputError where
        TFLite cannot hold the model.
        """
        ...

    def answers(self, images: Images) -> NDArray[np.float32]:
        """What its own framework computes of images [N, H, W, 3], before a closing softmax.

        [N, classes]. InputError where it cannot, and where it answers otherwise each time.
        """
        ...

    def ends_in_softmax(self) -> bool:
        """Whether its answers come from a softmax over the classes."""
        ...

    def likelier_range(self, pre: Preprocessing, images: Images) -> tuple[float, float] | None:
        """The input range by which `images`, prepared by `pre`, are far more like its training.

        None where that of `pre` fits as well as any, and where the model does not tell.
        """
        ...


class SourceFile(Protocol):
    """A kind of model that people bring. Nothing of a framework is imported before `open`.

    NEEDS are the modules that it takes to open one.
    """

    NEEDS: tuple[str, ...]

    def detect(self, path: Path) -> ModelFile | None:
        """What the file is, None where it is something else; InputError where it is broken."""
        ...

    def open(self, source: Source) -> OpenedModel:
        """The model, in one process that may import its framework.

        InputError where it cannot be opened, or is no image classifier; UsageError for a resolution
        that it cannot take.
        """
        ...


class Engine(Protocol):
    """A model loaded by a runtime; one input tensor, one output tensor, batch of 1."""

    input: Tensor
    output: Tensor
    delegate: str
    delegated_nodes: int | None
    total_nodes: int | None

    def load(self, tensor: Array) -> None:
        """Puts a raw input of `input`'s shape and dtype in its place."""
        ...

    def invoke(self) -> None:
        """Computes, and nothing else: this is what is timed."""
        ...

    def run(self, tensor: Array) -> Array:
        """The raw output for a raw input: load, invoke, and a copy of what came out."""
        ...


class Part(Protocol):
    """An subgraph of a model, loaded by a runtime: any number of inputs and outputs."""

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
        """The model at `path`, ready to run; InputError where the engine refuses it."""
        ...

    def part(self, path: Path, *, threads: int) -> Part:
        """The subgraph of a model at `path`, on its default delegate; InputError as for `open`."""
        ...


class Runner(Protocol):
    """The program that drives an engine: what to push, and how to call it (PROTOCOL.md)."""

    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that it drives, by name."""
        ...

    def files(self, machine: str, runtime: str) -> Mapping[str, Path]:
        """What must lie on the device besides the model, by what it is to this runner.

        `machine` is the device's (`facts()["machine"]`: x86_64, aarch64, android-aarch64).
        MissingError where this computer does not have it.
        """
        ...

    def bench(
        self, model: str, target: Target, sample: str | None, files: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The argv that times `model` until its standard input closes.

        `sample` is a file on the device with the raw input; None for seeded noise. `files` are
        those of `files()`, where they lie on the device.
        """
        ...

    def predict(self, model: str, target: Target) -> tuple[str, ...]:
        """The argv that answers for images: a protocol.Work and ranges on standard input.

        UsageError where this runner can only time.
        """
        ...

    def layers(self, target: Target) -> tuple[str, ...]:
        """The argv that runs subgraphs of models: protocol.Feed records on standard input.

        UsageError where this runner can only time.
        """
        ...

    def hear(self, process: Process, target: Target) -> Process:
        """The running program as one that speaks PROTOCOL.md: itself, or with its words translated.

        `target` is what `bench` or `predict` was asked for.
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
        """What the machine is and how it stands right now (clocks, load, temperature)."""
        ...

    def push(self, path: Path) -> str:
        """Brings a file there; its path there."""
        ...

    def run(self, argv: Sequence[str]) -> Process:
        """Starts a command there."""
        ...

    def pull(self, remote: str, path: Path) -> None:
        """Brings a file back."""
        ...

    def clock(self) -> float:
        """Seconds since some moment; a session played back tells those of its recording."""
        ...

    def hold_clocks(self, on: bool) -> bool:
        """Asks the machine to keep its clocks where they can stay; whether it can be asked.

        What was turned on is turned off when the session ends.
        """
        ...


class Device(Protocol):
    """A kind of machine.

    KIND is the kind of figure that it gives. RUNNER is what drives a runtime there where none is
    named.
    """

    KIND: Kind
    RUNNER: str

    def available(self) -> tuple[DeviceInfo, ...]:
        """What of this kind is here right now, in a moment and without changing anything."""
        ...

    def open(
        self, name: str, *, exclusive: bool, reporter: Reporter
    ) -> AbstractContextManager[Session]:
        """Leases the machine (`exclusive` for timing, shared for other work).

        Tells `reporter` when it has to wait for another process that holds it.
        """
        ...


class Samples(Protocol):
    """One split of a data set, opened."""

    source: str
    split: str
    classes: tuple[str, ...]

    @property
    def identity(self) -> str:
        """sha256 over what the samples are; it may take reading them all."""
        ...

    def __len__(self) -> int: ...

    def id(self, index: int) -> str:
        """A name for the image that stays the same from run to run."""
        ...

    def label(self, index: int) -> int:
        """Its class, an index into `classes` (or into the labels given); -1 for none."""
        ...

    def image(self, index: int) -> Pixels:
        """The image; BrokenImage where it cannot be read."""
        ...


class Dataset(Protocol):
    """A kind of labelled images."""

    def accepts(self, source: str) -> bool:
        """Whether `--data SOURCE` is of this kind."""
        ...

    def open(
        self, source: str, split: Split, *, resolution: tuple[int, int], labels: tuple[str, ...]
    ) -> Samples:
        """The samples of `split`; `labels`: class names in the model's order, () for its own.

        `resolution` is what a generator draws at; a data set of images ignores it.
        """
        ...


class ReportFile(Protocol):
    """One way to write down what was found."""

    SUFFIX: str

    def render(self, report: Report) -> str:
        """The text of `report`, whole, with a newline at its end."""
        ...


class Executor(Protocol):
    """Where the jobs of a sweep run."""

    def run(
        self, work: Callable[[str, int], str], jobs: Sequence[str], *, workers: int, address: str
    ) -> Iterator[tuple[int, str]]:
        """(number of a job, what `work` made of it), as they finish.

        `work` is a function of a module, and takes a job and the number of the worker, below
        `workers`, that it has to itself meanwhile; it raises nothing. Closing the iterator gives
        up what has not finished.

        Raises:
            DeviceError: the cluster at `address` cannot be reached.
        """
        ...


class Reporter(Protocol):
    """How a verb speaks while it works; the command line shows it, a test collects it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of a step named `what`."""
        ...

    def warn(self, warning: NamedWarning) -> None:
        """A warning, which the record holds too."""
        ...

    def say(self, line: str) -> None:
        """What is going on."""
        ...


class SilentReporter:
    """A Reporter for callers who read the warnings in the records."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Says nothing."""

    def warn(self, warning: NamedWarning) -> None:
        """Says nothing."""

    def say(self, line: str) -> None:
        """Says nothing."""


SILENT = SilentReporter()
