"""Equalization: which tensors, by how much, and what it is good for."""

from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core.types import Draft
from mobiledeploy.frameworks import drafts
from mobiledeploy.frameworks.flat import Flat, run
from mobiledeploy.passes import equalize
from tests.passes.conftest import INT8, draft, floats, images, sqnr


def made(flat, space):
    return sorted(layer.kind for layer in space.makers)


def test_a_residual_sum_is_one_space_and_a_concatenation_none():
    flat = Flat(floats("relu"))
    spaces = equalize.spaces(flat)
    (sums,) = [s for s in spaces if len(s.makers) == 2]
    assert [layer.kind for layer in sums.readers] == ["CONV_2D", "CONV_2D"]
    flat = Flat(floats("various"))
    assert "CONCATENATION" in [flat.kind(op) for op in flat.ops]
    various = equalize.spaces(flat)
    assert all(len(space.makers) == 1 for space in various)
    # Stem alone: all others end in the concatenation, or are read by it, or are the scores.
    assert len(various) == 1


def uneven(name: str, least: float) -> bytes:
    """The float TFLite with every other channel of each space scaled down; the same function."""
    flat = Flat(floats(name))
    for space in equalize.spaces(flat):
        channels = space.makers[0].outputs
        factor = np.where(np.arange(channels) % 2, least, 1.0)
        for maker in space.makers:
            equalize._scale_outputs(maker, factor)
        for reader in space.readers:
            equalize._scale_inputs(reader, 1 / factor)
    return flat.packed()


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_channels_of_thousandfold_ranges_get_their_codes_back(name):
    hard = uneven(name, 1e-3)
    reference = drafts.logits(hard, images())
    # ReLU6 clips what was above it no more: another function, but for the one of ReLU.
    if name == "relu":
        np.testing.assert_allclose(
            reference, drafts.logits(floats(name), images()), rtol=1e-3, atol=1e-3
        )
    start = drafts.start(hard, INT8, "int8", images())
    before, after = (
        sqnr(reference, drafts.logits(drafts.integers(d), images()))
        for d in (start, equalize.apply(start, images()))
    )
    assert before < 15
    assert after > before + 10


def test_a_channel_at_the_clip_stays_and_none_is_taken_beyond_it():
    flat = Flat(floats("relu6"))
    before = draft("relu6")
    after = equalize.apply(before, images())
    np.testing.assert_allclose(run(after.floats, images()), run(before.floats, images()), atol=1e-5)
    assert equalize.spaces(flat)
    for name, (_, high) in after.ranges.items():
        assert high <= before.ranges[name][1] * (1 + 1e-5)


def test_what_was_quantized_before_is_dropped():
    start = draft("relu")
    quantized = Draft(INT8, "int8", start.floats, start.ranges, drafts.integers(start))
    assert equalize.apply(quantized, images()).integers is None
