from __future__ import annotations

import contextlib
import io
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.core.types import Annotation, Prediction
from mobiledeploy.tasks import detection
from tests.lite import Lite, answers
from tests.tasks.conftest import boxes, end

RAW = (end(50, 4), end(50, 3, activation="sigmoid"))
PROCESSED = (end(10, 4), end(10), end(10), end(1))


def rows(table) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.asarray(table).tolist()))


def case(seed: int, images: int, classes: int, *, decimals: int = 12):
    """Random answers near random annotations, with crowds and classes that only one side has."""
    dice = np.random.default_rng(seed)
    predictions, annotations = [], []
    for n in range(images):
        truth = boxes(dice, int(dice.integers(0, 6)))
        labels = dice.integers(0, classes, len(truth))
        crowd = dice.random(len(truth)) < 0.2
        near = np.repeat(np.arange(len(truth)), dice.integers(0, 4, len(truth)))
        moved = truth[near] + dice.normal(0, 0.02, (len(near), 4))
        moved[:, 2:] = np.maximum(moved[:, :2], moved[:, 2:])
        answers = np.concatenate([moved, boxes(dice, int(dice.integers(0, 5)))])
        # One class more, which nobody annotated.
        named = dice.integers(0, classes + 1, len(answers))
        right = dice.random(len(near)) < 0.8
        named[: len(near)][right] = labels[near][right]
        scores = np.round(dice.random(len(answers)), decimals)
        order = np.argsort(-scores, kind="stable")
        predictions.append(
            Prediction(
                f"{n:05}",
                classes=tuple(named[order].tolist()),
                scores=tuple(scores[order].tolist()),
                boxes=rows(answers[order]),
            )
        )
        annotations.append(
            Annotation(
                labels=tuple(labels.tolist()), boxes=rows(truth), crowd=tuple(crowd.tolist())
            )
        )
    return predictions, annotations


def of_pycocotools(predictions, annotations) -> tuple[float, float]:
    """Its own figures by its documented way, in pixels of an image of 640 x 480."""

    def entry(place, image, box, label):
        left, top, right, bottom = np.array(box) * [640, 480, 640, 480]
        size = [right - left, bottom - top]
        return {
            "id": place,
            "image_id": image,
            "category_id": label,
            "bbox": [left, top, *size],
            "area": size[0] * size[1],
        }

    truth, answers = [], []
    for n, (p, a) in enumerate(zip(predictions, annotations, strict=True), 1):
        for box, label, crowd in zip(a.boxes, a.labels, a.crowd, strict=True):
            truth.append(entry(len(truth) + 1, n, box, label) | {"iscrowd": int(crowd)})
        for box, label, score in zip(p.boxes, p.classes, p.scores, strict=True):
            answers.append(entry(0, n, box, label) | {"score": score})
    names = {label for a in annotations for label in a.labels} | {99}
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(1, len(predictions) + 1)],
            "categories": [{"id": label} for label in sorted(names)],
            "annotations": truth,
        }
        data.createIndex()
        known = [answer for answer in answers if answer["category_id"] in names]
        evaluator = COCOeval(data, data.loadRes(known), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[0]), float(evaluator.stats[1])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(8, 25),
    classes=st.integers(1, 6),
    decimals=st.sampled_from([1, 2, 12]),
)
def test_the_figures_are_those_of_pycocotools(seed, images, classes, decimals):
    predictions, annotations = case(seed, images, classes, decimals=decimals)
    figures = detection.metrics(predictions, annotations)
    whole, half = of_pycocotools(predictions, annotations)
    # It says -1 where nothing is annotated.
    assert figures.get("map", -1) == pytest.approx(whole, abs=1e-9)
    assert figures.get("ap50", -1) == pytest.approx(half, abs=1e-9)


def test_the_figures_of_many_boxes_are_those_of_pycocotools():
    """Recalls like 7 / 100 are where rounding decides between two of the 101 points."""
    predictions, annotations = case(0, 100, 2)
    figures = detection.metrics(predictions, annotations)
    expected = of_pycocotools(predictions, annotations)
    assert 0.1 < expected[0] < expected[1] < 0.9
    assert (figures["map"], figures["ap50"]) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), decimals=st.sampled_from([1, 12]))
