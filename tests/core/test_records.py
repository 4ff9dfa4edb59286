"""The encoder: what is written comes back equal, and what is damaged is refused by field."""

import dataclasses
import json
import os
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Doubt,
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

# What a record holds: whole numbers of 64 bits.
st.register_type_strategy(int, st.integers(-(1 << 63), (1 << 63) - 1))

KINDS = (
    Artifact, DataRef, Doubt, Evaluation, Layer, Measured, ModelSpec, Overrides, Prediction,
    Preprocessing, Recipe, Tensor,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_record_survives_the_round_trip(kind, data):
    record = data.draw(st.from_type(kind).filter(lambda r: r == r))
    assert records.loads(kind, records.dumps(record)) == _without_infinities(record)
    assert records.loads(kind, records.line(record)) == _without_infinities(record)
    assert "\n" not in records.line(record)


def _without_infinities(value):
    """JSON knows neither NaN nor infinity: both come back as NaN, which equals nothing."""
    return _Loose(records.encode(value))


class _Loose:
    def __init__(self, encoded):
        self.encoded = encoded

    def __eq__(self, other):
        return json.dumps(self.encoded) == json.dumps(records.encode(other))


GOOD = records.dumps(Tensor("image", (1, 96, 96, 3), "int8", (0.5,), (-128,)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.pop("dtype"), "dtype"),
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d.update(shape="wide"), "shape"),
        (lambda d: d.update(shape=[1, "2"]), "shape"),
        (lambda d: d.update(axis=1.5), "axis"),
        (lambda d: d.update(schema_version=99), "99"),
        (lambda d: d.update(record="Doubt"), "Tensor"),
    ],
)
def test_a_damaged_record_is_refused_and_the_field_named(change, named):
    data = json.loads(GOOD)
    change(data)
    with pytest.raises(InputError, match=named):
        records.loads(Tensor, json.dumps(data))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1e999", "not a finite number"),
        ("-1e999", "not a finite number"),
        ("Infinity", "not a finite number"),
        ("NaN", "not a finite number"),
        ("1" + "0" * 400, "a number of so many digits is not a finite number"),
        ("1" + "0" * 5000, "not JSON"),
        ("[]", "a list is not of type float"),
        ('"x"', "'x' is not of type float"),
    ],
)
def test_a_number_that_is_none_is_refused(value, said):
    text = GOOD.replace("0.5", value)
    assert text != GOOD
    with pytest.raises(InputError, match=said):
        records.loads(Tensor, text, "the tensor")


@pytest.mark.parametrize("value", [str(1 << 63), str(-(1 << 63) - 1), "1" + "0" * 400])
@pytest.mark.parametrize("place", ["-128", "96"])
def test_more_than_64_bits_are_refused(value, place):
    with pytest.raises(InputError, match="so many digits has more than 64 bits"):
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


def test_null_stands_for_no_record_only_where_there_may_be_none():
    with pytest.raises(InputError, match="not a Measured"):
        records.decode(tuple[Measured | Recipe, ...], [None])
    assert records.decode(Measured | None, None) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_any_json_is_a_record_or_refused(kind, data):
    record = json.loads(records.dumps(data.draw(st.from_type(kind))))
    place: object = record
    # One value, at any depth, becomes any other.
    while isinstance(place, dict | list) and place:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    with suppress(InputError):
        found = records.loads(kind, json.dumps(record))
        assert records.loads(kind, records.dumps(found)) == _without_infinities(found)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"record": "Tensor"}', "[" * 100_000])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(InputError):
        records.loads(Tensor, text)


@pytest.mark.parametrize("wrong", [True, 1])
def test_a_bool_is_not_a_number_nor_a_number_a_name(wrong):
    data = json.loads(records.dumps(Doubt("a", "b")))
    data["name"] = wrong
    with pytest.raises(InputError, match="name"):
        records.loads(Doubt, json.dumps(data))


def test_write_atomic_replaces_whole_and_leaves_nothing_aside(tmp_path):
    path = tmp_path / "record.json"
    records.write_atomic(path, "first")
    records.write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["record.json"]


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
