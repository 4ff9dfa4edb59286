from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobiledeploy.analysis import masks
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Annotation, Prediction
from mobiledeploy.tasks import segmentation
from tests.tasks.conftest import end


def answers(table):
    return [Prediction(str(n), mask=masks.encode(row)) for n, row in enumerate(table)]


def annotations(table):
    return [Annotation(mask=masks.encode(row)) for row in table]


def test_the_figures_are_those_of_pixel_by_pixel_counts():
    dice = np.random.default_rng(0)
    truth = dice.integers(-1, 3, (6, 7, 5))
    answer = np.where(dice.random(truth.shape) < 0.6, truth, dice.integers(0, 5, truth.shape))
    answer = np.maximum(answer, 0)
    pixels = [
        (int(t), int(a)) for t, a in zip(truth.ravel(), answer.ravel(), strict=True) if t >= 0
    ]
    overlaps = []
    for of in range(3):
        both = sum(t == of and a == of for t, a in pixels)
        overlaps.append(both / sum(of in pair for pair in pixels))
    figures = segmentation.metrics(answers(answer), annotations(truth))
    assert figures["miou"] == pytest.approx(np.mean(overlaps), abs=1e-12)
    assert figures["pixel_accuracy"] == pytest.approx(np.mean([t == a for t, a in pixels]))


def test_the_score_of_a_sample_is_its_own_miou():
    dice = np.random.default_rng(1)
    truth, answer = dice.integers(-1, 3, (5, 4, 4)), dice.integers(0, 3, (5, 4, 4))
    scores = segmentation.scores(answers(answer), annotations(truth))
    alone = [
        segmentation.metrics(answers(answer[n : n + 1]), annotations(truth[n : n + 1]))["miou"]
        for n in range(5)
    ]
    np.testing.assert_allclose(scores, alone)


def test_a_class_that_vanished_costs_its_share():
    truth = np.random.default_rng(2).integers(0, 4, (10, 8, 8))
    figures = segmentation.metrics(answers(np.where(truth == 3, 0, truth)), annotations(truth))
    assert 0.5 < figures["miou"] < 0.75


def test_pixels_are_decoded_by_the_end():
    scores = np.array([[[0.2, 0.5, 0.5], [0.9, 0, 0]]])
    assert segmentation.decode([scores], [end(1, 2, 3)]).mask == masks.encode([[1, 0]])
    one = np.array([[[0.6], [0.4], [0.5]]])
    sigmoid = [end(1, 3, 1, activation="sigmoid")]
    assert segmentation.decode([one], sigmoid).mask == masks.encode([[1, 0, 0]])
    assert segmentation.decode([one - 0.5], [end(1, 3, 1)]).mask == masks.encode([[1, 0, 0]])


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match="7 has a mask of 2 × 4 pixels, and the model answers 4"):
        segmentation.metrics(
            [replace(answers(np.zeros((1, 4, 4)))[0], sample="7")], annotations(np.zeros((1, 2, 4)))
        )


def test_masks_agree_where_nearly_all_pixels_do():
    table = np.zeros((3, 10, 10))
    table[1].flat[:5] = 1
    table[2].flat[:6] = 1
    one, near, far = answers(table)
    assert segmentation.agrees(one, near)
    assert not segmentation.agrees(one, far)


@pytest.mark.parametrize(
    ("ends", "part"),
    [
        ([end(3)], "has the shape 3; segmentation reads height × width × classes"),
        ([end(4, 4, 2), end(3)], "it has 2 outputs"),
        ([end(4, 4, 2, activation="sigmoid")], "each pixel has 2 sigmoids"),
        ([end(4, 4, 1, activation="softmax")], "the softmax of one number is always 1"),
        ([end(1, 1, 1000)], "has the shape 1 × 1 × 1000"),
    ],
)
def test_what_does_not_fit(ends, part):
    assert part in segmentation.mismatch(ends)
