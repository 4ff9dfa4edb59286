"""Floors: the least number of instructions that multiply a layer's numbers on an ARM core.

A floor is the layer's mult-adds (`analysis.cost`) over those of the widest instruction that the
core has for the layer's arithmetic, rounded up. No program without fewer mult-adds takes fewer
instructions. A real one also loads, stores, requantizes and loops, so it takes more. A kernel that
skips weights of zero can take fewer.

What one instruction multiplies and adds on registers of 128 bits is from the Arm Architecture
Reference Manual for A-profile (DDI 0487), C7.2, "A64 Advanced SIMD and floating-point instruction
descriptions". Unsigned forms (UDOT, UMLAL, UMMLA) are as wide as the signed ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mobiledeploy.analysis import cost as costs
from mobiledeploy.analysis import layer_counts
from mobiledeploy.analysis.cost import LayerCost
from mobiledeploy.core import units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.types import Counted, Layer, LayerCount

Arithmetic = Literal["int8", "int16", "float16", "float32"]

# Features of a core in the words of Linux: FEAT_DotProd and FEAT_I8MM.
_DOT_PRODUCTS, _MATRICES = "asimddp", "i8mm"
_BYTES = {"int8", "uint8", "int4", "uint4"}
_INTEGER_CLASSES = ("sdot", "mmla", "mla")
# As many layers are listed as hold half of the instructions above the floor, but no more than this.
MOST = 5


class Multiplication(NamedTuple):
    """An instruction of Arm's A64, and the mult-adds of one of it: its `width`."""

    instruction: str
    width: int


# SMMLA Vd.4S, Vn.16B, Vm.16B: a matrix of 2x8 by one of 8x2.
SMMLA = Multiplication("smmla", 32)
# SDOT Vd.4S, Vn.16B, Vm.16B: four sums of four products.
SDOT = Multiplication("sdot", 16)
# SMLAL Vd.8H, Vn.8B, Vm.8B; SMLAL Vd.4S, Vn.4H, Vm.4H.
SMLAL_BYTES, SMLAL_HALVES = Multiplication("smlal", 8), Multiplication("smlal", 4)
# FMLA Vd.8H, Vn.8H, Vm.8H (FEAT_FP16); FMLA Vd.4S, Vn.4S, Vm.4S.
FMLA_HALVES, FMLA_SINGLES = Multiplication("fmla", 8), Multiplication("fmla", 4)


@dataclass(frozen=True)
class LayerFloor(Record):
    """A layer with mult-adds: its instructions as counted, beside its floor.

    `instruction` is the widest one of the core for the layer's arithmetic, `width` the mult-adds of
    one, `floor` the number of them that the layer needs. `ratio` is instructions over floor; both
    are None if the runtime does not report the layer.
    """

    name: str
    kind: str
    mult_adds: int
    instruction: str
    width: int
    floor: int
    instructions: int | None
    ratio: float | None
    kernel: str = ""

    @property
    def above(self) -> int:
        """The instructions above the floor; 0 if they are not known."""
        return 0 if self.instructions is None else self.instructions - self.floor


@dataclass(frozen=True)
class KindFloor(Record):
    """The sums of the reported layers of one kind.

    `share` is their part of all instructions above the floor, a fraction.
    """

    kind: str
    layers: int
    floor: int
    instructions: int
    ratio: float
    share: float