def test_counts_repeat_images_with_crowds_and_equal_scores(seed, decimals):
    predictions, annotations = case(seed, 12, 3, decimals=decimals)
    counts = np.random.default_rng(seed).multinomial(12, [1 / 12] * 12)
    repeated = np.repeat(np.arange(12), counts)
    figures = detection.metrics(
        [predictions[n] for n in repeated], [annotations[n] for n in repeated]
    )
    value = detection.corpus(predictions, annotations).metric(counts)
    assert value == pytest.approx(figures.get("map", np.nan), abs=1e-9, nan_ok=True)


def test_nothing_is_printed(capsys):
    detection.metrics(*case(0, 5, 2))
    assert capsys.readouterr() == ("", "")


def test_two_thousand_draws_of_a_thousand_images_take_seconds():
    predictions, annotations = case(0, 1000, 20)
    corpus = detection.corpus(predictions, annotations)
    dice = np.random.default_rng(0)
    draws = dice.multinomial(1000, [1 / 1000] * 1000, 2000)
    begin = time.perf_counter()
    values = [corpus.metric(counts) for counts in draws]
    # A machine that has other work may be several times slower.
    assert time.perf_counter() - begin < 20
    assert np.std(values) > 0.003


def test_a_box_stays_if_no_better_one_of_its_class_overlaps_it():
    dice = np.random.default_rng(3)
    table, scores = boxes(dice, 50), dice.random((50, 3))
    answer = detection.decode([table, scores], RAW)

    def iou(one, other):
        both = np.prod(
            np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
        )
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
        return both / (sum(areas) - both)

    kept: list[tuple[int, int]] = []
    for flat in np.argsort(-scores.ravel()):
        place, of = divmod(int(flat), 3)
        if all(c != of or iou(table[place], table[p]) <= 0.6 for p, c in kept):
            kept.append((place, of))
    assert len(kept) < 150
    kept = kept[:100]
    assert answer.classes == tuple(of for _, of in kept)
    assert answer.boxes == rows(table[[place for place, _ in kept]])
    assert answer.scores == tuple(scores[place, of] for place, of in kept)


def test_suppression_of_many_candidates_is_that_of_all_at_once(monkeypatch):
    dice = np.random.default_rng(4)
    # Many copies of few boxes: the first thousand candidates leave fewer than a hundred.
    table = np.repeat(boxes(dice, 30), 40, axis=0) + dice.normal(0, 1e-3, (1200, 4))
    scores = dice.random((1200, 3))
    ends = (end(1200, 4), end(1200, 3, activation="sigmoid"))
    answer = detection.decode([table, scores], ends)
    assert 50 < len(answer.boxes) < 100
    monkeypatch.setattr(detection, "_CHUNK", 10_000)
    assert detection.decode([table, scores], ends) == answer


def test_scores_and_boxes_come_in_any_order():
    dice = np.random.default_rng(5)
    table, scores = boxes(dice, 50), dice.random((50, 3))
    swapped = detection.decode([scores, table], RAW[::-1])
    assert swapped == detection.decode([table, scores], RAW)


def test_what_is_no_number_is_no_box():
    table, scores = boxes(np.random.default_rng(6), 3), np.array([[0.9], [0.8], [np.nan]])
    table[0, 1] = np.nan
    ends = (end(3, 4), end(3, 1, activation="sigmoid"))
    assert detection.decode([table, scores], ends).scores == (0.8,)


def test_the_outputs_of_the_operator_are_read_up_to_their_number():
    table = np.zeros((10, 4))
    # Top, left, bottom, right.
    table[:3] = [[0.1, 0.2, 0.3, 0.6], [0.5, 0.5, 0.9, 0.7], [0, 0, 1, 1]]
    classes, scores = np.arange(10.0), np.linspace(0.5, 0.95, 10)
    answer = detection.decode([table, classes, scores, np.array([2.0])], PROCESSED)
    assert answer.boxes == ((0.5, 0.5, 0.7, 0.9), (0.2, 0.1, 0.6, 0.3))
    assert answer.classes == (1, 0)
    assert answer.scores == pytest.approx((0.55, 0.5))


