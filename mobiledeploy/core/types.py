"""The types that the rooms share: frozen, documented, free of any framework.

All units are base units and are part of the name (`samples_ns`, `size_bytes`); only cli and reports
format them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mobiledeploy.core import units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.measurements import Measurements

ChannelOrder = Literal["rgb", "bgr", "gray"]
"""The channels of a model's image; a gray one has one channel, all others have three."""
Resize = Literal["bilinear", "bicubic"]
Layout = Literal["NHWC", "NCHW"]
Split = Literal["train", "held", "calibration", "validation", "test", "all"]
Output = Literal["model", "softmax", "logits", "pooled", "detections"]
"""What a file ends in: as its model, in a softmax over the classes, before that softmax, in the
features of the last global pooling, or in the boxes that `TFLite_Detection_PostProcess` chose."""
InputOutput = Literal["int8", "uint8", "float"]
Kind = Literal["measured", "counted", "estimated", "recorded"]
"""What a figure is: a time, a count, the estimate of a model, or a replay of one of these."""
AnnotationField = Literal["", "label", "labels", "values", "boxes", "mask"]
Activation = Literal["softmax", "sigmoid", "none"]
"""What an output of a model ends in, where that decides what its numbers mean."""
Gate = Literal["exact", "mean", "corpus"]
Argument = float | int | str
"""An argument of an architecture besides resolution and classes: alpha, groups, a variant."""


@dataclass(frozen=True)
class NamedWarning(Record):
    """A warning with a name: the result is valid, but the user should know this about it.

    `file` is the path that it concerns where others may have the same warning; the message does not
    name it then.
    """

    name: str
    message: str
    advice: str = ""
    file: str = ""

    @property
    def text(self) -> str:
        """All of it in one line."""
        return self.text_for(self.file)

    def text_for(self, files: str) -> str:
        """All of it in one line, about `files`, which are words; "" for no file."""
        about = f"{files}: " if files else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{about}{self.message}{advice} [{self.name}]"


@dataclass(frozen=True)
class Preprocessing(Record):
    """How an image becomes the model's input.

    Central crop of `crop` of each side, resize to the model's height and width, channels in
    `channels` order (gray: luma by ITU-R 601), pixel p of 0..255 to ``low + p / 255 *
    (high - low)`` with `input_range` = (low, high), then ``(x - mean) / std`` per channel (in the
    model's channel order; a gray image has the first mean and the first std).
    """

    input_range: tuple[float, float]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: ChannelOrder = "rgb"
    resize: Resize = "bilinear"
    crop: float = 1.0
    labels: tuple[str, ...] = ()

    def for_channels(self, count: int) -> Preprocessing:
        """This preprocessing for an image of so many channels: one is gray, three are not."""
        if (count == 1) == (self.channels == "gray"):
            return self
        return replace(self, channels="gray" if count == 1 else "rgb")


@dataclass(frozen=True)
class Weights(Record):
    """Where a model's numbers came from.

    `source` is what the user named (demo, imagenet, random, or a file); `pinned` says whether
    `sha256` was known beforehand, so that a changed file would have been refused.
    """

    source: str
    sha256: str
    pinned: bool


@dataclass(frozen=True)
class ModelSpec(Record):
    """What a model is: built from a card, or a user's own file (`card` is None).

    `resolution` is (height, width) of its first image; `arguments` are the architecture's own
    (alpha, groups, ...). `classes` is the last side of its first output: the number of classes of a
    classifier. `task` names the file of `tasks/` that says what it answers, "" if that is to be
    found out from its outputs.
    """

    name: str
    card: str | None
    architecture: str
    arguments: Mapping[str, Argument]
    resolution: tuple[int, int]
    classes: int
    preprocessing: Preprocessing
    weights: Weights
    paper: str = ""
    task: str = "classification"

    @property
    def alpha(self) -> float | None:
        """The width multiplier; None for a network without one."""
        alpha = self.arguments.get("alpha")
        return None if alpha is None else float(alpha)


@dataclass(frozen=True)
class Recipe(Record):
    """How an artifact is quantized; data only, one per file of `recipes/`.

    `calibration` names how activation ranges are determined (None: none are needed). `passes` are
    alternatives, each an ordered tuple of names from `passes/`. `training` are the parts of
    quantization-aware training that follow them; training can be resumed after each. `formats`
    lists the writers that support the recipe, `plain` those that an export without `--recipe` uses.
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
    training: tuple[Literal["qat"], ...] = ()

    @property
    def full_integer(self) -> bool:
        """Whether every activation is stored as an integer, which allows no float operator."""
        return self.calibration is not None and self.activation_bits <= 16


@dataclass(frozen=True)
class Tensor(Record):
    """A tensor of a model. Real value = scale * (stored - zero_point), per `axis` if set.

    `constant`: its values are in the model file, as those of weights.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int | None = None
    constant: bool = False


@dataclass(frozen=True)
class Layer(Record):
    """One operator of a model file, in execution order."""

    name: str
    op: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class FileFacts(Record):
    """The content of a model file, read without running it.

    `logits` names the input of the final softmax, or the output if there is none.
    """

    format: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    layout: Layout
    logits: str


@dataclass(frozen=True)
class Golden(Record):
    """Samples with the answers of the artifact when it was made.

    `images` are files, relative to the record's folder and named by the first 16 digits of their
    sha256: PNG files of the original images, or .npz files of the inputs by name for a model that
    takes more than one image. `logits` holds the real-valued outputs for each, one after another,
    a softmax left out (`analysis.accuracy.golden_row`). They were computed by `runtime` on the
    instruction set `isa` ("" if it was not recorded).
    """

    ids: tuple[str, ...]
    images: tuple[str, ...]
    logits: tuple[tuple[float, ...], ...]
    runtime: str
    isa: str = ""


@dataclass(frozen=True)
class Contract(Record):
    """The metadata of a model file: how samples become its inputs, and the expected answers.

    `preprocessing`, `layout` and `resolution` (height, width) are those of its first image.
    `signature` and `task` are as in `Artifact`; None and classification in files of earlier
    versions.
    """

    name: str
    preprocessing: Preprocessing
    resolution: tuple[int, int]
    layout: Layout
    output: Output
    golden: Golden
    signature: Signature | None = None
    task: str = "classification"


@dataclass(frozen=True)
class DataRef(Record):
    """Which images: the value of `--data`, the split, and the order of the labels.

    `identity` is a sha256 of the content, which shows whether two records are about the same
    images; empty until the data was opened.
    """

    source: str
    split: Split
    resolution: tuple[int, int]
    labels: tuple[str, ...] = ()
    identity: str = ""


