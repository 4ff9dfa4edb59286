from __future__ import annotations

import base64
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.analysis import pareto
from mobiledeploy.analysis.choice import Bounded
from mobiledeploy.core import artifacts
from mobiledeploy.core.types import Answers, Artifact, Evaluation, Prediction
from mobiledeploy.steps import runtimes, sweep_limits
from mobiledeploy.steps.sweep_limits import DroppedCell, SweepLimits, SweepSieve, TimedFile
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import sweep
from tests import figures

IMAGES = 400
FRONT = SweepLimits(keep_front=True)


@pytest.fixture
def path(exported) -> Path:
    return exported["float32", "tflite"]


@pytest.fixture
def fast(exported) -> Path:
    """Another file."""
    return exported["float16", "tflite"]


@pytest.fixture
def artifact(path) -> Artifact:
    return artifacts.load(path)


@pytest.fixture
def latency(path, here, monkeypatch) -> Bounded:
    """What a card of this machine tells of the file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    figures.write_card(path)
    known = sweep_limits.KnownLatency("host")
    bounded = known.of_file(path, artifacts.load(path))
    assert 0 < bounded.low < bounded.value < bounded.high < math.inf
    return bounded


def judged(sha: str, right: int, identity: str = "id") -> Evaluation:
    """An evaluation of which the first images are right."""
    predictions = tuple(
        Prediction(str(n), 1, (1, 0) if n < right else (0, 1), (0.9, 0.1)) for n in range(IMAGES)
    )
    one = figures.evaluation(sha, right / IMAGES)
    data = dataclasses.replace(one.data, identity=identity)
    if identity != "id":
        predictions = tuple(dataclasses.replace(p, sample=f"x{p.sample}") for p in predictions)
    return dataclasses.replace(one, images=IMAGES, predictions=predictions, data=data)


def time(path: Path, ns: float, right: int = 300, identity: str = "id", **change: object) -> None:
    """Keeps a timing of a file, and how many images it has right."""
    artifact = artifacts.load(path)
    timing = dataclasses.replace(figures.HOST, **change)
    version = runtimes.runtime_version("litert")
    figures.keep(
        artifact,
        judged(artifact.sha256, right, identity),
        figures.measured(artifact.sha256, round(ns), target=timing, runtime_version=version),
    )


def decide(path: Path, artifact: Artifact, limits: SweepLimits = FRONT) -> DroppedCell | None:
    """For the grid of the files in the folder of `path`."""
    shas = [artifacts.load(file).sha256 for file in path.parent.glob("*.tflite")]
    return SweepSieve(limits, ["host"], 6).timing(path, artifact, "host", shas)


def test_a_timing_that_another_file_surely_beats_is_dropped_and_told(
    path, fast, artifact, latency, heard
) -> None:
    figures.keep(artifact, judged(artifact.sha256, 200))
    time(fast, latency.value / 2)
    standing = {str(file): artifacts.load(file).sha256 for file in (path, fast)}
    sieve = SweepSieve(FRONT, ["host"], 6)
    failed, dropped = sweep._figures(standing, ["host"], sieve, heard)
    assert failed == []
    (one,) = dropped
    assert (one.what, one.device, one.by) == (str(path), "host", "front")
    assert one.excluded_by == standing[str(fast)]
    assert "float16.tflite is faster" in one.why
    assert f"dropped: {path} on host: {one.why}" in heard.said
    with Store.open() as store:
        assert store.measurements_of(artifact.sha256) == ()


def test_a_damaged_file_costs_that_file_only(
    path, fast, artifact, latency, heard, tmp_path
) -> None:
    figures.keep(artifact, judged(artifact.sha256, 200))
    time(fast, latency.value / 2)
    standing = {str(file): artifacts.load(file).sha256 for file in (path, fast)}
    other = tmp_path / "other.tflite"
    other.write_bytes(b"none")
    standing = {str(other): "0" * 64} | standing
    sieve = SweepSieve(FRONT, ["host"], 6)
    failed, dropped = sweep._figures(standing, ["host"], sieve, heard)
    assert [one.what for one in failed] == [str(other)]
    assert [one.what for one in dropped] == [str(path)]


@pytest.mark.parametrize(
    ("change", "limits"),
    [
        # By the figure alone it would be slower, but its interval overlaps.
        ({"share": 0.97}, FRONT),
        # The images do not tell which is better.
        ({"right": 206}, FRONT),
        ({"identity": "other"}, FRONT),
        ({"threads": 4}, FRONT),
        ({"runtime": "tflite_runtime"}, FRONT),
        # What is over a limit is on no front itself.
        ({}, SweepLimits(size_bytes=999, keep_front=True)),
        ({}, SweepLimits(latency_ns=1e12)),
    ],
)
def test_what_is_not_sure_is_timed(path, fast, artifact, latency, change, limits) -> None:
    if limits.size_bytes:
        artifact = dataclasses.replace(artifact, size_bytes=500)
    figures.keep(artifact, judged(artifact.sha256, 200))
    time(fast, latency.value * change.pop("share", 0.5), **change)
    assert decide(path, artifact, limits) is None


def test_only_points_of_the_same_version_stand_for_a_timing(path, fast, artifact, latency) -> None:
    figures.keep(artifact, judged(artifact.sha256, 200))
    time(fast, latency.value / 2)
    assert decide(path, artifact) is not None
    figures.write_card(path, version="1.0")
    assert decide(path, artifact) is None


def test_a_limit_drops_by_the_whole_interval(path, artifact, latency) -> None:
    under = SweepLimits(latency_ns=latency.low * 0.7)
    drop = decide(path, artifact, under)
    assert drop is not None
    assert (drop.by, drop.excluded_by) == ("latency", "")
    # The estimate is over this one, and its interval is not.
    assert decide(path, artifact, SweepLimits(latency_ns=latency.value * 0.99)) is None
    # The interval of a single comparison is over this one, that of all comparisons is not.
    assert decide(path, artifact, SweepLimits(latency_ns=latency.low * 0.999)) is None
    large = decide(path, artifact, SweepLimits(size_bytes=artifact.size_bytes - 1))
    assert large is not None
    assert large.by == "size"
    assert decide(path, artifact, SweepLimits(size_bytes=artifact.size_bytes)) is None


def test_a_resumed_sweep_drops_the_same_while_the_other_file_stands(
    path, fast, artifact, latency
) -> None:
    figures.keep(artifact, judged(artifact.sha256, 200))
    time(fast, latency.value / 2)
    sieve = SweepSieve(FRONT, ["host"], 6)
    both = [artifact.sha256, artifacts.load(fast).sha256]
    drop = sieve.timing(path, artifact, "host", both)
    assert drop is not None
    sieve.keep(drop)
    # Another timing would decide otherwise.
    time(fast, latency.value * 2)
    assert decide(path, artifact) == drop
    # Another grid, or the file alone, is another question.
    assert SweepSieve(FRONT, ["host"], 7).timing(path, artifact, "host", both) is None
    sieve = SweepSieve(FRONT, ["host"], 6)
    assert sieve.timing(path, artifact, "host", [artifact.sha256]) is None


def test_other_points_decide_anew(path, artifact, latency) -> None:
    limits = SweepLimits(latency_ns=latency.low * 0.7)
    sieve = SweepSieve(limits, ["host"], 6)
    drop = sieve.timing(path, artifact, "host", [])
    assert drop is not None
    sieve.keep(drop)
    assert decide(path, artifact, limits) == drop
    figures.write_card(path, version="1.0")
    assert decide(path, artifact, limits) is None


def test_what_cannot_be_dropped_is_said(path, here, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    (line,) = SweepSieve(FRONT, ["host"], 6).gaps()
    assert line.startswith("latencies on host are not known before they are measured")
    for limits in (SweepLimits(), SweepLimits(size_bytes=9)):
        assert list(SweepSieve(limits, ["host"], 6).gaps()) == []
    (line,) = SweepSieve(FRONT, ["pixel-3"], 6).gaps()
    assert line.startswith("pixel-3 is estimated, which takes no time")
    assert list(SweepSieve(SweepLimits(latency_ns=9.0), ["pixel-3"], 6).gaps()) == []


def test_nothing_of_the_front_is_dropped(here) -> None:
    """Sweeps with known truth: accuracies and latencies that estimates and images only hint at."""
    dice, files, wrong, drops = np.random.default_rng(1), 12, 0, 0
    for _ in range(20):
        latency = np.exp(dice.uniform(math.log(2e6), math.log(4e7), files))
        truth = np.clip(0.2 + 0.1 * np.log(latency / 1e6) + dice.normal(0, 0.1, files), 0.05, 0.95)
        right = dice.random((files, IMAGES)) < truth[:, None]
        estimates = latency * np.exp(dice.normal(0, 0.06, files))
        reach = math.exp(1.96 * 0.06)
        sieve = SweepSieve(FRONT, ["host"], files)
        timed: list[TimedFile] = []
        dropped: set[int] = set()
        for index in map(int, np.argsort(estimates)):
            sha = f"{index:064x}"
            one = figures.artifact(sha)
            sieve._known_answers[sha] = _answers(sha, right[index])
            ns = float(estimates[index])
            bounds = Bounded(ns, ns / reach, ns * reach)
            drop = sieve._dominated(Path("x"), one, "host", bounds, timed)
            if drop is not None:
                dropped.add(index)
                continue
            own = float(latency[index])
            timed.append(TimedFile("x", sha, Bounded(own, own, own), _answers(sha, right[index])))
        points = list(zip(latency, right.mean(axis=1), strict=True))
        wrong += bool(dropped & set(pareto.front(points)))
        drops += len(dropped)
    assert drops > 20
    assert wrong <= 1


def _answers(sha: str, right: np.ndarray) -> Answers:
    bits = base64.b64encode(np.packbits(right).tobytes()).decode()
    return Answers(sha, "s", len(right), bits)
