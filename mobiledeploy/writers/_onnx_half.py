"""Half precision in an ONNX graph: which operators compute in float16, with a Cast at each border.

ONNX Runtime has float16 kernels for ARM cores with half-precision arithmetic (ARMv8.2 FP16); it
casts to float32 around the others, and on cores without it. Inputs and outputs stay float32.

These stay in float32:

- sums over many values, since a half has 11 bits: pools that average, reductions, Softmax,
  normalizations;
- powers, squares and exponentials, which leave the range of a half (65504) or lose their bits, and
  products that read squares, such as AlexNet's response normalization;
- Resize and ConvTranspose, activations other than those of ReLU, and DepthToSpace, for which the
  CPU has no float16 kernel: a Cast at each end, written or not, is all they would gain;
- everything behind the last product with weights, such as the decoding of boxes in pixels, which
  costs little;
- everything before the first one, so that pixels are scaled exactly;
- an operator with a constant above 65504.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[Any]

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
"""Products with weights: they decide the time."""
_FOLLOWING = {
    "Clip",
    "Concat",
    "Flatten",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Pad",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""They choose or move values, which loses nothing: half where all their values are halves."""
_BETWEEN = {"Add", "Mul", "Sub"}
"""Half only on the way to a later product."""
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = np.finfo(np.float16).smallest_subnormal


def halve(model: onnx.ModelProto, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Rewrites the nodes of `model`, which lacks its constants; returns the constants for them."""
    return _Halves(model, constants).rewrite()


class _Halves:
    def __init__(self, model: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
        self._graph = model.graph
        self._constants = dict(constants)
        self._floats = _float_tensors(model, constants)
        self._outputs = {value.name for value in self._graph.output}
        self._halves: set[str] = set()
        # Squares, and what only moves them.
        self._squares: set[str] = set()
        # The names of the values of a tensor, as halves (True) or as floats.
        self._names: dict[tuple[str, bool], str] = {}
        self._used = {name for node in self._graph.node for name in (*node.input, *node.output)}
        self._nodes: list[onnx.NodeProto] = []
        self._leads = self._leading()

    def rewrite(self) -> dict[str, Array]:
        for node in self._graph.node:
            half = self._is_half(node)
            self._find_squares(node)
            node.input[:] = [
                self._read(name, half, node.op_type) if name in self._floats else name
                for name in node.input
            ]
            if half:
                self._halves.update(node.output)
                node.output[:] = [self._written(name) for name in node.output]
                node.name = node.output[0]
            self._nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        for name in sorted(self._outputs & self._halves):
            if (name, False) not in self._names:
                self._cast(name, half=False)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        read_names = {name for node in self._nodes for name in node.input}
        return {name: self._constants[name] for name in sorted(self._constants.keys() & read_names)}

    def _leading(self) -> set[str]:
        """The tensors that a product depends on."""
        leading: set[str] = set()
        for node in reversed(self._graph.node):
            if node.op_type in _PRODUCTS or leading.intersection(node.output):
                leading.update(node.input)
        return leading

    def _find_squares(self, node: onnx.NodeProto) -> None:
        is_square = node.op_type == "Mul" and node.input[0] == node.input[1]
        if is_square or (node.op_type in _FOLLOWING and self._squares.intersection(node.input)):
            self._squares.update(node.output)

    def _is_half(self, node: onnx.NodeProto) -> bool:
        floats = [name for name in node.input if name in self._floats]
        fixed = [name for name in floats if name in self._constants]
        computed = [name for name in floats if name not in self._constants]
        if not computed or any(_is_large(self._constants[name]) for name in fixed):
            return False
        if node.op_type in _PRODUCTS:
            return node.input[1] in self._constants and node.input[0] not in self._squares
        if node.op_type in _FOLLOWING:
            return self._halves.issuperset(computed)
        leads = bool(self._leads.intersection(node.output))
        return (
            node.op_type in _BETWEEN
            and leads
            and not self._halves.isdisjoint(computed)
            and node.input[0] != node.input[1]
        )

    def _read(self, name: str, half: bool, op: str) -> str:
        if name not in self._constants:
            if (name in self._halves) == half:
                return self._names.get((name, half), name)
            return self._names.get((name, half)) or self._cast(name, half)
        if not half:
            return name
        if (name, True) not in self._names:
            halves = self._constants[name].astype(np.float16)
            if op == "Pad" and not halves.any() and self._constants[name].any():
                # Zeros that are nearly zero on purpose: see `OnnxGraph.pad_later`.
                halves[...] = _SMALLEST
            self._names[name, True] = self._free(f"{name}/half")
            self._constants[self._names[name, True]] = halves
        return self._names[name, True]

    def _written(self, name: str) -> str:
        """The name of halves that a node computes: an output has its own name for floats."""
        if name in self._outputs:
            self._names[name, True] = self._free(f"{name}/half")
        return self._names.get((name, True), name)

    def _cast(self, name: str, half: bool) -> str:
        source = self._names.get((name, not half), name)
        is_output = name in self._outputs and not half
        target = name if is_output else self._free(f"{name}/{'half' if half else 'float'}")
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self._nodes.append(helper.make_node("Cast", [source], [target], name=target, to=kind))
        self._names[name, half] = target
        return target

    def _free(self, name: str) -> str:
        number, free = 1, name
        while free in self._used:
            number += 1
            free = f"{name}_{number}"
        self._used.add(free)
        return free


def _float_tensors(model: onnx.ModelProto, constants: Mapping[str, Array]) -> set[str]:
    """The names of all float32 tensors."""
    typed = onnx.ModelProto.FromString(model.SerializeToString())
    for name, values in constants.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        typed.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    graph = onnx.shape_inference.infer_shapes(typed).graph
    return {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _is_large(values: Array) -> bool:
    return bool(np.abs(values).max(initial=0) > _LARGEST)
