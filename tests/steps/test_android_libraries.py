"""Apps whose libraries fit all phones, some phones, or none."""

from __future__ import annotations

import struct
import time
import zipfile
from pathlib import Path

import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.steps import android_libraries
from tests import elves


def app(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def built(tmp_path: Path):
    """The bytes of a library: the options of `elves.write` -> bytes."""

    def build(alignment: int, **options) -> bytes:
        return elves.write(tmp_path / "built.so", alignment, **options).read_bytes()

    return build


def states(path: Path) -> dict[str, str]:
    return {one.name: one.state for one in android_libraries.check(path).libraries}


@pytest.mark.parametrize("suffix", ["apk", "aab", "aar"])
def test_an_app_is_judged_by_library(suffix: str, built, tmp_path: Path) -> None:
    folder = {"apk": "lib", "aab": "base/lib", "aar": "jni"}[suffix]
    members = {
        f"{folder}/arm64-v8a/libsmall.so": built(4096),
        f"{folder}/arm64-v8a/libgood.so": built(16384, needed="liblog.so"),
        f"{folder}/arm64-v8a/libfriend.so": built(65536, needed="libgood.so"),
        f"{folder}/arm64-v8a/liblost.so": built(16384, needed="libc.so.6"),
        # A phone of 32 bits has pages of 4 KB.
        f"{folder}/armeabi-v7a/libold.so": built(4096, machine=40),
        # The friend of another ABI is no help.
        f"{folder}/x86_64/libalone.so": built(16384, needed="libgood.so", machine=62),
        f"{folder}/arm64-v8a/readme.so": b"not a library",
        "assets/libelsewhere.so": built(4096),
    }
    result = android_libraries.check(app(tmp_path / f"a.{suffix}", members))
    assert {one.name.rpartition("/")[2]: one.state for one in result.libraries} == {
        "libsmall.so": "small-pages",
        "libgood.so": "ok",
        "libfriend.so": "ok",
        "liblost.so": "lacking",
        "libold.so": "ok",
        "libalone.so": "lacking",
    }
    fixes = {one.name.rpartition("/")[2]: one.fix for one in result.unfit}
    assert "-Wl,-z,max-page-size=16384" in fixes["libsmall.so"]
    assert fixes["liblost.so"].startswith("no libc.so.6 on Android")
    assert [one.page_bytes for one in result.libraries if "small" in one.name] == [4096]


def test_a_stored_library_begins_at_a_page(built, tmp_path: Path) -> None:
    name, library = "lib/arm64-v8a/liba.so", built(16384)
    path = app(tmp_path / "a.apk", {"x": b"1", name: library}, zipfile.ZIP_STORED)
    assert states(path) == {name: "misplaced"}
    # What zipalign does: the extra field before it is filled up.
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.extra = b"\0" * (16384 - 30 - len(name))
        archive.writestr(info, library)
    assert path.read_bytes()[16384 : 16384 + 4] == b"\x7fELF"
    assert states(path) == {name: "ok"}
    # A store packs an .aab anew.
    path = app(tmp_path / "a.aab", {f"base/{name}": library}, zipfile.ZIP_STORED)
    assert states(path) == {f"base/{name}": "ok"}


def test_a_folder_or_one_library(built, tmp_path: Path) -> None:
    folder = tmp_path / "app" / "arm64-v8a"
    folder.mkdir(parents=True)
    (folder / "liba.so").write_bytes(built(4096))
    assert states(tmp_path / "app") == {"arm64-v8a/liba.so": "small-pages"}
    assert states(folder / "liba.so") == {"liba.so": "small-pages"}
    (folder / "liba.so").unlink()
    assert states(tmp_path / "app") == {}


def test_other_files_and_damaged_ones_are_refused(built, tmp_path: Path) -> None:
    path = tmp_path / "a.apk"
    path.write_bytes(b"no zip file")
    with pytest.raises(InputError, match="a.apk is not a readable app: it is no zip file; name an"):
        android_libraries.check(path)
    with pytest.raises(InputError, match="no.apk"):
        android_libraries.check(tmp_path / "no.apk")
    app(path, {"lib/arm64-v8a/liba.so": built(4096)[:100]})
    with pytest.raises(InputError, match="lib/arm64-v8a/liba.so is a damaged ELF file"):
        android_libraries.check(path)
    content = app(path, {"lib/arm64-v8a/liba.so": built(4096)}).read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        # Whatever a byte says: an answer or a refusal, and nothing else.
        try:
            android_libraries.check(path)
        except InputError:
            continue


@pytest.mark.parametrize(
    "end",
    [
        b"PK\5\6" + b"\0" * 8 + b"\xff\xff\xff\x7f" + b"\0" * 6,
        # Its place looks like the start of another end.
        b"PK\5\6" + b"\0" * 8 + b"\xff\xff\xff\x7fPK\5\6\0\0",
        # The size that counts is that of the directory of a file above 4 GB.
        b"PK\6\7" + b"\0" * 16 + b"PK\5\6" + b"\0" * 18,
    ],
)
def test_a_directory_that_no_app_has_is_refused(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.apk"
    path.write_bytes(end)
    with pytest.raises(InputError, match="directory is too large"):
        android_libraries.check(path)


def test_a_library_that_names_many_is_expanded_once(tmp_path: Path) -> None:
    """Each of them would expand 16 MB again, which takes minutes."""
    names = b"\0" + b"".join(f"lib{i:05}.so\0".encode() for i in range(20_000))
    needed = b"".join(struct.pack("<qQ", 1, 1 + 12 * i) for i in range(20_000))
    dynamic = needed + struct.pack("<qQqQ", 5, 16 << 20, 0, 0)
    head = struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    size = 16 << 20
    end = size + len(names)
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, 16384)
    segments += struct.pack("<IIQQQQQQ", 2, 4, end, 0, 0, len(dynamic), len(dynamic), 8)
    content = (b"\x7fELF\2\1\1".ljust(16, b"\0") + head + segments).ljust(size, b"\0")
    path = app(
        tmp_path / "a.apk",
        {"lib/arm64-v8a/liba.so": content + names + dynamic},
    )
    start = time.monotonic()
    assert states(path) == {"lib/arm64-v8a/liba.so": "lacking"}
    assert time.monotonic() - start < 10
