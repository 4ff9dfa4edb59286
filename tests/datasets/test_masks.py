import numpy as np
import pytest
from PIL import Image

from mobiledeploy.analysis import masks as runs
from mobiledeploy.core.errors import BrokenImage, InputError
from mobiledeploy.datasets import masks

TABLE = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (10, 6, 8))


@pytest.fixture
def pairs(tmp_path):
    """Ten photographs with gray masks of three classes."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, table in enumerate(TABLE):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / "images" / f"{number}.jpg")
        Image.fromarray(table).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def opened(path, split="all", labels=()):
    return masks.open(str(path), split, resolution=(96, 96), labels=labels)


def decoded(samples, index):
    return runs.decode(samples.annotation(index).mask)


def expected(index, places=(0, 1, 2, -1)):
    return np.array(places)[np.minimum(TABLE[index], 3)]


def test_images_come_with_the_mask_of_their_name(pairs):
    samples = opened(pairs)
    assert [samples.id(i) for i in range(10)] == [f"{number}.jpg" for number in range(10)]
    assert samples.image(7).shape == (6, 8, 3)
    assert samples.label(7) == -1
    assert samples.classes == ()
    for index in range(10):
        np.testing.assert_array_equal(decoded(samples, index), expected(index))


@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_other_kinds_of_png_hold_indices_too(pairs, mode):
    if mode == "P":
        mask = Image.fromarray(TABLE[0])
        mask.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
        assert mask.mode == "P"
    else:
        mask = Image.fromarray(TABLE[0].astype(np.uint16))
    mask.save(pairs / "masks" / "0.png")
    np.testing.assert_array_equal(decoded(opened(pairs), 0), expected(0))


def test_a_mask_of_one_bit_has_two_classes(pairs):
    Image.fromarray(TABLE[0] == 1).save(pairs / "masks" / "0.png")
    np.testing.assert_array_equal(decoded(opened(pairs), 0), TABLE[0] == 1)


@pytest.mark.parametrize("name", ["classes.txt", "labels.txt"])
def test_names_of_classes_are_matched_with_the_labels(pairs, name):
    (pairs / name).write_text("0 sky\n1 sea\n2 land\n")
    assert opened(pairs).classes == ("sky", "sea", "land")
    samples = opened(pairs, labels=("land", "ship", "sky", "sea"))
    np.testing.assert_array_equal(decoded(samples, 3), expected(3, (2, 3, 0, -1)))
    with pytest.raises(InputError, match=r"'land'"):
        opened(pairs, labels=("sea", "sky"))


def test_a_class_without_a_name_is_named(pairs):
    (pairs / "classes.txt").write_text("sky\nsea\n")
    for labels in ((), ("sea", "sky")):
        with pytest.raises(InputError, match=r"masks/0.png has class 2, but there are 2 names"):
            opened(pairs, labels=labels).annotation(0)
    (pairs / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"has class 2, but there are 2 names"):
        opened(pairs, labels=("sea", "sky")).annotation(0)
    (pairs / "classes.txt").write_text("sky\nsky\n")
    with pytest.raises(InputError, match=r"classes.txt does not name classes"):
        opened(pairs)
    (pairs / "labels.txt").write_text("sky\nsea\n")
    with pytest.raises(InputError, match=r"has classes.txt and labels.txt"):
        opened(pairs)


def test_a_mask_of_another_size_is_refused(pairs):
    Image.fromarray(TABLE[0][:5]).save(pairs / "masks" / "4.png")
    with pytest.raises(InputError, match=r"4.png has the size 5 × 8 and its image 6 × 8"):
        opened(pairs)


def test_a_turned_photograph_has_the_size_that_it_is_shown_at(pairs):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.new("RGB", (6, 8)).save(pairs / "images" / "0.jpg", exif=exif)
    assert opened(pairs).image(0).shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("folder", "what"),
    [("images", r"1 of 10 files have no image: .*3.png"), ("masks", r"no mask: .*3.jpg")],
)
def test_an_image_or_a_mask_alone_is_refused(pairs, folder, what):
    next((pairs / folder).glob("3.*")).unlink()
    with pytest.raises(InputError, match=what):
        opened(pairs)


def test_other_files_are_refused(pairs):
    (pairs / "masks" / "0.png").unlink()
    Image.fromarray(TABLE[0]).save(pairs / "masks" / "0.jpg")
    with pytest.raises(InputError, match=r"0.jpg is no PNG; other formats change the classes"):
        opened(pairs)
    (pairs / "images" / "0.png").touch()
    with pytest.raises(InputError, match=r"0.jpg and 0.png have one name"):
        opened(pairs)
    (pairs / "images" / "more").mkdir()
    with pytest.raises(InputError, match=r"images holds the folder more"):
        opened(pairs)


def test_a_coloured_and_a_broken_mask_are_named(pairs):
    # A mask before them shows that the data are not black and white, so they are not decoded yet.
    Image.new("RGB", (8, 6)).save(pairs / "masks" / "5.png")
    (pairs / "masks" / "6.png").write_bytes((pairs / "masks" / "7.png").read_bytes()[:60])
    samples = opened(pairs)
    for index, message in ((5, r"5.png is a PNG of colours \(RGB\)"), (6, r"6.png cannot be read")):
        with pytest.raises(InputError, match=message) as refused:
            samples.annotation(index)
        assert not isinstance(refused.value, BrokenImage)


def test_black_and_white_masks_are_refused_with_advice(pairs):
    for number in range(10):
        Image.fromarray((TABLE[number] == 1) * np.uint8(255)).save(
            pairs / "masks" / f"{number}.png"
        )
    with pytest.raises(InputError, match=r"0 and 255 only.*save class 1 as 1, not as white"):
        opened(pairs)


def test_nothing_to_open(tmp_path):
    assert not masks.accepts(str(tmp_path))
    with pytest.raises(InputError, match=r"no folders images and masks"):
        opened(tmp_path)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    assert masks.accepts(str(tmp_path))
    with pytest.raises(InputError, match=r"images holds no JPEG or PNG image"):
        opened(tmp_path)


def test_every_cut_of_a_mask_is_refused_or_read(pairs):
    # The masks before it show that the data are not black and white.
    path = pairs / "masks" / "9.png"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            assert decoded(opened(pairs), 9).shape == (6, 8)
        except InputError:
            continue
