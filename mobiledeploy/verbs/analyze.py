"""The cost of a network, and how it compares with published figures.

TensorFlow traces a model in a child process; a finished file is read without it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mobiledeploy.analysis import cost as costs
from mobiledeploy.analysis.cost import LayerCost, Share
from mobiledeploy.analysis.floors import InstructionFloors, floors
from mobiledeploy.core import artifacts, cards, inputs, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    Artifact,
    ChannelOrder,
    CoreChoice,
    Counted,
    FileFacts,
    Layer,
    ModelFile,
    ModelSpec,
    Preprocessing,
    Resize,
    ShrunkLayer,
    Source,
    Weights,
)
from mobiledeploy.steps import (
    arguments,
    card_specs,
    diagnose,
    model_files,
    node_data,
    published,
    quantization_plot,
    resolve,
    shrunk_layers,
    target_core,
)
from mobiledeploy.steps import tracing_process as trace_verb
from mobiledeploy.steps.arguments import AnyPath, Labels, Triple
from mobiledeploy.steps.bench_figures import time_artifacts
from mobiledeploy.steps.diagnose import QuantizationDiagnosis
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.live_models import KerasModel, as_file
from mobiledeploy.steps.node_data import NodeFigure
from mobiledeploy.steps.published import Published, PublishedLayer, PublishedShare
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.tracing_process import TracedModel
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path

CLASSES = {"classification": 1000, "detection": 80, "segmentation": 19}
"""Of ImageNet, COCO and Cityscapes, which papers count with, by task."""
MOST_CHOICES = 5
DEFAULT = "mobilenet_v1"
# Kinds of layers with parameters that papers do not count.
_NORMALISATION = ("FusedBatchNormV3", "BatchNormalization")


@dataclass(frozen=True)
class Analysis(Record):
    """A network and its cost for one image; see `analysis.cost.Cost`.

    `trainable_params` is None for a finished file, because normalisation is folded there.
    `shrunk_layers` are the layers of an artifact that have fewer filters than in its model, and
    `core_choice` the forms that `export --for` counted.
    """

    name: str
    source: str
    resolution: tuple[int, int]
    classes: int
    mult_adds: int
    params: int
    trainable_params: int | None
    peak_activation_bytes: int
    intensity: float
    shares: tuple[Share, ...]
    uncounted: tuple[str, ...]
    layers: tuple[LayerCost, ...]
    shrunk_layers: tuple[ShrunkLayer, ...] = ()
    core_choice: CoreChoice | None = None

    def tables(self) -> tuple[Table, ...]:
        """A row for each counted layer, one for each kind of layer, and what was left out."""
        total = self.mult_adds or 1
        layers = tuple(
            (
                # TFLite joins the names of fused operators.
                row.name.partition(";")[0],
                row.kind,
                "x".join(map(str, row.output[1:])),
                f"{row.params:,}",
                f"{row.mult_adds:,}",
                units.percent(row.mult_adds / total),
                f"{row.intensity:.1f}",
            )
            for row in self.layers
            if row.mult_adds
        )
        headers = ("layer", "kind", "output", "params", "mult-adds", "share", "per byte")
        kinds = tuple(
            (s.kind, str(s.layers), units.percent(s.mult_adds, 2), units.percent(s.params, 2))
            for s in self.shares
        )
        return (
            Table(
                headers,
                layers,
                f"{self.name}: {self.source}",
                optional=("per byte", "kind", "output"),
                names=("layer",),
            ),
            Table(("kind of layer", "layers", "mult-adds", "params"), kinds),
            *target_core.tables({self.name: self.core_choice} if self.core_choice else {}),
            *shrunk_layers.tables(self.shrunk_layers),
        )


@dataclass(frozen=True)
class NetworkComparison(Record):
    """A published row and the network that is built here.

    `params` are the trainable ones. `differs` is true if one of the two is off by more than the
    rounding of the printed number; `why` is the reason.
    """

    published: Published
    mult_adds: int
    params: int
    differs: bool
    why: str


@dataclass(frozen=True)
class LayerComparison(Record):
    """A row of a paper's table of layers and the layer that is built here."""

    published: PublishedLayer
    type: str
    stride: int
    filter: str
    size: str
    differs: bool
    why: str


