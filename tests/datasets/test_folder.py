import io
import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.datasets import folder

RESOLUTION = (96, 96)


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def opened(path, split="all", labels=()):
    return folder.open(str(path), split, resolution=RESOLUTION, labels=labels)


def ids(samples):
    return [samples.id(index) for index in range(len(samples))]


def only(path, name, mode_or_bytes):
    """A data set of two classes with the given first image."""
    for class_name in ("a", "b"):
        (path / class_name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(path / class_name / "z.png")
    target = path / "a" / name
    if isinstance(mode_or_bytes, bytes):
        target.write_bytes(mode_or_bytes)
    else:
        mode_or_bytes.save(target)
    samples = opened(path)
    assert samples.id(0) == f"a/{name}"
    return samples


def test_class_folders_are_classes_in_order(photos):
    samples = opened(photos)
    assert samples.classes == ("cat", "dog")
    assert len(samples) == 20
    assert samples.id(0) == "cat/0.png"
    assert [samples.label(index) for index in range(20)] == [0] * 10 + [1] * 10
    assert samples.image(3).shape == (12, 16, 3)
    assert samples.image(3).dtype == np.uint8


def test_without_split_folders_the_parts_are_disjoint_and_stable(photos):
    calibration, validation = opened(photos, "calibration"), opened(photos, "validation")
    assert len(calibration) == 4
    assert len(validation) == 16
    assert not set(ids(calibration)) & set(ids(validation))
    assert ids(opened(photos, "calibration")) == ids(calibration)


def test_labels_give_the_index_by_first_word(photos):
    samples = opened(photos, labels=("bird x", "dog barks", "cat"))
    assert {samples.id(i).split("/")[0]: samples.label(i) for i in range(20)} == {
        "cat": 2,
        "dog": 1,
    }
    assert samples.classes == ("bird x", "dog barks", "cat")
    with pytest.raises(InputError, match=r"'dog'"):
        opened(photos, labels=("bird", "cat"))


def test_identity_is_of_names_contents_split_and_labels(photos, tmp_path_factory):
    first = opened(photos, "validation").identity
    copy = tmp_path_factory.mktemp("copy") / "elsewhere"
    shutil.copytree(photos, copy)
    assert opened(copy, "validation").identity == first
    assert opened(copy, "calibration").identity != first
    assert opened(copy, "validation", ("dog", "cat")).identity != first
    changes_ = copy / opened(copy, "validation").id(0)
    changes_.write_bytes(changes_.read_bytes() + b"\0")
    assert opened(copy, "validation").identity != first


def split_folders(path, *names):
    for name in names:
        for class_name in ("a", "b"):
            (path / name / class_name).mkdir(parents=True)
            for number in range(5):
                file = path / name / class_name / f"{number}.png"
                Image.new("RGB", (4, 4), (number, len(name), 0)).save(file)
    return path


def test_split_folders_are_the_splits(tmp_path):
    split_folders(tmp_path, "train", "val", "test", "calibration")
    for split, name in (("validation", "val"), ("train", "train"), ("test", "test")):
        samples = opened(tmp_path, split)
        assert len(samples) == 10
        assert {identifier.split("/")[0] for identifier in ids(samples)} == {name}
    assert len(opened(tmp_path, "all")) == 40
    assert opened(tmp_path, "all").classes == ("a", "b")


def test_calibration_comes_from_train_or_else_from_a_part_of_validation(tmp_path):
    both = split_folders(tmp_path / "both", "train", "validation")
    assert {i.split("/")[0] for i in ids(opened(both, "calibration"))} == {"train"}
    assert len(opened(both, "validation")) == 10
    alone = split_folders(tmp_path / "alone", "validation")
    calibration, validation = opened(alone, "calibration"), opened(alone, "validation")
    assert (len(calibration), len(validation)) == (2, 8)
    assert not set(ids(calibration)) & set(ids(validation))


def test_a_missing_split_is_an_error(tmp_path):
    split_folders(tmp_path, "train", "val")
    with pytest.raises(InputError, match=r"no images for test.*train, val"):
        opened(tmp_path, "test")
    split_folders(tmp_path, "validation")
    with pytest.raises(InputError, match=r"both val"):
        opened(tmp_path, "validation")


def test_a_class_named_as_a_split_beside_others_is_a_class(tmp_path):
    split_folders(tmp_path, "train")
    (tmp_path / "boat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "boat" / "0.png")
    assert opened(tmp_path).classes == ("boat", "train")


def test_a_folder_without_class_folders_has_no_labels(tmp_path):
    for name in ("b.png", "a.png", ".hidden.png", *(f"{n}.png" for n in range(8))):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    samples = opened(tmp_path)
    assert ids(samples) == [*(f"{n}.png" for n in range(8)), "a.png", "b.png"]
    assert {samples.annotation(i) for i in range(10)} == {Annotation()}
    assert samples.classes == ()
    assert opened(tmp_path, labels=("x", "y")).classes == ("x", "y")
    assert samples.image(0).shape == (4, 4, 3)
    calibration, validation = opened(tmp_path, "calibration"), opened(tmp_path, "validation")
    assert (len(calibration), len(validation)) == (2, 8)
    assert not set(ids(calibration)) & set(ids(validation))


def test_a_split_without_class_folders_has_no_labels(tmp_path):
    split_folders(tmp_path, "train")
    (tmp_path / "test").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "test" / "0.png")
    assert ids(opened(tmp_path, "test")) == ["test/0.png"]
    assert opened(tmp_path, "train").classes == ("a", "b")
    with pytest.raises(InputError, match=r"class folders in one split, and images without them"):
        opened(tmp_path, "all")


def test_an_empty_folder_and_images_beside_class_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither class folders nor images"):
        opened(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match=r"'cat'.*no JPEG or PNG"):
        opened(tmp_path)
    for number in range(5):
        Image.new("RGB", (4, 4)).save(tmp_path / "cat" / f"{number}.png")
    assert len(opened(tmp_path, "validation")) == 4
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(
        InputError, match=r"images \(x.png\) beside folders \(cat\).*into the folder"
    ):
        opened(tmp_path, "calibration")
    with pytest.raises(InputError, match=r"not a folder"):
        opened(tmp_path / "nowhere")


def test_images_beside_the_folders_of_splits_are_refused(tmp_path):
    split_folders(tmp_path, "train", "val")
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"images \(x.png\) beside folders \(train\)"):
        opened(tmp_path, "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("images/0.png", "all.json"), r"holds all.json beside the images; .*--data .*all.json"),
        (("images/0.png", "all.csv"), r"holds all.csv beside the images"),
        (
            ("train/images/0.png", "train/masks/0.png"),
            r"give the folder that holds images and masks",
        ),
    ],
)
def test_the_folder_of_another_kind_of_data_is_not_read_as_classes(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (4, 4)).save(tmp_path / name)
        else:
            (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        opened(tmp_path)


def test_hidden_files_are_left_out_and_deeper_images_are_not(photos):
    Image.new("RGB", (4, 4)).save(photos / "cat" / "._0.png")
    (photos / ".cache").mkdir()
    (photos / "cat" / "notes.txt").write_text("x")
    (photos / "cat" / "more").mkdir()
    Image.new("RGB", (4, 4)).save(photos / "cat" / "more" / "a.JPG")
    assert len(opened(photos)) == 21
    assert "cat/more/a.JPG" in ids(opened(photos))


def test_links_to_images_are_followed_and_loops_are_not(photos, tmp_path_factory):
    farm = tmp_path_factory.mktemp("farm")
    for name in ("cat", "dog"):
        (farm / name).mkdir()
    (farm / "cat" / "0.png").symlink_to(photos / "cat" / "0.png")
    (farm / "dog" / "again").symlink_to(farm, target_is_directory=True)
    (farm / "dog" / "1.png").symlink_to(photos / "dog" / "1.png")
    (farm / "dog" / "2.png").symlink_to(photos / "nowhere.png")
    samples = opened(farm)
    assert ids(samples) == ["cat/0.png", "dog/1.png", "dog/2.png"]
    assert samples.image(0).shape == (12, 16, 3)
    assert samples.identity
    with pytest.raises(BrokenImage, match=r"dog/2.png"):
        samples.image(2)


def test_a_pipe_does_not_hang(photos):
    os.mkfifo(photos / "cat" / "a.png")
    samples = opened(photos)
    index = ids(samples).index("cat/a.png")
    assert samples.identity
    with pytest.raises(BrokenImage, match=r"not a regular file"):
        samples.image(index)


def test_an_unreadable_class_folder_is_named(photos):
    if os.geteuid() == 0:
        pytest.skip("root reads every folder (run as another user)")
    (photos / "cat").chmod(0)
    with pytest.raises(InputError, match=r"cat cannot be read"):
        opened(photos)


def jpeg(size=(40, 30)):
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, I am text", "neither JPEG nor PNG"),
        (b"", "neither JPEG nor PNG"),
        (jpeg()[:400], "(?i:truncated)"),
        (b"GIF89a" + bytes(20), "neither"),
    ],
)
def test_a_broken_image_is_named(tmp_path, content, message):
    samples = only(tmp_path, "0.jpg", content)
    with pytest.raises(BrokenImage, match=f"a/0.jpg cannot be read.*({message})"):
        samples.image(0)
    assert samples.image(1).shape == (4, 4, 3)


