from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobiledeploy.core.types import Annotation
from mobiledeploy.tasks import embedding
from tests.tasks.conftest import end


def answers(vectors):
    decoded = [embedding.decode([row], [end(len(row))]) for row in np.asarray(vectors)]
    return [replace(p, sample=str(n)) for n, p in enumerate(decoded)]


def labelled(*labels):
    return [Annotation(label=int(label)) for label in labels]


def test_the_figures_are_those_of_all_pairs():
    dice = np.random.default_rng(0)
    labels = dice.integers(-1, 9, 300)
    vectors = dice.normal(0, 1, (10, 8))[labels] + dice.normal(0, 0.7, (300, 8))
    figures = embedding.metrics(answers(vectors), labelled(*labels))
    known = np.flatnonzero(labels >= 0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    hits = []
    for n in known:
        others = known[known != n]
        hits.append(labels[others[np.argmax(cosines[n, others])]] == labels[n])
    assert figures["recall_at_1"] == np.mean(hits)

    pairs = [(i, j) for i in known for j in known if i < j]
    same = np.array([cosines[i, j] for i, j in pairs if labels[i] == labels[j]])
    different = np.array([cosines[i, j] for i, j in pairs if labels[i] != labels[j]])
    best = max(
        (np.mean(same >= t) + np.mean(different < t)) / 2
        for t in np.linspace(-1, 1, embedding.THRESHOLDS + 1)
    )
    assert 0.6 < best < 0.99
    # A pair within a rounding of a threshold may count on either side.
    assert figures["verification"] == pytest.approx(best, abs=1e-3)


def test_one_vector_for_all_images_finds_nothing():
    figures = embedding.metrics(answers(np.ones((6, 4))), labelled(0, 0, 1, 1, 2, 2))
    assert figures == {"recall_at_1": 0, "verification": 0.5}


def test_a_vector_that_is_not_finite_is_near_to_none():
    vectors = np.array([[1.0, 0], [1, 0.1], [np.nan, 1], [0.1, 1]])
    scores = embedding.scores(answers(vectors), labelled(0, 0, 1, 1))
    np.testing.assert_array_equal(scores, [1, 1, 0, 0])
    assert embedding.metrics(answers(vectors), labelled(0, 0, 1, 1))["recall_at_1"] == 0.5


def test_a_label_of_one_sample_cannot_be_found():
    vectors = [[1, 0], [1, 0.1], [0, 1]]
    scores = embedding.scores(answers(vectors), labelled(0, 0, 1))
    np.testing.assert_array_equal(scores, [1, 1, np.nan])


def test_two_identities_merged_lose_both():
    dice = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    centers = 5 * np.eye(4, 8)
    noise = dice.normal(0, 0.1, (40, 8))
    whole = embedding.scores(answers(centers[labels] + noise), labelled(*labels))
    assert whole.all()
    centers[1] = centers[0]
    merged = embedding.scores(answers(centers[labels] + noise), labelled(*labels))
    assert merged[labels > 1].all()
    assert merged[labels <= 1].mean() < 0.8


def test_the_divergence_is_of_directions():
    reference = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0], [0, 0], [0, 0]])
    outputs = np.array([[5.0, 0], [0, 1], [-1, 0], [0, 0], [0, 0], [0, 1]])
    value = embedding.divergence([reference], [outputs], [end(2)])
    np.testing.assert_allclose(value, [0, 1, 2, 1, 0, 1])


def test_answers_agree_within_18_degrees():
    at = [np.array([[np.cos(a), np.sin(a)]]) for a in np.radians([0, 18, 19])]
    one, near, far = (answers(row)[0] for row in at)
    assert embedding.agrees(one, near)
    assert not embedding.agrees(one, far)


def test_what_does_not_fit():
    assert embedding.mismatch([end(1)]) == (
        "it gives one number for each image; embedding needs a vector of two or more"
    )
    assert "softmax" in embedding.mismatch([end(9, activation="softmax")])
