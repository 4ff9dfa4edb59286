"""A command killed at a random moment, and given once more: whether it ends as an unbroken one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _watched
import h5py
import numpy as np
from _bad_inputs import EXPORT, NET, SWEEP, TRAIN, Case

from mobiledeploy.core import records
from mobiledeploy.store.database import Store

PATIENCE = 120.0
# An interrupt is answered at once.
_AT_ONCE = 10.0
_RECORDS = 2000
_SIGNALS = (signal.SIGKILL,) * 3 + (signal.SIGTERM, signal.SIGINT)
_STORE = Path(".mobiledeploy", "store.db")


@dataclass(frozen=True)
class Whole:
    """What an unbroken command came to: seconds, its result, and the paths that it left."""

    seconds: float
    result: Any
    paths: frozenset[str]


def _files(folder: Path) -> Any:
    made = folder / "made"
    return {
        str(path.relative_to(made)): records.sha256(path) for path in sorted(made.rglob("*.tflite"))
    }


def _training(folder: Path) -> Any:
    history = json.loads((folder / "made" / "run.json").read_text())["history"]
    arrays: dict[str, Any] = {}
    with h5py.File(folder / "made" / "weights.h5") as file:
        file.visititems(
            lambda name, node: (
                arrays.__setitem__(name, node[()]) if isinstance(node, h5py.Dataset) else None
            )
        )
    return {"epochs": len(history), **arrays}


def _imported(folder: Path) -> Any:
    with Store.open(folder / _STORE) as store:
        return sorted(store.dump())


def _verdict(folder: Path) -> Any:
    return (folder / "made.md").read_text()


def _readable(folder: Path) -> Any:
    with Store.open(folder / _STORE) as store:
        return bool(list(store.dump()))


COMMANDS: dict[str, tuple[tuple[str, ...], Callable[[Path], Any]]] = {
    "export": (EXPORT, _files),
    "train": (TRAIN, _training),
    "sweep": (SWEEP, _files),
    "bench": (("bench", NET, "--runs", "20"), _readable),
    "check": (
        (
            "check",
            NET,
            "--baseline",
            "baseline.json",
            "--on-inconclusive",
            "warn",
            "--markdown",
            "made.md",
        ),
        _verdict,
    ),
    "results import": (("results", "import", "many.jsonl"), _imported),
}
# Those with TensorFlow take ten times as long.
TURNS = (
    "export",
    "bench",
    "check",
    "results import",
    "train",
    "bench",
    "check",
    "results import",
    "sweep",
    "results import",
)


def unbroken(name: str, place: Path) -> Whole:
    """A command once, as nobody disturbs it."""
    own = place / f"whole-{name}"
    folder = _ready(name, place / "sound", own)
    began = time.monotonic()
    code = _ended(_start(name, own, place / "python"), PATIENCE)
    seconds = time.monotonic() - began
    _watched.sweep()
    if code != 0:
        raise RuntimeError(f"{name} ended in {code}: {(own / 'said').read_text()[-2000:]}")
    whole = Whole(seconds, COMMANDS[name][1](folder), _paths(own))
    _watched.remove(own)
    return whole


def kill(seed: int, number: int, place: Path, whole: dict[str, Whole]) -> tuple[str, str, float]:
    """Kill `number` of `seed`: the command, what was wrong afterwards, and seconds of both runs."""
    dice = random.Random(f"{seed}/kill/{number}")
    name = TURNS[number % len(TURNS)]
    own = place / f"kill-{number}"
    folder = _ready(name, place / "sound", own)
    began = time.monotonic()
    try:
        wrong = _broken(name, own, place / "python", dice, whole[name])
        if not wrong:
            wrong = _again(name, own, folder, place / "python", whole[name])
    finally:
        _watched.remove(own)
    return name, wrong, time.monotonic() - began


def _broken(name: str, place: Path, python: Path, dice: random.Random, whole: Whole) -> str:
    number = dice.choice(_SIGNALS)
    moment = dice.uniform(0, 1.05 * whole.seconds)
    said = f"{number.name} after {moment:.2f} s"
    began = time.monotonic()
    pid = _start(name, place, python)
    ended = None
    while ended is None and time.monotonic() < began + moment:
        found, status = os.waitpid(pid, os.WNOHANG)
        ended = os.waitstatus_to_exitcode(status) if found else None
        time.sleep(0.002)
    if ended is None:
        os.kill(pid, number)
        ended = _ended(pid, _AT_ONCE)
    left = _watched.sweep(_AT_ONCE)
    if left:
        return f"{said}: processes left: {left}"
    # Before the program has begun to listen, a signal just ends it.
    if ended not in (0, -number, *((130,) if number != signal.SIGKILL else ())):
        return f"{said}: ended in {ended}: {(place / 'said').read_text()[-500:]}"
    return ""


def _again(name: str, place: Path, folder: Path, python: Path, whole: Whole) -> str:
    code = _ended(_start(name, place, python), PATIENCE)
    left = _watched.sweep()
    if code or left:
        return f"again: ended in {code}, {left} left: {(place / 'said').read_text()[-1000:]}"
    try:
        result = COMMANDS[name][1](folder)
    except (OSError, ValueError) as error:
        return f"again: no result: {error}"
    if not _same(result, whole.result):
        return f"another result: {str(result)[:300]}, not {str(whole.result)[:300]}"
    different = _paths(place) ^ whole.paths
    return f"files: {sorted(different)[:20]}" if different else ""


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        # Threads add in any order.
        return np.allclose(one, other, rtol=1e-2, atol=1e-4)
    return bool(one == other)


def _start(name: str, place: Path, python: Path) -> int:
    with (place / "said").open("wb") as said:
        case = Case(name, list(COMMANDS[name][0]), whole=True)
        return _watched.start(case, place, python, said.fileno())


def _ready(name: str, sound: Path, place: Path) -> Path:
    folder = _watched.place_for(sound, place)
    if name == "results import":
        lines = (folder / "results.jsonl").read_text().splitlines()
        timed = min((line for line in lines if '"Measured"' in line), key=len)
        moments = (
            re.sub(
                r'"made_at":\s*"[^"]*"',
                f'"made_at":"2026-01-01T00:{n // 60:02}:{n % 60:02}.000+00:00"',
                timed,
                count=1,
            )
            for n in range(_RECORDS)
        )
        (folder / "many.jsonl").write_text("\n".join((*lines, *moments)) + "\n")
    return folder


def _paths(place: Path) -> frozenset[str]:
    """What lies there. Names of TensorBoard's files tell the time; each run has its own."""
    return frozenset(
        re.sub(r"events\.out\.tfevents\..*", "events", path) for path in _watched.snapshot(place)
    )


def _ended(pid: int, patience: float) -> int | None:
    """Its exit code; None, and it is killed, where it takes longer."""
    until = time.monotonic() + patience
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.005)