@dataclass(frozen=True)
class ShareComparison(Record):
    """A row of a paper's table of kinds of layers and the network built here, as fractions.

    Parameters are those of convolutions and fully connected layers, without biases.
    """

    published: PublishedShare
    mult_adds: float
    params: float
    differs: bool
    why: str


@dataclass(frozen=True)
class TableComparison(Record):
    """A published table and the networks built here; only one of the three kinds has rows."""

    table: str
    rows: tuple[NetworkComparison, ...] = ()
    layers: tuple[LayerComparison, ...] = ()
    shares: tuple[ShareComparison, ...] = ()


@dataclass(frozen=True)
class Budget(Record):
    """Limits: mult-adds, bytes of int8 weights, and the least top-1, a fraction."""

    mult_adds: int | None = None
    size_bytes: int | None = None
    top1: float | None = None


@dataclass(frozen=True)
class BudgetChoice(Record):
    """A published network within the budget.

    `size_bytes` is an estimate of one byte per parameter. `command` builds the network here.
    """

    published: Published
    size_bytes: int
    command: str


@dataclass(frozen=True)
class BudgetChoices(Record):
    """The networks that fit a budget, best accuracy first."""

    budget: Budget
    choices: tuple[BudgetChoice, ...]

    def tables(self) -> tuple[Table, ...]:
        """A row for each network."""
        rows = tuple(
            (
                choice.published.model,
                "–" if choice.published.alpha is None else f"{choice.published.alpha:g}",
                str(choice.published.resolution),
                units.percent(choice.published.top1),
                f"{(choice.published.mult_adds or 0) / 1e6:g} M",
                f"~{units.size(choice.size_bytes)}" if choice.size_bytes else "–",
                choice.published.source,
            )
            for choice in self.choices
        )
        headers = ("published", "alpha", "resolution", "top-1", "mult-adds", "int8 weights")
        return (Table((*headers, "source"), rows, optional=("source", "int8 weights")),)