@dataclass(frozen=True)
class RecipeAlternative(Record):
    """One of a recipe's alternatives, and its result on calibration images that were held back.

    `divergence` is that of its softmax from the float model's, in nats, mean over the images, at
    `temperature` (see `analysis.accuracy`); the choice is made by it. `sqnr_db` compares the logits
    of both; `agreement` is the share of the images with the same best class.
    """

    passes: tuple[str, ...]
    divergence: float
    temperature: float
    sqnr_db: float
    agreement: float
    images: int


@dataclass(frozen=True)
class Fidelity(Record):
    """How far a file's answers are from those of its float model, on the evaluation images.

    `sqnr_db` is in dB, over all outputs; a softmax is left out. `divergence` is the mean of the
    task's: for a classifier the KL divergence of the softmax from the float model's, in nats.
    `reference_sha256` is the float file.
    """

    sqnr_db: float
    divergence: float
    images: int
    reference_sha256: str


@dataclass(frozen=True)
class ShrunkLayer(Record):
    """A convolution or dense layer without the filters that no answer depends on.

    `layer` is the name of its output tensor, `filters` how many there were, `left_out` how many of
    them are gone.
    """

    layer: str
    filters: int
    left_out: int


@dataclass(frozen=True)
class ExportArguments(Record):
    """The arguments of the export that made an artifact, as the user gave them.

    None means the default of the card, of the model or of the recipes, () no choice. `model`,
    `weights`, `data` and `custom_objects` may be paths of the user's. `shrink` is false for
    --no-shrink, `core` that of --for. `labels` says whether class names were given: the
    preprocessing of the artifact holds them. `input_range` to `crop` replaced the preprocessing of
    the card or of the model.
    """

    model: str | None
    arch: str | None
    alpha: float | None
    groups: int | None
    res: int | None
    weights: str | None
    data: str | None
    recipes: tuple[str, ...]
    formats: tuple[str, ...]
    io: InputOutput
    output: Output
    keep_float: tuple[str, ...]
    shrink: bool
    task: str
    custom_objects: str | None
    unsafe: bool
    labels: bool
    input_range: tuple[float, float] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: ChannelOrder | None = None
    resize: Resize | None = None
    crop: float | None = None
    core: str | None = None


@dataclass(frozen=True)
class FileForm(Record):
    """A form of a file, among others that compute the same, and its instructions on a core.

    Tensors that lost channels keep a `multiple` of them. `pairs`: the first convolution reads two
    columns of the image as one pixel.
    """

    multiple: int
    pairs: bool
    instructions: int

    @property
    def name(self) -> str:
        """What sets it apart, in words."""
        channels = "every dead channel left out" if self.multiple == 1 else ""
        pairs = "two columns as one pixel" if self.pairs else ""
        return ", ".join(filter(None, (channels, pairs))) or "plain"


@dataclass(frozen=True)
class CoreChoice(Record):
    """The forms of a file that `export --for` counted on an emulated `core`.

    The first of `forms` is that of an export without `--for`; the one at the place `chosen` was
    written. Instructions rank files on a core, and are no times.
    """

    core: str
    forms: tuple[FileForm, ...]
    chosen: int


@dataclass(frozen=True)
class Artifact(Record):
    """One model file made by `export`, with all the facts that a later command needs.

    `path` is relative to the record's own folder. `key` is a sha256 of all inputs and tools of the
    export. `data` are the evaluation images, `calibration` is the identity of the calibration
    images ("" for none), `trained_on` that of the images of quantization-aware training.
    `kept_float` are the layers that `--keep-float` names. `sqnr_db` compares its golden logits with
    those of its float model, in dB; these are a few images, enough to detect a broken file but not
    to rank files. `fidelity` is measured on the evaluation images; it is None for a float32 file
    and in records of earlier versions. `signature` describes its inputs and outputs for people and
    tasks; it is None in records of earlier versions, which have one image and one row of scores
    (`artifacts.signature`). `gzip_bytes` is its size after gzip, about what an app store delivers
    (0 for a file of another tool); `sparsity` is the share of its weights that are zero, from 0 to
    1. `tried` are the alternatives of its recipe in the order of the recipe; the one of least
    divergence was used. `shrunk_layers` are the layers without filters that the model has, because
    no answer depends on these. `within` is the chain that `export --within` chose it from.
    `arguments` are those of its export, None in records of earlier versions. `core_choice` are the
    forms that `export --for` counted, None if there was one only.
    """

    path: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    sparsity: float
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
    tried: tuple[RecipeAlternative, ...] = ()
    trained_on: str = ""
    kept_float: tuple[str, ...] = ()
    warnings: tuple[NamedWarning, ...] = ()
    fidelity: Fidelity | None = None
    signature: Signature | None = None
    shrunk_layers: tuple[ShrunkLayer, ...] = ()
    within: BudgetChain | None = None
    arguments: ExportArguments | None = None
    core_choice: CoreChoice | None = None

    @property
    def ends(self) -> str:
        """`io` if it was a choice; "" for a recipe whose inputs and outputs are always float."""
        return self.io if self.recipe.full_integer else ""


@dataclass(frozen=True)
class Target(Record):
    """Where and how a model runs."""

    device: str
    runner: str
    runtime: str
    threads: int
    delegate: str


@dataclass(frozen=True)
class DeviceInfo(Record):
    """A machine that can give figures, or could after a fix.

    `name` is what `--device` takes, `kind` the kind of figure that it gives, `about` what it is.
    `fix` says what is missing, "" if it is ready. `own` is a device card of the user's. `estimates`
    are the runtime, its year or version, and the precision of each estimate that a card is good for
    (tflite 2019, int8).
    """

    name: str
    kind: Kind
    about: str
    fix: str = ""
    own: bool = False
    estimates: tuple[str, ...] = ()


Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of the width and height of the model's input."""


@dataclass(frozen=True)
class Mask(Record):
    """A class for each pixel of an image of `size` (height, width), row by row.

    `runs` holds a class and the number of pixels in a row that have it, in turn; -1 is the class of
    pixels that nobody annotated.
    """

    size: tuple[int, int]
    runs: tuple[int, ...]


@dataclass(frozen=True)
class Prediction(Record):
    """A model's answer to one sample, decoded by its task; fields that the task lacks are empty.

    `label` is the annotated class, -1 for none. `classes` and `scores` are the best five classes
    and their scores, best first, ties by lower index; of a detector those of each box in `boxes`.
    `values` are the numbers of a regression, the vector of an embedding, or the scores of all
    classes where several can be right.
    """

    sample: str
    label: int = -1
    classes: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    boxes: tuple[Box, ...] = ()
    values: tuple[float, ...] = ()
    mask: Mask | None = None


