"""How far a delegate's answer is from that of the built-in kernels on the same machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import Measured, NamedWarning
from mobiledeploy.steps import golden

# A float answer has so many steps, as in `golden`.
_LEVELS = 255


def steps_apart(outputs: Sequence[Array], others: Sequence[Array]) -> float:
    """The largest distance of two answers in quantization steps; 0 is bit for bit.

    The step of a float output is a 255th of the range of `others`.
    """
    apart = [0.0]
    for one, other in zip(outputs, others, strict=True):
        if one.tobytes() == other.tobytes():
            continue
        difference = float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64))))
        step = float(np.ptp(other)) / _LEVELS if one.dtype.kind == "f" else 1.0
        apart.append(difference / step if step and np.isfinite(difference) else np.inf)
    return max(apart)


def warning(measured: Measured, steps: float, outputs: Sequence[Array]) -> NamedWarning | None:
    """What the distance of a delegate's `outputs` from the CPU's says; None for nothing."""
    delegate = measured.target.delegate
    if steps > golden.TOLERATED_ELSEWHERE:
        return NamedWarning(
            "differs-from-cpu",
            f"with {delegate} the answer is {steps:.3g} quantization steps from that of the "
            "built-in kernels on the same machine",
            "mobiledeploy check tells what that costs; --delegate none does without it",
        )
    # Integers round small differences away. An operator that LiteRT counted for XNNPACK did run.
    is_float = any(output.dtype.kind == "f" for output in outputs)
    counted = delegate == "xnnpack" and measured.delegated_nodes
    if steps == 0 and is_float and not counted:
        return NamedWarning(
            "same-as-cpu",
            f"the delegate may not have run: with {delegate} the answer is bit for bit that of the "
            "built-in kernels",
            "compare the time with that of --delegate none",
        )
    return None
