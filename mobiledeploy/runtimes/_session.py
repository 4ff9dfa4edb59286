"""ONNX Runtime's sessions. Importing this file imports the engine."""

from __future__ import annotations

import time
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
_DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
)
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
        start = time.perf_counter_ns()
        self._session = _session(path, threads)
        # A session reads the file and prepares it in one call.
        self.opening_ns: tuple[int | None, int] = (None, time.perf_counter_ns() - start)
        self.inputs = tuple(self._tensor(v, "input") for v in self._session.get_inputs())
        self.outputs = tuple(self._tensor(v, "output") for v in self._session.get_outputs())
        self._binding = self._session.io_binding()
        # A file may name one tensor as two outputs; it is bound once.
        self._bound = list(dict.fromkeys(output.name for output in self.outputs))
        for name in self._bound:
            self._binding.bind_output(name)

    def load(self, tensors: Sequence[Array]) -> None:
        _need_as_many(tensors, self.inputs, self._name)
        # The binding only holds the addresses. (ascontiguousarray gives a scalar an axis.)
        self._input_arrays = [np.asarray(tensor, order="C") for tensor in tensors]
        for own, array in zip(self.inputs, self._input_arrays, strict=True):
            if array.shape != own.shape or array.dtype != np.dtype(own.dtype):
                raise InputError(
                    f"{self._name} takes {own.dtype} {list(own.shape)} as {own.name}, "
                    f"not {array.dtype} {list(array.shape)}"
                )
            self._binding.bind_cpu_input(own.name, array)

    def invoke(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except _REFUSALS as error:
            raise InputError(
                f"onnxruntime cannot run {self._name}: {_first_line(error)}"
            ) from error

    def run(self, tensors: Sequence[Array]) -> list[Array]:
        self.load(tensors)
        self.invoke()
        answers = dict(zip(self._bound, self._binding.copy_outputs_to_cpu(), strict=True))
        return [np.asarray(answers[output.name]) for output in self.outputs]

    def _tensor(self, value: Any, what: str) -> Tensor:
        shape = tuple(value.shape)
        # The batch is 1 where the file leaves it open.
        if shape and type(shape[0]) is not int:
            shape = (1, *shape[1:])
        if not all(type(side) is int and side > 0 for side in shape):
            raise InputError(
                f"{self._name} has no fixed shape of its {what} {value.name}",
                "make the file again, with fixed shapes",
            )
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
        if dtype not in _DTYPES:
            raise InputError(
                f"{self._name} has {kind} as its {what} {value.name}",
                "numbers are supported only",
            )
        return Tensor(str(value.name), shape, dtype)


class SessionPart:
    """A subgraph of a model in a session."""

    def __init__(self, path: Path, threads: int) -> None:
        self._name = path.name
        self._session = _session(path, threads)
        self._ins = [value.name for value in self._session.get_inputs()]

    def run(self, tensors: Sequence[Array]) -> list[Array]:
        _need_as_many(tensors, self._ins, self._name)
        try:
            outputs = self._session.run(None, dict(zip(self._ins, tensors, strict=True)))
        except _REFUSALS as error:
            raise InputError(
                f"onnxruntime cannot run {self._name}: {_first_line(error)}"
            ) from error
        return [np.asarray(tensor) for tensor in outputs]


def _need_as_many(tensors: Sequence[Array], inputs: Sequence[Any], name: str) -> None:
    if len(tensors) != len(inputs):
        raise InputError(f"{name} takes {len(inputs)} tensors, not {len(tensors)}")


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
