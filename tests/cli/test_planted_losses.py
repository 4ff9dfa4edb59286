"""Losses that are planted in a file of another tool: `check` fails and names what suffered.

The files are graphs of a few operators with weights by hand, so that each is right on its data.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.figures import command
from tests.lite import Lite

SIDE = 16
IMAGES = 130
"""Enough for a margin of 3 points: fewer can never pass one."""
MARGIN = ("--margin", "3")


def conv(b, x, weights, bias, **settings):
    """A 1x1 convolution; `weights` are [out, in]."""
    height, width = b.shape(x)[1:3]
    kernel = b.constant(np.asarray(weights, np.float32)[:, None, None])
    defaults = dict.fromkeys(("strideH", "strideW", "dilationHFactor", "dilationWFactor"), 1)
    return b.op(
        "CONV_2D",
        [x, kernel, b.constant(np.float32(bias))],
        (1, height, width, len(weights)),
        options="Conv2DOptions",
        **(defaults | settings),
    )


def segmenter(lost=False):
    """Background, red and green by the colour of each pixel; `lost`: green is never the answer."""
    b = Lite()
    x = b.input((1, SIDE, SIDE, 3), name="image")
    bias = [3, -2, -100 if lost else -2]
    scores = conv(b, x, [[0, 0, 0], [8, -8, 0], [-8, 8, 0]], bias)
    return b.file(b.op("SOFTMAX", [scores], (1, SIDE, SIDE, 3), options="SoftmaxOptions", beta=1.0))


def pooled(b, x, side):
    """The means of squares of `side` pixels."""
    small = SIDE // side
    return b.op(
        "AVERAGE_POOL_2D",
        [x],
        (1, small, small, 3),
        options="Pool2DOptions",
        filterHeight=side,
        filterWidth=side,
        strideH=side,
        strideW=side,
        padding=1,
    )


def embedder(merged=False):
    """The mean colour around gray as a vector; `merged`: without what blue says."""
    b = Lite()
    x = pooled(b, b.input((1, SIDE, SIDE, 3), name="image"), SIDE)
    weights = np.diag([1, 1, 0 if merged else 1])
    vector = conv(b, x, weights, [-0.5, -0.5, 0 if merged else -0.5])
    shape = b.constant(np.int32([1, 3]))
    return b.file(b.op("RESHAPE", [vector, shape], (1, 3), options="ReshapeOptions"))


def detector(doubled=False):
    """A box in each quarter, with scores of red and green; `doubled`: boxes of twice the size."""
    b = Lite()
    x = pooled(b, b.input((1, SIDE, SIDE, 3), name="image"), SIDE // 2)
    scores = conv(b, x, [[40, -40, 0], [-40, 40, 0]], [-4, -4])
    flat = b.constant(np.int32([1, 4, 2]))
    row = b.op("RESHAPE", [scores, flat], (1, 4, 2), options="ReshapeOptions")
    nothing = conv(b, x, np.zeros((4, 3)), np.zeros(4))
    zeros = b.op(
        "RESHAPE", [nothing, b.constant(np.int32([1, 4, 4]))], (1, 4, 4), options="ReshapeOptions"
    )
    half = 0.25 if doubled else 0.125
    middles = [(0.25 + 0.5 * (n % 2), 0.25 + 0.5 * (n // 2)) for n in range(4)]
    anchors = [[[x - half, y - half, x + half, y + half] for x, y in middles]]
    boxes = b.op("ADD", [zeros, b.constant(np.float32(anchors))], (1, 4, 4), options="AddOptions")
    return b.file(boxes, b.op("LOGISTIC", [row], (1, 4, 2)))


COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20)}


def squares(folder):
    """Images with a red or green square of 4 pixels in the middle of a quarter, masks and boxes."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    (folder / "classes.txt").write_text("background\nred\ngreen\n")
    images, boxes = [], []
    for number in range(IMAGES):
        pixels = random.integers(0, 50, (SIDE, SIDE, 3)).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        colour = number % 2
        top, left = 2 + 8 * random.integers(0, 2, 2)
        pixels[top : top + 4, left : left + 4] = tuple(COLOURS.values())[colour]
        mask[top : top + 4, left : left + 4] = colour + 1
        Image.fromarray(pixels).save(folder / "images" / f"{number:03}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:03}.png")
        images.append({"id": number, "file_name": f"{number:03}.png"})
        box = [int(left), int(top), 4, 4]
        boxes.append({"id": number, "image_id": number, "category_id": colour, "bbox": box})
    categories = [{"id": n, "name": name} for n, name in enumerate(COLOURS)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))