@dataclass(frozen=True)
class InstructionFloors(Record):
    """A file's instructions on an emulated core, beside the least that multiply its numbers.

    `instructions` are counted, `floor` is derived from counted mult-adds; neither is a time. `isa`
    is the core's instruction set, on which the floor depends. `multiplying` are the instructions
    that multiply, of whatever width. `other_instructions` are those outside of the reported layers:
    of operators without mult-adds, and of the runtime between operators; None if no layer is
    reported. `most` are the layers with the most instructions above their floor, largest first,
    until they hold half of all or are five; `most_share` is what they hold, a fraction. `uncounted`
    is as in `Cost`.
    """

    name: str
    source: str
    artifact_sha256: str
    core: str
    isa: str
    runtime: str
    runtime_version: str
    mult_adds: int
    floor: int
    instructions: int
    multiplying: int
    ratio: float | None
    other_instructions: int | None
    layers: tuple[LayerFloor, ...]
    kinds: tuple[KindFloor, ...]
    most: tuple[LayerFloor, ...]
    most_share: float
    uncounted: tuple[str, ...]
    kind: Literal["counted"] = "counted"

    @property
    def above(self) -> int:
        """The instructions above the floor."""
        return self.instructions - self.floor

    def tables(self) -> tuple[Table, ...]:
        """A row for each layer with mult-adds, the others, and the total; then the kinds."""
        rows = tuple(
            (
                _first(layer.name),
                layer.kind,
                f"{layer.mult_adds:,}",
                f"{layer.instruction} {layer.width}",
                f"{layer.floor:,}",
                _number(layer.instructions),
                _times(layer.ratio),
            )
            for layer in self.layers
        )
        others = ("all others, and the runtime", "", "", "", "", _number(self.other_instructions))
        total = ("total", "", f"{self.mult_adds:,}", "", f"{self.floor:,}")
        title = (
            f"{self.name}: counted on an emulated {self.core}, {self.runtime} "
            f"{self.runtime_version}, 1 thread, batch 1: instructions of one inference, not a time"
        )
        layers = Table(
            ("layer", "kind", "mult-adds", "widest", "floor", "instructions", "over floor"),
            (
                *rows,
                *([] if self.other_instructions is None else [(*others, "")]),
                (*total, _number(self.instructions), _times(self.ratio)),
            ),
            title,
            optional=("kind", "mult-adds"),
            names=("layer",),
        )
        kinds = tuple(
            (
                one.kind,
                str(one.layers),
                f"{one.floor:,}",
                f"{one.instructions:,}",
                _times(one.ratio),
                units.percent(one.share),
            )
            for one in self.kinds
        )
        headers = ("kind of layer", "layers", "floor", "instructions", "over floor")
        return (layers, *([Table((*headers, "share above"), kinds)] if kinds else []))


def floors(name: str, source: str, layers: Sequence[Layer], counted: Counted) -> InstructionFloors:
    """The floors of a file's layers on the core that it was counted on.

    Args:
        name: the file's name.
        source: its path.
        layers: all its operators, in their order.
        counted: the count of this file. Layers are matched with it by their names.
    """
    cost = costs.cost(layers)
    by_name: dict[str, list[LayerCount]] = {}
    for one in counted.by_layer:
        by_name.setdefault(one.name, []).append(one)
    features = counted.isa.split()
    usual = layer_counts.multiplication(counted.by_class)
    rows = []
    for layer, row in zip(costs.unquantized(layers), cost.layers, strict=True):
        if row.mult_adds:
            # Names of a user's file may repeat: each stands for one layer that ran.
            same = by_name.get(row.name, [])
            executed = same.pop(0) if same else None
            rows.append(_layer(layer, row, executed, features, usual))
    counted_rows = [row for row in rows if row.instructions is not None]
    floor = sum(row.floor for row in rows)
    within = sum(row.instructions or 0 for row in counted_rows)
    above = counted.instructions - floor
    most = _most(counted_rows, above)
    return InstructionFloors(
        name=name,
        source=source,
        artifact_sha256=counted.artifact_sha256,
        core=counted.core,
        isa=counted.isa,
        runtime=counted.target.runtime,
        runtime_version=counted.runtime_version,
        mult_adds=cost.mult_adds,
        floor=floor,
        instructions=counted.instructions,
        multiplying=sum(counted.by_class.get(x, 0) for x in layer_counts.MULTIPLICATIONS),
        ratio=_ratio(counted.instructions, floor),
        # The profiled inference may take a few instructions more than the plain one.
        other_instructions=max(0, counted.instructions - within) if counted_rows else None,
        layers=tuple(rows),
        kinds=_kinds(counted_rows, above),
        most=most,
        most_share=sum(row.above for row in most) / above if most else 0.0,
        uncounted=cost.uncounted,
    )


