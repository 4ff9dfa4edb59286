"""What a network costs, and how that compares with what is published of it.

A model is traced by TensorFlow in a process of its own; a finished file is read without it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mobiledeploy.analysis import cost as costs
from mobiledeploy.analysis.cost import LayerCost, Share
from mobiledeploy.core import cards, inputs, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import (
    ChannelOrder,
    Layer,
    ModelFile,
    ModelSpec,
    Preprocessing,
    Resize,
    Source,
    Weights,
)
from mobiledeploy.steps import (
    arguments,
    card_specs,
    diagnose,
    model_files,
    published,
    quantization_plot,
)
from mobiledeploy.steps import tracing_process as trace_verb
from mobiledeploy.steps.arguments import AnyPath, Labels, Triple
from mobiledeploy.steps.diagnose import QuantizationDiagnosis
from mobiledeploy.steps.live_models import KerasModel, as_file
from mobiledeploy.steps.published import Published, PublishedLayer, PublishedShare
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.tracing_process import TracedModel

CLASSES = 1000
MOST_CHOICES = 5
DEFAULT = "mobilenet_v1"
# Kinds of layers that hold parameters and are no part of a paper's count.
_NORMALISATION = ("FusedBatchNormV3", "BatchNormalization")


@dataclass(frozen=True)
class Analysis(Record):
    """A network and what it costs for one image; see `analysis.cost.Cost`.

    `trainable_params` is None for a finished file, in which normalisation is folded away.
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

    def tables(self) -> tuple[Table, ...]:
        """A row for each layer that is counted, then one for each kind of layer."""
        total = self.mult_adds or 1
        layers = tuple(
            (
                # TFLite joins the names of all that it has fused.
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
            Table(headers, layers, f"{self.name}: {self.source}"),
            Table(("kind of layer", "layers", "mult-adds", "params"), kinds),
        )


@dataclass(frozen=True)
class NetworkComparison(Record):
    """A published row beside the network that is built here.

    `params` are the trainable ones. `differs` where either is off by more than the rounding of the
    print; `why` says the reason.
    """

    published: Published
    mult_adds: int
    params: int
    differs: bool
    why: str


@dataclass(frozen=True)
class LayerComparison(Record):
    """A row of a paper's table of layers beside the layer that is built here."""

    published: PublishedLayer
    type: str
    stride: int
    filter: str
    size: str
    differs: bool
    why: str


@dataclass(frozen=True)
class ShareComparison(Record):
    """A row of a paper's table of kinds beside what is built here; fractions.

    Parameters are those of convolutions and fully connected layers, without biases.
    """

    published: PublishedShare
    mult_adds: float
    params: float
    differs: bool
    why: str


@dataclass(frozen=True)
class TableComparison(Record):
    """A published table beside what is built here; one of the three kinds has rows."""

    table: str
    rows: tuple[NetworkComparison, ...] = ()
    layers: tuple[LayerComparison, ...] = ()
    shares: tuple[ShareComparison, ...] = ()


@dataclass(frozen=True)
class Budget(Record):
    """What may be spent: mult-adds, bytes of int8 weights, and the least top-1, a fraction."""

    mult_adds: int | None = None
    size_bytes: int | None = None
    top1: float | None = None


@dataclass(frozen=True)
class BudgetChoice(Record):
    """A published network within the budget.

    `size_bytes` is an estimate: a byte for each parameter. `command` builds it here.
    """

    published: Published
    size_bytes: int
    command: str


@dataclass(frozen=True)
class BudgetChoices(Record):
    """What fits a budget, best accuracy first."""

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
        return (Table((*headers, "source"), rows),)


def analyze(
    file: AnyPath | KerasModel | None = None,
    *,
    arch: str | None = None,
    alpha: float | None = None,
    groups: int | None = None,
    res: int | None = None,
    classes: int | None = None,
    unsafe: bool = False,
    reporter: Reporter | None = None,
) -> Analysis:
    """Counts the mult-adds, parameters and activation memory of a file or a built-in network.

    Mult-adds are counted as the MobileNet papers do: convolutions and fully connected layers,
    without biases, for one image.

    Example:
        >>> md.analyze(arch="mobilenet_v2", alpha=0.5, res=160).mult_adds

    Args:
        file: a model of your own (.h5, .keras, SavedModel, a live Keras model) or a finished
            .tflite or .onnx. By default `arch` is built.
        arch: a card that `models` lists; by default mobilenet_v1.
        alpha: the width multiplier, above 0.
        groups: of the pointwise convolutions (ShuffleNet).
        res: height and width of the input, in pixels.
        classes: by default 1000.
        unsafe: opens a model file whatever it names: its code runs.
        reporter: hears of progress and warnings; by default a `PythonReporter`.

    Returns:
        The network and its layers.

    Raises:
        UsageError: arguments that do not go with a file, or cannot be.
        InputError: a file that cannot be read.
        MissingError: TensorFlow is not here, and a finished file was not given.
    """
    reporter = reporter or PythonReporter()
    if file is None:
        card = cards.load(arch or DEFAULT)
        spec = card_specs.spec(
            card,
            alpha=alpha,
            groups=groups,
            res=res,
            classes=CLASSES if classes is None else classes,
        )
        (traced,) = trace_verb.trace([Source(spec)], reporter)
        return _analysis(traced, f"{card.title}, {card.paper}")
    asked = {"--arch": arch, "--alpha": alpha, "--groups": groups, "--classes": classes}
    for name, value in asked.items():
        if value is not None:
            raise UsageError(f"{name} does not go with a model file", "leave it away")
    with as_file(file) as path:
        assert path is not None
        return _of_file(path, res, unsafe, reporter)


def _of_file(path: Path, res: int | None, unsafe: bool, reporter: Reporter) -> Analysis:
    finished = _finished(path)
    if finished is not None:
        if res is not None:
            raise UsageError("--res does not go with a finished file", "leave it away")
        return finished
    model = model_files.detect(path, unsafe=unsafe, reporter=reporter)
    if model.content == "weights":
        raise InputError(
            f"{path.name} holds weights without a model",
            "mobiledeploy analyze --arch NAME counts the network that they are of",
        )
    model_files.need_layers(model, "export it, and analyze the float32.tflite")
    resolution = None if res is None else (res, res)
    (traced,) = trace_verb.trace(
        [Source(_own_spec(model), file=model, resolution=resolution)], reporter
    )
    return _analysis(traced, _text(path))


def _own_spec(file: ModelFile) -> ModelSpec:
    """Of a user's file: what it is, tracing it tells; how it is fed does not matter here."""
    return ModelSpec(
        name=_text(Path(file.path).stem),
        card=None,
        architecture=file.framework,
        arguments={},
        resolution=(0, 0),
        classes=0,
        preprocessing=Preprocessing((0.0, 1.0)),
        weights=Weights(_text(Path(file.path).name), file.sha256, pinned=False),
    )


def _text(name: str | Path) -> str:
    """A file's name that a record can hold, also where the name is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _analysis(traced: TracedModel, source: str) -> Analysis:
    found = costs.cost(traced.layers)
    spec = traced.spec
    return Analysis(
        name=spec.name,
        source=source,
        resolution=spec.resolution,
        classes=spec.classes,
        mult_adds=found.mult_adds,
        params=traced.params,
        trainable_params=traced.trainable,
        peak_activation_bytes=found.peak_activation_bytes,
        intensity=found.intensity,
        shares=found.shares,
        uncounted=found.uncounted,
        layers=found.layers,
    )


def _finished(path: Path) -> Analysis | None:
    """The analysis of a TFLite or ONNX file, None for any other."""
    for name in FORMATS.names():
        shelf = FORMATS.load(name)
        if path.suffix != shelf.SUFFIX:
            continue
        data = inputs.read(path, inputs.FINISHED)
        try:
            facts = shelf.inspect(data)
        except InputError as error:
            raise InputError(f"{path}: {error.message}", error.hint) from error
        found = costs.cost(facts.layers)
        shape = facts.inputs[0].shape if facts.inputs else ()
        sides = shape[2:4] if facts.layout == "NCHW" else shape[1:3]
        return Analysis(
            name=_text(path.name),
            source=_text(path),
            resolution=(sides[0], sides[1]) if len(sides) == 2 else (0, 0),
            classes=facts.outputs[0].shape[-1] if facts.outputs and facts.outputs[0].shape else 0,
            mult_adds=found.mult_adds,
            params=found.params,
            trainable_params=None,
            peak_activation_bytes=found.peak_activation_bytes,
            intensity=found.intensity,
            shares=found.shares,
            uncounted=found.uncounted,
            layers=found.layers,
        )
    return None


# Published beside computed.


def analyze_table(table: str, *, reporter: Reporter | None = None) -> TableComparison:
    """Holds a published table beside the networks as they are built here.

    It is `analyze --table` of the command line.

    Example:
        >>> found = md.analyze_table("howard2017-8")
        >>> [row.why for row in found.rows if row.differs]

    Args:
        table: its name; an unknown one is answered by the names that there are.
        reporter: hears of progress; by default a `PythonReporter`.

    Returns:
        Each row of the table beside what is counted here.

    Raises:
        UsageError: no table has this name.
        MissingError: TensorFlow is not here.
    """
    reporter = reporter or PythonReporter()
    rows = published.load(table)
    specs = [_spec_of(row) for row in rows]
    # Each network once, however many rows speak of it.
    distinct = {records.line(spec): Source(spec) for spec in specs}
    made = trace_verb.trace(list(distinct.values()), reporter)
    traced = dict(zip(distinct, made, strict=True))
    whole = [traced[records.line(spec)] for spec in specs]
    grid = [row for row in rows if isinstance(row, Published)]
    if grid:
        return TableComparison(table, rows=tuple(map(_compared, grid, whole)))
    layers = [row for row in rows if isinstance(row, PublishedLayer)]
    if layers:
        return TableComparison(table, layers=_compared_layers(layers, whole[0].layers))
    shares = [row for row in rows if isinstance(row, PublishedShare)]
    return TableComparison(table, shares=_compared_shares(shares, whole[0].layers))


def _spec_of(row: Published | PublishedLayer | PublishedShare) -> ModelSpec:
    card = cards.load(row.card)
    if not isinstance(row, Published):
        return card_specs.spec(card, classes=CLASSES)
    return card_specs.spec(
        card, alpha=row.alpha, groups=row.groups, res=row.resolution, classes=CLASSES
    )


def _compared(row: Published, traced: TracedModel) -> NetworkComparison:
    mult_adds = costs.cost(traced.layers).mult_adds
    differs = _off(row.mult_adds, mult_adds, row.mult_adds_rounding) or _off(
        row.params, traced.trainable, row.params_rounding
    )
    return NetworkComparison(row, mult_adds, traced.trainable, differs, row.note if differs else "")


def _off(printed: int | None, counted: int, rounding: int) -> bool:
    return printed is not None and abs(counted - printed) > rounding


def _compared_layers(
    rows: Sequence[PublishedLayer], layers: Sequence[Layer]
) -> tuple[LayerComparison, ...]:
    """Row by row; a table and a network of different lengths are an InputError."""
    built = [layer for layer in layers if costs.cost([layer]).mult_adds]
    if len(built) != len(rows):
        raise InputError(
            f"{rows[0].source} has {len(rows)} layers with weights, the network {len(built)}"
        )
    return tuple(map(_compared_layer, rows, built))


def _compared_layer(row: PublishedLayer, layer: Layer) -> LayerComparison:
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
    printed = (row.type, row.stride, row.filter, row.size)
    differs = printed != (type_, stride, filter_, size)
    return LayerComparison(row, type_, stride, filter_, size, differs, row.note if differs else "")


def _compared_shares(
    rows: Sequence[PublishedShare], layers: Sequence[Layer]
) -> tuple[ShareComparison, ...]:
    """Shares without biases and normalisation, as the papers count parameters by kind."""
    plain = [
        replace(x, inputs=tuple(t for t in x.inputs if not t.constant or len(t.shape) >= 2))
        for x in layers
        if x.op not in _NORMALISATION
    ]
    found = {share.kind: share for share in costs.cost(plain).shares}
    compared = []
    for row in rows:
        share = found.get(row.kind, Share(row.kind, 0, 0.0, 0.0))
        # Printed in per cent with two decimals.
        off = abs(share.mult_adds - row.mult_adds), abs(share.params - row.params)
        differs = max(off) > 0.5e-4 + 1e-9
        why = row.note if differs else ""
        compared.append(ShareComparison(row, share.mult_adds, share.params, differs, why))
    return tuple(compared)


# What fits a budget.


def analyze_best(
    *,
    max_mult_adds: int | None = None,
    max_size: int | None = None,
    min_top1: float | None = None,
    most: int = MOST_CHOICES,
) -> BudgetChoices:
    """Lists the published float networks that fit a budget, best top-1 first.

    It is `analyze --best` of the command line. Published figures decide, as printed; where a source
    prints no parameters, a budget for the size leaves its rows out.

    Example:
        >>> md.analyze_best(max_mult_adds=150_000_000, min_top1=60).choices[0].command

    Args:
        max_mult_adds: for one image.
        max_size: bytes of int8 weights, one for each parameter.
        min_top1: on ImageNet, in percent.
        most: so many at most.

    Returns:
        The networks, each with the command that builds it here.

    Raises:
        UsageError: nothing fits; what comes closest is named.
    """
    budget = Budget(max_mult_adds, max_size, None if min_top1 is None else min_top1 / 100)
    if budget.top1 is not None and not 0.01 <= budget.top1 <= 1:
        raise UsageError(f"top-1 of {100 * budget.top1:g} % is no accuracy", "say 65 for 65 %")
    rows = [
        row
        for row in published.grids()
        if row.card
        and row.variant == "float"
        and row.top1 is not None
        and row.mult_adds is not None
    ]
    fitting = [row for row in rows if _fits(row, budget)]
    if not fitting:
        near = min(rows, key=lambda row: _excess(row, budget))
        raise UsageError(
            "no published network fits this budget",
            f"the nearest is {near.model} at {near.resolution}: {(near.mult_adds or 0) / 1e6:g} M "
            f"mult-adds, {(near.params or 0) / 1e6:g} M parameters, {100 * (near.top1 or 0):.1f} %",
        )
    fitting.sort(key=lambda row: (-(row.top1 or 0), row.mult_adds or 0))
    seen: dict[tuple[object, ...], Published] = {}
    for row in fitting:
        seen.setdefault((row.card, row.alpha, row.groups, row.resolution), row)
    chosen = tuple(seen.values())[:most]
    return BudgetChoices(
        budget, tuple(BudgetChoice(row, row.params or 0, _command(row)) for row in chosen)
    )


def _fits(row: Published, budget: Budget) -> bool:
    if budget.size_bytes is not None and row.params is None:
        return False
    return _excess(row, budget) <= 0


def _excess(row: Published, budget: Budget) -> float:
    """By how much of the budget the worst of its limits is missed; 0 or less: it fits."""
    over = [
        (value - limit) / limit
        for value, limit in ((row.mult_adds, budget.mult_adds), (row.params, budget.size_bytes))
        if value is not None and limit
    ]
    if budget.top1 is not None:
        over.append(budget.top1 - (row.top1 or 0))
    return max(over, default=0.0)


def _command(row: Published) -> str:
    card = cards.load(row.card)
    parts = [f"--arch {row.card}"]
    if row.alpha is not None:
        parts.append(f"--alpha {row.alpha:g}")
    if row.groups is not None:
        parts.append(f"--groups {row.groups}")
    parts.append(f"--res {row.resolution}")
    published = card.weights.imagenet
    if published and any(file.alpha == row.alpha for file in published.files):
        return f"mobiledeploy export {' '.join(parts)} --weights imagenet --data DIR"
    return f"mobiledeploy train {' '.join(parts)} --data DIR"


# Why an int8 artifact differs from its float model.


def analyze_quantization(
    file: AnyPath,
    *,
    data: AnyPath | None = None,
    plot: AnyPath | None = None,
    input_range: tuple[float, float] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    channels: ChannelOrder | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    labels: Labels | None = None,
    reporter: Reporter | None = None,
) -> QuantizationDiagnosis:
    """Says what quantization did to each layer, where the error enters, and what helps.

    It is `analyze --quantization` of the command line.

    Example:
        >>> found = md.analyze_quantization("build/mobilenet_v1_0.5_160_demo/int8_ptq.tflite")
        >>> [remedy.name for remedy in found.remedies]

    Args:
        file: an int8 artifact of `export`, TFLite or ONNX, its float32.tflite beside it.
        data: images, as for `evaluate`; by default the artifact's golden ones.
        plot: a file for the image of it, .svg or .png; needs matplotlib.
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
        A row for each layer, and remedies, the most promising first.

    Raises:
        InputError: no artifact, one that is not integers throughout, or no float one beside it;
            layers that go by other names.
        UsageError: a data set that is not known, or that says nothing of the model.
        DeviceError: a runner died or hangs.
        MissingError: `plot` without matplotlib.
    """
    reporter = reporter or PythonReporter()
    place = arguments.path(plot)
    overrides = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    if place is not None:
        quantization_plot.check(place)
    found = diagnose.diagnose(
        Path(file), data=arguments.text(data), overrides=overrides, reporter=reporter
    )
    if place is not None:
        quantization_plot.draw(found, place)
        reporter.say(f"{place} shows it")
    return found
