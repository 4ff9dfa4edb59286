"""Compares two artifacts layer by layer: types, shapes, errors, instructions.

The largest change comes first. A change of type in most layers is expected (float32 to int8), so a
layer without it is odd.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import alignment, cost, regression
from mobiledeploy.core import artifacts, inputs, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import FORMATS, REPORTS
from mobiledeploy.core.ports import DifferencePage, Reporter
from mobiledeploy.core.types import (
    Artifact,
    Counted,
    FileFacts,
    FileFigures,
    Layer,
    Measurement,
    Pair,
    Side,
    Tensor,
)
from mobiledeploy.steps import arguments, bench_tables, diagnose, forecasts
from mobiledeploy.steps import diff_figures as figures
from mobiledeploy.steps.arguments import AnyPath
from mobiledeploy.steps.defaults import DIFF_LAYERS
from mobiledeploy.steps.diff_figures import FigureDifference
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path

_WINDOW = re.compile(r" \d+x\d+$")
_QUANTIZERS = ("QUANTIZE", "QuantizeLinear", "DEQUANTIZE", "DequantizeLinear")


@dataclass(frozen=True)
class Difference(Record):
    """The answer of `diff`: layers, the largest change first, and figures."""

    a: str
    b: str
    size_bytes: tuple[int, int]
    layers: tuple[Pair, ...]
    figures: tuple[FileFigures, ...]

    def tables(self) -> tuple[Table, ...]:
        """The layers that changed most."""
        return (self.table(DIFF_LAYERS),)

    def table(self, most: int) -> Table:
        """A table of `most` layers, the largest change first."""
        sizes = [units.size(number) for number in self.size_bytes]
        sides = [side for pair in self.layers for side in (pair.a, pair.b) if side]
        own = any(side.own_sqnr_db is not None for side in sides)
        return Table(
            (
                *("layer", "operator", "type", "weights", "SQNR"),
                *(("own error",) if own else ()),
                *("instructions", "odd"),
            ),
            tuple(_row(pair, own) for pair in self.layers[:most]),
            f"{self.a} {sizes[0]} → {self.b} {sizes[1]}",
            optional=("operator", "odd", "own error", "instructions"),
            names=("layer",),
        )


def _row(pair: Pair, own: bool) -> tuple[str, ...]:
    sides = [side for side in (pair.a, pair.b) if side]
    odd = "; ".join(pair.odd) or "–"
    if pair.sqnr_db is None:
        error = "–"
    else:
        error = "same" if math.isnan(pair.sqnr_db) else f"{pair.sqnr_db:.1f} dB"
    counts = ["–" if s.instructions is None else f"{s.instructions:,}" for s in sides]
    own_errors = ["–" if s.own_sqnr_db is None else f"{s.own_sqnr_db:.1f} dB" for s in sides]
    return (
        units.one_line(sides[0].name.partition(";")[0]),
        change([s.kind for s in sides]),
        change([s.type for s in sides]),
        change([units.size(s.weight_bytes) for s in sides]),
        error,
        *([change(own_errors)] if own else ()),
        change(counts),
        odd,
    )


def change(values: Sequence[str]) -> str:
    """'a → b', or one value if both are equal."""
    return values[0] if len(set(values)) == 1 else " → ".join(values)


@dataclass(frozen=True)
class _Content:
    """The content of an artifact: its layers, and the real values of each layer's kernel."""

    artifact: Artifact
    sides: list[Side]
    kernels: list[NDArray[np.float32] | None] = field(repr=False)
    measurements: tuple[Measurement, ...] = ()


