import io
import zipfile

import numpy as np
import pytest

from mobiledeploy.analysis import masks
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.preprocessing import sample_inputs
from mobiledeploy.core.types import Annotation, ModelInput, Preprocessing
from mobiledeploy.datasets import npz

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), np.uint8)
LABELS = np.arange(20) % 4
MASKS = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (20, 8, 6))


def tensor(name, shape, kind="tensor", dtype="float32"):
    return ModelInput(name, kind, shape, dtype=dtype)


def opened(path, split="all", labels=()):
    return npz.open(str(path), split, resolution=(96, 96), labels=labels)


def saved(path, **arrays):
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def test_images_and_labels_come_back(tmp_path):
    samples = opened(saved(tmp_path, images=IMAGES, labels=LABELS))
    assert len(samples) == 20
    assert samples.classes == ("0", "1", "2", "3")
    assert [samples.label(index) for index in range(20)] == LABELS.tolist()
    np.testing.assert_array_equal(samples.image(7), IMAGES[7])
    assert samples.id(7) == "7"


def test_parts_are_disjoint_and_share_one_array(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    calibration, validation = opened(path, "calibration"), opened(path, "validation")
    assert (len(calibration), len(validation)) == (4, 16)
    names = {s.id(i) for s in (calibration, validation) for i in range(len(s))}
    assert len(names) == 20
    assert calibration.identity != validation.identity
    assert np.shares_memory(opened(path, "all").image(int(calibration.id(0))), calibration.image(0))


def test_a_changed_file_is_read_again(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    first = opened(path).identity
    assert opened(path).identity == first
    saved(tmp_path, images=255 - IMAGES[:19], labels=LABELS[:19])
    assert opened(path).identity != first
    np.testing.assert_array_equal(opened(path).image(0), 255 - IMAGES[0])


def test_x_and_y_are_accepted_and_two_names_are_not(tmp_path):
    assert len(opened(saved(tmp_path, x=IMAGES, y=LABELS))) == 20
    with pytest.raises(InputError, match=r"images and x"):
        opened(saved(tmp_path, x=IMAGES, images=IMAGES, y=LABELS))
    with pytest.raises(InputError, match=r"labels and y"):
        opened(saved(tmp_path, x=IMAGES, labels=LABELS, y=LABELS))
    with pytest.raises(InputError, match=r"no images or x; it holds classes, labels"):
        opened(saved(tmp_path, classes=np.array(["a"]), labels=LABELS))


def test_class_names_are_matched_with_labels(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS % 2, classes=np.array(["cat", "dog"]))
    assert opened(path).classes == ("cat", "dog")
    samples = opened(path, labels=("dog", "bird", "cat"))
    assert [samples.label(0), samples.label(1)] == [2, 0]
    with pytest.raises(InputError, match=r"'dog'"):
        opened(path, labels=("bird", "cat"))


def test_labels_beyond_the_names_are_an_error(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    assert opened(path, labels=tuple("abcd")).classes == tuple("abcd")
    with pytest.raises(InputError, match=r"label 3, but there are 3 labels"):
        opened(path, labels=tuple("abc"))
    with pytest.raises(InputError, match=r"label 3, but names 2 classes"):
        opened(saved(tmp_path, images=IMAGES, labels=LABELS, classes=np.array(["a", "b"])))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"\[0, 8, 6, 3\]"),
        ({"images": np.uint8(3)}, r"one number of samples: images \[\]"),
        ({"labels": LABELS[:19]}, r"labels are int64 \[19\], not integer \[20\]"),
        ({"labels": np.where(LABELS, LABELS, np.nan)}, "float64.*targets"),
        ({"labels": np.eye(4)[LABELS] * 2}, "not all 0 or 1"),
        ({"labels": LABELS[:, None]}, r"\[20, 1\], not \[20\]; give labels\[:, 0\]"),
        ({"labels": LABELS[:, None, None]}, r"\[20, 1, 1\]"),
        ({"labels": LABELS - 1}, "from -1"),
        ({"labels": LABELS * 10**9}, "to 3000000000"),
        ({"labels": np.array(["a"] * 20)}, "<U1"),
        ({"classes": np.array(["a", "a", "b", "c"])}, "different names"),
        ({"classes": np.arange(4)}, "different names"),
        ({"images": np.array([object()] * 20)}, "pickle"),
        ({"targets": LABELS[:19] / 2}, r"targets are float64 \[19\], not numbers \[20\]"),
        ({"targets": np.where(LABELS, LABELS, np.nan)}, "targets hold NaN"),
        ({"targets": np.array(["a"] * 20)}, "<U1"),
        ({"targets": np.zeros((20, 0))}, r"\[20, 0\]"),
        ({"masks": MASKS / 2}, "masks are float64"),
        ({"masks": MASKS[:19]}, r"masks are uint8 \[19, 8, 6\], not integer \[20, H, W\]"),
        (
            {"masks": MASKS[:, :4]},
            r"masks are uint8 \[20, 4, 6\], and the images are \[20, 8, 6, 3\]",
        ),
        ({"masks": MASKS.astype(int) - 5}, "masks run from -5"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    path = saved(tmp_path, **({"images": IMAGES, "labels": LABELS} | arrays))
    with pytest.raises(InputError, match=message):
        opened(path)


def test_one_class_and_no_labels_are_possible(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS * 0)
    assert len(opened(path, "validation")) == 16
    samples = opened(saved(tmp_path, images=IMAGES), "validation")
    assert {samples.annotation(index) for index in range(16)} == {Annotation()}
    assert samples.classes == ()


@pytest.mark.parametrize("gray", [IMAGES[..., 0], IMAGES[..., :1]])
def test_gray_images_are_rgb(tmp_path, gray):
    samples = opened(saved(tmp_path, images=gray, labels=LABELS))
    np.testing.assert_array_equal(samples.image(3), IMAGES[3][..., [0, 0, 0]])


@pytest.mark.parametrize(
    "images", [IMAGES / 255, IMAGES[..., :2], IMAGES.astype(np.int64), IMAGES[:, 0, 0]]
)
def test_what_is_no_image_is_refused_when_a_model_takes_images(tmp_path, images):
    samples = opened(saved(tmp_path, images=images, labels=LABELS))
    with pytest.raises(InputError, match=r"images are .*, not uint8 \[N, H, W, 3\]; RGB pixels"):
        samples.image(0)


def test_several_inputs_have_arrays_of_their_names(tmp_path):
    wide = np.arange(40, dtype=np.float32).reshape(20, 2)
    path = saved(
        tmp_path, photo=IMAGES, depth=IMAGES[..., 0], age=LABELS, wide=wide, note=["a"] * 20
    )
    samples = opened(path, "calibration")
    place = int(samples.id(1))
    photo, depth = (tensor(name, (8, 6, 3), "image") for name in ("photo", "depth"))
    np.testing.assert_array_equal(samples.array(1, photo), IMAGES[place])
    np.testing.assert_array_equal(samples.array(1, depth), IMAGES[place][..., [0, 0, 0]])
    np.testing.assert_array_equal(samples.array(1, tensor("wide", (2,))), wide[place])
    np.testing.assert_array_equal(samples.array(1, tensor("age", (1,), dtype="int32")), [place % 4])
    assert samples.array(1, tensor("age", ())).shape == ()
    for end, message in (
        (tensor("wide", (3,)), r"has wide \[20, 2\], and the model takes \[3\]"),
        (
            tensor("other", (2,)),
            r"has the arrays age, depth, note, photo, wide, and the model takes",
        ),
        (tensor("note", ()), r"<U1 in note"),
        (tensor("wide", (8, 6, 3), "image"), r"wide are float32 \[20, 2\], not uint8"),
    ):
        with pytest.raises(InputError, match=message):
            samples.array(1, end)
    with pytest.raises(InputError, match=r"depth and photo|photo and depth"):
        samples.image(1)


def test_a_model_with_one_image_and_a_tensor_finds_both_by_what_they_are(tmp_path):
    path = saved(tmp_path, camera=IMAGES, age=LABELS / 2)
    image = ModelInput("serving_input", "image", (8, 6, 3), Preprocessing((0.0, 255.0)))
    found = sample_inputs(opened(path), 5, (image, tensor("age", (1,))))
    np.testing.assert_array_equal(found[0], IMAGES[5])
    np.testing.assert_array_equal(found[1], [LABELS[5] / 2])


@pytest.mark.parametrize("name", ["images", "x"])
def test_the_only_input_may_be_called_images(tmp_path, name):
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    samples = opened(saved(tmp_path, **{name: rows}))
    (found,) = sample_inputs(samples, 4, (tensor("dense_input", (3,)),))
    np.testing.assert_array_equal(found, rows[4])
    # Two inputs would both get it.
    with pytest.raises(InputError, match=r"the model takes a \[3\]"):
        sample_inputs(samples, 4, (tensor("a", (3,)), tensor("b", (3,))))


def test_numbers_that_a_model_cannot_take_are_refused(tmp_path):
    rows = np.full((20, 2), 0.5)
    rows[7, 1] = np.inf
    samples = opened(saved(tmp_path, x=rows))
    with pytest.raises(InputError, match=r"fractions in x, and the model takes int32"):
        samples.array(0, tensor("x", (2,), dtype="int32"))
    with pytest.raises(InputError, match=r"NaN or infinity in x of sample 7"):
        samples.array(7, tensor("x", (2,)))


def test_inputs_of_different_lengths_are_refused(tmp_path):
    path = saved(tmp_path, a=LABELS, b=LABELS[:19])
    with pytest.raises(InputError, match=r"one number of samples: a \[20\], b \[19\]"):
        opened(path)
    with pytest.raises(InputError, match=r"b \[19\], and the model takes \[\] for each of 20"):
        opened(saved(tmp_path, images=IMAGES, b=LABELS[:19])).array(0, tensor("b", ()))


def test_an_array_that_nobody_asks_for_is_not_read(tmp_path):
    path = saved(tmp_path, images=IMAGES, files=np.array([object()] * 20))
    samples = opened(path)
    assert samples.image(0).shape == (8, 6, 3)
    with pytest.raises(InputError, match=r"pickle"):
        samples.array(0, tensor("files", ()))


def test_targets_are_values(tmp_path):
    one = opened(saved(tmp_path, images=IMAGES, targets=LABELS / 4))
    assert one.annotation(3) == Annotation(values=(0.75,))
    two = opened(saved(tmp_path, images=IMAGES, targets=np.stack([LABELS, -LABELS], 1)))
    assert two.annotation(3) == Annotation(values=(3.0, -3.0))


def test_marks_of_classes_are_all_labels_and_follow_the_names(tmp_path):
    marks = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1]])[LABELS]
    samples = opened(saved(tmp_path, images=IMAGES, labels=marks))
    assert [samples.annotation(i).labels for i in range(4)] == [(1, 2), (2,), (), (0, 1, 2)]
    assert [samples.label(i) for i in range(4)] == [-1, 2, -1, -1]
    path = saved(tmp_path, images=IMAGES, labels=marks > 0, classes=np.array(["a", "b", "c"]))
    assert opened(path, labels=("c", "b", "x", "a")).annotation(0).labels == (0, 1)
    with pytest.raises(InputError, match=r"label 2, but there are 2 labels"):
        opened(saved(tmp_path, images=IMAGES, labels=marks), labels=("a", "b"))


