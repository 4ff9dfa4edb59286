import io
import zipfile

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.datasets import npz

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), np.uint8)
LABELS = np.arange(20) % 4


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
    with pytest.raises(InputError, match=r"no images or x; it holds labels, photos"):
        opened(saved(tmp_path, photos=IMAGES, labels=LABELS))


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
        ({"images": IMAGES[..., 0]}, r"uint8 \[20, 8, 6\], not uint8 \[N, H, W, 3\]"),
        ({"images": IMAGES[..., :1]}, r"\[20, 8, 6, 1\]"),
        ({"images": IMAGES / 255}, "float64"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"\[0, 8, 6, 3\]"),
        ({"labels": LABELS[:19]}, r"labels are int64 \[19\], not integer \[20\]"),
        ({"labels": np.where(LABELS, LABELS, np.nan)}, "float64"),
        ({"labels": np.eye(4)[LABELS]}, "labels"),
        ({"labels": LABELS - 1}, "from -1"),
        ({"labels": LABELS * 10**9}, "to 3000000000"),
        ({"labels": np.array(["a"] * 20)}, "<U1"),
        ({"classes": np.array(["a", "a", "b", "c"])}, "different names"),
        ({"classes": np.arange(4)}, "different names"),
        ({"images": np.array([object()] * 20)}, "pickle"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    path = saved(tmp_path, **({"images": IMAGES, "labels": LABELS} | arrays))
    with pytest.raises(InputError, match=message):
        opened(path)


def test_one_class_is_refused_for_evaluation(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS * 0)
    assert len(opened(path, "calibration")) == 4
    with pytest.raises(InputError, match=r"one class"):
        opened(path, "validation")


def test_one_image_cannot_be_split(tmp_path):
    path = saved(tmp_path, images=IMAGES[:1], labels=LABELS[:1])
    assert len(opened(path, "calibration")) == 1
    with pytest.raises(InputError, match=r"one class|too few"):
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