def diff(
    a: AnyPath,
    b: AnyPath,
    *,
    activations: bool = False,
    html: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> Difference:
    """Compares two artifacts layer by layer, the largest change first.

    Layers are paired by their operation, in their order. It also compares figures in the store of
    both on one target.

    Example:
        >>> found = md.diff("build/float32.tflite", "build/int8_best.tflite")
        >>> [pair.odd for pair in found.layers if pair.odd]

    Args:
        a: an artifact.
        b: another.
        activations: runs full-integer artifacts on their golden images, for the error of each
            layer's output; needs their float32.tflite beside them.
        html: a .html file for a page that draws the two graphs beside each other.
        reporter: is told of progress; the default is a `PythonReporter`.

    Returns:
        Types, shapes, errors, size and instructions of the layers of both.

    Raises:
        InputError: an artifact without its record, or a file that cannot be read; with
            `activations` also the errors of `analyze_quantization`.
        UsageError: neither has integer activations; a place for the page that cannot be written.
        DeviceError: a runner died or hangs.
        MissingError: `html` without the libraries of reports.
    """
    reporter = reporter or PythonReporter()
    a, b, place = Path(a), Path(b), arguments.path(html)
    page = None if place is None else _page(place)
    both = [artifacts.load(path) for path in (a, b)]
    if activations and not any(artifact.recipe.full_integer for artifact in both):
        raise UsageError(
            f"neither {a} nor {b} is of integers throughout", "leave out --activations"
        )
    measurements_of_both = [_measurements(artifact) for artifact in both]
    first, second = (
        _read(path, artifact, measurements, instructions, activations, reporter)
        for path, artifact, measurements, instructions in zip(
            (a, b), both, measurements_of_both, _instructions(*measurements_of_both), strict=True
        )
    )
    scaled = [one.recipe.name for one in both if "equalize" in _passes(one)]
    if scaled and not activations and len({one.format for one in both}) == 1:
        reporter.say(
            f"{' and '.join(dict.fromkeys(scaled))} scales channels, which changes weights and no "
            "answer: a low SQNR of weights is no loss; --activations shows what each layer loses"
        )
    difference = Difference(
        str(a),
        str(b),
        (first.artifact.size_bytes, second.artifact.size_bytes),
        tuple(_rank(_align(first, second))),
        tuple(_figures(first, second)),
    )
    if place is not None and page is not None:
        d = difference
        text = page.difference((d.a, d.b), d.size_bytes, d.layers, d.figures)
        records.write_atomic(place, text)
        reporter.say(f"{place} shows both graphs")
    return difference


def _page(place: Path) -> DifferencePage:
    """What writes the page; refuses, before the work, a place where it cannot be."""
    if place.suffix.lower() != ".html":
        raise UsageError(f"--html {place} is not a .html", "name it so")
    records.need_folder(place)
    return cast(DifferencePage, REPORTS.load("html"))


def diff_figures(a: int | AnyPath, b: int | AnyPath) -> FigureDifference:
    """Compares two figures of one kind, of one artifact or of two.

    This is `diff` on the command line if A and B are figures.

    Example:
        >>> md.diff_figures(12, 13).ratio

    Args:
        a: an id from `results`, or a file with one figure: of `bench --json` or `results_export`.
        b: another.

    Returns:
        The ratio of B to A with its interval, instructions by layer, and different facts of the two
        figures.

    Raises:
        UsageError: no such id, a file with several figures, or figures of two kinds.
        InputError: a file that cannot be read or holds no figure; a figure of nothing.
    """
    return figures.diff(str(a), str(b))


def _passes(artifact: Artifact) -> tuple[str, ...]:
    """The passes that made it: those of the best alternative, or the only ones of its recipe."""
    if artifact.tried:
        return min(artifact.tried, key=lambda one: one.divergence).passes
    return artifact.recipe.passes[0] if len(artifact.recipe.passes) == 1 else ()


def _measurements(artifact: Artifact) -> tuple[Measurement, ...]:
    if not store_path().exists():
        return ()
    with Store.open() as store:
        return store.measurements_of(artifact.sha256)


def _instructions(
    a: Sequence[Measurement], b: Sequence[Measurement]
) -> tuple[dict[str, int], dict[str, int]]:
    """The newest counts by layer of both on one target; {} if there are none."""
    before, after = (
        {m.target: m for m in reversed(measurements) if isinstance(m, Counted) and m.by_layer}
        for measurements in (a, b)
    )
    both = next((m.target for m in b if m.target in before and m.target in after), None)
    if both is None:
        return {}, {}
    first, second = (
        {layer.name: layer.instructions for layer in counts[both].by_layer}
        for counts in (before, after)
    )
    return first, second


def _read(
    path: Path,
    artifact: Artifact,
    measurements: tuple[Measurement, ...],
    instructions: Mapping[str, int],
    activations: bool,
    reporter: Reporter,
) -> _Content:
    shelf, data = FORMATS.load(artifact.format), inputs.read(path, inputs.FINISHED)
    facts, weights = shelf.inspect(data), shelf.weights(data)
    layers = {layer.name: layer for layer in facts.layers}
    left_out = {one.layer: one.left_out for one in artifact.shrunk_layers}
    errors: Mapping[str, float] = {}
    if activations and artifact.recipe.full_integer:
        errors = diagnose.own_errors(path, reporter=reporter)
    reads = _reads(facts)
    sides, kernels = [], []
    for row in cost.cost(facts.layers).layers:
        layer = layers[row.name]
        constants = [t for t in layer.inputs if t.constant]
        output = _output(layer, facts)
        sides.append(
            Side(
                row.name,
                row.kind,
                output.dtype,
                row.output,
                sum(_stored_bytes(t.name, facts, cost.size_bytes(t)) for t in constants),
                row.mult_adds,
                instructions.get(row.name),
                errors.get(output.name),
                left_out.get(output.name, 0),
                output.scale[0] if len(output.scale) == 1 else None,
                output.zero_point[0] if len(output.zero_point) == 1 else None,
                reads.get(row.name, ()),
            )
        )
        kernels.append(_kernel(layer, weights))
    return _Content(artifact, sides, kernels, measurements)


def _reads(facts: FileFacts) -> dict[str, tuple[str, ...]]:
    """The names of the layers that each layer reads, without quantizers."""
    plain = cost.unquantized(facts.layers)
    makers = {tensor.name: layer.name for layer in plain for tensor in layer.outputs}
    return {
        layer.name: tuple(dict.fromkeys(makers[t.name] for t in layer.inputs if t.name in makers))
        for layer in plain
    }


def _output(layer: Layer, facts: FileFacts) -> Tensor:
    """The output of a layer; in ONNX that of the QuantizeLinear that is fused with it."""
    output = layer.outputs[0]
    readers = [x for x in facts.layers if any(t.name == output.name for t in x.inputs)]
    if readers and all(x.op == "QuantizeLinear" for x in readers):
        return readers[0].outputs[0]
    return output


def _stored_bytes(name: str, facts: FileFacts, plain: int) -> int:
    """The size of a constant in the file, before its DequantizeLinear."""
    for layer in facts.layers:
        if layer.op in _QUANTIZERS and layer.outputs[0].name == name:
            return cost.size_bytes(layer.inputs[0])
    return plain


def _kernel(layer: Layer, weights: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32] | None:
    kernels = [weights[t.name] for t in layer.inputs if t.constant and t.name in weights]
    return max((w for w in kernels if w.ndim > 1), key=lambda w: w.size, default=None)


def _align(first: _Content, second: _Content) -> list[Pair]:
    # Without their windows: a layer with another window is the same layer, changed.
    keys = [
        [(_WINDOW.sub("", side.kind), math.prod(side.shape)) for side in content.sides]
        for content in (first, second)
    ]
    # Each format has its own order of a kernel's axes.
    comparable = first.artifact.format == second.artifact.format
    pairs: list[Pair] = []
    for i, j in alignment.pairs(*keys):
        error = None
        if comparable and i is not None and j is not None:
            error = _sqnr(first.kernels[i], second.kernels[j])
        a, b = (None if i is None else first.sides[i]), (None if j is None else second.sides[j])
        pairs.append(Pair(a, b, error, (), len(pairs)))
    return pairs


def _sqnr(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float | None:
    if a is None or b is None or a.shape != b.shape:
        return None
    signal, noise = (float(np.square(x, dtype=np.float64).sum()) for x in (a, b - a))
    if noise == 0:
        return math.nan
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _rank(pairs: list[Pair]) -> list[Pair]:
    both = [(p.a, p.b) for p in pairs if p.a and p.b]
    # Only layers with mult-adds: the others are few bytes and often stay the same.
    usual = Counter((a.type, b.type) for a, b in both if a.mult_adds).most_common(1)
    errors = [p.sqnr_db for p in pairs if p.sqnr_db is not None and math.isfinite(p.sqnr_db)]
    middle = _middle(errors)
    middle_a = _middle([a.own_sqnr_db for a, _ in both])
    middle_b = _middle([b.own_sqnr_db for _, b in both])

    def rank_of(p: Pair) -> tuple[tuple[float, ...], Pair]:
        odd = []
        if p.a is None or p.b is None:
            odd.append("only in B" if p.a is None else "only in A")
            alone = p.a or p.b or _NONE
            # A change of type or format adds layers without mult-adds.
            structural = float(alone.mult_adds > 0)
            return (structural, 0.0, float(alone.mult_adds), 0.0), replace(p, odd=tuple(odd))
        types = (p.a.type, p.b.type)
        weighty = bool(p.a.mult_adds or p.b.mult_adds)
        type_differs = weighty and bool(usual) and types != usual[0][0]
        if type_differs:
            odd.append(f"{types[0]} → {types[1]}, others {' → '.join(usual[0][0])}")
        if p.a.kind != p.b.kind:
            odd.append(f"{p.a.kind} → {p.b.kind}")
        shape_differs = sorted(p.a.shape) != sorted(p.b.shape)
        if shape_differs:
            odd.append("shape")
        if p.a.left_out != p.b.left_out:
            odd.append(f"filters left out: {p.a.left_out} → {p.b.left_out}")
        # The same number of values in another shape are the same values, computed differently.
        same = shape_differs and math.prod(p.a.shape) == math.prod(p.b.shape)
        structural = 2.0 if type_differs else float(bool(odd) and not same)
        # In dB below the median: 6 dB are twice the error. Equal weights have no error.
        error = 0.0 if p.sqnr_db is None or math.isnan(p.sqnr_db) else max(0.0, middle - p.sqnr_db)
        if len(errors) == 1 and p.sqnr_db is not None and math.isfinite(p.sqnr_db):
            # This is the only layer with different weights.
            error = max(error, 60 - min(60.0, p.sqnr_db))
        if error > _NOTABLE_DB:
            odd.append(f"weights {p.sqnr_db:.1f} dB, others {middle:.1f} dB")
        activation_error = _below(p.b, middle_b) - _below(p.a, middle_a)
        if activation_error > _NOTABLE_DB:
            odd.append(f"activations {p.b.own_sqnr_db:.1f} dB, others {middle_b:.1f} dB")
        instruction_change = abs((p.b.instructions or 0) - (p.a.instructions or 0))
        size_change = abs(p.b.weight_bytes - p.a.weight_bytes)
        return (
            structural,
            max(error, activation_error),
            float(instruction_change),
            float(size_change),
        ), replace(p, odd=tuple(odd))

    rows = sorted((rank_of(p) for p in pairs), key=lambda row: row[0], reverse=True)
    return [pair for _, pair in rows]


def _middle(errors: Sequence[float | None]) -> float:
    values = [error for error in errors if error is not None]
    return float(np.median(values)) if values else 0.0


def _below(side: Side, usual: float) -> float:
    """By how many dB a layer's own error is worse than the median of its artifact."""
    return 0.0 if side.own_sqnr_db is None else max(0.0, usual - side.own_sqnr_db)


_NOTABLE_DB = 6.0
_NONE = Side("", "", "", (), 0, 0)


def _figures(first: _Content, second: _Content) -> list[FileFigures]:
    targets, figures_ = set(), []
    for new in second.measurements:
        target = (new.kind, new.target)
        old = next((m for m in first.measurements if (m.kind, m.target) == target), None)
        if old is None or target in targets:
            continue
        targets.add(target)
        try:
            ratio, low, high = regression.ratio(new, old)
        except ValueError:
            continue
        t = new.target
        figures_.append(
            FileFigures(
                new.kind,
                t.device,
                t.runtime,
                t.threads,
                figures.value(old),
                figures.value(new),
                ratio,
                (low, high),
                (bench_tables.delegation(old), bench_tables.delegation(new)),
                (forecasts.of_figure(old), forecasts.of_figure(new)),
            )
        )
    return figures_
