"""The operator that chooses boxes, in LiteRT, beside what `tasks/detection.py` makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core import leases
from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import AnchorLevel, Anchors, ModelOutput, Signature
from mobiledeploy.graphs import execution, postprocess
from mobiledeploy.tasks import detection
from tests.lite import Lite, answers

ANCHORS = Anchors(
    (AnchorLevel((6, 5), ((0.2, 0.3), (0.4, 0.25))), AnchorLevel((1, 1), ((0.9, 0.8),))),
    (10.0, 9.0, 5.0, 4.0),
)
COUNT, CLASSES = ANCHORS.count, 4
RAW = Signature(
    (),
    (
        ModelOutput("boxes", (COUNT, 4), anchors=ANCHORS),
        ModelOutput("scores", (COUNT, CLASSES), "sigmoid"),
    ),
)


def raw(grid=None) -> bytes:
    """Boxes and scores go through an ABS each, as codes if there are grids for them."""
    graph = Lite()
    ends = []
    for number, size in enumerate((4, CLASSES)):
        more = {} if grid is None else {"dtype": np.int8, "grid": grid[number]}
        shape = (1, COUNT, size)
        ends.append(graph.op("ABS", [graph.input(shape, **more)], graph.tensor(shape, **more)))
    return graph.file(*ends)


def drawn(seed: int):
    dice = np.random.default_rng(seed)
    boxes = np.abs(dice.normal(0, 4, (1, COUNT, 4))).astype(np.float32)
    return boxes, dice.random((1, COUNT, CLASSES)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_its_boxes_are_those_of_the_task(seed):
    boxes, scores = drawn(seed)
    outputs = answers(postprocess.append(raw(), RAW), boxes, scores)
    ends = postprocess.outputs()
    assert [x.shape[1:] for x in outputs] == [end.shape for end in ends]
    assert not detection.mismatch(ends)
    ours = detection.decode([boxes[0], scores[0]], RAW.outputs)
    theirs = detection.decode([x[0] for x in outputs], ends)
    assert len(ours.boxes) == 100
    assert theirs.classes == ours.classes
    assert theirs.scores == pytest.approx(ours.scores)
    # The operator leaves boxes beyond the image as they are.
    np.testing.assert_allclose(np.clip(theirs.boxes, 0, 1), ours.boxes, atol=1e-5)


def test_codes_are_made_real_before_it():
    boxes, scores = drawn(5)
    grids = (0.1, 0), (1 / 256, -128)
    codes = [
        np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)
        for x, (scale, zero) in zip((boxes, scores), grids, strict=True)
    ]
    # ABS of a code is that of its real value.
    real = [
        np.float32(scale) * np.abs(x.astype(np.float32) - zero)
        for x, (scale, zero) in zip(codes, grids, strict=True)
    ]
    outputs = answers(postprocess.append(raw(grids), RAW), *codes)
    theirs = detection.decode([x[0] for x in outputs], postprocess.outputs())
    ours = detection.decode([x[0] for x in real], RAW.outputs)
    # Scores of few codes are often equal, and then either order is right.
    assert sorted(theirs.scores) == sorted(ours.scores)


def test_outputs_without_anchors_are_refused():
    plain = Signature((), (ModelOutput("boxes", (COUNT, 4)), RAW.outputs[1]))
    with pytest.raises(InputError, match="no raw boxes and scores with known anchors"):
        postprocess.append(raw(), plain)


def test_no_class_is_left_out_on_two_cores(monkeypatch):
    """With two threads LiteRT's operator leaves out a class (TensorFlow's issue 56058)."""
    monkeypatch.setattr(leases, "cores", lambda: 2)
    boxes, scores = drawn(0)
    outputs = execution.answers(postprocess.append(raw(), RAW), Batch((boxes, scores)))
    theirs = detection.decode([x[0] for x in outputs], postprocess.outputs())
    assert theirs.classes == detection.decode([boxes[0], scores[0]], RAW.outputs).classes