@dataclass(frozen=True)
class Annotation(Record):
    """What is true of one sample, as its data set says; fields that it does not say are empty.

    `label` is its class, -1 for none. `labels` are all classes that are right, of a detector the
    class of each box in `boxes`; a sample without them has no class that is right, and no box.
    `crowd` says of each box whether it covers a group; it may be empty, where no box does. `values`
    are the targets of a regression, or the float model's answer where that is the target.
    """

    label: int = -1
    labels: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    crowd: tuple[bool, ...] = ()
    values: tuple[float, ...] = ()
    mask: Mask | None = None


@dataclass(frozen=True)
class Metric(Record):
    """A figure over samples. `unit` is "" for a number, or `share` for a fraction of 1."""

    name: str
    title: str
    unit: Literal["", "share", "dB"]
    higher_is_better: bool = True


@dataclass(frozen=True)
class ModelInput(Record):
    """An input of a model: its name, its shape without the batch, and how it is made.

    An `image` is (height, width, channels), whatever the order in a file, with 1 or 3 channels and
    its preprocessing. A `tensor` is taken as the data gives it. `dtype` is that of the float model.
    """

    name: str
    kind: Literal["image", "tensor"]
    shape: tuple[int, ...]
    preprocessing: Preprocessing | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class NetworkInput(Record):
    """An input as a live network takes it: `batch` samples at once, its channels first or last."""

    end: ModelInput
    batch: int = 1
    channels_first: bool = False


@dataclass(frozen=True)
class AnchorLevel(Record):
    """The anchors of one feature map: the same boxes around the centre of each of its places.

    `grid` is (rows, columns). `sizes` are (height, width) of these boxes, as fractions of the
    model's input.
    """

    grid: tuple[int, int]
    sizes: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Anchors(Record):
    """The boxes that a detector's numbers are relative to, and how: see `analysis.anchors`.

    Their order is that of the levels; in a level by rows, columns and sizes. `scales` are what the
    offsets of a box (ty, tx, th, tw) are multiplied by.
    """

    levels: tuple[AnchorLevel, ...]
    scales: tuple[float, float, float, float]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(x.grid[0] * x.grid[1] * len(x.sizes) for x in self.levels)


@dataclass(frozen=True)
class ModelOutput(Record):
    """An output of a model: its name, its shape without the batch, and what computes it.

    `activation` is the last operator where it decides what the numbers mean: probabilities of
    classes that exclude each other (softmax), of each class alone (sigmoid), or anything else.
    `anchors` are those of boxes that are not decoded yet, None for all other outputs.
    """

    name: str
    shape: tuple[int, ...]
    activation: Activation = "none"
    anchors: Anchors | None = None


@dataclass(frozen=True)
class Signature(Record):
    """The inputs and outputs of a model, in the order of its file."""

    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]

    @property
    def image(self) -> ModelInput | None:
        """The first image among the inputs."""
        return next((end for end in self.inputs if end.kind == "image"), None)


@dataclass(frozen=True)
class AppSample(Record):
    """A golden sample in the folder of an app; files are relative to that folder.

    `image` is the image, `pixels` what the model sees of it: bytes [height, width, channels], after
    crop and resize, in the model's order of channels. `input` is the input tensor that they make,
    raw little-endian numbers of the tensor's type. `outputs` are the real values of each output,
    raw little-endian float32, and `answer` is what the task reads in them.
    """

    image: str
    pixels: str
    input: str
    outputs: tuple[str, ...]
    answer: Prediction


@dataclass(frozen=True)
class AppContract(Record):
    """What the code of an app needs to know of its model: `contract.json` in the app's folder.

    `model` is the model's file in that folder. `runtime` is the package that runs it, and
    `runtime_version` the version that the golden samples were answered by. `image` says how an
    image becomes the tensor `input`, in the axes of `layout`. `outputs` are the model's tensors,
    and `ends` say what they mean to the task. `labels` are the names of the classes by their
    number, () if there are none.
    """

    model: str
    runtime: str
    runtime_version: str
    task: str
    layout: Layout
    image: ModelInput
    input: Tensor
    outputs: tuple[Tensor, ...]
    ends: tuple[ModelOutput, ...]
    labels: tuple[str, ...]
    golden: tuple[AppSample, ...]


