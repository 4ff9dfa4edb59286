"""Every file of the shelf keeps the promises of its port."""

from __future__ import annotations

import math
import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core import records
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import ClassCorpus
from mobiledeploy.core.types import Annotation, AnnotationField, Gate, ModelOutput, Prediction
from tests.tasks.conftest import EXAMPLES, Example
from tests.variants import slow_but

NAMED = pytest.mark.parametrize("name", TASKS.names())
EVERY = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.id)
OFTEN = pytest.mark.parametrize(
    "example",
    slow_but(EXAMPLES, *(example for example in EXAMPLES if not example.ends[0].anchors)),
    ids=lambda example: example.id,
)
"""As `EVERY`, for tests that draw many answers: boxes of anchors are slow to decode."""
BRIEFLY = settings(max_examples=15, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
SAMPLES = 12


def drawn(example: Example, seed: int, n: int = SAMPLES):
    """A task, random answers, and annotations."""
    dice = np.random.default_rng(seed)
    answers = example.answers(example.draw(dice, n))
    return TASKS.load(example.task), answers, example.annotate(dice, n)


def test_every_task_has_an_example():
    assert {example.task for example in EXAMPLES} == set(TASKS.names())


@NAMED
def test_it_says_what_it_is(name):
    task = TASKS.load(name)
    assert task.SUMMARY
    assert not task.SUMMARY.endswith(".")
    assert task.ANNOTATION in typing.get_args(AnnotationField)
    assert task.GATE in typing.get_args(Gate)
    assert task.METRICS
    names = [metric.name for metric in task.METRICS]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    assert len({metric.title for metric in task.METRICS}) == len(names)


@EVERY
def test_its_own_outputs_fit(example):
    assert TASKS.load(example.task).mismatch(example.ends) == ""


@EVERY
def test_every_class_of_an_answer_or_annotation_is_counted(example):
    task, answers, _ = drawn(example, 3)
    count = task.classes(example.ends)
    named = {c for p in answers for c in p.classes}
    named |= {c for p in answers if p.mask for c in p.mask.runs[::2]}
    assert (count is not None) == bool(named) or task.ANNOTATION == "boxes"
    assert all(0 <= c < count for c in named if count is not None)


@NAMED
@pytest.mark.parametrize(
    "ends",
    [
        [],
        [ModelOutput("a", ())],
        [ModelOutput("a", (3,)), ModelOutput("b", (3,))],
        [ModelOutput("a", (4, 4, 2, 2))],
        [ModelOutput("a", (1,), "softmax")],
        [ModelOutput("a", (0,))],
    ],
    ids=["none", "scalar", "two", "four-dimensional", "softmax-of-one", "empty"],
)
def test_what_does_not_fit_is_a_short_sentence(name, ends):
    reason = TASKS.load(name).mismatch(ends)
    assert len(reason) < 200
    assert "\n" not in reason
    assert not reason.endswith(".")


@EVERY
def test_decoding_is_deterministic_and_survives_a_file(example):
    outputs = example.draw(np.random.default_rng(0), 5)
    answers = example.answers(outputs)
    assert answers == example.answers(outputs)
    for answer in answers:
        assert records.loads(Prediction, records.line(answer)) == answer


@EVERY
def test_an_answer_agrees_with_itself_and_not_with_all_others(example):
    task, answers, _ = drawn(example, 1)
    assert all(task.agrees(answer, answer) for answer in answers)
    others = [task.agrees(answers[0], answer) for answer in answers[1:]]
    assert others == [task.agrees(answer, answers[0]) for answer in answers[1:]]
    assert not all(others)


@EVERY
def test_the_divergence_of_equal_outputs_is_zero_and_grows_with_noise(example):
    task = TASKS.load(example.task)
    dice = np.random.default_rng(2)
    reference = example.draw(dice, 40)
    zero = task.divergence(reference, [x.copy() for x in reference], example.ends)
    assert zero.shape == (40,)
    np.testing.assert_allclose(zero, 0, atol=1e-12)
    directions = [dice.normal(0, 1, x.shape) for x in reference]
    means = []
    for size in (0.003, 0.01, 0.03, 0.1):
        noisy = [x + size * d for x, d in zip(reference, directions, strict=True)]
        if len(example.ends) == 4:
            # The class and the number of a suppressed box are no measured values.
            noisy[1], noisy[3] = reference[1], reference[3]
            noisy[2] = np.clip(noisy[2], 1e-3, 1)
        elif example.task == "detection":
            noisy[1] = np.clip(noisy[1], 0, 1)
        else:
            activation = example.ends[0].activation
            noisy = [np.clip(x, 0, 1) if activation != "none" else x for x in noisy]
        divergence = task.divergence(reference, noisy, example.ends)
        assert (divergence >= 0).all()
        means.append(divergence.mean())
    assert means == sorted(means)
    assert 0 < means[0] < means[-1] / 5


@EVERY
def test_the_divergence_of_a_sample_is_its_own(example):
    """Integers put one sample wrong: the others still diverge by nothing."""
    task = TASKS.load(example.task)
    dice = np.random.default_rng(3)
    reference, other = example.draw(dice, 8), example.draw(dice, 8)
    mixed = [np.concatenate([x[:3], y[3:4], x[4:]]) for x, y in zip(reference, other, strict=True)]
    divergence = task.divergence(reference, mixed, example.ends)
    assert divergence[3] > 1e-3
    np.testing.assert_allclose(np.delete(divergence, 3), 0, atol=1e-12)


@EVERY
def test_perfect_answers_have_the_best_figures(example):
    task = TASKS.load(example.task)
    annotations = example.annotate(np.random.default_rng(4), 40)
    answers = example.answers(example.perfect(annotations))
    figures = task.metrics(answers, annotations)
    assert set(figures) == {metric.name for metric in task.METRICS}
    for metric in task.METRICS:
        best = 0.0 if not metric.higher_is_better else 200.0 if metric.unit == "dB" else 1.0
        assert figures[metric.name] == pytest.approx(best, abs=1e-9), metric.name
    scores = task.scores(answers, annotations)
    np.testing.assert_allclose(scores[np.isfinite(scores)], 1, atol=1e-9)
    assert np.isfinite(scores).sum() > 30


@EVERY
def test_random_answers_have_worse_figures(example):
    task, answers, annotations = drawn(example, 5, 40)
    best = task.metrics(example.answers(example.perfect(annotations)), annotations)
    for metric in task.METRICS:
        value = task.metrics(answers, annotations)[metric.name]
        assert value < best[metric.name] if metric.higher_is_better else value > best[metric.name]


@OFTEN
@BRIEFLY
@given(seed=SEEDS)
def test_scores_lie_between_zero_and_one(example, seed):
    task, answers, annotations = drawn(example, seed)
    scores = task.scores(answers, annotations)
    assert scores.shape == (SAMPLES,)
    known = scores[np.isfinite(scores)]
    assert ((known >= 0) & (known <= 1)).all()


@EVERY
def test_without_annotations_there_are_no_figures(example):
    task, answers, _ = drawn(example, 6)
    nothing = [Annotation()] * SAMPLES
    # No label is an annotation of these too: none is right.
    assert task.metrics(answers, nothing) == {}
    assert math.isnan(task.corpus(answers, nothing).metric(np.ones(SAMPLES, np.int64)))
    if task.ANNOTATION != "labels":
        assert np.isnan(task.scores(answers, nothing)).all()


@NAMED
def test_without_samples_there_are_no_figures(name):
    task = TASKS.load(name)
    assert task.metrics([], []) == {}
    assert task.scores([], []).shape == (0,)


@OFTEN
@BRIEFLY
@given(seed=SEEDS)
def test_the_order_of_the_samples_does_not_matter(example, seed):
    task, answers, annotations = drawn(example, seed)
    order = np.random.default_rng(seed).permutation(SAMPLES)
    shuffled = [answers[n] for n in order], [annotations[n] for n in order]
    assert task.metrics(*shuffled) == pytest.approx(task.metrics(answers, annotations), abs=1e-12)
    np.testing.assert_allclose(
        task.scores(*shuffled), task.scores(answers, annotations)[order], atol=1e-12
    )


@OFTEN
@BRIEFLY
@given(seed=SEEDS)
def test_the_corpus_of_each_sample_once_is_the_first_figure(example, seed):
    task, answers, annotations = drawn(example, seed)
    whole = task.corpus(answers, annotations).metric(np.ones(SAMPLES, np.int64))
    figures = task.metrics(answers, annotations)
    assert whole == pytest.approx(
        figures.get(task.METRICS[0].name, math.nan), abs=1e-9, nan_ok=True
    )


@OFTEN
@BRIEFLY
@given(seed=SEEDS, counts=st.lists(st.integers(0, 4), min_size=SAMPLES, max_size=SAMPLES))
def test_the_corpus_of_counts_is_the_figure_of_repeated_samples(example, seed, counts):
    if example.task == "embedding":
        # Each sample is looked for among all others, counted or not.
        counts = [max(count, 1) for count in counts]
    task, answers, annotations = drawn(example, seed)
    repeated = [n for n, count in enumerate(counts) for _ in range(count)]
    figures = (
        task.metrics([answers[n] for n in repeated], [annotations[n] for n in repeated])
        if repeated
        else {}
    )
    value = task.corpus(answers, annotations).metric(np.array(counts, np.int64))
    assert value == pytest.approx(
        figures.get(task.METRICS[0].name, math.nan), abs=1e-9, nan_ok=True
    )


@EVERY
def test_answers_of_few_bits_are_judged_alike_in_any_order(example):
    """Int8 gives many equal scores; who is first by chance must not decide."""
    task = TASKS.load(example.task)
    dice = np.random.default_rng(7)
    outputs = [np.round(x * 4) / 4 for x in example.draw(dice, 40)]
    answers, annotations = example.answers(outputs), example.annotate(dice, 40)
    counts = dice.integers(0, 4, 40)
    if example.task == "embedding":
        counts = np.maximum(counts, 1)
    order = dice.permutation(40)
    shuffled = [answers[n] for n in order], [annotations[n] for n in order]
    assert task.metrics(*shuffled) == pytest.approx(task.metrics(answers, annotations), abs=1e-12)
    repeated = np.repeat(np.arange(40), counts)
    figures = task.metrics([answers[n] for n in repeated], [annotations[n] for n in repeated])
    value = task.corpus(answers, annotations).metric(counts)
    assert value == pytest.approx(figures[task.METRICS[0].name], abs=1e-9)


@OFTEN
@BRIEFLY
@given(seed=SEEDS)
def test_a_metric_over_samples_is_the_mean_of_its_classes(example, seed):
    task, answers, annotations = drawn(example, seed)
    corpus = task.corpus(answers, annotations)
    assert isinstance(corpus, ClassCorpus) == (task.GATE == "corpus")
    if not isinstance(corpus, ClassCorpus):
        return
    assert corpus.annotated.shape == (SAMPLES, len(corpus.classes))
    assert corpus.worth.shape == (len(corpus.classes),)
    counts = np.random.default_rng(seed).integers(0, 4, SAMPLES)
    of_classes = corpus.of_classes(counts)
    there = counts @ corpus.annotated > 0
    np.testing.assert_array_equal(np.isfinite(of_classes), there)
    if there.any():
        assert corpus.metric(counts) == pytest.approx(of_classes[there].mean())
        assert 0 <= of_classes[there].min() <= of_classes[there].max() <= 1