def people(folder):
    """Five identities, each a colour of low and high channels; blue alone tells 0 from 4."""
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        name = number % 5
        levels = [60 + 140 * (name >> channel & 1) for channel in range(3)]
        pixels = np.clip(levels + random.integers(-30, 31, (SIDE, SIDE, 3)), 0, 255)
        place = folder / f"identity{name}" / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(place)


CASES = {
    # model, what is planted, data, --task, what fails, what does not
    "segmentation": (segmenter, "lost", "squares", (), ("mIoU", "class green"), "class red"),
    "detection": (detector, "doubled", "squares/boxes.json", (), ("mAP", "class red"), "crowd"),
    "embedding": (
        embedder,
        "merged",
        "people",
        ("--task", "embedding"),
        ("recall@1", "class identity0", "class identity4"),
        "class identity1",
    ),
}


@pytest.fixture
def data(here):
    """The data of the cases, in the current folder."""
    people(here / "people")
    squares(here / "squares")
    return here


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=[pytest.mark.slow] * (t != "embedding")) for t in CASES]
)
def test_a_planted_loss_is_failed_by_name_and_an_equal_file_passes(task, data):
    build, planted, samples, options, named, spared = CASES[task]
    file = Path("model.tflite")
    file.write_bytes(build())
    line = (file, "--data", samples, "--input-range", "0,1", *options, *MARGIN)
    command("check", *line, "--update-baseline")
    assert "pass" in command("check", *line)
    file.write_bytes(build(**{planted: True}))
    failures = [x for x in command("check", *line, code=1).splitlines() if ": fail: " in x]
    for name in named:
        assert any(name in failure for failure in failures), (name, failures)
    assert not any(spared in failure for failure in failures)


def spoilt_boxes(folder, spoil, name="spoilt.json"):
    content = json.loads((folder / "boxes.json").read_text())
    spoil(content)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def of_many_classes(content):
    content["categories"] = [{"id": n, "name": f"class{n}"} for n in range(8)]
    content["annotations"][3]["category_id"] = 7


def outside(content):
    content["annotations"][3]["bbox"] = [12, 2, 40, 4]


def test_annotations_that_do_not_fit_are_refused_in_one_line(data):
    files = {}
    for name, build in (("masks", segmenter), ("boxes", detector), ("vector", embedder)):
        files[name] = Path(f"{name}.tflite")
        files[name].write_bytes(build())
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, SIDE, SIDE, 3)).astype(np.uint8)
    np.savez("five.npz", images=images, targets=random.random((8, 5)))
    np.savez("small.npz", images=images, masks=np.zeros((8, 4, 4), np.uint8))
    np.savez("many.npz", images=images, masks=np.full((8, SIDE, SIDE), 7, np.uint8))
    first = Path("squares/masks/000.png")
    boxes_outside = spoilt_boxes(Path("squares"), outside)
    boxes_unknown = spoilt_boxes(Path("squares"), of_many_classes, "unknown.json")
    cases = [
        ("vector", "five.npz", ("--task", "regression"), 7, "sample 0 has 5 targets"),
        ("vector", "squares", ("--task", "segmentation"), 2, "not segmentation"),
        ("masks", "small.npz", (), 7, "masks are uint8 [8, 4, 4]"),
        ("masks", "many.npz", (), 7, "has the class 7, and the model has 3 classes"),
        ("boxes", boxes_outside, (), 7, "annotation 3"),
        ("boxes", boxes_unknown, (), 7, "has the class 7, and the model has 2 classes"),
    ]
    for name, samples, options, code, message in cases:
        error = command(
            "evaluate",
            files[name],
            "--data",
            samples,
            "--input-range",
            "0,1",
            *options,
            code=code,
        )
        lines = [x for x in error.splitlines() if x.startswith("error: ")]
        assert len(lines) == 1 and message in lines[0], (name, samples, error)
    none = spoilt_boxes(Path("squares"), lambda content: content.update(images=[]))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(first)
    for name, samples, message in (("boxes", none, "has no images"), ("masks", "squares", "4 × 4")):
        error = command("evaluate", files[name], "--data", samples, "--input-range", "0,1", code=7)
        assert message in error
