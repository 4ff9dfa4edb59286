"""Untrusted recordings: the error names the field that no bench would write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mobiledeploy.core import recording, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.recording import BenchRequest, Pushed, Ran, Recording
from mobiledeploy.steps import resolve

REQUEST = BenchRequest("adb:1", "native", None, 1, None, None, 2.0, fixed_performance=True)
SOUND = Recording(
    REQUEST,
    (Pushed("a.tflite", "0" * 64, "/data/a"),),
    ({"cpu": "c"},),
    (0.0, 1.5),
    (True,),
    (Ran(("runner",), ("{}",), 0, ""),),
)


def recording_file(folder: Path, **settings: Any) -> Path:
    path = folder / "session.json"
    recording_ = dataclasses.replace(SOUND, asked=dataclasses.replace(REQUEST, **settings))
    path.write_text(records.dumps(recording_))
    return path


def test_a_recording_is_read(tmp_path):
    path = recording_file(tmp_path, runs=6)
    assert recording.read(path).clock == (0.0, 1.5)
    place = resolve.resolve(f"replay:{path}")
    assert resolve.bench_request(place, REQUEST).runs == 6
    # A block of a comparison is no timing, and there is no energy where none was read.
    turns, energy = (
        dataclasses.replace(REQUEST, **one) for one in ({"rounds": 6}, {"energy": True})
    )
    with pytest.raises(
        InputError, match="of bench, not of bench --compare; mobiledeploy bench --d"
    ):
        resolve.bench_request(place, turns)
    with pytest.raises(InputError, match="was recorded without --energy"):
        resolve.bench_request(place, energy)
    recording_file(tmp_path, rounds=6)
    assert resolve.bench_request(place, turns).rounds == 6
    with pytest.raises(InputError, match="is a recording of bench --compare, not of bench; "):
        resolve.bench_request(place, REQUEST)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 0),
        ("runs", 0),
        ("seconds", 0.0),
        ("seconds", float("nan")),
        ("seconds", -1.0),
        ("rounds", 0),
        ("rounds", 2**62),
    ],
)
def test_an_invalid_request_is_refused(tmp_path, field, value):
    with pytest.raises(InputError, match=f"session.json: {field} is not valid"):
        recording.read(recording_file(tmp_path, **{field: value}))


@pytest.mark.parametrize("moment", ["null", "1e300", "-1e13"])
def test_an_invalid_clock_is_refused(tmp_path, moment):
    path = recording_file(tmp_path)
    path.write_text(path.read_text().replace("1.5", moment))
    with pytest.raises(InputError, match="clock is not valid"):
        recording.read(path)


@pytest.mark.parametrize("change", [{"runner": "../x"}, {"runner": ""}, {"runs": 5}])
def test_a_request_that_no_bench_makes_is_refused(tmp_path, change):
    path = recording_file(tmp_path, **change)
    with pytest.raises(InputError, match="asks for what no bench does"):
        resolve.bench_request(resolve.resolve(f"replay:{path}"), REQUEST)