def analyze(
    file: AnyPath | KerasModel | None = None,
    *,
    arch: str | None = None,
    alpha: float | None = None,
    groups: int | None = None,
    res: int | None = None,
    classes: int | None = None,
    unsafe: bool = False,
    model_explorer: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> Analysis:
    """Counts the mult-adds, parameters and activation memory of a file or a built-in network.

    Mult-adds are counted as the MobileNet papers do: convolutions and fully connected layers,
    without biases, for one image.

    Example:
        >>> md.analyze(arch="mobilenet_v2", alpha=0.5, res=160).mult_adds

    Args:
        file: a model of your own (.h5, .keras, SavedModel, a live Keras model) or a finished
            .tflite or .onnx. Without it, `arch` is built.
        arch: a card of `models`; the default is mobilenet_v1.
        alpha: the width multiplier, above 0.
        groups: the groups of the pointwise convolutions (ShuffleNet).
        res: height and width of the input, in pixels.
        classes: the number of classes; the default is 1000, 80 of a detector,
            19 of segmentation.
        unsafe: opens a model file even if it can run its own code.
        model_explorer: a .json file for the mult-adds of each node of a finished file, as node data
            of Google's Model Explorer. Beside it stand a file of the parameters and, if the store
            has a count of `file`, one of the instructions.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        The network and its layers.

    Raises:
        UsageError: arguments that do not go with a file, or are impossible; a place for node data
            that cannot be written.
        InputError: a file that cannot be read.
        MissingError: TensorFlow is not installed, and `file` is not a finished file.
    """
    reporter = reporter or PythonReporter()
    place = arguments.path(model_explorer)
    if place is not None:
        _need_nodes(file, place)
    if file is None:
        card = cards.load(arch or DEFAULT)
        spec = card_specs.spec(
            card,
            alpha=alpha,
            groups=groups,
            res=res,
            classes=_classes(card.task) if classes is None else classes,
        )
        (model,) = trace_verb.trace([Source(spec)], reporter)
        return _analysis(model, f"{card.title}, {card.paper}")
    options = {"--arch": arch, "--alpha": alpha, "--groups": groups, "--classes": classes}
    arguments.need_model_file(file, options)
    with as_file(file) as path:
        assert path is not None
        analysis = _of_file(path, res, unsafe, reporter)
        if place is not None:
            _write_nodes(place, node_data.of_costs(analysis.layers, _counted(path)), reporter)
        return analysis


def _need_nodes(file: AnyPath | KerasModel | None, place: Path) -> None:
    _need_finished(file, "--model-explorer")
    node_data.check(place)


def _need_finished(file: AnyPath | KerasModel | None, option: str) -> None:
    suffixes = [FORMATS.load(name).SUFFIX for name in FORMATS.names()]
    if not isinstance(file, str | os.PathLike) or Path(file).suffix not in suffixes:
        raise UsageError(
            f"{option} takes a finished file: {' or '.join(sorted(suffixes))}",
            "export the model, and analyze what was written",
        )


def _write_nodes(place: Path, figures: Sequence[NodeFigure], reporter: Reporter) -> None:
    for figure, path in zip(figures, node_data.write(place, figures), strict=True):
        reporter.say(f"{path} has {figure.title} for Model Explorer")


def _counted(path: Path) -> Counted | None:
    """The newest count of a file's instructions by layer; None without one in the store."""
    if not store_path().exists():
        return None
    with Store.open() as store:
        figures = store.measurements_of(records.sha256(inputs.read(path, inputs.FINISHED)))
    return next((m for m in figures if isinstance(m, Counted) and m.by_layer), None)


def _of_file(path: Path, res: int | None, unsafe: bool, reporter: Reporter) -> Analysis:
    analysis = _analyze_finished(path)
    if analysis is not None:
        if res is not None:
            raise UsageError("--res does not go with a finished file", "leave it out")
        return analysis
    model = model_files.detect(path, unsafe=unsafe, reporter=reporter)
    if model.content == "weights":
        raise InputError(
            f"{path.name} holds weights without a model",
            "mobiledeploy analyze --arch NAME counts the network that they are of",
        )
    model_files.need_layers(model, "export it, and analyze the float32.tflite")
    resolution = None if res is None else (res, res)
    (traced_model,) = trace_verb.trace(
        [Source(_own_spec(model), file=model, resolution=resolution)], reporter
    )
    return _analysis(traced_model, records.file_name(path))


def _own_spec(file: ModelFile) -> ModelSpec:
    """The spec of a user's file; tracing completes it, and preprocessing does not matter here."""
    return ModelSpec(
        name=records.file_name(Path(file.path).stem),
        card=None,
        architecture=file.framework,
        arguments={},
        resolution=(0, 0),
        classes=0,
        preprocessing=Preprocessing((0.0, 1.0)),
        weights=Weights(records.file_name(Path(file.path).name), file.sha256, pinned=False),
    )


def _analysis(model: TracedModel, source: str) -> Analysis:
    cost = costs.cost(model.layers)
    spec = model.spec
    return Analysis(
        name=spec.name,
        source=source,
        resolution=spec.resolution,
        classes=spec.classes,
        mult_adds=cost.mult_adds,
        params=model.params,
        trainable_params=model.trainable,
        peak_activation_bytes=cost.peak_activation_bytes,
        intensity=cost.intensity,
        shares=cost.shares,
        uncounted=cost.uncounted,
        layers=cost.layers,
    )


def _analyze_finished(path: Path) -> Analysis | None:
    """The analysis of a TFLite or ONNX file, None for other files."""
    for name in FORMATS.names():
        if path.suffix != FORMATS.load(name).SUFFIX:
            continue
        facts = _facts(path)
        cost = costs.cost(facts.layers)
        shape = facts.inputs[0].shape if facts.inputs else ()
        sides = shape[2:4] if facts.layout == "NCHW" else shape[1:3]
        artifact = _artifact(path)
        return Analysis(
            name=records.file_name(path.name),
            source=records.file_name(path),
            resolution=(sides[0], sides[1]) if len(sides) == 2 else (0, 0),
            classes=facts.outputs[0].shape[-1] if facts.outputs and facts.outputs[0].shape else 0,
            mult_adds=cost.mult_adds,
            params=cost.params,
            trainable_params=None,
            peak_activation_bytes=cost.peak_activation_bytes,
            intensity=cost.intensity,
            shares=cost.shares,
            uncounted=cost.uncounted,
            layers=cost.layers,
            shrunk_layers=artifact.shrunk_layers if artifact else (),
            core_choice=artifact.core_choice if artifact else None,
        )
    return None


def _facts(path: Path) -> FileFacts:
    """What a finished file holds; InputError with its path if it cannot be read."""
    (shelf,) = (one for one in map(FORMATS.load, FORMATS.names()) if path.suffix == one.SUFFIX)
    try:
        return shelf.inspect(inputs.read(path, inputs.FINISHED))
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error


def _classes(task: str) -> int:
    """The classes that a network of this task is counted with."""
    return CLASSES.get(task, CLASSES["classification"])


def _artifact(path: Path) -> Artifact | None:
    """What an artifact's record says; None for a file without one of its own."""
    if not artifacts.record_path(path).is_file():
        return None
    try:
        return artifacts.load(path)
    except InputError:
        # A count needs no record.
        return None


# Instructions beside the least that they could be.


def analyze_instructions(
    file: AnyPath, *, device: str = "emulator", reporter: Reporter | None = None
) -> InstructionFloors:
    """Counts a file's instructions by layer on an emulated core, and the floor of each layer.

    This is `analyze --device` on the command line. A floor is the number of the core's widest
    instructions that multiply the layer's numbers (`analysis.floors`). The count goes to the store.

    Example:
        >>> found = md.analyze_instructions("build/mobilenet_v1_0.5_160_demo/int8_best.tflite")
        >>> found.ratio, found.most

    Args:
        file: a finished .tflite or .onnx. ONNX Runtime does not report instructions by layer, so
            an .onnx has only its total.
        device: `emulator:CORE`, or the device card of a phone, whose emulated core is taken.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        Each layer that multiplies, and where most instructions above the floor are.

    Raises:
        UsageError: not a finished file; an unknown device, or one that does not count instructions.
        InputError: a file that cannot be read or run.
        DeviceError: the runner died or hangs, or the card names no emulated core.
        MissingError: the emulator is not installed.
    """
    reporter = reporter or PythonReporter()
    _need_finished(file, "--device")
    path = Path(file)
    place = resolve.resolve(device, "emulator")
    if not place.counts_instructions:
        raise UsageError(
            f"{device} does not count instructions",
            "--device emulator:cortex-a76; mobiledeploy devices lists the cores",
        )
    layers = _facts(path).layers
    failures = Failures()
    figures = time_artifacts([path], failures, device=place.name, reporter=reporter)
    failures.check()
    counted = figures[path]
    assert isinstance(counted, Counted)
    return floors(records.file_name(path.name), records.file_name(path), layers, counted)


# Published beside computed.


def analyze_table(table: str, *, reporter: Reporter | None = None) -> TableComparison:
    """Compares a published table with the networks that are built here.

    This is `analyze --table` on the command line.

    Example:
        >>> found = md.analyze_table("howard2017-8")
        >>> [row.why for row in found.rows if row.differs]

    Args:
        table: its name; the error for an unknown name lists all names.
        reporter: is told of progress; the default is a `PythonReporter`.

    Returns:
        Each row of the table and our own count.

    Raises:
        UsageError: no table has this name.
        MissingError: TensorFlow is not installed.
    """
    reporter = reporter or PythonReporter()
    rows = published.load(table)
    specs = [_spec_of(row) for row in rows]
    # Each network is traced once, even if several rows are about it.
    distinct = {records.line(spec): Source(spec) for spec in specs}
    models = trace_verb.trace(list(distinct.values()), reporter)
    by_spec = dict(zip(distinct, models, strict=True))
    networks = [by_spec[records.line(spec)] for spec in specs]
    grid = [row for row in rows if isinstance(row, Published)]
    if grid:
        return TableComparison(table, rows=tuple(map(_compare_network, grid, networks)))
    layers = [row for row in rows if isinstance(row, PublishedLayer)]
    if layers:
        return TableComparison(table, layers=_compare_layers(layers, networks[0].layers))
    shares = [row for row in rows if isinstance(row, PublishedShare)]
    return TableComparison(table, shares=_compare_shares(shares, networks[0].layers))


def _spec_of(row: Published | PublishedLayer | PublishedShare) -> ModelSpec:
    card = cards.load(row.card)
    classes = _classes(card.task)
    if not isinstance(row, Published):
        return card_specs.spec(card, classes=classes)
    return card_specs.spec(
        card, alpha=row.alpha, groups=row.groups, res=row.resolution, classes=classes
    )


def _compare_network(row: Published, model: TracedModel) -> NetworkComparison:
    mult_adds = costs.cost(model.layers).mult_adds
    differs = _off(row.mult_adds, mult_adds, row.mult_adds_rounding) or _off(
        row.params, model.trainable, row.params_rounding
    )
    return NetworkComparison(row, mult_adds, model.trainable, differs, row.note if differs else "")


def _off(printed: int | None, counted: int, rounding: int) -> bool:
    return printed is not None and abs(counted - printed) > rounding


def _compare_layers(
    rows: Sequence[PublishedLayer], layers: Sequence[Layer]
) -> tuple[LayerComparison, ...]:
    """Compares row by row; InputError if table and network have different lengths."""
    with_weights = [layer for layer in layers if costs.cost([layer]).mult_adds]
    if len(with_weights) != len(rows):
        raise InputError(
            f"{rows[0].source} has {len(rows)} layers with weights, the network {len(with_weights)}"
        )
    return tuple(map(_compare_layer, rows, with_weights))


def _compare_layer(row: PublishedLayer, layer: Layer) -> LayerComparison:
    image = next(t for t in layer.inputs if not t.constant)
    kernel = next(t for t in layer.inputs if t.constant and len(t.shape) >= 2)
    kind = costs.cost([layer]).layers[0].kind
    stride = -(-image.shape[1] // layer.outputs[0].shape[1]) if len(image.shape) == 4 else 1
    if kind == costs.FULLY_CONNECTED:
        type_, filter_ = "FC", "x".join(map(str, kernel.shape[-2:]))
    elif kind.startswith("Conv DW"):
        type_, filter_ = "Conv dw", "x".join(map(str, kernel.shape[:3]))
    else:
        type_, filter_ = "Conv", "x".join(map(str, kernel.shape))
    size = "x".join(map(str, image.shape[1:]))
    printed_row = (row.type, row.stride, row.filter, row.size)
    differs = printed_row != (type_, stride, filter_, size)
    return LayerComparison(row, type_, stride, filter_, size, differs, row.note if differs else "")


def _compare_shares(
    rows: Sequence[PublishedShare], layers: Sequence[Layer]
) -> tuple[ShareComparison, ...]:
    """Shares without biases and normalisation, as the papers count parameters by kind."""
    plain = [
        replace(x, inputs=tuple(t for t in x.inputs if not t.constant or len(t.shape) >= 2))
        for x in layers
        if x.op not in _NORMALISATION
    ]
    shares = {share.kind: share for share in costs.cost(plain).shares}
    comparisons = []
    for row in rows:
        share = shares.get(row.kind, Share(row.kind, 0, 0.0, 0.0))
        # Papers print percent with two decimals.
        off = abs(share.mult_adds - row.mult_adds), abs(share.params - row.params)
        differs = max(off) > 0.5e-4 + 1e-9
        why = row.note if differs else ""
        comparisons.append(ShareComparison(row, share.mult_adds, share.params, differs, why))
    return tuple(comparisons)


# What fits a budget.


def analyze_best(
    *,
    max_mult_adds: int | None = None,
    max_size: int | None = None,
    min_top1: float | None = None,
    most: int = MOST_CHOICES,
) -> BudgetChoices:
    """Lists the published float networks that fit a budget, best top-1 first.

    This is `analyze --best` on the command line. The printed figures decide. A budget for the size
    leaves out the rows of a source that prints no parameters.

    Example:
        >>> md.analyze_best(max_mult_adds=150_000_000, min_top1=60).choices[0].command

    Args:
        max_mult_adds: the limit of mult-adds for one image.
        max_size: the limit of bytes of int8 weights, one for each parameter.
        min_top1: the least top-1 on ImageNet, in percent.
        most: the greatest number of networks.

    Returns:
        The networks, each with the command that builds it here.

    Raises:
        UsageError: nothing fits; the hint names the nearest network.
    """
    budget = Budget(max_mult_adds, max_size, None if min_top1 is None else min_top1 / 100)
    if budget.top1 is not None and not 0.01 <= budget.top1 <= 1:
        raise UsageError(f"top-1 of {100 * budget.top1:g} % is not an accuracy", "say 65 for 65 %")
    rows = [
        row
        for row in published.grids()
        if row.card
        and row.variant == "float"
        and row.top1 is not None
        and row.mult_adds is not None
    ]
    fits = [row for row in rows if _fits(row, budget)]
    if not fits:
        near = min(rows, key=lambda row: _excess(row, budget))
        raise UsageError(
            "no published network fits this budget",
            f"the nearest is {near.model} at {near.resolution}: {(near.mult_adds or 0) / 1e6:g} M "
            f"mult-adds, {(near.params or 0) / 1e6:g} M parameters, {100 * (near.top1 or 0):.1f} %",
        )
    fits.sort(key=lambda row: (-(row.top1 or 0), row.mult_adds or 0))
    distinct: dict[tuple[object, ...], Published] = {}
    for row in fits:
        distinct.setdefault((row.card, row.alpha, row.groups, row.resolution), row)
    choices = tuple(distinct.values())[:most]
    return BudgetChoices(
        budget,
        tuple(
            BudgetChoice(row, row.params or 0, published.command(row, cards.load(row.card)))
            for row in choices
        ),
    )


def _fits(row: Published, budget: Budget) -> bool:
    if budget.size_bytes is not None and row.params is None:
        return False
    return _excess(row, budget) <= 0


def _excess(row: Published, budget: Budget) -> float:
    """The largest excess over a limit, relative to the limit; the row fits if it is 0 or less."""
    over = [
        (value - limit) / limit
        for value, limit in ((row.mult_adds, budget.mult_adds), (row.params, budget.size_bytes))
        if value is not None and limit
    ]
    if budget.top1 is not None:
        over.append(budget.top1 - (row.top1 or 0))
    return max(over, default=0.0)


# Why an int8 artifact differs from its float model.


def analyze_quantization(
    file: AnyPath,
    *,
    reference: AnyPath | None = None,
    data: AnyPath | None = None,
    plot: AnyPath | None = None,
    input_range: tuple[float, float] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    channels: ChannelOrder | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    labels: Labels | None = None,
    model_explorer: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> QuantizationDiagnosis:
    """Finds the quantization error of each layer, the layers that matter, and remedies.

    This is `analyze --quantization` on the command line.

    Example:
        >>> found = md.analyze_quantization("build/mobilenet_v1_0.5_160_demo/int8_ptq.tflite")
        >>> [remedy.name for remedy in found.remedies]

    Args:
        file: a file of integers, TFLite or ONNX, of `export` or of any other tool.
        reference: the float TFLite of the same model; the default is the one in its folder.
        data: images, as for `evaluate`; the default are the artifact's golden images.
        plot: a file for an image of the result, .svg or .png; needs
            vl-convert.
        input_range: (low, high), the values for pixels 0 and 255. The artifact has the defaults of
            this and the next six.
        mean: subtracted from each channel, after `input_range`.
        std: each channel is divided by it, after `mean`.
        channels: `rgb` or `bgr`.
        resize: `bilinear` or `bicubic`.
        crop: the central fraction of each side to keep, above 0 and at most 1.
        labels: class names in the model's order, or a file with one per line.
        model_explorer: a .json file for the share of the error of each node of `file`, as node data
            of Google's Model Explorer. Beside it stand files of the SQNR and of the own SQNR.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        A row for each layer, and remedies, the most promising first.

    Raises:
        InputError: no file of integers throughout, or no float file of the same model; layers with
            other names; a model of several inputs or without an image.
        UsageError: an unknown data set, or one that says nothing about the model.
        DeviceError: a runner died or hangs.
        MissingError: `plot` without vl-convert.
    """
    reporter = reporter or PythonReporter()
    place, explorer = arguments.path(plot), arguments.path(model_explorer)
    overrides = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    if place is not None:
        quantization_plot.check(place)
    if explorer is not None:
        _need_nodes(file, explorer)
    diagnosis = diagnose.diagnose(
        Path(file),
        reference=arguments.path(reference),
        data=arguments.text(data),
        overrides=overrides,
        reporter=reporter,
    )
    if place is not None:
        quantization_plot.draw(diagnosis, place)
        reporter.say(f"{place} shows it")
    if explorer is not None:
        _write_nodes(explorer, node_data.of_errors(diagnosis.layers), reporter)
    return diagnosis