def test_every_cut_of_a_png_is_broken_or_read(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((9, 9), 50).save(buffer, "PNG")
    whole = buffer.getvalue()
    samples = only(tmp_path, "0.png", whole)
    for length in range(len(whole)):
        (tmp_path / "a" / "0.png").write_bytes(whole[:length])
        try:
            assert samples.image(0).shape == (9, 9, 3)
        except BrokenImage:
            continue


def test_other_kinds_of_images_are_reported(tmp_path):
    samples = only(tmp_path, "0.webp", Image.new("RGB", (4, 4)))
    with pytest.raises(BrokenImage, match=r"webp file; JPEG and PNG"):
        samples.image(0)


def test_an_image_that_exhausts_memory_is_refused_before_decoding(tmp_path):
    def chunk(kind, body):
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    side = (30_000).to_bytes(4)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", side + side + b"\x08\x02\0\0\0")
    bomb += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    samples = only(tmp_path, "0.png", bomb)
    with pytest.raises(BrokenImage, match=r"bomb"):
        samples.image(0)


RED = (200, 10, 20)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("LA", (4, 4), (77, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (*RED, 255)), RED),
        (Image.new("RGBA", (4, 4), (*RED, 0)), (255, 255, 255)),
        (Image.new("RGB", (4, 4), RED).quantize(4), RED),
        (Image.fromarray(np.full((4, 4), 200 * 257, np.uint16)), (200, 200, 200)),
        (Image.fromarray(np.full((4, 4), 300, np.uint16)), (1, 1, 1)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, image, expected):
    samples = only(tmp_path, "0.png", image)
    pixels = samples.image(0)
    assert pixels.shape == (4, 4, 3)
    assert tuple(pixels[0, 0]) == expected


def test_cmyk_becomes_rgb(tmp_path):
    samples = only(tmp_path, "0.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)))
    red, green, blue = samples.image(0)[8, 8]
    assert red > 200
    assert max(green, blue) < 60


def test_photos_are_turned_upright_by_exif(tmp_path):
    image = Image.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.jpg", exif=exif, quality=95)
    pixels = opened(tmp_path).image(0)
    assert pixels.shape == (20, 10, 3)
    assert pixels[:8].min() > 200
    assert pixels[12:].max() < 50


def test_real_photographs_have_their_labels(real_data):
    labels = tuple((real_data / "imagenet" / "labels.txt").read_text().splitlines())
    samples = opened(real_data / "imagenet" / "images", "all", labels)
    assert len(samples) == 500
    rows = (real_data / "imagenet" / "labels.csv").read_text().splitlines()[1:]
    index_of = {row.split(",")[0]: int(row.split(",")[1]) for row in rows}
    assert {samples.id(i): samples.label(i) for i in range(500)} == index_of
