from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import latency


def noisy(count: int, level: float = 1e6, spread: float = 2e4, seed: int = 0) -> list[int]:
    dice = np.random.Generator(np.random.PCG64(seed))
    return [int(value) for value in dice.normal(level, spread, count)]


@given(st.lists(st.integers(1, 10**9), max_size=60))
def test_the_warm_up_is_the_first_run_at_least_and_half_at_most(samples: list[int]) -> None:
    warm = latency.warmups(samples)
    assert min(1, len(samples)) <= warm <= max(1, (len(samples) + 1) // 2) or not samples


def test_steady_times_lose_the_first_run_only() -> None:
    for seed in range(20):
        assert latency.warmups(noisy(200, seed=seed)) <= 3
        assert latency.steady(noisy(200, seed=seed))


def test_a_slow_start_is_cut_off_where_it_ends() -> None:
    slow = [int(3e6 - 5e4 * run) for run in range(40)]
    warm = latency.warmups(slow + noisy(160))
    assert 36 <= warm <= 42


def test_a_fast_start_is_warm_up_too() -> None:
    boosted = noisy(30, level=5e5)
    assert 28 <= latency.warmups(boosted + noisy(200)) <= 33


def test_a_drift_never_comes_to_rest() -> None:
    drifting = [1_000_000 + 1000 * run for run in range(100)]
    assert latency.warmups(drifting) == 50
    assert not latency.steady(drifting)


def test_few_runs_are_not_steady() -> None:
    assert latency.warmups([]) == 0
    assert latency.warmups([5]) == 1
    assert not latency.steady([5] * 9)
    assert latency.steady([5] * 10)


def test_enough_runs_depend_on_the_interval_width() -> None:
    samples = noisy(400)
    assert latency.enough(samples)
    assert not latency.enough(samples, relative_width=1e-5)
    assert not latency.enough(samples[:12])
