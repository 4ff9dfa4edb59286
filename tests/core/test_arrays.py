"""Numpy archives from elsewhere: read, or refused in one line, and never unpickled."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import arrays
from mobiledeploy.core.errors import InputError

MOST = 1 << 20


def written(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(header: bytes, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def array(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


def everything(path: Path) -> dict[str, np.ndarray]:
    with arrays.opened(path, MOST) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    path = tmp_path / "a.npz"
    kept = {"x": np.zeros((100, 100)), "y": np.array(["a", "bc"]), "z": np.int64(3), "e": np.eye(0)}
    save(path, **kept)
    found = everything(path)
    assert found.keys() == kept.keys()
    for name, values in kept.items():
        np.testing.assert_array_equal(found[name], values)


HUGE = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%s,), }"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"readme.txt": b"hello"}, "'readme.txt', which is no array"),
        ({"x": b"hello"}, "'x', which is no array"),
        ({"x.npy": b"hello"}, "no readable numpy archive"),
        ({"x.npy": b""}, "no readable numpy archive"),
        ({"x.npy": npy(b"{'descr'")}, "no readable numpy archive"),
        ({"x.npy": npy(b"(" * 9000)}, "no readable numpy archive"),
        ({"x.npy": npy(b"'" * 3)}, "no readable numpy archive"),
        ({"x.npy": npy(HUGE % b"10 ** 9")}, "no readable numpy archive"),
        ({"x.npy": npy(HUGE % b"1000000000")}, "cut short"),
        ({"x.npy": npy(HUGE % b"-1", b"abc")}, "cut short"),
        ({"x.npy": npy(HUGE % b"0, " + b"9" * 30)}, "no readable numpy archive"),
        ({"x.npy": npy(HUGE % (b"9" * 5000))}, "no readable numpy archive"),
        ({"x.npy": npy(b"{'descr': 3, 'fortran_order': 0, 'shape': 7}")}, "no readable"),
        ({"x.npy": array(np.array([print]))}, "no readable numpy archive: Object arrays"),
    ],
)
def test_other_members_are_refused(tmp_path, members, said):
    with pytest.raises(InputError, match=said):
        everything(written(tmp_path / "a.npz", members))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_methods_are_refused(tmp_path, method):
    path = written(tmp_path / "a.npz", {"x.npy": array(np.zeros(9))}, method)
    with pytest.raises(InputError, match=r"x\.npy is packed by an unknown method"):
        everything(path)


def test_an_unknown_method_and_an_encrypted_member_are_refused(tmp_path):
    path = written(tmp_path / "a.npz", {"x.npy": array(np.zeros(9))})
    content = path.read_bytes()
    central = content.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):
        changed = bytearray(content)
        changed[central + offset] = value
        path.write_bytes(changed)
        with pytest.raises(InputError, match="a.npz"):
            everything(path)


def test_a_member_that_claims_more_than_can_be_in_it(tmp_path):
    path = written(tmp_path / "a.npz", {"x.npy": npy(HUGE % b"900000")})
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 1_000_000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cut short"):
        everything(path)


def test_what_would_take_too_much_memory_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(MOST), y=np.zeros(MOST))
    with pytest.raises(InputError, match="more than 1 MB of memory"):
        everything(path)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", array(np.zeros(2)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", array(np.ones(2)))
    with pytest.raises(InputError, match="which is no array of its own"):
        everything(path)


SOUND = array(np.arange(6, dtype=np.int16).reshape(2, 3))


@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=6))
def test_any_damage_is_an_array_or_one_line(changes):
    content = bytearray(SOUND)
    for place, value in changes:
        content[place] = value
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", bytes(content))
    with suppress(InputError), arrays.reading(stream, "it", MOST) as found:
        assert isinstance(found["x"], np.ndarray)
