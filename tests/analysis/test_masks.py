from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mobiledeploy.analysis import masks
from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Mask


@given(arrays(np.int64, array_shapes(min_dims=2, max_dims=2), elements=st.integers(-1, 2)))
def test_a_mask_is_decoded_to_what_it_was(classes):
    mask = masks.encode(classes)
    np.testing.assert_array_equal(masks.decode(mask), classes)
    assert records.loads(Mask, records.line(mask)) == mask


def test_runs_go_over_the_ends_of_rows():
    assert masks.encode([[1, 1, 2], [2, 2, -1]]) == Mask((2, 3), (1, 2, 2, 3, -1, 1))


def test_masks_differ_in_a_share_of_their_pixels_and_wholly_if_of_other_sizes():
    one = masks.encode([[0, 0], [1, -1]])
    assert masks.differing(one, one) == 0
    assert masks.differing(one, masks.encode([[0, 1], [1, -1]])) == 0.25
    assert masks.differing(one, masks.encode([[0, 0, 1, -1]])) == 1
    assert masks.differing(Mask((0, 2), ()), Mask((0, 2), ())) == 1


@pytest.mark.parametrize(
    ("size", "runs"),
    [
        ((2, 3), (1, 5)),
        ((2, 3), (1, 7)),
        ((2, 3), (1, 6, 2)),
        ((2, 3), (1, 8, 2, -2)),
        ((-2, -3), (1, 6)),
        ((1 << 20, 1 << 20), (0, 1 << 40)),
        ((11, 10**8), (0, 10**8) * 11),
        ((2, 2), (0, 1 << 62, 0, 1 << 62, 0, 1 << 62, 0, (1 << 62) + 4)),
    ],
)
def test_runs_that_do_not_fill_the_mask_are_refused(size, runs):
    with pytest.raises(InputError, match="do not fill"):
        masks.decode(Mask(size, runs))
