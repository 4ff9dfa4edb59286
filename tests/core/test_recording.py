"""Recordings from elsewhere: what no bench writes is refused by its field."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mobiledeploy.core import recording, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.recording import BenchRequest, Pushed, Ran, Recording
from mobiledeploy.steps import resolve

ASKED = BenchRequest("adb:1", "native", None, 1, None, None, 2.0, fixed_performance=True)
SOUND = Recording(
    ASKED,
    (Pushed("a.tflite", "0" * 64, "/data/a"),),
    ({"cpu": "c"},),
    (0.0, 1.5),
    (True,),
    (Ran(("runner",), ("{}",), 0, ""),),
)


def written(folder: Path, **asked: Any) -> Path:
    path = folder / "session.json"
    made = dataclasses.replace(SOUND, asked=dataclasses.replace(ASKED, **asked))
    path.write_text(records.dumps(made))
    return path


def test_a_recording_is_read(tmp_path):
    path = written(tmp_path, runs=6, rounds=6)
    assert recording.read(path).clock == (0.0, 1.5)
    assert resolve.asked(resolve.resolve(f"replay:{path}"), None).runs == 6


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
def test_what_cannot_be_asked_is_refused(tmp_path, field, value):
    with pytest.raises(InputError, match=f"session.json: {field} cannot be so"):
        recording.read(written(tmp_path, **{field: value}))


@pytest.mark.parametrize("moment", ["null", "1e300", "-1e13"])
def test_a_clock_that_is_none_is_refused(tmp_path, moment):
    path = written(tmp_path)
    path.write_text(path.read_text().replace("1.5", moment))
    with pytest.raises(InputError, match="clock cannot be so"):
        recording.read(path)


@pytest.mark.parametrize("change", [{"runner": "../x"}, {"runner": ""}, {"runs": 5}])
def test_what_no_bench_asks_for_is_refused(tmp_path, change):
    path = written(tmp_path, **change)
    with pytest.raises(InputError, match="asks for what no bench does"):
        resolve.asked(resolve.resolve(f"replay:{path}"), None)