@pytest.mark.parametrize("table", [MASKS, MASKS[..., None], MASKS.astype(np.int8)])
def test_masks_hold_classes_and_pixels_without_one(tmp_path, table):
    samples = opened(saved(tmp_path, images=IMAGES, masks=table))
    expected = np.where(MASKS[5] == 255, -1, MASKS[5].astype(int))
    np.testing.assert_array_equal(masks.decode(samples.annotation(5).mask), expected)
    assert samples.classes == ("0", "1", "2")


def test_classes_of_masks_follow_the_labels(tmp_path):
    path = saved(tmp_path, images=IMAGES, masks=MASKS, classes=np.array(["sky", "sea", "land"]))
    samples = opened(path, labels=("land", "sky", "sea"))
    expected = np.array([1, 2, 0, -1])[np.minimum(MASKS[5], 3)]
    np.testing.assert_array_equal(masks.decode(samples.annotation(5).mask), expected)
    with pytest.raises(InputError, match=r"label 2, but names 2 classes"):
        opened(saved(tmp_path, images=IMAGES, masks=MASKS, classes=np.array(["sky", "sea"])))


def test_one_image_cannot_be_split(tmp_path):
    path = saved(tmp_path, images=IMAGES[:1], labels=LABELS[:1])
    assert len(opened(path, "calibration")) == 1
    with pytest.raises(InputError, match=r"too few samples \(1\)"):
        opened(path, "validation")


