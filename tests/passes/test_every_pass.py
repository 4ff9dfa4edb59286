"""Every pass keeps the float function if it says so, and its result can be quantized."""

from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core.plugins import PASSES, RECIPES
from mobiledeploy.graphs import execution, quantized
from mobiledeploy.graphs.execution import run
from tests.passes.conftest import NETWORKS, images, quantized_graph, sqnr

EVERY = pytest.mark.parametrize(
    ("name", "network"),
    [
        pytest.param(name, network, marks=[pytest.mark.slow] * (network == "relu"))
        for name in PASSES.names()
        for network in NETWORKS
    ],
)


@EVERY
def test_it_keeps_the_float_function_where_it_says_so(name, network):
    before = quantized_graph(network)
    after = PASSES.load(name).apply(before, images())
    if PASSES.load(name).PRESERVES:
        assert after.integers is None or after.floats == before.floats
    expected = run(before.floats, images())
    np.testing.assert_allclose(
        run(after.floats, images()), expected, atol=1e-5 * np.abs(expected).max()
    )


@EVERY
def test_its_integers_answer_as_the_floats_do(name, network):
    after = PASSES.load(name).apply(quantized_graph(network), images())
    fresh = images(24, seed=1)
    reference = execution.logits(quantized_graph(network).floats, fresh)
    assert sqnr(reference, execution.logits(quantized.integers(after), fresh)) > 12


@EVERY
def test_the_same_gives_the_same_bytes(name, network):
    one, other = (PASSES.load(name).apply(quantized_graph(network), images()) for _ in range(2))
    assert quantized.integers(one) == quantized.integers(other)


def test_recipes_name_passes_that_exist():
    for name in RECIPES.names():
        recipe = RECIPES.load(name).RECIPE
        pass_names = {p for alternative in recipe.passes for p in alternative}
        assert pass_names <= set(PASSES.names())
        if len(recipe.passes) > 1:
            # The plain one comes first: it is used if there are no images to choose by.
            assert recipe.passes[0] == ()