def widest(
    arithmetic: Arithmetic, features: Collection[str], *, depthwise: bool, pixels: int
) -> Multiplication:
    """The widest instruction of a core for a layer.

    SDOT and SMMLA add products that lie side by side. In memory these are channels, and a depthwise
    convolution adds none of them: SMLAL, which keeps eight sums of one product each, is its widest.
    An output of one pixel has one row of numbers, so half of SMMLA's matrix would be empty.

    Args:
        arithmetic: that of the products.
        features: the core's, in the words of Linux.
        depthwise: whether each output channel reads one input channel.
        pixels: height times width of the output.
    """
    if arithmetic == "float16":
        return FMLA_HALVES
    if arithmetic == "float32":
        return FMLA_SINGLES
    if arithmetic == "int16":
        return SMLAL_HALVES
    if depthwise:
        return SMLAL_BYTES
    if _MATRICES in features and pixels > 1:
        return SMMLA
    return SDOT if _DOT_PRODUCTS in features else SMLAL_BYTES


def _layer(
    layer: Layer,
    row: LayerCost,
    executed: LayerCount | None,
    features: Collection[str],
    usual: str,
) -> LayerFloor:
    kernel = executed.kernel if executed else ""
    arithmetic = _arithmetic(layer, kernel.rpartition(", ")[2] if executed else usual)
    multiplication = widest(
        arithmetic, features, depthwise=row.kind.startswith("Conv DW"), pixels=row.pixels
    )
    floor = math.ceil(row.mult_adds / multiplication.width)
    instructions = executed.instructions if executed else None
    return LayerFloor(
        name=row.name,
        kind=row.kind,
        mult_adds=row.mult_adds,
        instruction=multiplication.instruction,
        width=multiplication.width,
        floor=floor,
        instructions=instructions,
        ratio=None if instructions is None else _ratio(instructions, floor),
        kernel=kernel,
    )


def _arithmetic(layer: Layer, class_: str) -> Arithmetic:
    """By the types of activations and weights; the class that multiplied decides among floats.

    Runtimes compute float16 in float32 on cores without half precision, and float activations with
    int8 weights in integers or in floats.
    """
    types = {t.dtype for t in layer.inputs if not t.constant or len(t.shape) >= 2}
    if types <= _BYTES:
        return "int8"
    if types <= _BYTES | {"int16"}:
        return "int16"
    if types & _BYTES and class_ in _INTEGER_CLASSES:
        return "int8"
    return "float16" if class_ == "fmla16" else "float32"


def _kinds(layers: Sequence[LayerFloor], above: int) -> tuple[KindFloor, ...]:
    """The kinds, the largest part of the instructions above the floor first."""
    kinds = []
    for kind in dict.fromkeys(layer.kind for layer in layers):
        own = [layer for layer in layers if layer.kind == kind]
        floor = sum(layer.floor for layer in own)
        instructions = sum(layer.instructions or 0 for layer in own)
        share = (instructions - floor) / above if above > 0 else 0.0
        kinds.append(KindFloor(kind, len(own), floor, instructions, instructions / floor, share))
    return tuple(sorted(kinds, key=lambda one: -one.share))


def _most(layers: Sequence[LayerFloor], above: int) -> tuple[LayerFloor, ...]:
    most: list[LayerFloor] = []
    for layer in sorted(layers, key=lambda one: one.above, reverse=True):
        if layer.above <= 0 or len(most) == MOST or 2 * sum(one.above for one in most) >= above:
            break
        most.append(layer)
    return tuple(most)


def _ratio(instructions: int, floor: int) -> float | None:
    return instructions / floor if floor else None


def _first(name: str) -> str:
    """TFLite joins the names of fused operators."""
    return name.partition(";")[0]


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"
