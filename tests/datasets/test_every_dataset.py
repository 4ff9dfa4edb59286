"""What holds for every data set of the shelf, whatever it reads."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.analysis import masks
from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import DATASETS, dataset
from mobiledeploy.core.types import Annotation, ModelInput

COUNT = 12
SIZE = (8, 10)
SPLITS = ("train", "held", "calibration", "validation", "test", "all")
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, *SIZE, 3), np.uint8)


def images(folder, names=None):
    for number, pixels in enumerate(PIXELS):
        path = folder / (names[number] if names else f"{number:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def class_folders(root):
    images(root, [f"{'ab'[number % 2]}/{number:02}.png" for number in range(COUNT)])
    return root


def flat_folder(root):
    images(root)
    return root


def labelled_archive(root):
    np.savez(root / "data.npz", images=PIXELS, labels=np.arange(COUNT) % 2)
    return root / "data.npz"


def full_archive(root):
    table = np.arange(COUNT * 80, dtype=np.uint8).reshape(COUNT, *SIZE) % 3
    marks = np.arange(COUNT * 2).reshape(COUNT, 2) % 3 == 0
    targets = np.arange(COUNT) / 7
    np.savez(root / "data.npz", x=PIXELS[..., :1], y=marks, targets=targets, masks=table)
    return root / "data.npz"


def mask_folder(root):
    images(root / "images")
    (root / "masks").mkdir()
    for number in range(COUNT):
        Image.fromarray(PIXELS[number, ..., 0] % 3).save(root / "masks" / f"{number:02}.png")
    return root


def coco_file(root):
    images(root / "images")
    listed = [{"id": n, "file_name": f"{n:02}.png"} for n in range(COUNT)]
    boxes = [
        {"image_id": n, "category_id": n % 2, "bbox": [n / 2, 1, 3, 4], "iscrowd": n % 3 == 0}
        for n in range(0, COUNT, 2)
    ]
    categories = [{"id": n, "name": "ab"[n]} for n in range(2)]
    tables = {"images": listed, "annotations": boxes, "categories": categories}
    (root / "data.json").write_text(json.dumps(tables))
    return root / "data.json"


def csv_file(root, columns, rows):
    images(root)
    with (root / "data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["image", *columns], *([f"{n:02}.png", *row] for n, row in enumerate(rows))]
        )
    return root / "data.csv"


def csv_of_labels(root):
    return csv_file(root, ["label"], [["ab"[n % 2]] for n in range(COUNT)])


def csv_of_targets(root):
    return csv_file(root, ["target"], [[n / 3] for n in range(COUNT)])


def csv_of_marks(root):
    return csv_file(root, ["a", "b"], [[n % 2, n % 3 % 2] for n in range(COUNT)])


MADE = {
    "folder": (class_folders, flat_folder),
    "npz": (labelled_archive, full_archive),
    "masks": (mask_folder,),
    "coco": (coco_file,),
    "table": (csv_of_labels, csv_of_targets, csv_of_marks),
}
CASES = [(name, make) for name, makers in MADE.items() for make in makers]
every_case = pytest.mark.parametrize(
    ("name", "make"), CASES, ids=[f"{name}-{make.__name__}" for name, make in CASES]
)
# The built-in images are drawn, and golden samples are files that mobiledeploy made.
OTHERS = {"golden", "scenes", "shapes"}


def test_every_data_set_is_tested():
    assert set(MADE) | OTHERS == set(DATASETS.names())


def opened(source, split="all", labels=()):
    return dataset(str(source)).open(str(source), split, resolution=(32, 32), labels=labels)


def ids(samples):
    return [samples.id(index) for index in range(len(samples))]


@every_case
def test_one_data_set_accepts_it(name, make, tmp_path):
    source = str(make(tmp_path))
    assert [n for n, plugin in DATASETS.each() if plugin.accepts(source)] == [name]


@every_case
def test_splits_are_parts_without_common_samples(name, make, tmp_path):
    source = make(tmp_path)
    everything = opened(source)
    assert len(everything) == len(set(ids(everything))) == COUNT
    parts = {split: ids(opened(source, split)) for split in SPLITS}
    for part in parts.values():
        assert part == [one for one in ids(everything) if one in part]
    for one, other in (("train", "held"), ("calibration", "validation"), ("calibration", "held")):
        assert parts[one]
        assert not set(parts[one]) & set(parts[other])
    assert sorted(parts["train"] + parts["held"]) == sorted(ids(everything))
    assert parts["test"] == parts["validation"]


@every_case
def test_a_sample_is_an_image_and_what_is_true_of_it(name, make, tmp_path):
    samples = opened(make(tmp_path))
    kinds = {len(samples.classes): None}
    for index in range(len(samples)):
        image, truth = samples.image(index), samples.annotation(index)
        assert image.dtype == np.uint8
        assert image.shape == (*SIZE, 3)
        assert samples.label(index) == truth.label
        assert -1 <= truth.label < max(len(samples.classes), 1)
        assert all(0 <= label < len(samples.classes) for label in truth.labels)
        assert all(0 <= x <= 1 for box in truth.boxes for x in box)
        assert truth.mask is None or masks.decode(truth.mask).shape == SIZE
        # Plain numbers, which can be stored and sent to another process.
        text = records.line(truth)
        assert records.loads(Annotation, text) == truth
        kinds[text] = None
    assert len(kinds) > 1


@every_case
def test_what_a_model_takes_besides_images_is_named(name, make, tmp_path):
    samples = opened(make(tmp_path))
    with pytest.raises(InputError, match=r"the model takes other \[3\].*npz"):
        samples.array(0, ModelInput("other", "tensor", (3,)))


@every_case
def test_the_identity_is_of_the_content_and_not_of_the_place(name, make, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    source = make(here)
    shutil.copytree(here, there)
    moved = there / source.relative_to(here)
    identities = {split: opened(source, split).identity for split in SPLITS}
    assert {split: opened(moved, split).identity for split in SPLITS} == identities
    assert len(set(identities.values())) == len(SPLITS)
    if source.suffix == ".npz":
        content = dict(np.load(source))
        changed = next(one for one in ("images", "x") if one in content)
        np.savez(moved, **content | {changed: 255 - content[changed]})
    else:
        path = sorted(there.rglob("*.png"))[0]
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert opened(moved).identity != identities["all"]


def change_folder(root: Path):
    (root / "a" / "00.png").rename(root / "b" / "00.png")


def change_archive(root: Path):
    content = dict(np.load(root / "data.npz"))
    name = next(one for one in ("targets", "labels") if one in content)
    np.savez(root / "data.npz", **content | {name: content[name][::-1]})


def change_mask(root: Path):
    path = root / "masks" / "03.png"
    Image.fromarray(2 - np.asarray(Image.open(path))).save(path)


def change_text(path: Path, old: str, new: str):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


CHANGES = {
    class_folders: change_folder,
    labelled_archive: change_archive,
    full_archive: change_archive,
    mask_folder: change_mask,
    coco_file: lambda root: change_text(root / "data.json", "[2.0, 1, 3, 4]", "[2.0, 1, 3, 5]"),
    csv_of_labels: lambda root: change_text(root / "data.csv", "03.png,b", "03.png,a"),
    csv_of_targets: lambda root: change_text(root / "data.csv", "03.png,1", "03.png,2"),
    csv_of_marks: lambda root: change_text(root / "data.csv", "03.png,1", "03.png,0"),
}


@pytest.mark.parametrize("make", CHANGES, ids=lambda make: make.__name__)
def test_the_identity_is_of_the_annotations_too(make, tmp_path):
    source = make(tmp_path)
    before = opened(source).identity
    CHANGES[make](tmp_path)
    assert opened(source).identity != before


@pytest.mark.parametrize("make", [class_folders, coco_file, csv_of_labels, csv_of_marks])
def test_the_classes_of_the_data_follow_the_labels(make, tmp_path):
    source = make(tmp_path)
    own, other = opened(source), opened(source, labels=("b", "a"))
    assert own.classes == ("a", "b")
    assert other.classes == ("b", "a")
    for index in range(COUNT):
        one, two = own.annotation(index), other.annotation(index)
        assert two.label == (one.label if one.label < 0 else 1 - one.label)
        assert sorted(two.labels) == sorted(1 - label for label in one.labels)
        assert two.boxes == one.boxes
    assert own.identity != other.identity
