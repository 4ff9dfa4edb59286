"""The zip file of a bundle: one content has one form, and every other form is refused by name."""

from __future__ import annotations

import io
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.steps import bundle_archive
from mobiledeploy.steps.bundle_archive import MANIFEST, BundleManifest, BundleMember, FileToPack

CONTENT = {"a/one.bin": b"\0\1" * 500, "a/one.bin.json": b"{}", "two.txt": b"two\n"}
NAMES = st.text("ab-_.0", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "bundle.zip"
    bundle_archive.write(path, CONTENT)
    return path


def extract(path):
    folder = path.parent / "out"
    folder.mkdir(exist_ok=True)
    return bundle_archive.extract(path, folder)


def manifest(contents):
    members = (
        BundleMember(name, records.sha256(data), len(data))
        for name, data in sorted(contents.items())
    )
    return records.dumps(BundleManifest(tuple(members))).encode()


def info(name, mode=stat.S_IFREG | 0o644, method=zipfile.ZIP_STORED):
    one = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    one.create_system, one.external_attr, one.compress_type = 3, mode << 16, method
    return one


def forged(path, *more, contents=CONTENT, listed=None):
    """A zip as of `write`, its manifest honest, and members more: (info, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in sorted(contents.items()):
            archive.writestr(info(name), data)
        for one, data in more:
            archive.writestr(one, data)
        archive.writestr(info(MANIFEST), manifest(contents if listed is None else listed))
    return path


def test_what_was_written_is_read(bundle):
    found, sha256 = extract(bundle)
    assert [m.name for m in found.members] == sorted(CONTENT)
    assert sha256 == records.sha256(bundle)
    for name, data in CONTENT.items():
        assert (bundle.parent / "out" / name).read_bytes() == data
    assert {p.name for p in bundle.parent.iterdir()} == {"bundle.zip", "out"}


def test_other_tools_read_it(bundle):
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*sorted(CONTENT), MANIFEST]


def test_the_forger_of_these_tests_can_write_a_sound_one(tmp_path, bundle):
    assert forged(tmp_path / "forged.zip").read_bytes() == bundle.read_bytes()


@settings(max_examples=12, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6), st.randoms())
def test_the_order_of_what_is_packed_changes_nothing(tmp_path_factory, contents, dice):
    folder = tmp_path_factory.mktemp("orders")
    shuffled = list(contents.items())
    random.Random(dice.random()).shuffle(shuffled)
    names = {f"x{name}": data for name, data in contents.items()}
    others = {f"x{name}": data for name, data in shuffled}
    bundle_archive.write(folder / "one.zip", names)
    bundle_archive.write(folder / "two.zip", others)
    assert (folder / "one.zip").read_bytes() == (folder / "two.zip").read_bytes()


def test_a_file_to_copy_is_as_its_content(tmp_path, bundle):
    file = tmp_path / "file"
    file.write_bytes(CONTENT["two.txt"])
    packed = FileToPack(file, records.sha256(file))
    bundle_archive.write(tmp_path / "copied.zip", CONTENT | {"two.txt": packed})
    assert (tmp_path / "copied.zip").read_bytes() == bundle.read_bytes()
    file.write_bytes(b"other")
    with pytest.raises(InputError, match="was changed while it was packed"):
        bundle_archive.write(tmp_path / "copied.zip", CONTENT | {"two.txt": packed})


def test_every_changed_byte_is_noticed(bundle):
    whole = bundle.read_bytes()
    dice = random.Random(0)
    # Mostly headers and the directory, since each member has a hash.
    places = dice.sample([n for n in range(len(whole)) if not 60 < n < 1000], 120)
    for place in (*places, 100, 999):
        changed = bytearray(whole)
        changed[place] ^= 1 << dice.randrange(8)
        bundle.write_bytes(changed)
        with pytest.raises(InputError):
            extract(bundle)


def test_every_truncation_is_noticed(bundle):
    whole = bundle.read_bytes()
    for length in range(0, len(whole), 37):
        bundle.write_bytes(whole[:length])
        with pytest.raises(InputError, match="does not end as a bundle does"):
            extract(bundle)


@pytest.mark.parametrize("more", [b"x", b"PK\5\6" + bytes(18)])
def test_more_bytes_are_noticed(bundle, more):
    bundle.write_bytes(bundle.read_bytes() + more)
    with pytest.raises(InputError, match=r"does not end as|another directory"):
        extract(bundle)


def test_bytes_before_it_are_noticed(bundle):
    bundle.write_bytes(b"#!/bin/sh\n" + bundle.read_bytes())
    with pytest.raises(InputError, match="another directory"):
        extract(bundle)


HOSTILE = {
    "leads out of the folder": (info("../evil"), b"x"),
    "member /etc/evil leads out": (info("/etc/evil"), b"x"),
    "a/../../evil leads out": (info("a/../../evil"), b"x"),
    "has a name that no bundle gives": (info("C:\\evil"), b"x"),
    "member a b has a name": (info("a b"), b"x"),
    "is a link": (info("link", stat.S_IFLNK | 0o777), b"/etc/passwd"),
    "is not a plain file of mode 644": (info("run", stat.S_IFREG | 0o755), b"x"),
    "member pipe is not a plain file": (info("pipe", stat.S_IFIFO | 0o644), b""),
    "is compressed": (info("bomb", method=zipfile.ZIP_DEFLATED), bytes(10_000_000)),
    "member two.txt is there twice": (info("two.txt"), b"other"),
    "member TWO.txt is there twice": (info("TWO.txt"), b"other"),
    "is a file and a folder": (info("two.txt/three"), b"x"),
    "member extra is not in MANIFEST.json": (info("extra"), b"x"),
}


@pytest.mark.parametrize("message", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_hostile_member_is_refused_by_name(message, tmp_path):
    path = forged(tmp_path / "hostile.zip", HOSTILE[message])
    with pytest.raises(InputError, match="hostile.zip") as caught:
        extract(path)
    assert message in str(caught.value)
    assert {p.name for p in tmp_path.rglob("*")} <= {"hostile.zip", "out"}


def test_a_missing_member_is_named(tmp_path):
    fewer = {name: data for name, data in CONTENT.items() if name != "two.txt"}
    path = forged(tmp_path / "b.zip", contents=fewer, listed=CONTENT)
    with pytest.raises(InputError, match=r"member two\.txt is missing"):
        extract(path)


def test_a_changed_member_is_named(tmp_path):
    path = forged(tmp_path / "b.zip", contents=CONTENT | {"two.txt": b"TWO\n"}, listed=CONTENT)
    with pytest.raises(InputError, match=r"member two\.txt was changed"):
        extract(path)


def test_a_crc_that_lies_is_noticed(bundle):
    whole = bundle.read_bytes()
    crc = struct.pack("<L", zipfile.crc32(CONTENT["two.txt"]))
    assert whole.count(crc) == 2
    bundle.write_bytes(whole.replace(crc, b"\1\2\3\4"))
    with pytest.raises(InputError, match=r"member two\.txt was changed or is damaged: Bad CRC"):
        extract(bundle)


def test_a_content_that_is_not_its_crc_is_noticed(bundle):
    whole = bundle.read_bytes()
    bundle.write_bytes(whole.replace(b"two\n", b"twO\n"))
    with pytest.raises(InputError, match=r"member two\.txt was changed or is damaged: Bad CRC"):
        extract(bundle)


def test_an_encrypted_member_is_named(bundle):
    whole = bytearray(bundle.read_bytes())
    # The flags of the first local header, and of the first entry of the directory.
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        whole[whole.index(header) + flags] |= 1
    bundle.write_bytes(whole)
    with pytest.raises(InputError, match=r"member a/one\.bin is encrypted"):
        extract(bundle)


def test_sizes_that_lie_are_refused_before_anything_is_read(bundle):
    whole = bundle.read_bytes()
    size = struct.pack("<LL", 1000, 1000)
    bundle.write_bytes(whole.replace(size, struct.pack("<LL", 1000, 1 << 30)))
    with pytest.raises(InputError, match=r"member a/one\.bin is compressed, or is of another size"):
        extract(bundle)
    bundle.write_bytes(whole.replace(size, struct.pack("<LL", 1 << 31, 1 << 31)))
    with pytest.raises(InputError, match=r"member a/one\.bin is too large"):
        extract(bundle)
    bundle.write_bytes(whole.replace(size, struct.pack("<LL", 1 << 20, 1 << 20)))
    with pytest.raises(InputError, match="its members are larger than the file"):
        extract(bundle)


def test_members_that_share_their_bytes_are_noticed(tmp_path):
    """A bomb without compression: many entries of the directory lead to one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(info("x0000"), bytes(100_000))
        first = archive.infolist()[0]
        for number in range(1, 100):
            again = info(f"x{number:04}")
            again.header_offset, again.CRC = first.header_offset, first.CRC
            again.file_size = again.compress_size = first.file_size
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    path = tmp_path / "bomb.zip"
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="its members are larger than the file"):
        extract(path)