def test_no_truncated_archive_is_accepted(tmp_path):
    whole = saved(tmp_path, images=IMAGES, labels=LABELS).read_bytes()
    path = tmp_path / "cut.npz"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut.npz"):
            opened(path)
    path.write_bytes(b"hello, I am text")
    with pytest.raises(InputError, match=r"cut.npz"):
        opened(path)
    with pytest.raises(InputError, match=r"nowhere.npz cannot be read"):
        opened(tmp_path / "nowhere.npz")


def test_damage_is_noticed(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"CRC"):
        opened(path)


def test_an_archive_that_inflates_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((100, 64, 64, 3), np.uint8), labels=np.zeros(100))
    monkeypatch.setattr(npz, "LARGEST_BYTES", 1 << 20)
    assert path.stat().st_size < npz.LARGEST_BYTES // 100
    with pytest.raises(InputError, match=r"more than .* of memory"):
        opened(path)


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**4, 3)}
    )
    path = tmp_path / "promise.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    with pytest.raises(InputError, match=r"promise.npz"):
        opened(path)


def test_real_images(real_data):
    samples = opened(real_data / "vww" / "images.npz", "validation")
    assert len(samples) == 400
    assert samples.image(0).shape == (96, 96, 3)
    assert samples.classes == ("0", "1")
