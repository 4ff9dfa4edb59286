"""The one maker of integers: a float TFLite and the ranges of its tensors -> an integer TFLite.

AI Edge Quantizer does the work (https://github.com/google-ai-edge/ai-edge-quantizer, Apache 2.0).
What it lacks is done here:

- It lets 32-bit biases wrap around in channels whose weights are next to nothing, where the step of
  the bias, s_in * s_w, is so small that the bias has no code. Such a channel gets a larger weight
  scale: |bias| <= 2^30 * s_in * s_w.
- It leaves operators in float that have an integer kernel. They are put on codes afterwards, by the
  rules of the 8-bit specification
  (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec) and of
  the kernels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from ai_edge_quantizer import model_modifier, params_generator, qtyping, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.utils import tfl_flatbuffer_utils
from numpy.typing import NDArray

from mobiledeploy.core.errors import InputError, first_line
from mobiledeploy.graphs import matrices
from mobiledeploy.graphs.graph import CASTS, Graph

Granularity = Literal["per-channel", "per-tensor"]

_ALL = qtyping.TFLOperationName.ALL_SUPPORTED
_GRANULARITIES = {
    "per-channel": qtyping.QuantGranularity.CHANNELWISE,
    "per-tensor": qtyping.QuantGranularity.TENSORWISE,
}
_LARGEST_BIAS = 2**30
"""In codes; what is summed up beside it has the other half of 32 bits."""

_ANY = frozenset(("ABS", "ELU", "EXP", "LEAKY_RELU", "LOG", "PRELU", "RELU6", "RELU_N1_TO_1"))
"""Operators whose int8 kernel takes any scales."""
_AS_READ = frozenset(
    (
        "BATCH_TO_SPACE_ND",
        "DEPTH_TO_SPACE",
        "EXPAND_DIMS",
        "REDUCE_MAX",
        "REVERSE_V2",
        "SPACE_TO_BATCH_ND",
        "SPACE_TO_DEPTH",
        "SQUEEZE",
        "TILE",
    )
)
"""Those whose answer has the scale of what they read."""
_AS_MADE = frozenset(("MINIMUM",))
"""Those that want all they read on the scale of their answer."""
_FIXED = {"LOG_SOFTMAX": (16 / 256, 127)}
"""Those whose answer has a scale and zero point of the kernel's own."""
_FIRST = frozenset(
    (
        "ELU",
        "EXPAND_DIMS",
        "PRELU",
        "RELU_N1_TO_1",
        "REVERSE_V2",
        "SQUEEZE",
        "TILE",
    )
)
"""Those that take int8 from their first version on; all others do from their second."""
_VERSIONS = {("ABS", 16): 3, ("MINIMUM", 16): 4, ("REDUCE_MAX", 16): 3}
_SIXTEEN = frozenset(("ABS", "EXP", "LEAKY_RELU", "MINIMUM", "REDUCE_MAX"))
"""Those that have a kernel for activations of 16 bits."""


