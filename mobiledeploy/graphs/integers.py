"""The one module that makes integers: a float TFLite and its tensors' ranges -> an integer TFLite.

AI Edge Quantizer does the work (https://github.com/google-ai-edge/ai-edge-quantizer, Apache 2.0).
This module adds four things:

- The quantizer lets 32-bit biases overflow in channels with nearly zero weights: there the step of
  the bias, s_in * s_w, is so small that the bias has no code. Such a channel gets a larger weight
  scale: |bias| <= 2^30 * s_in * s_w.
- The quantizer leaves outputs in float that no operator reads. A split of codes with such a part
  is a file that XNNPACK refuses.
- The quantizer leaves some operators in float that have an integer kernel. They are quantized
  afterwards by the rules of the 8-bit specification
  (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec) and of
  the kernels.
- The quantizer fails at weights of a convolution above 32 MiB. It gets them in two dimensions.
"""

from __future__ import annotations

import math
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
"""In codes; the sum of the products has the other half of the 32 bits."""

_LARGEST_PART = 32 * 1024 * 1024
"""In bytes: how much of a constant the quantizer codes at once."""

_ANY = frozenset(("ABS", "ELU", "EXP", "LEAKY_RELU", "LOG", "PRELU", "RELU6", "RELU_N1_TO_1"))
"""Operators whose int8 kernel accepts any scales."""
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
"""Operators whose output has the scale of their input."""
_AS_MADE = frozenset(("MINIMUM",))
"""Operators whose inputs must have the scale of their output."""
_FIXED = {"LOG_SOFTMAX": (16 / 256, 127)}
"""Operators whose kernel fixes the scale and zero point of the output."""
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
"""Operators that accept int8 from version 1 on; all others accept it from version 2."""
_SPLITTING = frozenset(("SPLIT", "SPLIT_V", "UNPACK"))
"""Operators of several outputs, each of which has the scale of the input."""
_VERSIONS = {("ABS", 16): 3, ("MINIMUM", 16): 4, ("REDUCE_MAX", 16): 3}
_SIXTEEN = frozenset(("ABS", "EXP", "LEAKY_RELU", "MINIMUM", "REDUCE_MAX"))
"""Operators that have a kernel for 16-bit activations."""