@dataclass(frozen=True)
class ChangedAnswer(Record):
    """An image whose answer is not that of the float model: `reference` is float's, `answer` ours.

    Both, and the annotated `label`, are names of classes, "" where there is none: a task that names
    no single class has none.
    """

    sample: str
    label: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Evaluation(Record):
    """The predictions of one artifact on one set of images, and the metrics of them.

    `metrics` are those of its `task` by name, as far as the data has annotations; `top1` and `top5`
    are those of a classifier, fractions, None without matching labels. `agreement` is the share of
    images with the same answer as that of the float model, None without one. `confusion` holds
    (true, predicted, count) for the wrong ones of a classifier, largest first. `preprocessing` was
    applied to the images; it may differ from the artifact's own. `isa` is the device's
    instruction set in the words of Linux, "" in earlier versions. `images_per_second` is with the
    preparation of the images and no latency; on an emulated core it says nothing of any device.
    `changed_answers` are all images whose answer is not that of the float model, in the order of
    `predictions`; () in earlier versions. `class_count` is how many classes the model tells apart,
    None in earlier versions and without classes.
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
    warnings: tuple[NamedWarning, ...] = ()
    task: str = "classification"
    metrics: Mapping[str, float] = field(default_factory=dict)
    isa: str = ""
    changed_answers: tuple[ChangedAnswer, ...] = ()
    class_count: int | None = None


Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Verdict(Record):
    """The answer to one question of a check about an artifact.

    `metric` is the question: `accuracy` (loss of top-1 against the accepted model), `metric` (the
    same of another task's first metric, named in `subject`), `float` (against the accepted float
    model), `floor`, `flips` (answers that changed), `class` (one class, named in `subject`),
    `golden` (outputs recorded when the artifact was made), `latency`, `instructions`, and
    `first_answer` and `peak_memory` of a fresh process (the ratio of new to old, minus one; they
    need no images). `value`, `interval` and `margin` are of one
    unit: fractions of the images, of a metric or of its bound, or quantization steps for `golden`.
    The interval is two one-sided 95 % bounds, None if there is none. `needed` is how many
    images would be enough for a decision if these are not. `line` is the verdict in words.
    """

    metric: Literal[
        "accuracy",
        "metric",
        "float",
        "floor",
        "flips",
        "class",
        "golden",
        "latency",
        "instructions",
        "first_answer",
        "peak_memory",
    ]
    subject: str
    outcome: Outcome
    value: float
    interval: tuple[float, float] | None
    margin: float
    images: int
    needed: int | None
    line: str


@dataclass(frozen=True)
class BudgetFile(Record):
    """One file of a link of `BudgetChain`, and the verdict on it against its float model.

    `cost` is in the unit of the chain.
    """

    format: str
    sha256: str
    cost: float
    verdict: Verdict


@dataclass(frozen=True)
class BudgetLink(Record):
    """A way to make files: a recipe, and the layers that stay in float.

    `files` are empty, and `outcome` is None, if the chain was left before this link or its files
    cannot be made; else `outcome` is that of all of them together.
    """

    recipe: str
    kept_float: tuple[str, ...]
    outcome: Outcome | None = None
    files: tuple[BudgetFile, ...] = ()

    @property
    def cost(self) -> float:
        """The costs of its files together; 0 without files."""
        return sum(file.cost for file in self.files)


@dataclass(frozen=True)
class BudgetChain(Record):
    """The choice of `export --within`: the cheapest link whose files surely keep to a budget.

    `budget` is a fraction: of the task's metric or of its bound that may be lost, or with
    `kind` answers of the answers that may change. `cost` are instructions counted on `core`, or
    bytes of the file. `links` run from the dearest, which is nearest to float, to the cheapest;
    they were fixed before a sample of the verdict part was looked at, and are tested in this order,
    each at `level`, up to the first that does not pass. `written` is the index of the one of least
    cost that passed, whose files were written; None if the first did not pass. `search` samples
    chose the chain, others, so many as `verdict`, judged it; `split` says how the samples were
    divided, and `data` is their identity.
    """

    kind: Literal["metric", "answers"]
    budget: float
    level: float
    cost: Literal["instructions", "bytes"]
    core: str
    data: str
    split: str
    search: int
    verdict: int
    links: tuple[BudgetLink, ...]
    written: int | None

    @property
    def outcome(self) -> Outcome:
        """That of the dearest link that could be made: `pass` if a link was written."""
        return next(link.outcome for link in self.links if link.outcome is not None)


@dataclass(frozen=True)
class MovedAnswers(Record):
    """Images of class `true` that are taken for `predicted`: how many before, how many now."""

    true: str
    predicted: str
    before: int
    now: int


@dataclass(frozen=True)
class Check(Record):
    """The results of a check of one artifact; only `verdicts` decide, the rest is information.

    Accuracies and `flips` are fractions of `images`; None if the images have no labels. `losses`
    are images that only the accepted model classified correctly, `gains` those that only this one
    did; `mcnemar_p` is the exact two-sided p of the two. `untested` counts the classes with too few
    images for a verdict of their own.

    Of a task other than classification, `metric` is what decides, `metric_now` and
    `metric_accepted` are its values; they are None without annotations. Its `top1` is None, and so
    are `losses`, `gains` and `mcnemar_p` where answers are not just right or wrong. `outcome` is
    the gravest of its verdicts: "fail" before "inconclusive" before "pass". The answers come from
    `target` (device, runtime, delegate), the version of its runtime, and its instruction set `isa`;
    None and "" in earlier versions.
    """

    path: str
    model: str
    recipe: str
    format: str
    artifact_sha256: str
    accepted_sha256: str
    images: int
    top1: float | None
    accepted_top1: float | None
    losses: int | None
    gains: int | None
    flips: float
    mcnemar_p: float | None
    untested: int
    moved: tuple[MovedAnswers, ...]
    verdicts: tuple[Verdict, ...]
    warnings: tuple[NamedWarning, ...] = ()
    task: str = "classification"
    metric: Metric | None = None
    metric_now: float | None = None
    metric_accepted: float | None = None
    outcome: Outcome = "pass"
    target: Target | None = None
    runtime_version: str = ""
    isa: str = ""

    def __post_init__(self) -> None:
        # A field, so that it is in the JSON; never other than the verdicts, whatever a file says.
        outcomes = {verdict.outcome for verdict in self.verdicts}
        object.__setattr__(self, "outcome", gravest(outcomes))

    def figures(self) -> tuple[str, str]:
        """What decides for people: (now, accepted)."""
        if self.metric is None:
            return units.percent(self.top1, 2), units.percent(self.accepted_top1, 2)
        now, accepted = (
            units.metric(value, self.metric.unit, 2)
            for value in (self.metric_now, self.metric_accepted)
        )
        return f"{self.metric.title} {now}", accepted


def gravest(outcomes: Collection[Outcome]) -> Outcome:
    """The gravest outcome: "fail" before "inconclusive" before "pass"."""
    return (
        "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
    )


@dataclass(frozen=True)
class Regression(Record):
    """One figure compared with that of a baseline set, both of one kind and one target.

    `path` names the subject of the comparison, for people; `verdicts` holds one verdict on the
    ratio of new to old, or two for a cold start.
    """

    path: str
    model: str
    recipe: str
    format: str
    artifact_sha256: str
    accepted_sha256: str
    verdicts: tuple[Verdict, ...]
    warnings: tuple[NamedWarning, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The gravest of its verdicts."""
        return gravest({verdict.outcome for verdict in self.verdicts})


@dataclass(frozen=True)
class Forecast(Record):
    """What the card of a device estimated for a timing, and how far that was off.

    `series` describes the points. `error` is that of the estimate relative to the timing: 0.1 is
    10 % too slow. `within` says whether the timing lies in the interval of 95 %. `is_point` as in
    `Fit`: the error of a point says nothing about other networks.
    """

    card: str
    series: str
    latency_ns: float
    interval_ns: tuple[float, float]
    error: float
    within: bool
    is_point: bool | None


@dataclass(frozen=True)
class Result(Record):
    """One figure of the store, with the facts about its artifact.

    `kind` is "" for an artifact without a figure. `latency_ns` and its interval belong to measured
    and estimated figures, `instructions` to counted ones. `top1` and `agreement` are fractions,
    from the newest evaluation on the host; `value` is that of its task's first metric (`task`,
    `metric`), which is top-1 for a classifier. `mult_adds` is None if the artifact's file is gone.
    `id` names the figure in its store, None if there is none. A `recorded` figure was replayed;
    `made_at` is then the time of the recording. `weights` is the source of the model's weights;
    `data_source`, `data_split` and `data_identity` describe the images of `value`, `images` is how
    many there are ("" and 0 without it). `io` is the artifact's `ends`. `forecast` is what a card
    estimated for a timing, None if none did.
    """

    made_at: str
    artifact_sha256: str
    model: str
    recipe: str
    format: str
    size_bytes: int | None
    kind: str
    device: str
    runner: str
    runtime: str
    runtime_version: str
    threads: int
    delegate: str
    latency_ns: float | None
    latency_interval_ns: tuple[float, float] | None
    instructions: int | None
    top1: float | None
    agreement: float | None
    mult_adds: int | None = None
    id: int | None = None
    recorded: bool = False
    weights: str = ""
    weights_sha256: str = ""
    data_source: str = ""
    data_split: str = ""
    data_identity: str = ""
    images: int = 0
    io: str = ""
    task: str = ""
    metric: str = ""
    value: float | None = None
    forecast: Forecast | None = None


