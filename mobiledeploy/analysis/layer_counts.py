"""Instructions by operator, from an engine's profile and the counts at its clock readings.

Engines that profile read a clock before and after each operator. An instruction counter that sees
those readings tells what was executed between two of them; the engine's profile tells which
operator that was. The number of readings of one inference must match the profile, otherwise there
are no layers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mobiledeploy.core.types import Layer

Counts = Mapping[str, int]
"""Instructions by class since the program began, and `bytes_...`."""

# The classes that multiply: a kernel is named by its most frequent one.
MULTIPLICATIONS = ("sdot", "mmla", "fmla", "fmla16", "fmadd", "mla")

# LiteRT's profile, tflite::Profiler::EventType.
_DEFAULT, _OPERATOR, _DELEGATED = "1", "2", "8"
# Events around all operators: the second one is of files without a signature.
_AROUND = ((_DEFAULT, "Invoke"), ("16", "invoke"))
# Operators that a runtime neither leaves out nor splits, by their names in files and kernels.
_PRODUCTS = (
    *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"),
    *("Convolution", "Fully Connected", "Deconvolution", "Batch Matrix Multiply"),
)
# The clock readings of ONNX Runtime before its first node and after its last one.
_ORT_BEFORE, _ORT_AFTER = 4, 6


@dataclass(frozen=True)
class Executed:
    """An operator that ran: its name in the engine, and its instructions.

    `node` is its place among the operators of the file, None if the engine does not tell it.
    """

    name: str
    kernel: str
    counts: Counts
    node: int | None = None


def instructions(counts: Counts) -> int:
    """All of them, of whatever class."""
    return sum(number for name, number in counts.items() if not name.startswith("bytes_"))


def between(first: Counts, last: Counts) -> Counts:
    """The instructions between two moments."""
    return {name: last[name] - first.get(name, 0) for name in last}


def multiplication(counts: Counts) -> str:
    """The class of most of the multiplications, "" if there are almost none."""
    name = max(MULTIPLICATIONS, key=lambda name: counts.get(name, 0))
    return name if counts.get(name, 0) > 0.01 * instructions(counts) else ""


def of_litert(profile: str, readings: Sequence[Counts]) -> tuple[Executed, ...]:
    """The operators of one inference on LiteRT; () if the readings do not match the profile.

    Args:
        profile: an event a line, `TYPE NODE TAG` with tabs between, in the order of their begin.
        readings: at each reading of a clock from just before the inference to just after it.

    XNNPACK reads the clock once before its first operator and then after each; TFLite's own
    profiler before and after each operator, and so does LiteRT with the steps around them.
    """
    events = [line.split("\t", 2) for line in profile.splitlines() if line.count("\t") == 2]
    # The caller's own reading comes first and last.
    at, layers, wraps = 1, list[Executed](), 0
    previous = ""
    for kind, node, tag in events:
        if kind == _DELEGATED:
            if previous != _DELEGATED or node == "0":
                at += 1
            layers.append(_executed(tag, readings, at - 1, at))
            at += 1
        elif kind == _OPERATOR:
            own = int(node) if node.isdecimal() else None
            layers.append(replace(_executed(tag, readings, at, at + 1), node=own))
            at += 2
        elif (kind, tag) in _AROUND:
            # It ends after the operators that come next.
            at += 1
            wraps += 1
        elif kind == _DEFAULT:
            at += 2
        previous = kind
    return tuple(layers) if at + wraps + 1 == len(readings) else ()


def run_order(layers: Sequence[Layer], alone: Collection[int]) -> tuple[int, ...]:
    """The order in which TFLite runs the operators of a file with a delegate.

    The delegate gets as much as possible at once: what needs nothing of an operator that it leaves
    runs before that one, wherever it stands in the file. TFLite does it by
    PartitionGraphIntoIndependentNodeSubsets (tensorflow/lite/graph_info.cc).

    Args:
        layers: all operators, in the order of the file.
        alone: the places of those that the delegate did not take.
    """
    to_come = {t.name for layer in layers for t in layer.outputs}
    rest, order = list(range(len(layers))), list[int]()
    while rest:
        part = list[int]()
        for i in rest:
            if any(t.name in to_come for t in layers[i].inputs):
                continue
            if not part or (i in alone) == (part[0] in alone):
                part.append(i)
                to_come.difference_update(t.name for t in layers[i].outputs)
        if not part:
            # Not in an order that can run, as the names of its tensors say.
            return tuple(range(len(layers)))
        order += part
        rest = [i for i in rest if i not in part]
    return tuple(order)


def places(kernels: Sequence[str], ops: Sequence[str]) -> tuple[int | None, ...]:
    """For each kernel that ran, in their order, the operator of the file that it is; None unknown.

    A runtime leaves operators out (constants that it dequantizes while it loads), and makes two of
    one (a mean and a reshape). Convolutions and matrix products stay what they are, so they are
    matched first. What is between two of them is matched if it is as many, and else by name.
    """
    ours = [i for i, kernel in enumerate(kernels) if kernel.startswith(_PRODUCTS)]
    theirs = [i for i, op in enumerate(ops) if op in _PRODUCTS]
    if len(kernels) == len(ops) and (ours == theirs or not ours):
        return tuple(range(len(ops)))
    operators: list[int | None] = [None] * len(kernels)
    if len(ours) != len(theirs):
        return tuple(operators)
    for i, j in zip(ours, theirs, strict=True):
        operators[i] = j
    ends = zip([-1, *ours], [*ours, len(kernels)], [-1, *theirs], [*theirs, len(ops)], strict=True)
    for first, last, first_op, last_op in ends:
        between = list(range(first_op + 1, last_op))
        for i in range(first + 1, last):
            named = [j for j in between if ops[j] == _word(kernels[i])]
            if last - first == last_op - first_op:
                operators[i] = first_op + i - first
            elif named:
                operators[i] = named[0]
                between = [j for j in between if j > named[0]]
    return tuple(operators)


def _word(kernel: str) -> str:
    """'Mean (ND) Reduce2' -> 'MEAN'."""
    return kernel.partition(",")[0].partition(" (")[0].upper().replace(" ", "_")


def of_onnxruntime(profile: str, readings: Sequence[Counts]) -> tuple[Executed, ...]:
    """The nodes of the last inference on ONNX Runtime; () as for `of_litert`.

    Args:
        profile: its JSON trace, each inference ended by a `model_run`.
        readings: at each reading of a clock from just before the inference to just after it.
    """
    nodes = list(_last_run(profile))
    if len(readings) != _ORT_BEFORE + 2 * len(nodes) + _ORT_AFTER:
        return ()
    return tuple(
        _executed(op, readings, _ORT_BEFORE + 2 * i, _ORT_BEFORE + 2 * i + 1, name)
        for i, (name, op) in enumerate(nodes)
    )


def _last_run(profile: str) -> Iterator[tuple[str, str]]:
    try:
        events = [event for event in json.loads(profile) if event.get("cat") in ("Node", "Session")]
        ends = [i for i, event in enumerate(events) if event["name"] == "model_run"]
        start = ends[-2] + 1 if len(ends) > 1 else 0
        for event in events[start : ends[-1]]:
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                yield event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        # An unknown profile gives no layers.
        return


def _executed(
    kernel: str, readings: Sequence[Counts], first: int, last: int, name: str = ""
) -> Executed:
    if last >= len(readings):
        return Executed(name, kernel, {})
    counts = between(readings[first], readings[last])
    kind = multiplication(counts)
    return Executed(name, f"{kernel}, {kind}" if kind else kernel, counts)