def integers(
    content: bytes,
    ranges: Mapping[str, tuple[float, float]],
    *,
    activation_bits: Literal[8, 16] = 8,
    granularity: Granularity = "per-channel",
    float_ends: bool = False,
    float_tensors: Sequence[str] = (),
) -> bytes:
    """The integer TFLite of a float one: 8-bit weights, 32-bit biases (64 with 16-bit activations).

    Args:
        content: the float file; its tensors have unique names.
        ranges: smallest and largest value of each computed tensor, by name.
        activation_bits: 8: asymmetric; 16: symmetric, with zero points of 0.
        granularity: that of the weights' scales.
        float_ends: inputs and outputs stay float.
        float_tensors: tensors that stay float, together with the operators that compute them.

    Raises:
        InputError: the quantizer rejects the model.
    """
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", _ALL, activation_bits, 8, _GRANULARITIES[granularity])
    floats = Graph(content)
    # One scope is all outputs: those of an operator that chooses boxes stay float together.
    in_float = float_ends or {floats.name(i) for i in floats.outputs} <= set(float_tensors)
    ends = [qtyping.TFLOperationName.INPUT] * float_ends
    ends += [qtyping.TFLOperationName.OUTPUT] * in_float
    for end in ends:
        recipe.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for name in float_tensors:
        # A scope is the names of an operator's outputs, each followed by a semicolon.
        recipe.add_quantization_config(
            f"^{re.escape(name)};$", _ALL, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    extents = {name: _extent(low, high) for name, (low, high) in ranges.items()}
    graph = _quantize(content, floats, recipe, extents)
    _put_on_codes(graph, ranges, activation_bits, frozenset(float_tensors))
    _code_unread_parts(graph)
    _find_best_codes(graph)
    if not in_float:
        _code_outputs(graph)
    _keep_biases_in_range(graph, floats)
    return graph.pack()


def dynamic(content: bytes, *, granularity: Granularity = "per-channel") -> bytes:
    """A float TFLite with 8-bit weights, whose kernels quantize activations at run time.

    Depthwise layers stay float: XNNPACK has no such kernel for them, and each would split the
    delegated part. InputError if the quantizer rejects the model.
    """
    recipe = recipe_manager.RecipeManager()
    recipe.add_dynamic_config(".*", _ALL, 8, _GRANULARITIES[granularity])
    recipe.add_quantization_config(
        ".*", qtyping.TFLOperationName.DEPTHWISE_CONV_2D, algorithm_key=AlgorithmName.NO_QUANTIZE
    )
    return _quantize(content, Graph(content), recipe, {}).pack()


def _quantize(
    content: bytes,
    floats: Graph,
    recipe: recipe_manager.RecipeManager,
    extents: dict[str, Any],
) -> Graph:
    """The integers of `content`, whose graph is `floats`, as the quantizer makes them."""
    # Its class Quantizer would also load an interpreter, only to check the ranges.
    model = tfl_flatbuffer_utils.read_model(memoryview(content))
    large = _large_kernels(floats)
    for index in large:
        filters, *sides = floats.shape(index)
        model.subgraphs[0].tensors[index].shape = [filters, math.prod(sides)]
    try:
        generator = params_generator.ParamsGenerator(model)
        # The warnings are about biases that have no code; they get one afterwards.
        with np.errstate(invalid="ignore"):
            parameters = generator.generate_quantization_parameters(recipe, extents, False)
            graph = Graph(bytes(model_modifier.ModelModifier(model).modify_model(parameters)))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the quantizer rejected the model: {first_line(error)}") from error
    for index in large:
        graph.set_shape(index, floats.shape(index))
    return graph


def _large_kernels(graph: Graph) -> set[int]:
    """The weights of convolutions that the quantizer codes in parts; it can do so in 2-D only."""
    kernels = {op.inputs[1] for op in graph.ops if graph.kind(op) in ("CONV_2D", "TRANSPOSE_CONV")}
    return {
        index
        for index in kernels
        if (values := graph.bytes_of(index)) is not None and values.nbytes > _LARGEST_PART
    }


def _extent(low: float, high: float) -> dict[str, np.float32]:
    """A range for the quantizer, adjusted so that no zero point is exactly between two codes.

    That of -1..1 would be. TensorFlow rounds it away from zero, AI Edge Quantizer to the even code:
    a change of the last bit of the float makes it equal to TensorFlow's.
    """
    least, most = np.float32(min(low, 0.0)), np.float32(max(high, 0.0))
    scale = np.maximum(most - least, np.float32(1e-9)) / 255
    zero = -128 - least / scale
    if zero - np.floor(zero) == 0.5:
        least = np.nextafter(least, np.float32(0 if zero < 0 else -np.inf))
    return {"min": least, "max": most}


# Operators that were left in float.


def _put_on_codes(
    graph: Graph,
    ranges: Mapping[str, tuple[float, float]],
    bits: int,
    float_tensors: frozenset[str],
) -> None:
    """Quantizes the operators of the tables above, and removes casts that cancel."""
    kinds = _ANY | _AS_READ | _AS_MADE | _FIXED.keys()
    if bits == 16:
        kinds = kinds & _SIXTEEN
    makers = {int(i): op for op in graph.ops for i in op.outputs}

    def extent(index: int) -> tuple[float, float] | None:
        maker = makers.get(index)
        if maker is not None and graph.kind(maker) == "DEQUANTIZE":
            index = int(maker.inputs[0])
        return ranges.get(graph.name(index))

    has_changed = False
    ops: list[Any] = []
    for op in graph.ops:
        computed = [int(i) for i in op.inputs if i >= 0 and graph.bytes_of(int(i)) is None]
        outputs = [int(i) for i in op.outputs]
        extents = {i: extent(i) for i in (*computed, *outputs)}
        if (
            graph.kind(op) in kinds
            and len(outputs) == 1
            and graph.name(outputs[0]) not in float_tensors
            and all(graph.dtype(i) == np.float32 for i in extents)
            and all(range_ is not None for range_ in extents.values())
        ):
            has_changed = True
            grids = {i: _grid(range_, bits) for i, range_ in extents.items() if range_ is not None}
            ops += _on_codes(graph, op, grids, bits)
        else:
            ops.append(op)
    if has_changed:
        graph.subgraph.operators = ops
        _simplify_casts(graph)


def _on_codes(
    graph: Graph, op: Any, grids: Mapping[int, tuple[float, int]], bits: int
) -> list[Any]:
    """The operator on codes, between casts from and to float."""
    kind = graph.kind(op)
    (target,) = map(int, op.outputs)
    output_grid = _FIXED.get(kind, grids[target])
    casts, inputs = [], []
    for index in map(int, op.inputs):
        if index < 0 or graph.dtype(index) != np.float32:
            inputs.append(index)
            continue
        constant = graph.constant(index)
        if constant is not None:
            grid = (
                output_grid if kind in _AS_MADE else _grid((constant.min(), constant.max()), bits)
            )
            inputs.append(_coded_constant(graph, index, grid, bits))
            continue
        grid = output_grid if kind in _AS_MADE else grids[index]
        if kind in _AS_READ:
            output_grid = grid
        codes = _codes_of(graph, index, grid, bits)
        casts.append(graph.add_op("QUANTIZE", [index], [codes]))
        inputs.append(codes)
    output_codes = _codes_of(graph, target, output_grid, bits)
    # Layers are identified by the names of their outputs.
    name = graph.name(target)
    graph.set_name(target, graph.name(output_codes))
    graph.set_name(output_codes, name)
    output_cast = graph.add_op("DEQUANTIZE", [output_codes], [target])
    op.inputs, op.outputs = inputs, [output_codes]
    graph.raise_version(op, _VERSIONS.get((kind, bits), 1 if kind in _FIRST else 2))
    return [*casts, op, output_cast]


def _grid(extent: tuple[float, float], bits: int) -> tuple[float, int]:
    """Scale and zero point of a range that includes 0, as AI Edge Quantizer computes them.

    In float32, to the last bit: a scale that differs from the quantizer's costs a QUANTIZE.
    """
    ends = _extent(*extent)
    least, most, smallest = ends["min"], ends["max"], np.float32(1e-9)
    if bits == 16:
        return float(max(-least, most, smallest) / np.float32(32767)), 0
    scale = max(most - least, smallest) / np.float32(255)
    return float(scale), int(np.rint(-128 - least / scale))


def _codes_of(graph: Graph, index: int, grid: tuple[float, int], bits: int) -> int:
    """Adds a tensor of codes for the float tensor `index`."""
    name = f"{graph.name(index)}/codes_{len(graph.subgraph.tensors)}"
    tensor = graph.add_tensor(name, graph.shape(index), f"int{bits}")
    graph.set_scale(tensor, *grid)
    return tensor


def _coded_constant(graph: Graph, index: int, grid: tuple[float, int], bits: int) -> int:
    scale, zero = grid
    limits = np.iinfo(np.int8 if bits == 8 else np.int16)
    codes = np.rint(graph.constant_values(index) / scale) + zero
    codes = np.clip(codes, limits.min, limits.max).astype(limits.dtype)
    tensor = graph.add_constant(f"{graph.name(index)}/codes_{len(graph.subgraph.tensors)}", codes)
    graph.set_scale(tensor, scale, zero)
    return tensor


def _simplify_casts(graph: Graph) -> None:
    """Replaces casts to float and back to the same codes by the codes themselves.

    A cast back to another scale becomes a cast from codes to codes.
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
        used = {int(i) for op in graph.ops for i in op.inputs} | set(graph.outputs)
        remaining = [
            op for op in graph.ops if graph.kind(op) not in CASTS or int(op.outputs[0]) in used
        ]
        if len(remaining) == len(graph.ops):
            return
        graph.subgraph.operators = remaining


def _find_best_codes(graph: Graph) -> None:
    """Has ARG_MAX and ARG_MIN read codes of 8 bits, whose order is that of their values."""
    makers = {int(i): op for op in graph.ops for i in op.outputs}
    for op in graph.ops:
        maker = makers.get(int(op.inputs[0])) if graph.kind(op) in ("ARG_MAX", "ARG_MIN") else None
        if maker is None or graph.kind(maker) != "DEQUANTIZE":
            continue
        if graph.dtype(int(maker.inputs[0])) == np.int8:
            op.inputs = [int(maker.inputs[0]), *map(int, op.inputs[1:])]
            graph.raise_version(op, 2)
    _drop_dead_casts(graph)


# Outputs of the model.


def _code_outputs(graph: Graph) -> None:
    """Has the file answer with the codes of an output that an operator in float reads, too."""
    makers = {int(i): op for op in graph.ops for i in op.outputs}
    outputs = []
    for index in graph.outputs:
        maker = makers.get(index)
        cast = maker is not None and graph.kind(maker) == "DEQUANTIZE"
        outputs.append(int(maker.inputs[0]) if maker is not None and cast else index)
    graph.subgraph.outputs = outputs
    _drop_dead_casts(graph)


# Outputs that no operator reads.


def _code_unread_parts(graph: Graph) -> None:
    """Gives the unread parts of split codes the type and scale of what is split."""
    used = {*graph.outputs, *(int(i) for op in graph.ops for i in op.inputs)}
    for op in graph.ops:
        if graph.kind(op) not in _SPLITTING:
            continue
        source = int(op.inputs[1 if graph.kind(op) == "SPLIT" else 0])
        if not graph.scale(source)[0].size:
            continue
        parts = [int(part) for part in op.outputs]
        op.outputs = [part if part in used else _like(graph, part, source) for part in parts]


def _like(graph: Graph, part: int, source: int) -> int:
    """A tensor of the name and shape of `part` with the type and scale of `source`."""
    scale, zero = graph.scale(source)
    tensor = graph.add_tensor(graph.name(part), graph.shape(part), graph.type_name(source))
    graph.set_name(part, f"{graph.name(part)}/unread_{tensor}")
    graph.set_scale(tensor, float(scale[0]), zero)
    return tensor


# Biases.


def _keep_biases_in_range(graph: Graph, floats: Graph) -> None:
    """Gives a channel whose bias has no 32-bit code a weight scale with which it has one."""
    for ours, theirs in matrices.pairs(graph, floats):
        scales, _ = graph.scale(ours.weights)
        if np.any(_least_scales(ours, theirs, scales.size) > scales):
            recode(ours, theirs, scales)


def recode(
    ours: matrices.WeightedOp, theirs: matrices.WeightedOp, scales: NDArray[np.float64]
) -> None:
    """Computes the codes of weights and bias again from the float operator.

    `scales` are those of the weights; a scale with which the bias would have no code becomes
    larger.
    """
    graph, floats = ours.graph, theirs.graph
    steps = np.maximum(scales, _least_scales(ours, theirs, scales.size)).astype(np.float32)
    each = ours.blocked(np.broadcast_to(steps, (ours.outputs,)))[..., None]
    weights = theirs.blocks(floats.constant_values(theirs.weights))
    ours.put_weights(np.clip(np.rint(weights / each), -127, 127))
    graph.set_scales(ours.weights, steps)
    if ours.bias >= 0:
        bias = floats.constant_values(theirs.bias)
        input_scales, _ = graph.scale(ours.source)
        # The bias needs a tensor of its own before it gets its own scales.
        graph.replace_constant(ours.op, 2, np.zeros(bias.shape))
        graph.set_scales(ours.bias, steps * np.float32(input_scales[0]))
        ours.put_bias(ours.blocked(bias))


def _least_scales(
    ours: matrices.WeightedOp, theirs: matrices.WeightedOp, count: int
) -> NDArray[np.float64]:
    """The smallest scales, `count` of them, with which each bias has a 32-bit code."""
    bias = theirs.graph.constant(theirs.bias)
    if ours.bias < 0 or bias is None or ours.graph.dtype(ours.bias) != np.int32:
        return np.zeros(count)
    (input_scale,), _ = ours.graph.scale(ours.source)
    least: NDArray[np.float64] = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * input_scale)
    return np.full(1, least.max()) if count == 1 else least