_POINT = {False: "", True: ", a point", None: ", perhaps a point"}


@dataclass(frozen=True)
class ForecastPair(Record):
    """A timing of a file on a device, and what a card estimated for it."""

    made_at: str
    artifact_sha256: str
    model: str
    recipe: str
    format: str
    device: str
    latency_ns: float
    forecast: Forecast

    def cells(self) -> tuple[str, ...]:
        """A row of `CardCalibration.tables`."""
        forecast = self.forecast
        return (
            units.one_line(self.model or self.artifact_sha256[:12]),
            units.one_line(f"{self.recipe}.{self.format}"),
            units.one_line(self.device),
            units.duration(forecast.latency_ns),
            " to ".join(map(units.duration, forecast.interval_ns)),
            units.duration(self.latency_ns),
            units.signed_percent(forecast.error),
            ("yes" if forecast.within else "no") + _POINT[forecast.is_point],
        )


@dataclass(frozen=True)
class CardCalibration(Record):
    """How well the estimates of a series of a card agree with timings on its device.

    `pairs` holds the newest timing of each file on each target. Of each network that is no point of
    the series, the newest one is counted: files of one network do not err independently. `counted`
    are the networks, and the timings of `within` of them lie in their interval of 95 %; `coverage`
    is the exact interval of that share. `rmspe` is the root of the mean squared relative error,
    `bias` the median error. All three are None if none is counted.
    """

    card: str
    series: str
    counted: int
    within: int
    coverage: tuple[float, float] | None
    rmspe: float | None
    bias: float | None
    pairs: tuple[ForecastPair, ...]

    @property
    def summary(self) -> str:
        """The errors in words."""
        if self.coverage is None or self.bias is None:
            return "no timing is of a network that is no point of the card"
        low, high = self.coverage
        return (
            f"{self.within} of {units.several(self.counted, 'network')} within the 95 % interval "
            f"(so it holds {units.percent(low, 0)} to {units.percent(high, 0)}), "
            f"RMSPE {units.percent(self.rmspe)}, median error {units.signed_percent(self.bias)}"
        )

    def tables(self) -> tuple[Table, ...]:
        """A row for each timing."""
        headers = ("model", "recipe", "device", "estimated", "95 % interval", "measured", "error")
        title = units.one_line(f"{self.card}, {self.series}: {self.summary}")
        rows = tuple(pair.cells() for pair in self.pairs)
        return (Table((*headers, "within"), rows, title, ("device",)),)


@dataclass(frozen=True)
class Answers(Record):
    """Which images an artifact classified correctly, to compare two artifacts image by image.

    `right` is base64 of a bit for each of `images`, the first image in the highest bit of the first
    byte; `samples` is a sha256 of the images' names: only answers with the same value are compared.
    """

    artifact_sha256: str
    samples: str
    images: int
    right: str


@dataclass(frozen=True)
class Gain(Record):
    """The difference in top-1 to another artifact on the same images, a fraction.

    `low` and `high` are one-sided 95 % bounds, paired (`analysis.gate`).
    """

    value: float
    low: float
    high: float

    @property
    def tie(self) -> bool:
        """Whether these images cannot show which of the two is better."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class StoredVerdict(Record):
    """A verdict of the store: its time, gate, artifact and text."""

    made_at: str
    artifact_sha256: str
    gate: str
    metric: str
    outcome: Outcome
    line: str


@dataclass(frozen=True)
class LayerFigure(Record):
    """A layer of a report's profile; `value` is mult-adds, or instructions where `counted`."""

    name: str
    op: str
    value: int


@dataclass(frozen=True)
class Flip(Record):
    """An image whose best class changed; `image` is a data URI of a small JPEG, "" for none."""

    sample: str
    label: str
    before: str
    now: str
    image: str


@dataclass(frozen=True)
class DrawnBox(Record):
    """A box to draw, with the name of its class; `score` is None where it is annotated."""

    box: Box
    name: str
    score: float | None


@dataclass(frozen=True)
class DrawnAnswer(Record):
    """A detector's boxes or a mask, to draw over what the model sees of an image.

    `image` is a data URI of a small JPEG; `mask` is the model's, `true_mask` the annotated one and
    `before_mask` that of the artifact that it is compared with, data URIs of PNGs that are
    transparent where nothing is, "" for none. `differing` is the share of pixels in which `mask`
    and `before_mask` differ. `classes` holds the (name, colour) of what they show, the colour as
    six hexadecimal digits.
    """

    sample: str
    image: str
    boxes: tuple[DrawnBox, ...]
    mask: str
    true_mask: str
    classes: tuple[tuple[str, str], ...]
    before_mask: str = ""
    differing: float | None = None


@dataclass(frozen=True)
class Detail(Record):
    """What a report shows about one artifact besides its row.

    `classes` holds (name, images, correct answers) for each class; `flips` compares it with the
    artifact named `against`, and `flipped` is the number of answers that are others there;
    `environment` is of its newest figure; `drawn` are answers that are drawn over their images.
    """

    artifact_sha256: str
    model: str
    recipe: str
    format: str
    profile: tuple[LayerFigure, ...]
    counted: bool
    classes: tuple[tuple[str, int, int], ...]
    against: str
    flips: tuple[Flip, ...]
    flipped: int
    environment: Mapping[str, str]
    drawn: tuple[DrawnAnswer, ...] = ()


@dataclass(frozen=True)
class AcceptedDifference(Record):
    """The newest file of a model beside the one that the baseline accepts in its place.

    Sizes are None where a file is unknown. `value` and `accepted_value` are of `metric`, None where
    they were not evaluated; `gain` compares them on the same images, None if they are not. `layers`
    are those that changed most, None without both files.
    """

    model: str
    recipe: str
    format: str
    artifact_sha256: str
    accepted_sha256: str
    size_bytes: int | None
    accepted_size_bytes: int | None
    metric: Metric
    value: float | None
    accepted_value: float | None
    gain: Gain | None
    layers: Table | None


