"""Untrusted numpy archives are read or refused in one line, and never unpickled."""

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


def archive_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
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
    with arrays.open_archive(path, MOST) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    path = tmp_path / "a.npz"
    arrays_by_name = {
        "x": np.zeros((100, 100)),
        "y": np.array(["a", "bc"]),
        "z": np.int64(3),
        "e": np.eye(0),
    }
    save(path, **arrays_by_name)
    result = everything(path)
    assert result.keys() == arrays_by_name.keys()
    for name, values in arrays_by_name.items():
        np.testing.assert_array_equal(result[name], values)


HUGE = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%s,), }"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"readme.txt": b"hello"}, "'readme.txt', which is not an array"),
        ({"x": b"hello"}, "'x', which is not an array"),
        ({"x.npy": b"hello"}, "not a readable numpy archive"),
        ({"x.npy": b""}, "not a readable numpy archive"),
        ({"x.npy": npy(b"{'descr'")}, "not a readable numpy archive"),
        ({"x.npy": npy(b"(" * 9000)}, "not a readable numpy archive"),
        ({"x.npy": npy(b"'" * 3)}, "not a readable numpy archive"),
        ({"x.npy": npy(HUGE % b"10 ** 9")}, "not a readable numpy archive"),
        ({"x.npy": npy(HUGE % b"1000000000")}, "truncated"),
        ({"x.npy": npy(HUGE % b"-1", b"abc")}, "truncated"),
        ({"x.npy": npy(HUGE % b"0, " + b"9" * 30)}, "not a readable numpy archive"),
        ({"x.npy": npy(HUGE % (b"9" * 5000))}, "not a readable numpy archive"),
        ({"x.npy": npy(b"{'descr': 3, 'fortran_order': 0, 'shape': 7}")}, "not a readable"),
        ({"x.npy": array(np.array([print]))}, "not a readable numpy archive: Object arrays"),
    ],
)
def test_other_members_are_refused(tmp_path, members, message):
    with pytest.raises(InputError, match=message):
        everything(archive_of(tmp_path / "a.npz", members))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_methods_are_refused(tmp_path, method):
    path = archive_of(tmp_path / "a.npz", {"x.npy": array(np.zeros(9))}, method)
    with pytest.raises(InputError, match=r"x\.npy is compressed with an unknown method"):
        everything(path)


def test_an_unknown_method_and_an_encrypted_member_are_refused(tmp_path):
    path = archive_of(tmp_path / "a.npz", {"x.npy": array(np.zeros(9))})
    content = path.read_bytes()
    central = content.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):
        damaged_content = bytearray(content)
        damaged_content[central + offset] = value
        path.write_bytes(damaged_content)
        with pytest.raises(InputError, match="a.npz"):
            everything(path)


def test_a_member_that_claims_more_than_its_bytes_can_hold_is_refused(tmp_path):
    path = archive_of(tmp_path / "a.npz", {"x.npy": npy(HUGE % b"900000")})
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 1_000_000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated"):
        everything(path)


def test_an_archive_that_needs_too_much_memory_is_refused(tmp_path):
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
    with pytest.raises(InputError, match="which is not an array"):
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
    with suppress(InputError), arrays.read_archive(stream, "it", MOST) as archive:
        assert isinstance(archive["x"], np.ndarray)