def test_a_comment_is_refused(bundle):
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.comment = b"hello"
    with pytest.raises(InputError, match="does not end as a bundle does"):
        extract(bundle)


def test_another_time_is_noticed(tmp_path):
    one = info("two.txt")
    one.date_time = (2024, 1, 1, 0, 0, 0)
    rest = {name: data for name, data in CONTENT.items() if name != "two.txt"}
    path = forged(tmp_path / "b.zip", (one, CONTENT["two.txt"]), contents=rest, listed=CONTENT)
    with pytest.raises(InputError, match="was changed outside of its members"):
        extract(path)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (b"{}", "is not a record of BundleManifest"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (
            records.dumps(BundleManifest((BundleMember("two.txt", "", 1),) * 2)).encode(),
            "lists a member twice",
        ),
        (
            records.dumps(BundleManifest((BundleMember(MANIFEST, "", 1),))).encode(),
            "lists a member twice, or itself",
        ),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, listing, message):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info("two.txt"), b"two\n")
        archive.writestr(info(MANIFEST), listing)
    with pytest.raises(InputError, match=message):
        extract(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info("two.txt"), b"two\n")
    with pytest.raises(InputError, match=r"has no MANIFEST\.json, so it is no bundle"):
        extract(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all, but some text that is long"])
def test_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "no.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match="does not end as a bundle does"):
        extract(path)


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "", "a/./b", "ä", "x" * 300])
def test_a_name_that_could_not_be_read_is_not_written(tmp_path, name):
    with pytest.raises(InputError, match="cannot hold a file of the name"):
        bundle_archive.write(tmp_path / "b.zip", {name: b""})
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_bundle_that_fails(tmp_path):
    (tmp_path / "b.zip").write_bytes(b"before")
    with pytest.raises(InputError):
        bundle_archive.write(
            tmp_path / "b.zip", CONTENT | {"x": FileToPack(tmp_path / "nowhere", "")}
        )
    assert (tmp_path / "b.zip").read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["b.zip"]


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "b.zip").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        bundle_archive.write(tmp_path / "b.zip", CONTENT)


def test_a_large_file_is_read_within_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "FINISHED", 10)
    with pytest.raises(InputError, match="too large"):
        file = tmp_path / "file"
        file.write_bytes(bytes(11))
        bundle_archive.write(tmp_path / "b.zip", {"file": FileToPack(file, records.sha256(file))})


def test_a_name_for_a_member_is_plain():
    assert bundle_archive.plain("mobilenet_v1_0.25_96") == "mobilenet_v1_0.25_96"
    assert bundle_archive.plain("../Ünï code") == "n--code"
    assert bundle_archive.plain("...") == "model"
    assert Path(bundle_archive.plain("x" * 300)).name == "x" * 80
