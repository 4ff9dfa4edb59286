"""What was measured is measured again for another graph and for other images only."""

from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core.measurements import Measurements


@pytest.mark.parametrize(
    ("key", "floats", "other_images", "count"),
    [
        ("channels", b"a graph", False, 1),
        ("histograms", b"a graph", False, 2),
        ("channels", b"another", False, 2),
        ("channels", b"a graph", True, 2),
    ],
)
def test_only_the_same_is_measured_once(key, floats, other_images, count):
    images = np.zeros((2, 4, 4, 3), np.float32)
    measured = []

    def measure():
        measured.append(len(measured))
        return measured[-1]

    measurements = Measurements()
    assert measurements.get("channels", b"a graph", images, measure) == 0
    again = measurements.get(key, floats, images.copy() if other_images else images, measure)
    assert again == len(measured) - 1
    assert len(measured) == count