@dataclass(frozen=True)
class Report(Record):
    """The content of a report; a file of `reports/` turns it into text.

    `failed` are artifacts of a check without a verdict, each with its reason. `answers` belong to
    the evaluated artifacts of `results`, `cold_starts` are their newest on each target.
    `on_inconclusive` says whether an inconclusive check counts as failed. `calibrations` compare
    estimates with timings.
    """

    title: str
    checks: tuple[Check, ...] = ()
    regressions: tuple[Regression, ...] = ()
    results: tuple[Result, ...] = ()
    details: tuple[Detail, ...] = ()
    verdicts: tuple[StoredVerdict, ...] = ()
    answers: tuple[Answers, ...] = ()
    on_inconclusive: Literal["fail", "warn"] = "fail"
    failed: tuple[Failed, ...] = ()
    cold_starts: tuple[StoredColdStart, ...] = ()
    calibrations: tuple[CardCalibration, ...] = ()

    @property
    def decided_by(self) -> str:
        """What the figures of the checks are, for the head of a table."""
        return "top-1" if all(check.metric is None for check in self.checks) else "metric"

    def tables(self) -> tuple[Table, ...]:
        """Of a check: a row for each artifact."""
        if not (self.checks or self.failed):
            return super().tables()
        what = self.decided_by
        headers = ("file", "verdict", "images", what, "accepted", "flips", "McNemar p")
        rows: list[tuple[str, ...]] = [
            (
                check.path,
                check.outcome,
                str(check.images),
                *check.figures(),
                units.percent(check.flips, 2),
                "–" if check.mcnemar_p is None else f"{check.mcnemar_p:.3g}",
            )
            for check in self.checks
        ]
        rows += [(one.what, "error", "–", "–", "–", "–", "–") for one in self.failed]
        return (Table(headers, tuple(rows), optional=("McNemar p", "flips", "images")),)


@dataclass(frozen=True)
class EnergyFigure(Record):
    """Energy of an inference as the machine itself tells it, by blocks of idleness and of load.

    `source` is `battery`, `pmic` for that of a Raspberry Pi 5, or `rails` for those of a Pixel;
    `method` says what was read: `rails` (their sum), `power`, `current` (and voltage), or `charge
    counter`. `idle_w` and `load_w` are the mean power of each block, `run_ns` the mean time of a
    run in each block of load. `above_idle_j` is the median over rounds of what an inference takes
    above idle, with its 95 % interval; `whole_j` is what the whole machine takes meanwhile. It is
    measured: nothing is corrected for losses that the machine does not tell.
    """

    source: Literal["pmic", "rails", "battery"]
    method: Literal["rails", "power", "current", "charge counter"]
    idle_w: tuple[float, ...]
    load_w: tuple[float, ...]
    run_ns: tuple[float, ...]
    above_idle_j: float
    interval_j: tuple[float, float]
    whole_j: float


@dataclass(frozen=True)
class LeftOperator(Record):
    """An operator that a delegate left to the CPU, and so a reason for a split graph.

    `op` is its kind, `layers` its layer's name: several if only the kind is known, of which it is
    one or more. `reason` is what the delegate said, "" for nothing.
    """

    op: str
    layers: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Measured(Record):
    """Time on a real machine by a clock: raw samples, with warm-ups and the machine's facts.

    `median_ns` and its 95 % interval are of `samples_ns`. `golden_steps` is how far the answer of
    the last run is from that of the export for the same image, in quantization steps (a 255th of
    the range of a float answer, or of the scores of all boxes that the file chose), at the output
    that is farthest by its limit; None if they were not compared. `cpu_steps` is how far it is from
    that of the built-in kernels of the same runtime on the same machine, 0 if bit for bit the same;
    None without a delegate, or if they were not compared. `left_operators` are those that the
    delegate left to the CPU, as far as the runner tells them. `energy` is None unless it was asked
    for.
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
    warnings: tuple[NamedWarning, ...] = ()
    golden_steps: float | None = None
    energy: EnergyFigure | None = None
    cpu_steps: float | None = None
    left_operators: tuple[LeftOperator, ...] = ()
    kind: Literal["measured"] = "measured"


@dataclass(frozen=True)
class ColdFigure(Record):
    """One figure of a fresh process: its value in each process, in the order of the starts.

    `name` ends in its unit (`load_ns`, `peak_rss_bytes`); `median` and its 95 % `interval` are of
    `samples`.
    """

    name: str
    samples: tuple[int, ...]
    median: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class ColdStart(Record):
    """What a fresh process needs until its first answer, over several processes.

    The steps follow each other; one that the engine does within the next step has no figure.
    `library_ns`: opens the runtime's library (Python: imports its package) and starts it;
    `load_ns`: reads the model file; `prepare_ns`: delegate, compilation, memory of the tensors;
    `first_inference_ns`: the first run; `first_answer_ns`: the sum of these. `peak_rss_bytes` is
    the largest resident memory of the whole process. `size_bytes` is the model file,
    `library_bytes` the runtime's library (None for the Python runner).
    """

    artifact_sha256: str
    target: Target
    runtime_version: str
    figures: tuple[ColdFigure, ...]
    size_bytes: int
    library_bytes: int | None
    facts_before: Mapping[str, str]
    facts_after: Mapping[str, str]
    warnings: tuple[NamedWarning, ...] = ()

    @property
    def processes(self) -> int:
        """The number of processes, equal for all figures."""
        return len(self.figures[0].samples)


@dataclass(frozen=True)
class StoredColdStart(Record):
    """A cold start of the store, with the names of its artifact."""

    made_at: str
    model: str
    recipe: str
    format: str
    cold_start: ColdStart


@dataclass(frozen=True)
class LatencyComparison(Record):
    """Time of B over time of A: `ratio` with its 95 % interval; `blocks` in the order of timing.

    `changed` says whether the interval excludes 1. Blocks come in rounds of A B B A.
    """

    a: str
    b: str
    ratio: float
    interval: tuple[float, float]
    changed: bool
    rounds: int
    blocks: tuple[Measured, ...]

    def tables(self) -> tuple[Table, ...]:
        """One row; times are medians of the blocks' medians."""
        # Not at the top: it takes longer to import than all else here.
        import statistics

        a, b = (
            statistics.median(
                block.median_ns
                for block, own in zip(self.blocks, "ABBA" * self.rounds, strict=True)
                if own == side
            )
            for side in "AB"
        )
        low, high = self.interval
        row = (
            f"{self.b} over {self.a}",
            units.duration(a),
            units.duration(b),
            f"{self.ratio:.3f}",
            f"{low:.3f} to {high:.3f}",
            units.change_word(self.ratio, self.changed),
        )
        headers = ("B over A", "time of A", "time of B", "ratio", "95 % interval", "")
        return (Table(headers, (row,), f"{self.rounds} rounds of A B B A"),)


