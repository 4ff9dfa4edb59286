"""The encoder: what is written comes back equal, and what is damaged is refused by field."""

import dataclasses
import json
import os
import subprocess
import sys

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