@pytest.mark.parametrize(("number", "count"), [(np.nan, 0), (-1, 0), (np.inf, 9), (99, 9)])
def test_a_number_of_boxes_that_cannot_be_is_no_error(number, count):
    outputs = [np.zeros((10, 4)), np.zeros(10), np.linspace(1, 0, 10), np.array([number])]
    assert len(detection.decode(outputs, PROCESSED).boxes) == count
    outputs[1][3] = np.nan
    assert len(detection.decode(outputs, PROCESSED).boxes) == max(count - 1, 0)


def postprocess(anchors: np.ndarray, classes: int) -> bytes:
    """A TFLite of the operator alone: encoded boxes [1, N, 4], scores with a background first."""
    graph = Lite()
    count = len(anchors)
    encoded = graph.input((1, count, 4))
    scores = graph.input((1, count, classes + 1))
    options = flexbuffers.Dumps(
        {
            "max_detections": 10,
            "max_classes_per_detection": 1,
            "num_classes": classes,
            "nms_score_threshold": 0.01,
            "nms_iou_threshold": 0.6,
            "use_regular_nms": False,
            "y_scale": 10.0,
            "x_scale": 10.0,
            "h_scale": 5.0,
            "w_scale": 5.0,
        }
    )
    outputs = graph.op(
        "CUSTOM",
        [encoded, scores, graph.constant(anchors.astype(np.float32))],
        (1, 10, 4),
        (1, 10),
        (1, 10),
        (1,),
    )
    operator, code = graph._graph.operators[-1], graph._model.operatorCodes[-1]
    code.customCode = "TFLite_Detection_PostProcess"
    operator.customOptions = np.frombuffer(options, np.uint8)
    return graph.file(*outputs)


def test_the_operator_of_litert_is_read_as_what_it_means():
    """Anchors (y, x, h, w) far apart, none of them moved: each object is its anchor."""
    anchors = np.array([[0.2, 0.3, 0.1, 0.4], [0.7, 0.6, 0.3, 0.2], [0.2, 0.8, 0.2, 0.1]])
    scores = np.array([[0.1, 0.9, 0.0], [0.4, 0.0, 0.6], [1.0, 0.0, 0.0]], np.float32)
    outputs = answers(postprocess(anchors, 2), np.zeros((1, 3, 4), np.float32), scores[None])
    answer = detection.decode([x[0] if x.ndim > 1 else x for x in outputs], PROCESSED)
    assert answer.classes == (0, 1)
    assert answer.scores == pytest.approx((0.9, 0.6))
    np.testing.assert_allclose(
        answer.boxes, [[0.1, 0.15, 0.5, 0.25], [0.5, 0.55, 0.7, 0.85]], atol=1e-6
    )


def test_a_box_head_of_twice_the_scale_is_seen_by_everything():
    dice = np.random.default_rng(7)
    table, scores = boxes(dice, 20, 50), dice.random((20, 50, 3)) ** 8
    center = (table[..., :2] + table[..., 2:]) / 2
    half = table[..., 2:] - center
    doubled = np.concatenate([center - 2 * half, center + 2 * half], axis=-1)
    assert detection.divergence([table, scores], [doubled, scores], RAW).min() > 1
    before, after = (
        [
            replace(detection.decode([b, s], RAW), sample=str(n))
            for n, (b, s) in enumerate(zip(side, scores, strict=True))
        ]
        for side in (table, doubled)
    )
    annotations = [Annotation(labels=p.classes[:3], boxes=p.boxes[:3]) for p in before]
    assert detection.metrics(before, annotations)["map"] > 0.8
    assert detection.metrics(after, annotations)["ap50"] < 0.2
    assert not any(detection.agrees(a, b) for a, b in zip(before, after, strict=True))


