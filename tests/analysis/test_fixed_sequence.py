"""A chain of tests without a correction passes too much in 5 % of the cases only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import fixed_sequence, gate

OUTCOMES = st.lists(st.sampled_from(["pass", "fail", "inconclusive"]), max_size=8)


@given(OUTCOMES)
def test_it_stops_at_the_first_that_does_not_pass(outcomes):
    asked = []
    count = fixed_sequence.passed(asked.append(one) or one for one in outcomes)
    assert all(one == "pass" for one in outcomes[:count])
    assert count == len(outcomes) or outcomes[count] != "pass"
    assert len(asked) == min(count + 1, len(outcomes))


@given(OUTCOMES)
def test_files_pass_together_only_if_each_does(outcomes):
    assert (fixed_sequence.joint(outcomes) == "pass") == (set(outcomes) <= {"pass"})
    assert (fixed_sequence.joint(outcomes) == "fail") == ("fail" in outcomes)


@given(st.integers(0, 500), st.integers(2, 8))
def test_prefixes_run_from_none_to_all(count, most):
    lengths = fixed_sequence.prefixes(count, most)
    assert lengths[0] == 0
    assert list(lengths) == sorted(set(lengths))
    assert lengths[-1] == count
    assert len(lengths) <= most


def test_an_impossible_chain_is_refused():
    with pytest.raises(ValueError, match="1 prefixes"):
        fixed_sequence.prefixes(3, 1)


@pytest.mark.slow
def test_the_last_that_passed_is_seldom_over_budget():
    dice = np.random.default_rng(0)
    losses = np.array([0.0, 0.02, 0.05, 0.05, 0.08])
    over = 0
    for _ in range(400):
        outcomes = []
        for loss in losses:
            lost, gained = dice.multinomial(600, [0.01 + loss, 0.01, 0.98 - loss])[:2]
            outcomes.append(gate.outcome(gate.bounds(int(lost), int(gained), 600), 0.05))
        count = fixed_sequence.passed(outcomes)
        over += count > 2
    # The chance of 36 or more of 400 is below 1e-3 at a rate of 5 %.
    assert over < 36