@dataclass(frozen=True)
class Side(Record):
    """A layer of one artifact; `type` is that of its output.

    `weight_bytes` counts its constants; `instructions` is None without a count. `own_sqnr_db` is
    the own error of an integer layer (`LayerError`), None without `activations` or if unknown.
    `left_out` are the filters that the model has and the file does not need. `scale` and
    `zero_point` are those of its output's codes, None without one pair for all of them. `reads` are
    the names of the layers that it reads.
    """

    name: str
    kind: str
    type: str
    shape: tuple[int, ...]
    weight_bytes: int
    mult_adds: int
    instructions: int | None = None
    own_sqnr_db: float | None = None
    left_out: int = 0
    scale: float | None = None
    zero_point: int | None = None
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair(Record):
    """A layer of both artifacts, or of only one.

    `sqnr_db` compares the weights of B with those of A: None without weights of the same shape, NaN
    for equal bits. `odd` lists differences from the other layers. `place` counts the pairs in the
    order in which layers run.
    """

    a: Side | None
    b: Side | None
    sqnr_db: float | None
    odd: tuple[str, ...]
    place: int = 0


@dataclass(frozen=True)
class FileFigures(Record):
    """The newest figures of both, of one kind on one target; `ratio` is of B to A.

    `forecasts` are what a card estimated for two timings, None if none did.
    """

    kind: str
    device: str
    runtime: str
    threads: int
    a: float
    b: float
    ratio: float
    interval: tuple[float, float]
    delegated: tuple[str, str]
    forecasts: tuple[Forecast | None, Forecast | None] = (None, None)


@dataclass(frozen=True)
class StoredComparison(Record):
    """A comparison of the store without its blocks: its time, device and result.

    `recorded` as in `Result`.
    """

    made_at: str
    device: str
    a: str
    b: str
    ratio: float
    interval: tuple[float, float]
    changed: bool
    rounds: int
    recorded: bool = False


@dataclass(frozen=True)
class StoredEvaluation(Record):
    """An evaluation of the store without its predictions; `metric` and the rest as in `Result`.

    It was made on `device` by a runtime with `delegate`; `isa` is the device's instruction set.
    """

    made_at: str
    artifact_sha256: str
    model: str
    recipe: str
    format: str
    device: str
    runtime: str
    runtime_version: str
    delegate: str
    isa: str
    task: str
    metric: str
    value: float | None
    agreement: float | None
    images: int
    data_source: str
    data_split: str
    data_identity: str
    recorded: bool = False


@dataclass(frozen=True)
class LayerCount(Record):
    """The instructions of one operator of a model in one inference.

    `kernel` is the runtime's name of the code that ran, with the class of instruction of most of
    its multiplications.
    """

    name: str
    op: str
    instructions: int
    kernel: str = ""


@dataclass(frozen=True)
class NativeLibrary(Record):
    """A runtime's shared library, which the native runner opens by the engine's C API.

    `pattern` is where the runtime's package has it, as for `glob`. `layers` reads the engine's
    profile of one inference, and what was counted at each reading of the clock, into operators
    (`analysis.layer_counts`); `by_layer` says whether their counts are the operators' own, without
    the profiler's work. `gpu` is the library with which it drives a GPU, "" if it has none.
    """

    pattern: str
    layers: Callable[[str, Sequence[Mapping[str, int]]], Sequence[Any]]
    by_layer: bool
    gpu: str = ""


@dataclass(frozen=True)
class Counted(Record):
    """Instructions of one inference on an emulated core: exact, but not a time.

    `core` is the emulated core (cortex-a76). `by_class` splits `instructions` by their kind (sdot,
    mla, load, ...), `by_layer` by operator. The work of the runtime between operators belongs to no
    layer. `by_layer` is empty if the runtime cannot report operators without extra work in between
    (ONNX Runtime). `kernels` lists each kernel that ran once. `bytes_loaded` and `bytes_stored` are
    the bytes of load and store instructions. `host_difference` is the largest difference of an
    output value from that of the same runtime on this host, in steps of the code for integers.
    `versions` holds those of everything that a count depends on: the emulator, the counter, the
    runner, the runtime and the libraries. `isa` is the core's instruction set; "" in records of
    before it was kept.
    """

    artifact_sha256: str
    target: Target
    runtime_version: str
    core: str
    instructions: int
    by_class: Mapping[str, int]
    bytes_loaded: int
    bytes_stored: int
    by_layer: tuple[LayerCount, ...]
    kernels: tuple[str, ...]
    host_difference: float
    versions: Mapping[str, str]
    warnings: tuple[NamedWarning, ...] = ()
    isa: str = ""
    kind: Literal["counted"] = "counted"


@dataclass(frozen=True)
class Fit(Record):
    """How a latency model was fitted to a device card's points.

    `terms` are its coefficients by name, in nanoseconds for one unit of each; `points` is the
    number of published or measured latencies that it was fitted to, for a runtime of `year` (None:
    not known) or `version` ("": not known). `borrowed` are the cards whose points determined its
    shape. `held_out` says how the interval was estimated: by leaving out points, whole families of
    networks, or devices reduced to as few points. `rmspe` is the error on these, a fraction.
    `sources` are the sources of the points. `precision` is theirs, and `is_point` says whether the
    network itself is one of them; "" and None in records of before they were kept.
    """

    card: str
    runtime: str
    year: int | None
    version: str
    terms: Mapping[str, float]
    points: int
    borrowed: tuple[str, ...]
    held_out: Literal["points", "families", "devices"]
    rmspe: float
    sources: tuple[str, ...]
    precision: str = ""
    is_point: bool | None = None


@dataclass(frozen=True)
class Estimated(Record):
    """The latency that a model predicts for an absent device; it was not measured.

    `interval_ns` would contain 95 of 100 such latencies.
    """

    artifact_sha256: str
    target: Target
    latency_ns: float
    interval_ns: tuple[float, float]
    fit: Fit
    warnings: tuple[NamedWarning, ...] = ()
    kind: Literal["estimated"] = "estimated"


Measurement = Measured | Counted | Estimated
"""Three kinds of figure that are never ranked or compared with one another."""


@dataclass(frozen=True)
class Model(Record):
    """A live model, opaque to all rooms that do not use TensorFlow.

    `framework` names the file of `sources/` that opened it. `handle` is called as
    ``handle(tensors, training=False)``, and has ``variables``. `inputs` says what it takes, once
    that is known.
    """

    framework: str
    handle: Any = field(repr=False)
    inputs: tuple[NetworkInput, ...] = ()


