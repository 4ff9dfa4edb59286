"""ONNX Runtime's sessions. Importing this file imports the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import Tensor

_ERROR = 3
# On x86-64 without VNNI its faster int8 kernels add two products in 16 bits and saturate.
_EXACT = ("session.x64quantprecision", "1")
# Its exceptions have no common base.
_REFUSALS = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotFound,
    state.NotImplemented,
    state.RuntimeException,
)


class SessionEngine:
    """A model in a session."""

    delegate: str = "none"
    # The session does not report how many operators it runs.
    delegated_nodes: int | None = None
    total_nodes: int | None = None

    def __init__(self, path: Path, threads: int) -> None:
        self._name = path.name
        self._session = _session(path, threads)
        self.input = self._only(self._session.get_inputs(), "input")
        self.output = self._only(self._session.get_outputs(), "output")
        self._binding = self._session.io_binding()
        self._binding.bind_output(self.output.name)

    def load(self, tensor: Array) -> None:
        if tensor.shape != self.input.shape or tensor.dtype != np.dtype(self.input.dtype):
            raise InputError(
                f"{self._name} takes {self.input.dtype} {list(self.input.shape)}, "
                f"not {tensor.dtype} {list(tensor.shape)}"
            )
        # The binding only holds the address.
        self._input_array = np.ascontiguousarray(tensor)
        self._binding.bind_cpu_input(self.input.name, self._input_array)

    def invoke(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except _REFUSALS as error:
            raise InputError(
                f"onnxruntime cannot run {self._name}: {_first_line(error)}"
            ) from error

    def run(self, tensor: Array) -> Array:
        self.load(tensor)
        self.invoke()
        (output,) = self._binding.copy_outputs_to_cpu()
        return np.asarray(output)

    def _only(self, values: list[Any], what: str) -> Tensor:
        if len(values) != 1:
            raise InputError(f"{self._name} has {len(values)} {what}s, one is needed")
        (value,) = values
        shape = tuple(value.shape)
        if not all(type(side) is int and side > 0 for side in shape):
            raise InputError(f"{self._name} has no fixed {what} shape", "export it again")
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        return Tensor(
            str(value.name), shape, {"float": "float32", "double": "float64"}.get(kind, kind)
        )


class SessionPart:
    """A subgraph of a model in a session."""

    def __init__(self, path: Path, threads: int) -> None:
        self._name = path.name
        self._session = _session(path, threads)
        self._ins = [value.name for value in self._session.get_inputs()]

    def run(self, tensors: Sequence[Array]) -> list[Array]:
        if len(tensors) != len(self._ins):
            raise InputError(f"{self._name} takes {len(self._ins)} tensors, not {len(tensors)}")
        try:
            outputs = self._session.run(None, dict(zip(self._ins, tensors, strict=True)))
        except _REFUSALS as error:
            raise InputError(
                f"onnxruntime cannot run {self._name}: {_first_line(error)}"
            ) from error
        return [np.asarray(tensor) for tensor in outputs]


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR
    options.add_session_config_entry(*_EXACT)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        raise InputError(f"onnxruntime cannot load {path.name}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    # "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from ..." has the reason after the
    # codes.
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rpartition(" : ")[2].strip() or lines[0]
