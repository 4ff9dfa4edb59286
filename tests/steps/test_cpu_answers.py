from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobiledeploy.core.types import Measured, Target
from mobiledeploy.steps import cpu_answers

FLOAT = np.linspace(0, 255, 256, dtype=np.float32)
CODES = np.arange(-4, 4, dtype=np.int8)


def measured(delegate: str = "gpu", delegated: int | None = 31) -> Measured:
    plain = Measured(
        "0" * 64,
        Target("ssh:pi", "native", "litert", 1, delegate),
        "2.3.0",
        (1,),
        (),
        1.0,
        (1.0, 1.0),
        1,
        31,
        31,
        {},
        {},
    )
    return replace(plain, delegated_nodes=delegated)


def test_the_distance_is_the_largest_of_all_outputs_in_steps() -> None:
    assert cpu_answers.steps_apart([FLOAT, CODES], [FLOAT, CODES]) == 0
    assert cpu_answers.steps_apart([FLOAT + 1], [FLOAT]) == pytest.approx(1)
    assert cpu_answers.steps_apart([FLOAT, CODES + 3], [FLOAT, CODES]) == 3
    assert cpu_answers.steps_apart([CODES == 0], [CODES == 1]) == 1
    flat = np.zeros(3, np.float32)
    assert cpu_answers.steps_apart([flat + 1], [flat]) == np.inf
    broken = np.full_like(FLOAT, np.nan)
    assert cpu_answers.steps_apart([broken], [FLOAT]) == np.inf
    # The same bits are the same answer.
    assert cpu_answers.steps_apart([broken], [broken]) == 0


def test_what_is_told() -> None:
    def name(one: Measured, steps: float, output: np.ndarray) -> str:
        warning = cpu_answers.warning(one, steps, [output])
        return warning.name if warning else ""

    assert name(measured(), 2.1, FLOAT) == "differs-from-cpu"
    assert name(measured(), 0.1, FLOAT) == ""
    assert name(measured(), 0.0, FLOAT) == "same-as-cpu"
    # Codes are often the same, and LiteRT itself counts what XNNPACK takes.
    assert name(measured(), 0.0, CODES) == ""
    assert name(measured("xnnpack"), 0.0, FLOAT) == ""
    assert name(measured("xnnpack", None), 0.0, FLOAT) == "same-as-cpu"