@dataclass(frozen=True)
class QuantizedGraph(Record):
    """A model on its way from floats to integers; post-training passes work on it.

    `recipe` and `io` describe the result. `floats` is its float TFLite. `ranges` are the smallest
    and the largest value that the codes of each activation cover, by tensor name. `integers` is the
    quantized TFLite, None as long as ranges may still change. `trained` counts the trainings of
    these integers. `kept` are the tensors that stay float, together with the operators that compute
    them. `latent` are the unrounded weights during training, in codes, by layer. `may_float` says
    whether an output may become float where the values of one are of several units. `measurements`
    are what passes measured; graphs that were made from this one share them.
    """

    recipe: Recipe
    io: InputOutput
    floats: bytes = field(repr=False)
    ranges: Mapping[str, tuple[float, float]] = field(repr=False)
    integers: bytes | None = field(repr=False, default=None)
    trained: int = 0
    kept: tuple[str, ...] = ()
    latent: Mapping[str, Any] = field(repr=False, default_factory=dict)
    may_float: bool = False
    measurements: Measurements = field(repr=False, compare=False, default_factory=Measurements)


@dataclass(frozen=True)
class Source(Record):
    """A model that can be opened: a whole model file, or an architecture with its weights.

    `file` is a user's whole model; without it `spec`'s architecture is built and the Keras 2 HDF5
    file `weights` loaded (None: seeded random ones). `resolution` is None if only the model file
    has it. `custom_objects` is the user's Python file with the classes and functions that a Keras
    file names.
    """

    spec: ModelSpec
    file: ModelFile | None = None
    weights: str | None = None
    resolution: tuple[int, int] | None = None
    custom_objects: str | None = None


@dataclass(frozen=True)
class Failure(Record):
    """An error of a child process, to be raised again by its parent."""

    exit_code: int
    message: str
    hint: str


@dataclass(frozen=True)
class Failed(Record):
    """A failure of one of several items while the others succeeded; `what` names the item.

    `exit_code` is the command's exit code for it.
    """

    what: str
    message: str
    exit_code: int


@dataclass(frozen=True)
class ModelFile(Record):
    """What a user's model or weights file is, determined without a framework.

    `framework` names the file of `sources/` that opens it; `content` distinguishes a whole model
    from weights alone. `code` lists what would run code from the file (Lambda layers and the like),
    and `trusted` says that the user allows it. `classes` is the width of the last layer if weights
    alone show it, `preprocessing` how an image becomes its input if the file says so, and `task`
    what it answers. `images` is false if the file shows that the model takes no image.
    """

    path: str
    format: str
    framework: str
    content: Literal["model", "weights"]
    sha256: str
    code: tuple[str, ...] = ()
    classes: int | None = None
    trusted: bool = False
    preprocessing: Preprocessing | None = None
    task: str = ""
    images: bool = True


@dataclass(frozen=True)
class Schedule(Record):
    """How a network is trained, according to a paper.

    `learning_rate` is for `batch` images in a step and grows in proportion to the batch. It is
    multiplied by `decay` every `decay_epochs`; with `decay_epochs` 0 it rises over the run's first
    twentieth and then falls along a cosine to zero. `weight_decay` is an L2 loss with rmsprop and
    decoupled with adamw. `bn_momentum` is that of the moving statistics at most: a run's length
    bounds it. `epochs` is the default of a run.
    """

    name: str
    optimizer: Literal["rmsprop", "adamw"]
    learning_rate: float
    batch: int
    decay: float
    decay_epochs: float
    weight_decay: float
    bn_momentum: float
    epochs: int
    source: str


@dataclass(frozen=True)
class TrainingSettings(Record):
    """Everything that a training depends on besides its network and its images.

    `batch` is the number of images in a step, over all replicas. `init` and `teacher` are None if
    there is none; `frozen` says that only the classifier is trained. `prune` is the share of zeros
    and `cluster` the number of different weights that each layer ends with. `prune_channels` is the
    share of channels that are zero at the end, `max_mult_adds` the most mult-adds without them, and
    `max_instructions` the most instructions of the int8 TFLite without them on an emulated `core`.
    None for those that there are not.
    `metric` names the figure of the validation images that decides which epoch is kept.
    """

    schedule: Schedule
    epochs: int
    batch: int
    seed: int
    init: Weights | None
    frozen: bool
    teacher: Weights | None
    ema: bool
    label_smoothing: float
    strategy: Literal["none", "mirrored", "multiworker"]
    prune: float | None = None
    cluster: int | None = None
    metric: str = "top1"
    prune_channels: float | None = None
    max_mult_adds: int | None = None
    max_instructions: int | None = None
    core: str | None = None

    @property
    def compression(self) -> tuple[str, float] | None:
        """The compression of the training, and its amount."""
        for name, amount in (
            ("prune", self.prune),
            ("cluster", self.cluster),
            ("prune_channels", self.prune_channels),
            ("prune_channels", self.max_mult_adds),
            ("prune_channels", self.max_instructions),
        ):
            if amount is not None:
                return name, amount
        return None


@dataclass(frozen=True)
class Epoch(Record):
    """One pass over the training images; `number` counts from 1.

    `loss` was minimised, decay and soft targets included; `validation_loss` is the task's loss
    alone, for a classifier the plain cross-entropy. `accuracy` (of training images, as augmented)
    and `top1` (of validation images) are fractions, None for a task that has none. `metrics` are
    the task's figures of the validation images; empty in records of earlier versions, which have
    `top1` alone.
    """

    number: int
    loss: float
    accuracy: float | None
    validation_loss: float
    top1: float | None
    learning_rate: float
    seconds: float
    images_per_second: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def figure(self, metric: str) -> float:
        """The figure of that name; 0 if these images cannot tell it."""
        if metric in self.metrics:
            return self.metrics[metric]
        return (self.top1 or 0.0) if metric == "top1" else 0.0


@dataclass(frozen=True)
class Run(Record):
    """A training and its results; `weights` is in the run's folder, beside this record.

    `data` are the validation images, `trained_on` is the identity of the training ones, `images`
    and `validation_images` are how many could be read. `best` is the epoch whose weights were kept,
    `top1` its share of correct validation images, None for a task other than classification, and
    `metrics` are its figures of the task. `dead_channels` counts, per depthwise layer, the channels
    whose output is the same for every input.
    """

    spec: ModelSpec
    data: DataRef
    trained_on: str
    settings: TrainingSettings
    images: int
    validation_images: int
    history: tuple[Epoch, ...]
    best: int
    top1: float | None
    weights: str
    dead_channels: Mapping[str, int]
    skipped: tuple[str, ...]
    tools: Mapping[str, str]
    warnings: tuple[NamedWarning, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
