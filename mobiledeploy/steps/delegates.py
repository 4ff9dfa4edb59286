"""What a delegate left to the CPU, by layer, and the rules of `--strict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobiledeploy.analysis import validity
from mobiledeploy.core import inputs, protocol
from mobiledeploy.core.errors import UsageError, VoidError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Layer, LeftOperator, Measured, NamedWarning

ANOTHER = "choose another --delegate, or none"
_DEPRECATED = {
    "nnapi": NamedWarning(
        "deprecated-delegate",
        "NNAPI is deprecated since Android 15",
        "--delegate gpu, or xnnpack on the CPU",
    )
}


def left(path: Path, ready: protocol.Ready) -> tuple[LeftOperator, ...]:
    """The operators of the file that a delegate left to the CPU; () without one, or if unknown.

    A runner that knows only their kinds names them by `left_reasons`: then an operator has all
    layers of its kind that it can be.
    """
    if ready.delegate == "none" or not (ready.left_nodes or ready.left_reasons):
        return ()
    format_ = path.suffix.removeprefix(".")
    layers = FORMATS.load(format_).inspect(inputs.read(path, inputs.FINISHED)).layers
    if ready.left_nodes is not None:
        return tuple(
            LeftOperator(layers[node].op, (_first(layers[node]),))
            for node in ready.left_nodes
            if 0 <= node < len(layers)
        )
    return tuple(_of_reason(text, layers) for text in ready.left_reasons)


def _of_reason(text: str, layers: Sequence[Layer]) -> LeftOperator:
    kind, _, reason = text.partition(": ")
    op = kind.removeprefix("CUSTOM ")
    return LeftOperator(
        op, tuple(_first(layer) for layer in layers if layer.op == op), reason.strip()
    )


def _first(layer: Layer) -> str:
    """The first name of a fused operator."""
    return layer.name.partition(";")[0]


def warnings(measured: Measured, adapter: str) -> tuple[NamedWarning, ...]:
    """What is wrong with the delegate of a timing; `adapter` is its GPU, "" for none."""
    delegate, taken = measured.target.delegate, measured.delegated_nodes
    if delegate == "none":
        return ()
    runtime = f"{measured.target.runtime} {measured.runtime_version}"
    warnings_ = [_DEPRECATED[delegate]] if delegate in _DEPRECATED else []
    if taken == 0:
        warnings_.append(
            NamedWarning(
                "not-delegated",
                f"{runtime} left {delegate} out: it took none of {measured.total_nodes} operators",
                "this is the speed of the builtin kernels",
            )
        )
    elif delegate in validity.ACCELERATORS and is_split(measured):
        warnings_.append(
            NamedWarning(
                "partly-delegated",
                validity.left_over(measured),
                "the CPU runs the rest; --strict takes no such figure",
            )
        )
    if "CPU" in adapter.rpartition("adapterType=")[2]:
        warnings_.append(
            NamedWarning(
                "software-gpu",
                f"the GPU is a program on the CPU: {adapter.partition(',')[0]}",
                "install the Vulkan driver of the GPU; this is not its speed",
            )
        )
    return tuple(warnings_)


def is_split(measured: Measured) -> bool:
    """Whether a delegate took a part of the graph only."""
    taken, total = measured.delegated_nodes, measured.total_nodes
    return measured.target.delegate != "none" and None not in (taken, total) and 0 != taken != total


def need_one(delegate: str, name: str) -> None:
    """UsageError for --strict on a file that no delegate runs."""
    if delegate == "none":
        raise UsageError(
            f"--strict is about what a delegate takes, and {name} runs without one",
            "leave it out, or --delegate xnnpack with a TFLite",
        )


def need_whole(path: Path, ready: protocol.Ready) -> None:
    """What --strict asks of a prediction.

    Raises:
        UsageError: no delegate runs the file.
        VoidError: the delegate left an operator to the CPU, or it is not known.
    """
    need_one(ready.delegate, path.name)
    reason = validity.not_whole(
        ready.delegate, ready.delegated_nodes, ready.total_nodes, left(path, ready)
    )
    if reason:
        raise VoidError(f"void: {path.name}: {reason}", ANOTHER)