def test_a_coordinate_costs_as_much_as_its_box_is_sure():
    table = boxes(np.random.default_rng(8), 1, 50)
    scores = np.full((1, 50, 3), 1e-4)
    scores[0, 0, 1] = 0.9
    of_object, of_nothing = table.copy(), table.copy()
    of_object[0, 0] += 0.1
    of_nothing[0, 1] += 0.1
    sure, unsure = (
        detection.divergence([table, scores], [x, scores], RAW)[0] for x in (of_object, of_nothing)
    )
    assert sure > 1000 * unsure > 0
    lost = scores.copy()
    lost[0, 0, 1] = 1e-4
    assert 1 < detection.divergence([table, scores], [table, lost], RAW)[0] < 10


def test_a_suppressed_box_that_is_lost_costs_its_score():
    table = np.zeros((1, 10, 4))
    table[0, :2] = [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    outputs = [table, np.zeros((1, 10)), np.linspace(0.9, 0, 10)[None], np.array([[2.0]])]
    fewer = [*outputs[:3], np.array([[1.0]])]
    assert detection.divergence(outputs, fewer, PROCESSED) == pytest.approx(0.8)
    assert detection.divergence(fewer, outputs, PROCESSED) == pytest.approx(0.8)
    weaker = [*outputs[:2], outputs[2] / 2, outputs[3]]
    assert detection.divergence(outputs, weaker, PROCESSED) == pytest.approx(0.45 + 0.4)
    other_class = [outputs[0], outputs[1] + 1, *outputs[2:]]
    assert detection.divergence(outputs, other_class, PROCESSED) == pytest.approx(2 * 1.7)


def test_sure_boxes_agree_in_any_order():
    one = Prediction("", 0, (0, 1, 0), (0.9, 0.8, 0.1), rows(boxes(np.random.default_rng(9), 3)))
    other = replace(one, classes=(1, 0), scores=(0.7, 0.6), boxes=(one.boxes[1], one.boxes[0]))
    assert detection.agrees(one, other)
    assert not detection.agrees(one, replace(other, classes=(0, 1)))
    assert not detection.agrees(one, replace(other, scores=(0.7, 0.4)))


def test_images_without_objects_have_no_score_and_their_boxes_cost():
    predictions, annotations = case(10, 30, 2)
    empty = [replace(a, labels=(), boxes=(), crowd=()) for a in annotations]
    assert detection.metrics(predictions, empty) == {}
    assert np.isnan(detection.scores(predictions, empty)).all()
    half = annotations[:15] + empty[15:]
    silent = predictions[:15] + [
        replace(p, classes=(), scores=(), boxes=()) for p in predictions[15:]
    ]
    assert detection.metrics(predictions, half)["map"] < detection.metrics(silent, half)["map"]


def test_annotations_that_do_not_fit_are_refused():
    predictions, _ = case(11, 1, 2)
    with pytest.raises(InputError, match="00000 has 1 box, 0 classes and 0 crowd flags"):
        detection.metrics(predictions, [Annotation(boxes=((0.0, 0.0, 1.0, 1.0),))])
    with pytest.raises(InputError, match="has 0 boxes, 1 class"):
        detection.metrics(predictions, [Annotation(labels=(1,))])


def test_without_pycocotools_its_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(MissingError, match="pycocotools is not installed") as caught:
        detection.metrics(*case(12, 1, 1))
    assert caught.value.hint == "pip install 'mobiledeploy[detection]'"


@pytest.mark.parametrize(
    ("ends", "fits"),
    [
        (RAW, True),
        (RAW[::-1], True),
        (PROCESSED, True),
        ((end(10, 4), end(9, 3)), False),
        ((end(10, 4),), False),
        # The order in which some exporters give the operator's outputs.
        ((end(10), end(10, 4), end(1), end(10)), False),
    ],
)
def test_what_fits(ends, fits):
    assert (detection.mismatch(ends) == "") is fits


def test_what_does_not_fit_is_told_by_its_shapes():
    assert detection.mismatch([end(10, 6)]) == (
        "its outputs have the shapes 10 × 6; detection reads boxes [N, 4] and scores [N, C], "
        "or the four outputs of TFLite_Detection_PostProcess"
    )
