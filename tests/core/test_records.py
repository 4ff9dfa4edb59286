"""The encoder: a record that was written is read back equal.

The error for a damaged one names the field.
"""

import dataclasses
import json
import os
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Evaluation,
    Layer,
    Measured,
    ModelSpec,
    NamedWarning,
    Prediction,
    Preprocessing,
    Recipe,
    Tensor,
)
from mobiledeploy.steps.arguments import Overrides

# What a record holds: whole numbers of 64 bits.
st.register_type_strategy(int, st.integers(-(1 << 63), (1 << 63) - 1))

KINDS = (
    Artifact,
    DataRef,
    NamedWarning,
    Evaluation,
    Layer,
    Measured,
    ModelSpec,
    Overrides,
    Prediction,
    Preprocessing,
    Recipe,
    Tensor,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_every_record_survives_the_round_trip(kind, data):
    record = data.draw(st.from_type(kind).filter(lambda r: r == r))
    assert records.loads(kind, records.dumps(record)) == _without_infinities(record)
    assert records.loads(kind, records.line(record)) == _without_infinities(record)
    assert "\n" not in records.line(record)


def _without_infinities(value):
    """JSON has neither NaN nor infinity: both come back as NaN, which equals nothing."""
    return _Loose(records.encode(value))


class _Loose:
    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        return json.dumps(self.content) == json.dumps(records.encode(other))


GOOD = records.dumps(Tensor("image", (1, 96, 96, 3), "int8", (0.5,), (-128,)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda d: d.pop("dtype"), "dtype"),
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d.update(shape="wide"), "shape"),
        (lambda d: d.update(shape=[1, "2"]), "shape"),
        (lambda d: d.update(axis=1.5), "axis"),
        (lambda d: d.update(schema_version=99), "99"),
        (lambda d: d.update(record="NamedWarning"), "Tensor"),
    ],
)
def test_a_damaged_record_is_refused_and_the_field_named(change, field):
    data = json.loads(GOOD)
    change(data)
    with pytest.raises(InputError, match=field):
        records.loads(Tensor, json.dumps(data))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e999", "not a finite number"),
        ("-1e999", "not a finite number"),
        ("Infinity", "not a finite number"),
        ("NaN", "not a finite number"),
        ("1" + "0" * 400, "a number of too many digits is not a finite number"),
        ("1" + "0" * 5000, "not JSON"),
        ("[]", "a list is not of type float"),
        ('"x"', "'x' is not of type float"),
    ],
)
def test_an_invalid_number_is_refused(value, message):
    text = GOOD.replace("0.5", value)
    assert text != GOOD
    with pytest.raises(InputError, match=message):
        records.loads(Tensor, text, "the tensor")


@pytest.mark.parametrize("value", [str(1 << 63), str(-(1 << 63) - 1), "1" + "0" * 400])
@pytest.mark.parametrize("place", ["-128", "96"])
def test_more_than_64_bits_are_refused(value, place):
    with pytest.raises(InputError, match="too many digits has more than 64 bits"):
        records.loads(Tensor, GOOD.replace(place, value, 1))


@pytest.mark.parametrize("half", [r"\ud800", r"\udfff", r"x\ud83dy"])
def test_half_of_a_surrogate_pair_is_refused(half):
    with pytest.raises(InputError, match="half of a surrogate pair"):
        records.loads(Tensor, GOOD.replace("image", half))
    with pytest.raises(InputError, match="half of a surrogate pair"):
        records.loads(
            DataRef, records.dumps(DataRef("x", "all", (1, 1), ("a",))).replace('"a"', f'"{half}"')
        )


def test_the_bytes_of_a_name_come_back():
    ref = DataRef("\udcff/caf\u00e9 \U0001f600", "all", (1, 1))
    assert records.loads(DataRef, records.dumps(ref)) == ref


def test_null_is_accepted_only_for_an_optional_record():
    with pytest.raises(InputError, match="not a Measured"):
        records.decode(tuple[Measured | Recipe, ...], [None])
    assert records.decode(Measured | None, None) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_any_json_is_a_record_or_refused(kind, data):
    record = json.loads(records.dumps(data.draw(st.from_type(kind))))
    place: object = record
    # One value at any depth is replaced by another.
    while isinstance(place, dict | list) and place:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    with suppress(InputError):
        result = records.loads(kind, json.dumps(record))
        assert records.loads(kind, records.dumps(result)) == _without_infinities(result)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"record": "Tensor"}', "[" * 100_000])
def test_json_that_is_not_a_record_is_refused(text):
    with pytest.raises(InputError):
        records.loads(Tensor, text)


@pytest.mark.parametrize("wrong", [True, 1])
def test_a_bool_is_not_a_number_nor_a_number_a_name(wrong):
    data = json.loads(records.dumps(NamedWarning("a", "b")))
    data["name"] = wrong
    with pytest.raises(InputError, match="name"):
        records.loads(NamedWarning, json.dumps(data))