def integers(
    content: bytes,
    ranges: Mapping[str, tuple[float, float]],
    *,
    activation_bits: Literal[8, 16] = 8,
    granularity: Granularity = "per-channel",
    float_ends: bool = False,
    kept: Sequence[str] = (),
) -> bytes:
    """A float TFLite in integers: weights of 8 bits, biases of 32 (64 with 16-bit activations).

    Args:
        content: the float file; each tensor has a name of its own.
        ranges: least and greatest value of each computed tensor, by name.
        activation_bits: 8: asymmetric; 16: symmetric, with zero points of 0.
        granularity: of the weights' scales.
        float_ends: inputs and outputs stay float.
        kept: tensors that stay float, with the operator that makes each.

    Raises:
        InputError: the quantizer refuses the model.
    """
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", _ALL, activation_bits, 8, _GRANULARITIES[granularity])
    if float_ends:
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            recipe.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for name in kept:
        # A scope is what an operator makes, each with a semicolon behind it.
        recipe.add_quantization_config(
            f"^{re.escape(name)};$", _ALL, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    extents = {name: _extent(low, high) for name, (low, high) in ranges.items()}
    graph = Graph(_quantized(content, recipe, extents))
    _put_on_codes(graph, ranges, activation_bits, frozenset(kept))
    _keep_biases_in_range(graph, Graph(content))
    return graph.packed()


def dynamic(content: bytes, *, granularity: Granularity = "per-channel") -> bytes:
    """A float TFLite with weights of 8 bits, whose kernels quantize activations as they come.

    Depthwise layers stay float: XNNPACK has no such kernel for them, and would be left and entered
    again around each. InputError where the quantizer refuses the model.
    """
    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(".*", _ALL, 8, _GRANULARITIES[granularity])
    recipe.add_quantization_config(
        ".*", qtyping.TFLOperationName.DEPTHWISE_CONV_2D, algorithm_key=AlgorithmName.NO_QUANTIZE
    )
    return Graph(_quantized(content, recipe, {})).packed()


def _quantized(
    content: bytes, recipe: recipe_manager.RecipeManager, extents: dict[str, Any]
) -> bytes:
    # Its class Quantizer would load an interpreter beside, only to look at the extents.
    model = tfl_flatbuffer_utils.read_model(memoryview(content))
    try:
        generator = params_generator.ParamsGenerator(model)
        # Of biases that have no code; they get one afterwards.
        with np.errstate(invalid="ignore"):
            parameters = generator.generate_quantization_parameters(recipe, extents, False)
            return bytes(model_modifier.ModelModifier(model).modify_model(parameters))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the quantizer refused the model: {first_line(error)}") from error


def _extent(low: float, high: float) -> dict[str, np.float32]:
    """A range as the quantizer takes it, by whose arithmetic no zero point is halfway.

    That of -1..1 lies between two codes. TensorFlow takes the one further from zero, AI Edge
    Quantizer the even one: a range that is less by the last bit of a float decides it.
    """
    least, most = np.float32(min(low, 0.0)), np.float32(max(high, 0.0))
    scale = np.maximum(most - least, np.float32(1e-9)) / 255
    zero = -128 - least / scale
    if zero - np.floor(zero) == 0.5:
        least = np.nextafter(least, np.float32(0 if zero < 0 else -np.inf))
    return {"min": least, "max": most}


# Operators that were left in float.


def _put_on_codes(
    graph: Graph, ranges: Mapping[str, tuple[float, float]], bits: int, kept: frozenset[str]
) -> None:
    """Puts operators of the tables above on codes, and takes out casts that undo each other."""
    wanted = _ANY | _AS_READ | _AS_MADE | _FIXED.keys()
    if bits == 16:
        wanted = wanted & _SIXTEEN
    makers = {int(i): op for op in graph.ops for i in op.outputs}

    def extent(index: int) -> tuple[float, float] | None:
        maker = makers.get(index)
        if maker is not None and graph.kind(maker) == "DEQUANTIZE":
            index = int(maker.inputs[0])
        return ranges.get(graph.name(index))

    changed = False
    ops: list[Any] = []
    for op in graph.ops:
        computed = [int(i) for i in op.inputs if i >= 0 and graph.bytes_of(int(i)) is None]
        answers = [int(i) for i in op.outputs]
        extents = {i: extent(i) for i in (*computed, *answers)}
        if (
            graph.kind(op) in wanted
            and len(answers) == 1
            and graph.name(answers[0]) not in kept
            and all(graph.dtype(i) == np.float32 for i in extents)
            and all(known is not None for known in extents.values())
        ):
            changed = True
            grids = {i: _grid(known, bits) for i, known in extents.items() if known is not None}
            ops += _on_codes(graph, op, grids, bits)
        else:
            ops.append(op)
    if changed:
        graph.subgraph.operators = ops
        _simplify_casts(graph)


def _on_codes(
    graph: Graph, op: Any, grids: Mapping[int, tuple[float, int]], bits: int
) -> list[Any]:
    """The operator on codes, between casts from and to floats."""
    kind = graph.kind(op)
    (target,) = map(int, op.outputs)
    own = _FIXED.get(kind, grids[target])
    before, reads = [], []
    for index in map(int, op.inputs):
        if index < 0 or graph.dtype(index) != np.float32:
            reads.append(index)
            continue
        constant = graph.constant(index)
        if constant is not None:
            grid = own if kind in _AS_MADE else _grid((constant.min(), constant.max()), bits)
            reads.append(_coded_constant(graph, index, grid, bits))
            continue
        grid = own if kind in _AS_MADE else grids[index]
        if kind in _AS_READ:
            own = grid
        codes = _codes_of(graph, index, grid, bits)
        before.append(graph.add_op("QUANTIZE", [index], [codes]))
        reads.append(codes)
    answer = _codes_of(graph, target, own, bits)
    # Layers are known by what they make.
    name = graph.name(target)
    graph.set_name(target, graph.name(answer))
    graph.set_name(answer, name)
    after = graph.add_op("DEQUANTIZE", [answer], [target])
    op.inputs, op.outputs = reads, [answer]
    graph.raise_version(op, _VERSIONS.get((kind, bits), 1 if kind in _FIRST else 2))
    return [*before, op, after]


def _grid(extent: tuple[float, float], bits: int) -> tuple[float, int]:
    """Scale and zero point of a range, with 0 among its codes; as AI Edge Quantizer has them."""
    low, high = min(extent[0], 0.0), max(extent[1], 0.0)
    if bits == 16:
        return max(-low, high, 1e-9) / 32767, 0
    scale = max(high - low, 1e-9) / 255
    zero = -128 - low / scale
    # Halves away from zero.
    return scale, int(np.clip(np.copysign(np.floor(abs(zero) + 0.5), zero), -128, 127))


def _codes_of(graph: Graph, index: int, grid: tuple[float, int], bits: int) -> int:
    """A tensor of codes that stands for the float tensor `index`."""
    name = f"{graph.name(index)}/codes_{len(graph.subgraph.tensors)}"
    made = graph.add_tensor(name, graph.shape(index), f"int{bits}")
    graph.set_scale(made, *grid)
    return made


def _coded_constant(graph: Graph, index: int, grid: tuple[float, int], bits: int) -> int:
    scale, zero = grid
    limits = np.iinfo(np.int8 if bits == 8 else np.int16)
    codes = np.rint(graph.stored(index) / scale) + zero
    codes = np.clip(codes, limits.min, limits.max).astype(limits.dtype)
    made = graph.add_constant(f"{graph.name(index)}/codes_{len(graph.subgraph.tensors)}", codes)
    graph.set_scale(made, scale, zero)
    return made


def _simplify_casts(graph: Graph) -> None:
    """Reads codes where they are, in the place of casts to floats and back to the same codes.

    A cast to codes of another scale is one from codes to codes.
    """
    makers = {int(i): op for op in graph.ops for i in op.outputs}
    same: dict[int, int] = {}
    ends = set(graph.outputs)
    for op in graph.ops:
        op.inputs = [same.get(int(i), int(i)) for i in op.inputs]
        if graph.kind(op) != "QUANTIZE":
            continue
        (source, target) = int(op.inputs[0]), int(op.outputs[0])
        maker = makers.get(source)
        if maker is None or graph.kind(maker) != "DEQUANTIZE":
            continue
        codes = int(maker.inputs[0])
        if graph.dtype(codes) != graph.dtype(target):
            continue
        (scale, zero), (other, other_zero) = graph.scale(codes), graph.scale(target)
        if np.array_equal(scale, other) and zero == other_zero and target not in ends:
            same[target] = codes
        else:
            op.inputs = [codes]
    _drop_dead_casts(graph)


def _drop_dead_casts(graph: Graph) -> None:
    while True:
        read = {int(i) for op in graph.ops for i in op.inputs} | set(graph.outputs)
        kept = [op for op in graph.ops if graph.kind(op) not in CASTS or int(op.outputs[0]) in read]
        if len(kept) == len(graph.ops):
            return
        graph.subgraph.operators = kept


# Biases.


def _keep_biases_in_range(graph: Graph, floats: Graph) -> None:
    """Gives a channel whose bias has no 32-bit code a weight scale by which it has one."""
    for ours, theirs in matrices.pairs(graph, floats):
        scales, _ = graph.scale(ours.weights)
        if np.any(_least_scales(ours, theirs, scales.size) > scales):
            recode(ours, theirs, scales)


def recode(
    ours: matrices.WeightedOp, theirs: matrices.WeightedOp, scales: NDArray[np.float64]
) -> None:
    """Codes of weights and bias anew, from the float operator that it was.

    `scales` are those of the weights; one by which the bias would have no code becomes larger.
    """
    graph, floats = ours.graph, theirs.graph
    steps = np.maximum(scales, _least_scales(ours, theirs, scales.size)).astype(np.float32)
    each = ours.blocked(np.broadcast_to(steps, (ours.outputs,)))[..., None]
    weights = theirs.blocks(floats.stored(theirs.weights))
    ours.put_weights(np.clip(np.rint(weights / each), -127, 127))
    graph.set_scales(ours.weights, steps)
    if ours.bias >= 0:
        bias = floats.stored(theirs.bias)
        read, _ = graph.scale(ours.source)
        # A tensor of its own before it has scales of its own.
        graph.put(ours.op, 2, np.zeros(bias.shape))
        graph.set_scales(ours.bias, steps * np.float32(read[0]))
        ours.put_bias(ours.blocked(bias))


def _least_scales(
    ours: matrices.WeightedOp, theirs: matrices.WeightedOp, count: int
) -> NDArray[np.float64]:
    """The least scales of the weights, `count` of them, by which each bias has a 32-bit code."""
    bias = theirs.graph.constant(theirs.bias)
    if ours.bias < 0 or bias is None or ours.graph.dtype(ours.bias) != np.int32:
        return np.zeros(count)
    (read,), _ = ours.graph.scale(ours.source)
    least: NDArray[np.float64] = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * read)
    return np.full(1, least.max()) if count == 1 else least
