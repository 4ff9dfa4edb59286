import math

import numpy as np
import pytest

from mobiledeploy.analysis import anchors
from mobiledeploy.core.types import AnchorLevel, Anchors

TWO = Anchors(
    (
        AnchorLevel((2, 3), ((0.1, 0.2), (0.4, 0.3))),
        AnchorLevel((1, 1), ((1.0, 0.5),)),
    ),
    (10.0, 10.0, 5.0, 5.0),
)


def test_the_order_is_rows_columns_and_sizes_of_each_level():
    table = anchors.table(TWO)
    assert len(table) == TWO.count == 13
    assert table[0] == pytest.approx([0.25, 1 / 6, 0.1, 0.2])
    assert table[1] == pytest.approx([0.25, 1 / 6, 0.4, 0.3])
    assert table[2] == pytest.approx([0.25, 0.5, 0.1, 0.2])
    assert table[6] == pytest.approx([0.75, 1 / 6, 0.1, 0.2])
    assert table[12] == pytest.approx([0.5, 0.5, 1.0, 0.5])


def test_no_offset_is_the_anchor_itself():
    boxes = anchors.decoded(np.zeros((2, 13, 4)), TWO)
    assert boxes.shape == (2, 13, 4)
    assert boxes[1, 12] == pytest.approx([0.25, 0.0, 0.75, 1.0])


def test_offsets_are_those_of_the_papers_formula():
    y, x, height, width = 0.4, 0.55, 0.3, 0.2
    offsets = np.zeros((13, 4))
    offsets[12] = [
        10 * (y - 0.5) / 1.0,
        10 * (x - 0.5) / 0.5,
        5 * math.log(height / 1.0),
        5 * math.log(width / 0.5),
    ]
    assert anchors.decoded(offsets, TWO)[12] == pytest.approx([0.45, 0.25, 0.65, 0.55])


def test_an_offset_that_overflows_is_a_number():
    assert np.isfinite(anchors.decoded(np.full((13, 4), 1e9), TWO)).all()