def test_write_atomic_replaces_the_whole_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "record.json"
    records.write_atomic(path, "first")
    records.write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_link_is_followed_and_stays(tmp_path):
    """A relative link into another folder, to an existing file and to a new one."""
    (tmp_path / "far").mkdir()
    link = tmp_path / "record.json"
    link.symlink_to("far/kept.json")
    for content in ("first", "second"):
        records.write_atomic(link, content)
        assert link.is_symlink()
        assert (tmp_path / "far" / "kept.json").read_text() == content
    assert os.listdir(tmp_path / "far") == ["kept.json"]
    assert sorted(os.listdir(tmp_path)) == ["far", "record.json"]


def test_a_file_keeps_its_mode_and_everyone_can_read_a_new_one(tmp_path):
    private, new = tmp_path / "private", tmp_path / "new"
    private.touch(0o600)
    for path in (private, new):
        records.write_atomic(path, "x")
    assert [path.stat().st_mode & 0o777 for path in (private, new)] == [0o600, 0o644]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away (run as root)")
def test_a_file_keeps_its_owner(tmp_path):
    path = tmp_path / "theirs"
    path.touch()
    os.chown(path, 12345, 54321)
    records.write_atomic(path, "x")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_a_pipe_takes_the_bytes_and_stays_a_pipe(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
            records.write_atomic(path, "said")
            assert reader.communicate()[0] == b"said"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_a_device_takes_the_bytes_and_stays_a_device(tmp_path):
    """On our own terminal; any program may write to its name in /dev."""
    master, slave = os.openpty()
    name = Path(os.ttyname(slave))
    link = tmp_path / "link"
    link.symlink_to(name)
    try:
        for path in (name, link):
            records.write_atomic(path, "said")
            assert os.read(master, 4) == b"said"
        assert stat.S_ISCHR(name.stat().st_mode)
    finally:
        os.close(master)
        os.close(slave)


def test_a_reader_of_standard_output_may_leave():
    program = (
        "from pathlib import Path; from mobiledeploy.core import records;"
        "records.write_atomic(Path('/dev/stdout'), 'x' * (1 << 20))"
    )
    line = f'"{sys.executable}" -c "{program}" | true; exit ${{PIPESTATUS[0]}}'
    process = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/fd/1", "link"])
def test_standard_output_that_is_a_file_continues_at_its_position(path, tmp_path):
    """As after the shell's `>> log`: nothing before or after the output is lost."""
    log = tmp_path / "log"
    log.write_text("before\n")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "import sys, pathlib\nfrom mobiledeploy.core import records\n"
        "records.write_atomic(pathlib.Path(sys.argv[1]), 'written\\n')\nprint('after')"
    )
    with log.open("a") as stream:
        argv = [sys.executable, "-c", code, str(tmp_path / path)]
        subprocess.run(argv, stdout=stream, check=True)
    assert log.read_text() == "before\nwritten\nafter\n"
    assert sorted(os.listdir(tmp_path)) == ["link", "log"]


@pytest.mark.parametrize("place", ["/dev/full", "loop", "missing/file", "."])
def test_a_path_that_cannot_be_written_is_a_usage_error(place, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="cannot write"):
        records.write_atomic(tmp_path / place, "x")
    assert os.listdir(tmp_path) == ["loop"]


def test_a_finished_file_is_put_where_a_link_leads(tmp_path):
    source, link = tmp_path / "made", tmp_path / "link"
    source.write_text("x")
    link.symlink_to("target")
    records.put(source, link)
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_finished_file_is_put_on_another_disk(tmp_path):
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other disk (pytest --basetemp=FOLDER, on another one)")
    source, link = tmp_path / "made", tmp_path / "link"
    source.write_text("x")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as far:
        link.symlink_to(Path(far) / "target")
        records.put(source, link)
        assert (Path(far) / "target").read_text() == "x"
    assert os.listdir(tmp_path) == ["link"]


def test_a_finished_file_is_not_put_over_a_pipe(tmp_path):
    source, pipe = tmp_path / "made", tmp_path / "pipe"
    source.write_text("x")
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is not a regular file"):
        records.put(source, pipe)
    assert source.read_text() == "x"


def test_a_place_is_refused_before_the_work(tmp_path):
    records.need_folder(tmp_path / "new.json")
    (tmp_path / "link").symlink_to("no/where")
    for place, message in (("no/new", "no folder"), ("link", "no folder"), (".", "is a folder")):
        with pytest.raises(UsageError, match=message):
            records.need_folder(tmp_path / place)


def test_a_folder_that_is_a_file_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        records.write_atomic(tmp_path / "file" / "record.json", "x")


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "record.json"
    records.write_atomic(path, "0" * 1_000_000)
    loop = (
        "import sys, pathlib\n"
        "from mobiledeploy.core import records\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    records.write_atomic(pathlib.Path(sys.argv[1]), str(n % 10) * 1_000_000)\n"
        "    if n == 3: print('started', flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", loop, str(path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout.readline() == b"started\n"
            writer.kill()
        content = path.read_text()
        assert len(content) == 1_000_000
        assert len(set(content)) == 1


def test_records_are_frozen():
    for kind in KINDS:
        assert kind.__dataclass_params__.frozen, kind
        assert dataclasses.is_dataclass(kind)
