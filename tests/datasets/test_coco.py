import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.datasets import coco

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}]


def content(**others):
    """Five images of 40 x 20 pixels; the first one has two boxes, the others none."""
    images = [{"id": n, "file_name": f"{n}.png", "height": 20, "width": 40} for n in range(5)]
    boxes = [
        {"id": 7, "image_id": 0, "category_id": 18, "bbox": [10, 5, 20, 10], "iscrowd": 0},
        {"id": 8, "image_id": 0, "category_id": 1, "bbox": [0, 0, 40, 20.0], "iscrowd": 1},
    ]
    return {"images": images, "annotations": boxes, "categories": list(CATEGORIES)} | others


def written(path, tables, folder="."):
    (path / folder).mkdir(exist_ok=True)
    for number in range(5):
        Image.new("RGB", (40, 20), (number, 0, 0)).save(path / folder / f"{number}.png")
    file = path / "all.json"
    file.write_text(tables if isinstance(tables, str) else json.dumps(tables))
    return file


def opened(path, split="all", labels=()):
    return coco.open(str(path), split, resolution=(96, 96), labels=labels)


@pytest.mark.parametrize("folder", [".", "images"])
def test_boxes_are_fractions_and_categories_come_in_the_order_of_ids(tmp_path, folder):
    samples = opened(written(tmp_path, content(), folder))
    assert samples.classes == ("person", "car", "dog")
    assert [samples.id(index) for index in range(5)] == [f"{n}.png" for n in range(5)]
    assert samples.annotation(0) == Annotation(
        labels=(2, 0), boxes=((0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 1.0, 1.0)), crowd=(False, True)
    )
    assert samples.annotation(1) == Annotation()
    assert samples.label(0) == -1
    assert samples.image(3)[0, 0].tolist() == [3, 0, 0]


def test_categories_are_matched_with_the_labels(tmp_path):
    file = written(tmp_path, content())
    labels = ("dog", "cat", "car", "person")
    assert opened(file, labels=labels).annotation(0).labels == (0, 3)
    assert opened(file, labels=labels).classes == labels
    with pytest.raises(InputError, match=r"'car' of .* is none of the 2 labels"):
        opened(file, labels=("dog", "person"))


def test_what_is_not_read_does_no_harm(tmp_path):
    tables = content(info={"year": 2026}, licenses=[])
    tables["annotations"][0] |= {
        "segmentation": {"counts": "no", "size": [1]},
        "area": -1,
        "keypoints": 0,
    }
    assert opened(written(tmp_path, tables)).annotation(0).boxes[0] == (0.25, 0.25, 0.75, 0.75)


def test_a_box_that_leaves_the_image_by_a_pixel_is_clipped(tmp_path):
    tables = content()
    tables["annotations"][0]["bbox"] = [-0.9, -1, 41.5, 21.9]
    assert opened(written(tmp_path, tables)).annotation(0).boxes[0] == (0.0, 0.0, 1.0, 1.0)


@given(
    st.tuples(*[st.floats(-1, 41)] * 2).map(sorted), st.tuples(*[st.floats(-1, 21)] * 2).map(sorted)
)
def test_every_box_within_the_tolerance_is_inside(horizontal, vertical):
    box = coco.CocoBox(
        "it",
        1,
        horizontal[0],
        vertical[0],
        horizontal[1] - horizontal[0],
        vertical[1] - vertical[0],
        False,
    )
    # The sums of a box may leave the tolerance by rounding.
    try:
        left, top, right, bottom = coco._fractions(box, (20, 40), "image", "file")
    except InputError:
        assert max(horizontal[1] - 41, vertical[1] - 21) > -1e-9
        return
    assert 0 <= left <= right <= 1
    assert 0 <= top <= bottom <= 1
    for fraction, side, size in ((left, horizontal[0], 40), (bottom, vertical[1], 20)):
        assert fraction * size == pytest.approx(min(max(side, 0), size), abs=1e-9)


@pytest.mark.parametrize(
    "bbox", [[-1.1, 0, 5, 5], [0, -2, 5, 5], [30, 0, 11.5, 5], [0, 10, 5, 12], [200, 0, 1, 1]]
)
def test_a_box_outside_of_its_image_is_named(tmp_path, bbox):
    tables = content()
    tables["annotations"][1]["bbox"] = bbox
    with pytest.raises(InputError, match=r"annotation 8 of .*all.json is outside of 0.png"):
        opened(written(tmp_path, tables))


def first(**fields):
    """The first annotation with other fields; None removes one."""
    tables = content()
    tables["annotations"][0] |= fields
    for name, value in fields.items():
        if value is None:
            del tables["annotations"][0][name]
    return tables


