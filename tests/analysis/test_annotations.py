import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobiledeploy.analysis import annotations, masks
from mobiledeploy.core.preprocessing import crop_margins, prepare
from mobiledeploy.core.types import Annotation, Preprocessing

SIDES = st.tuples(st.integers(1, 60), st.integers(1, 60))
CROPS = st.one_of(st.just(1.0), st.floats(0.05, 1))
SPANS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
BOXES = st.lists(
    st.tuples(SPANS, SPANS).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1])), max_size=5
)
TABLES = SIDES.flatmap(
    lambda size: st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).integers(-1, 4, size)
    )
)


@given(BOXES, SIDES, CROPS)
def test_a_cropped_box_is_its_part_of_the_crop_in_pixels(boxes, image, crop):
    margins = crop_margins(image, crop)
    kept = [side - 2 * margin for side, margin in zip(image, margins, strict=True)]
    for box, cropped in zip(boxes, annotations.crop_boxes(boxes, image, crop), strict=True):
        spans = []
        for axis, place in ((1, 0), (0, 1)):
            start, end = (box[place + 2 * k] * image[axis] - margins[axis] for k in (0, 1))
            spans.append((start, end, max(start, 0.0), min(end, float(kept[axis])), kept[axis]))
        if cropped is None:
            assert any(inner_end - inner_start <= 1e-9 for _, _, inner_start, inner_end, _ in spans)
            continue
        assert all(0 <= x <= 1 for x in cropped)
        for (_, _, inner_start, inner_end, side), place in zip(spans, (0, 1), strict=True):
            assert cropped[place] * side == pytest.approx(inner_start, abs=1e-9)
            assert cropped[place + 2] * side == pytest.approx(inner_end, abs=1e-9)


@given(BOXES, SIDES)
def test_without_a_crop_boxes_stay_as_they_are(boxes, image):
    assert annotations.crop_boxes(boxes, image, 1.0) == tuple(boxes)


@pytest.mark.parametrize(
    ("box", "cropped"),
    [
        ((0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 1.0, 1.0)),
        ((0.0, 0.0, 1.0, 0.5), (0.0, 0.0, 1.0, 0.5)),
        ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)),
        ((0.0, 0.0, 0.2, 1.0), None),
        # It only touches the crop.
        ((0.0, 0.0, 0.25, 1.0), None),
        ((0.8, 0.8, 0.9, 0.9), None),
    ],
)
def test_boxes_of_a_crop_of_the_inner_half(box, cropped):
    assert annotations.crop_boxes([box], (8, 16), 0.5) == (cropped,)


@given(TABLES, CROPS)
def test_a_mask_is_cropped_as_its_image_is(table, crop):
    image = np.repeat((table + 1).astype(np.uint8)[..., None], 3, axis=2)
    cropped = annotations.crop_mask(table, crop)
    prepared = prepare(image, Preprocessing((0.0, 255.0), crop=crop), cropped.shape)
    np.testing.assert_array_equal(prepared[..., 0] - 1, cropped)


@given(TABLES, SIDES)
def test_a_resized_mask_has_the_class_at_each_centre(table, size):
    resized = annotations.resize_mask(table, size)
    assert resized.shape == size
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (
                (i + 0.5) * old / new
                for i, old, new in zip((row, column), table.shape, size, strict=True)
            )
            # A centre on the border of two pixels belongs to the second one.
            assert resized[row, column] == table[int(y + 1e-9), int(x + 1e-9)]
    np.testing.assert_array_equal(annotations.resize_mask(table, table.shape), table)


@given(TABLES, st.integers(1, 4))
def test_a_mask_that_grows_by_a_whole_factor_shrinks_back(table, factor):
    larger = annotations.resize_mask(table, (table.shape[0] * factor, table.shape[1] * factor))
    np.testing.assert_array_equal(larger, np.kron(table, np.ones((factor, factor), int)))
    np.testing.assert_array_equal(annotations.resize_mask(larger, table.shape), table)


def test_pillow_takes_the_same_pixels():
    table = np.random.default_rng(0).integers(0, 250, (37, 53))
    for size in ((20, 20), (64, 64), (37, 10), (1, 1)):
        image = Image.fromarray(table.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(annotations.resize_mask(table, size), np.asarray(image))


def test_the_whole_annotation_follows():
    table = np.arange(64).reshape(8, 8) % 3
    boxes = ((0.0, 0.0, 0.1, 0.1), (0.25, 0.5, 1.0, 1.0))
    truth = Annotation(
        2, (4, 5), boxes=boxes, crowd=(False, True), values=(1.5,), mask=masks.encode(table)
    )
    seen = annotations.as_seen(truth, (8, 8), 0.5, (2, 2))
    assert seen == Annotation(
        2,
        (5,),
        boxes=((0.0, 0.5, 1.0, 1.0),),
        crowd=(True,),
        values=(1.5,),
        mask=masks.encode(table[[[3], [5]], [3, 5]]),
    )
    assert annotations.as_seen(truth, (8, 8), 1.0, (8, 8)) == truth
    assert annotations.as_seen(truth, (8, 8), 1.0) == truth


def test_labels_of_the_image_as_a_whole_stay():
    truth = Annotation(1, (0, 2))
    assert annotations.as_seen(truth, (8, 8), 0.5) == truth
