"""The Interpreter that LiteRT and its predecessor tflite_runtime share: one API, two libraries."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobiledeploy.core.errors import InputError, UsageError, first_line
from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import Tensor

_DELEGATES = ("xnnpack", "none")


class InterpreterEngine:
    """A model in an Interpreter; `library` is the module `<engine>.interpreter`."""

    delegated_nodes: int | None
    total_nodes: int | None
    left_nodes: tuple[int, ...]
    opening_ns: tuple[int | None, int]

    def __init__(
        self, library: Any, runtime: str, path: Path, *, threads: int, delegate: str
    ) -> None:
        if delegate not in _DELEGATES:
            raise UsageError(
                f"{runtime} has no delegate {delegate!r}",
                f"there are {', '.join(_DELEGATES)}; for a GPU bench --runner native",
            )
        if path.suffix != ".tflite":
            raise UsageError(f"{runtime} runs .tflite files, not {path.name}")
        resolvers = library.OpResolverType
        resolver = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        if delegate == "xnnpack":
            resolver = resolvers.AUTO
        try:
            with _without_info_lines():
                start = time.perf_counter_ns()
                self._interpreter = library.Interpreter(
                    str(path), num_threads=threads, experimental_op_resolver_type=resolver
                )
                loaded = time.perf_counter_ns()
                # XNNPACK takes its operators here, and packs their weights.
                self._interpreter.allocate_tensors()
                self.opening_ns = (loaded - start, time.perf_counter_ns() - loaded)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{runtime} cannot load {path.name}: {first_line(error)}") from error
        self._runtime, self._name = runtime, path.name
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self._ins, self._outs = ([int(d["index"]) for d in end] for end in (inputs, outputs))
        self.inputs = tuple(self._tensor(detail, "input") for detail in inputs)
        self.outputs = tuple(self._tensor(detail, "output") for detail in outputs)
        self.delegate = delegate
        self.left_nodes, total = _left(self._interpreter._get_ops_details())
        self.delegated_nodes, self.total_nodes = total - len(self.left_nodes), total

    def load(self, tensors: Sequence[Array]) -> None:
        """Sets the raw inputs; InputError if a shape or dtype is not that of `inputs`."""
        _need_as_many(tensors, self._ins, self._name)
        try:
            for index, tensor in zip(self._ins, tensors, strict=True):
                self._interpreter.set_tensor(index, tensor)
        except ValueError as error:
            raise InputError(f"{self._name}: {first_line(error)}") from error

    def invoke(self) -> None:
        """Runs the model and does nothing else; InputError if the engine fails."""
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise InputError(
                f"{self._runtime} cannot run {self._name}: {first_line(error)}"
            ) from error

    def run(self, tensors: Sequence[Array]) -> list[Array]:
        """Copies of the raw outputs for the raw inputs."""
        self.load(tensors)
        self.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outs]

    def _tensor(self, detail: Mapping[str, Any], what: str) -> Tensor:
        # The batch is 1 where the file leaves it open.
        if any(side < 0 for side in detail["shape_signature"][1:]):
            raise InputError(
                f"{self._name} has no fixed shape of its {what} {detail['name']}",
                "make the file again, with fixed shapes",
            )
        quantization = detail["quantization_parameters"]
        return Tensor(
            name=str(detail["name"]),
            shape=tuple(int(side) for side in detail["shape"]),
            dtype=np.dtype(detail["dtype"]).name,
            scale=tuple(float(scale) for scale in quantization["scales"]),
            zero_point=tuple(int(zero) for zero in quantization["zero_points"]),
        )


class InterpreterPart:
    """A subgraph of a model in an Interpreter, on XNNPACK."""

    def __init__(self, library: Any, runtime: str, path: Path, *, threads: int) -> None:
        self._runtime, self._name = runtime, path.name
        try:
            with _without_info_lines():
                self._interpreter = library.Interpreter(str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{runtime} cannot load {path.name}: {first_line(error)}") from error
        self._ins = [int(d["index"]) for d in self._interpreter.get_input_details()]
        self._outs = [int(d["index"]) for d in self._interpreter.get_output_details()]

    def run(self, tensors: Sequence[Array]) -> list[Array]:
        """Copies of the raw outputs."""
        _need_as_many(tensors, self._ins, self._name)
        try:
            for index, tensor in zip(self._ins, tensors, strict=True):
                self._interpreter.set_tensor(index, tensor)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{self._runtime} cannot run {self._name}: {first_line(error)}"
            ) from error
        return [self._interpreter.get_tensor(index) for index in self._outs]


def _need_as_many(tensors: Sequence[Array], inputs: Sequence[int], name: str) -> None:
    if len(tensors) != len(inputs):
        raise InputError(f"{name} takes {len(inputs)} tensors, not {len(tensors)}")


def _left(operators: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...], int]:
    """(the operators that no delegate took, by their place; number of operators).

    The list holds the model's own operators, including delegated ones, and one DELEGATE for each
    delegated part, which covers all operators between its inputs and outputs.
    """
    operators_ = [op for op in operators if op["op_name"] != "DELEGATE"]
    maker = {int(t): index for index, op in enumerate(operators_) for t in op["outputs"]}
    delegated: set[int] = set()
    for part in operators:
        if part["op_name"] != "DELEGATE":
            continue
        border = {int(t) for t in part["inputs"]}
        waiting = [int(t) for t in part["outputs"]]
        while waiting:
            tensor = waiting.pop()
            index = maker.get(tensor)
            if tensor in border or index is None or index in delegated:
                continue
            delegated.add(index)
            waiting += [int(t) for t in operators_[index]["inputs"] if t >= 0]
    return tuple(i for i in range(len(operators_)) if i not in delegated), len(operators_)


@contextmanager
def _without_info_lines() -> Iterator[None]:
    """Keeps "INFO: Created ...

    delegate" off standard error; there is no switch for it. C++ writes it to the file descriptor.
    Every other line is passed on.
    """
    sys.stderr.flush()
    saved_stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as output:
            os.dup2(output.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(saved_stderr, 2)
                output.seek(0)
                for line in output:
                    if not line.startswith(b"INFO:"):
                        os.write(2, line)
    finally:
        os.close(saved_stderr)
