"""TFLite files of a few operators, built by hand: no converter decides what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

_TYPES = {
    np.dtype(getattr(np, name)): getattr(schema.TensorType, name.upper())
    for name in ("float16", "float32", "int8", "uint8", "int32", "int64")
} | {np.dtype(bool): schema.TensorType.BOOL}


class Lite:
    """A graph in the making. Tensors are known by their index; they are named t0, t1, ..."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version, self._model.operatorCodes = 3, []
        self._model.buffers = [schema.BufferT()]
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model.subgraphs = [self._graph]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: Any = np.float32,
        name: str | None = None,
        grid: tuple[float, int] | None = None,
    ) -> int:
        """A tensor that an operator makes; `grid` is the scale and zero point of codes."""
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), _TYPES[np.dtype(dtype)], 0
        tensor.name = f"t{len(self._graph.tensors)}" if name is None else name
        if grid is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [grid[0]], [grid[1]]
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def input(self, shape: Sequence[int], dtype: Any = np.float32, **more: Any) -> int:
        index = self.tensor(shape, dtype, **more)
        self._graph.inputs.append(index)
        return index

    def constant(self, values: Any, dtype: Any = None, **more: Any) -> int:
        array = np.asarray(values, dtype)
        index = self.tensor(array.shape, array.dtype, **more)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self._graph.tensors[index].buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)
        return index

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self._graph.tensors[index].shape)

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        *outputs: Any,
        options: str | None = None,
        version: int = 1,
        **settings: Any,
    ) -> Any:
        """The outputs of an operator: indices of tensors, or shapes of new ones in float."""
        made = [o if isinstance(o, int) else self.tensor(o) for o in outputs]
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes)
        self._model.operatorCodes.append(code)
        operator.inputs, operator.outputs = list(inputs), made
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in settings.items():
                assert hasattr(operator.builtinOptions, name), name
                setattr(operator.builtinOptions, name, value)
        self._graph.operators.append(operator)
        return made[0] if len(made) == 1 else made

    def file(self, *outputs: int) -> bytes:
        """The file that answers with these tensors."""
        self._graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def answers(content: bytes, *values: np.ndarray) -> list[np.ndarray]:
    """What LiteRT answers to one feed of all inputs."""
    engine = Interpreter(model_content=content, num_threads=1)
    engine.allocate_tensors()
    for detail, value in zip(engine.get_input_details(), values, strict=True):
        engine.set_tensor(detail["index"], value)
    engine.invoke()
    return [engine.get_tensor(detail["index"]) for detail in engine.get_output_details()]
