"""The words that the rooms speak with each other: frozen, documented, free of any framework.

Units are base units and stand in the name (`samples_ns`, `size_bytes`); only the edge formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

ChannelOrder = Literal["rgb", "bgr"]
Resize = Literal["bilinear", "bicubic"]
Layout = Literal["NHWC", "NCHW"]
Split = Literal["train", "calibration", "validation", "test", "all"]
Output = Literal["softmax", "logits"]
InputOutput = Literal["int8", "float"]


@dataclass(frozen=True)
class Doubt:
    """A named warning: the result stands, but this should be known beside it."""

    name: str
    message: str
    advice: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input.

    Central crop of `crop` of each side, resize to the model's height and width, channels in
    `channels` order, pixel p of 0..255 to ``low + p / 255 * (high - low)`` with `input_range` =
    (low, high), then ``(x - mean) / std`` per channel (in the model's channel order).
    """

    input_range: tuple[float, float]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: ChannelOrder = "rgb"
    resize: Resize = "bilinear"
    crop: float = 1.0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overrides:
    """What the command line says of `Preprocessing`; None where it says nothing."""

    input_range: tuple[float, float] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: ChannelOrder | None = None
    resize: Resize | None = None
    crop: float | None = None
    labels: tuple[str, ...] | None = None

    def over(self, default: Preprocessing | None) -> Preprocessing | None:
        """`default` with what is said instead; None where neither says the input range."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        if default is not None:
            return replace(default, **said)
        return Preprocessing(**said) if "input_range" in said else None


@dataclass(frozen=True)
class Weights:
    """Where a model's numbers came from.

    `source` is what the user asked for (demo, imagenet, random, or a file's name); `pinned` says
    whether `sha256` was known beforehand, so that a changed file would have been refused.
    """

    source: str
    sha256: str
    pinned: bool


@dataclass(frozen=True)
class ModelSpec:
    """What a model is: built from a card, or a user's own file (`card` is None).

    `resolution` is (height, width); `arguments` are the architecture's own (alpha).
    """

    name: str
    card: str | None
    architecture: str
    arguments: Mapping[str, float]
    resolution: tuple[int, int]
    classes: int
    preprocessing: Preprocessing
    weights: Weights
    paper: str = ""


@dataclass(frozen=True)
class Recipe:
    """What an artifact's numbers shall be; data only, a file of `recipes/` holds one.

    `calibration` names how activation ranges are found (None: none are needed). `passes` are
    alternatives, each an ordered tuple of names from `passes/`. `formats` lists the converters that
    can do it, `plain` those of them that an export without `--recipe` uses.
    """

    name: str
    summary: str
    weight_bits: int
    activation_bits: int
    formats: tuple[str, ...]
    plain: tuple[str, ...] = ()
    granularity: Literal["none", "per-tensor", "per-channel"] = "none"
    symmetry: Literal["none", "symmetric"] = "none"
    calibration: Literal["min-max"] | None = None
    passes: tuple[tuple[str, ...], ...] = ((),)

    @property
    def full_integer(self) -> bool:
        """Whether every activation is stored as an integer, so that no float op may be left."""
        return self.calibration is not None and self.activation_bits <= 16


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model file. Real value = scale * (stored - zero_point), per `axis` if set."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int | None = None


@dataclass(frozen=True)
class Layer:
    """One operator of a model file, in execution order."""

    name: str
    op: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class FileFacts:
    """What a model file holds, read without running it.

    `logits` names the tensor that feeds the closing softmax, or the output itself without one.
    """

    format: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    layout: Layout
    logits: str


@dataclass(frozen=True)
class Golden:
    """Samples with the answer that the artifact gave when it was made.

    `images` are PNG files of the pictures as the data set gave them, relative to the record's
    folder and named by the first 16 digits of their sha256; `logits` is one row of real-valued
    logits each, on `runtime`.
    """

    ids: tuple[str, ...]
    images: tuple[str, ...]
    logits: tuple[tuple[float, ...], ...]
    runtime: str


@dataclass(frozen=True)
class DataRef:
    """Which pictures: what `--data` said, the split of it, and how labels are ordered.

    `identity` is a sha256 over the content, so that two records can be known to speak of the same
    pictures; empty until the data was opened.
    """

    source: str
    split: Split
    resolution: tuple[int, int]
    labels: tuple[str, ...] = ()
    identity: str = ""


@dataclass(frozen=True)
class Artifact:
    """One model file that `export` made, with all that a later command must know of it.

    `path` is relative to the record's own folder. `key` is a sha256 over all that it was made
    from and with, `data` are the pictures that judge it, `calibration` the identity of those that
    calibrated it ("" for none). `sqnr_db` compares its golden logits with the float model that it
    came from, in dB.
    """

    path: str
    sha256: str
    size_bytes: int
    format: str
    spec: ModelSpec
    recipe: Recipe
    output: Output
    io: InputOutput
    layout: Layout
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    logits: str
    golden: Golden
    sqnr_db: float
    data: DataRef
    calibration: str
    calibration_images: int
    key: str
    convert_seconds: float
    tools: Mapping[str, str]
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True)
class Target:
    """Where and how a model is run."""

    device: str
    runner: str
    runtime: str
    threads: int
    delegate: str


@dataclass(frozen=True)
class Prediction:
    """What a model said of one picture: the best five classes, best first, ties by lower index.

    `label` is -1 where the data set has none.
    """

    sample: str
    label: int
    classes: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """The predictions of one artifact on one set of pictures, and what they come to.

    `top1` and `top5` are fractions, None without matching labels; `agreement` is the share of
    pictures on which the best class equals that of the float model, None without one.
    `confusion` holds (true, predicted, count) for the wrong ones, largest first. `preprocessing`
    is what the pictures went through, the artifact's own or not.
    """

    artifact_sha256: str
    data: DataRef
    preprocessing: Preprocessing
    target: Target
    runtime_version: str
    images: int
    top1: float | None
    top5: float | None
    agreement: float | None
    images_per_second: float
    confusion: tuple[tuple[int, int, int], ...]
    predictions: tuple[Prediction, ...]
    skipped: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Time on a real machine, taken by a clock: raw, with warm-ups and the machine's facts.

    `median_ns` and its 95 % interval are of `samples_ns`.
    """

    artifact_sha256: str
    target: Target
    runtime_version: str
    samples_ns: tuple[int, ...]
    warmups_ns: tuple[int, ...]
    median_ns: float
    interval_ns: tuple[float, float]
    peak_rss_bytes: int
    delegated_nodes: int | None
    total_nodes: int | None
    facts_before: Mapping[str, str]
    facts_after: Mapping[str, str]
    doubts: tuple[Doubt, ...] = ()
    kind: Literal["measured"] = "measured"


@dataclass(frozen=True)
class Model:
    """A live model, opaque to every room but the TensorFlow wing.

    `framework` names the file of `frameworks/` that knows what `handle` is.
    """

    framework: str
    handle: Any = field(repr=False)


@dataclass(frozen=True)
class Progress:
    """How far a step of a child process has come."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Failure:
    """A child process's refusal, to be raised again by its parent."""

    exit_code: int
    message: str
    hint: str


@dataclass(frozen=True)
class ModelFile:
    """What a user's model or weights file is, found out without a framework opening it.

    `framework` names the file of `frameworks/` that loads it; `content` tells a whole model from
    weights alone. `code` lists what would run code from the file (Lambda layers and the like).
    `classes` is the width of the last layer where weights alone tell it.
    """

    path: str
    format: str
    framework: str
    content: Literal["model", "weights"]
    sha256: str
    code: tuple[str, ...] = ()
    classes: int | None = None
