"""How far a delegate's answer is from that of the built-in kernels on the same machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import Artifact, Measured, NamedWarning
from mobiledeploy.steps import answer_steps


def apart(
    artifact: Artifact, outputs: Sequence[Array], others: Sequence[Array]
) -> answer_steps.AnswerDistance:
    """The distance of two raw answers, in the order of the artifact; 0 is bit for bit.

    The step of a float output is a 255th of the range of `others`.
    """
    ends = artifacts.signature(artifact).outputs
    if not answer_steps.chooses_boxes(artifact.spec.task, ends):
        return answer_steps.farthest(
            [_steps_apart(*pair) for pair in zip(outputs, others, strict=True)], ends
        )
    one, other = (
        [
            preprocessing.from_output(raw, tensor, artifact.layout)
            for raw, tensor in zip(answer, artifact.outputs, strict=True)
        ]
        for answer in (outputs, others)
    )
    return answer_steps.farthest([answer_steps.boxes_apart(one, other, ends)], ends)


def _steps_apart(one: Array, other: Array) -> float:
    if one.tobytes() == other.tobytes():
        return 0.0
    difference = float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64))))
    step = float(np.ptp(other)) / answer_steps.LEVELS if one.dtype.kind == "f" else 1.0
    return difference / step if step and np.isfinite(difference) else np.inf


def warning(
    measured: Measured, distance: answer_steps.AnswerDistance, outputs: Sequence[Array]
) -> NamedWarning | None:
    """What the distance of a delegate's `outputs` from the CPU's says; None for nothing."""
    delegate = measured.target.delegate
    if not distance.within:
        return NamedWarning(
            "differs-from-cpu",
            f"with {delegate} the answer is {distance.text} from that of the built-in kernels on "
            f"the same machine; kernels that round otherwise make {distance.limit} at most",
            "mobiledeploy check tells what that costs; --delegate none does without it",
        )
    # Integers round small differences away. An operator that LiteRT counted for XNNPACK did run.
    is_float = any(output.dtype.kind == "f" for output in outputs)
    counted = delegate == "xnnpack" and measured.delegated_nodes
    if distance.steps == 0 and is_float and not counted:
        return NamedWarning(
            "same-as-cpu",
            f"the delegate may not have run: with {delegate} the answer is bit for bit that of the "
            "built-in kernels",
            "compare the time with that of --delegate none",
        )
    return None
