from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import comparison
from mobiledeploy.analysis.comparison import FEWEST, interleaved, one_after_the_other


def run(rounds: int, ratio: float, drift: float, noise: float, dice) -> list[float]:
    """Block medians in the order A B B A of a machine that slows down by `drift` in all."""
    sides = comparison.ORDER * rounds
    return [
        (ratio if side == "B" else 1.0)
        * (1 + drift * place / (len(sides) - 1))
        * dice.lognormal(0, noise)
        for place, side in enumerate(sides)
    ]


@pytest.mark.slow
def test_abba_finds_real_differences_only() -> None:
    dice = np.random.Generator(np.random.PCG64(1))
    false, result, deceptions = 0, 0, 0
    for _ in range(200):
        false += interleaved(run(8, 1.0, 0.1, 0.01, dice)).changed
        result += interleaved(run(8, 1.05, 0.1, 0.01, dice)).changed
        # The same machine, A first and then B.
        drift = np.linspace(1, 1.1, 32)
        deceptions += one_after_the_other(
            drift[:16], drift[16:] * dice.lognormal(0, 0.01, 16)
        ).changed
    assert false <= 18  # 5 % of 200, and three standard deviations
    assert result == 200
    assert deceptions == 200


@pytest.mark.slow
def test_the_interval_covers_what_it_says() -> None:
    dice = np.random.Generator(np.random.PCG64(2))
    miss_count = sum(interleaved(run(8, 1.0, 0.0, 0.02, dice)).changed for _ in range(600))
    assert 600 * 0.01 < miss_count < 600 * 0.08


@given(
    st.lists(st.floats(0.5, 2.0), min_size=4 * FEWEST, max_size=4 * FEWEST),
    st.floats(1e-3, 1e9),
    st.floats(-0.05, 0.05),
)
def test_neither_units_nor_a_steady_drift_matter(blocks, unit: float, drift: float) -> None:
    plain = interleaved(blocks)
    assert plain.low <= plain.value <= plain.high
    drifting = [block * unit * float(np.exp(drift * i)) for i, block in enumerate(blocks)]
    other = interleaved(drifting)
    assert other.value == pytest.approx(plain.value, rel=1e-9)
    assert other.low == pytest.approx(plain.low, rel=1e-6)


@given(st.lists(st.floats(0.9, 1.1), min_size=4 * FEWEST, max_size=4 * FEWEST))
def test_the_other_way_round_is_the_inverse(blocks) -> None:
    # A B B A read as B A A B: sides change places.
    rounds = np.reshape(blocks, (-1, 4))
    swap = interleaved(rounds[:, [1, 0, 3, 2]].ravel())
    assert swap.value == pytest.approx(1 / interleaved(blocks).value)


def test_invalid_comparisons_are_refused() -> None:
    for blocks in ([1.0] * 20, [1.0] * 25, []):
        with pytest.raises(ValueError, match="are not 6 or more rounds of ABBA"):
            interleaved(blocks)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive"):
            interleaved([1.0] * 23 + [wrong])
    same = interleaved([2.0] * 24)
    assert (same.value, same.low, same.high, same.changed) == (1.0, 1.0, 1.0, False)