def images(*rows):
    return content(images=list(rows), annotations=[])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("no json", r"is not JSON"),
        ("[" * 100_000, r"is not JSON"),
        ("[1, 2]", r"is not COCO's JSON; it needs images"),
        ("{}", r"has no images; it needs images"),
        (content(images=[]), r"has no images"),
        (content(images=[1]), r"has no images"),
        (content(annotations=None), r"has no annotations"),
        (content(categories=[]), r"has no categories"),
        (content(categories=[{"id": 1, "name": ""}]), r"category 1 of .* has no name"),
        (content(categories=[{"id": 1, "name": "a\0"}]), r"category 1 of .* has no name"),
        (content(categories=[{"name": "a"}]), r"category 0 of .* has no id"),
        (content(categories=[*CATEGORIES, CATEGORIES[0]]), r"two categories"),
        (
            content(categories=[{"id": 1, "name": "a"}, {"id": "2", "name": "b"}]),
            r"numbers and texts",
        ),
        (first(image_id=99), r"annotation 7 of .* is of the image 99, which is not there"),
        (first(category_id=99), r"annotation 7 of .* is of the category 99, which is not there"),
        (first(category_id=[1]), r"annotation 7 of .* has no category_id"),
        (first(id=None, image_id=True), r"annotation number 1 of .* has no image_id"),
        (first(bbox=None), r"annotation 7 of .* has no bbox"),
        (first(bbox=[1, 2, 3]), r"annotation 7 of .* has no bbox"),
        (first(bbox=[1, 2, 3, "4"]), r"annotation 7 of .* has no bbox"),
        (first(bbox=[1, 2, 3, float("nan")]), r"annotation 7 of .* has no bbox"),
        (first(bbox=[1, 2, 3, 1e300]), r"annotation 7 of .* has no bbox"),
        (first(bbox=[1, 2, -3, 4]), r"annotation 7 of .* has a box of negative size"),
        (first(iscrowd=2), r"annotation 7 of .* has iscrowd 2"),
        (images({"id": 1}), r"image 1 of .* has no file_name"),
        (images({"file_name": "0.png"}), r"image 0 of .* has no id"),
        (images({"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}), r"two images"),
        (
            images({"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "0.png"}),
            r"'0.png' twice",
        ),
        (images({"id": 1, "file_name": "0.png", "height": 20}), r"height 20 and width None"),
        (images({"id": 1, "file_name": "0.png", "height": 0.5, "width": 40}), r"height 0.5"),
        (
            images({"id": 1, "file_name": "0.png", "height": 40, "width": 20}),
            r"says that 0.png has 40 × 20 pixels, and it has 20 × 40",
        ),
        (images({"id": 1, "file_name": "9.png"}), r"none of the 1 images of .* is in"),
    ],
)
def test_other_files_are_refused(tmp_path, tables, message):
    with pytest.raises(InputError, match=message):
        opened(written(tmp_path, tables))


@pytest.mark.parametrize(
    "name",
    [
        "../0.png",
        "/etc/0.png",
        "a/../../0.png",
        "..\\0.png",
        "C:\\0.png",
        "",
        " ",
        "a\0.png",
        "\ud800.png",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"which is not a path in its folder"):
        opened(written(tmp_path, images({"id": 1, "file_name": name})))


def test_an_image_in_two_places_is_refused(tmp_path):
    file = written(tmp_path, content(), "images")
    os.link(tmp_path / "images" / "2.png", tmp_path / "2.png")
    with pytest.raises(InputError, match=r"2.png of .* is there twice"):
        opened(file)


def test_a_missing_image_counts_as_broken(tmp_path):
    file = written(tmp_path, content())
    (tmp_path / "2.png").unlink()
    samples = opened(file)
    with pytest.raises(BrokenImage, match=r"2.png"):
        samples.image(2)
    assert samples.annotation(2) == Annotation()
    tables = content()
    del tables["images"][2]["height"], tables["images"][2]["width"]
    file.write_text(json.dumps(tables))
    with pytest.raises(InputError, match=r"does not say the size of 2.png"):
        opened(file)
    Image.new("RGB", (40, 20)).save(tmp_path / "2.png")
    assert len(opened(file)) == 5


def test_a_changed_file_is_read_again(tmp_path):
    file = written(tmp_path, content())
    before = opened(file).identity
    file.write_text(json.dumps(first(bbox=[10, 5, 20, 9])))
    os.utime(file, (1, 1))
    assert opened(file).identity != before


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PLACES = st.sampled_from(
    [
        (table, row, field)
        for table, fields in {
            "images": ("id", "file_name", "height", "width"),
            "annotations": ("id", "image_id", "category_id", "bbox", "iscrowd"),
            "categories": ("id", "name"),
        }.items()
        for row in (0, None)
        for field in (*fields, None)
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=PLACES, value=ANYTHING)
def test_any_value_anywhere_is_read_or_refused(tmp_path, place, value):
    table, row, field = place
    tables = content()
    tables["annotations"] = tables["annotations"][:1]
    if row is None:
        tables[table] = value
    elif field is None:
        tables[table][row] = value
    else:
        tables[table][row] = tables[table][row] | {field: value}
    (tmp_path / "any.json").write_text(json.dumps(tables))
    if not (tmp_path / "0.png").exists():
        written(tmp_path, content())
    coco._read.cache_clear()
    try:
        samples = opened(tmp_path / "any.json")
    except InputError:
        return
    for index in range(len(samples)):
        assert all(0 <= x <= 1 for box in samples.annotation(index).boxes for x in box)
    assert len(samples.identity) == 64
