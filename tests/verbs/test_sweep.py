from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import gate, pareto
from mobiledeploy.cli import main
from mobiledeploy.core import artifacts, device_cards, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Answers, DataRef, Evaluation, Failure, Prediction
from mobiledeploy.steps import child_process, export_files, sweep_job
from mobiledeploy.steps.sweep_limits import SweepLimits
from mobiledeploy.verbs import sweep
from tests import warm
from tests.figures import artifact, evaluation, keep, measured


def cli(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", "sweep", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=900,
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    kept = pareto.front(points)
    best = {points[i] for i in kept}

    def dominated(p: tuple[int, int]) -> bool:
        return any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)

    assert best == {p for p in points if not dominated(p)}
    assert len(best) == len(kept)
    assert [points[i] for i in kept] == sorted(best)


def right_of(right: int, sha: str = "") -> Answers:
    """Answers to 100 images of which the first are right."""
    bits = np.packbits([n < right for n in range(100)])
    return Answers(sha or str(right), "s", 100, base64.b64encode(bits.tobytes()).decode())


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        # (cost, images of 100 that are named rightly), and what is on the front.
        ([(1, 66), (1, 67)], [1, 0]),
        ([(1, 67), (1, 66)], [0, 1]),
        ([(1, 50), (1, 67)], [1]),
        # Cheaper ones are as good as the tie, or a little worse.
        ([(0, 66), (1, 66), (1, 67)], [0, 2]),
        ([(0, 65), (1, 66), (1, 67)], [0, 2, 1]),
        # What costs more and is less accurate is on no front, though it ties.
        ([(1, 67), (2, 66)], [0]),
        ([(1, 67), (2, 66), (2, 90), (3, 89)], [0, 2]),
    ],
)
def test_of_equal_cost_neither_of_a_tie_dominates(
    points: list[tuple[int, int]], kept: list[int]
) -> None:
    known = [right_of(right) for _, right in points]
    assert list(pareto.front(points, known.__getitem__)) == kept
    assert len({points[i][0] for i in pareto.front(points)}) == len(pareto.front(points))


def test_two_of_the_same_accuracy_tie_and_one_artifact_does_not_tie_with_itself() -> None:
    twice = [(1, 66), (1, 66)]
    assert pareto.front(twice, [right_of(66, "a"), right_of(66, "b")].__getitem__) == (0, 1)
    assert pareto.front(twice, [right_of(66, "a"), right_of(66, "a")].__getitem__) == (0,)
    # Answers to other images are no pairs.
    other = dataclasses.replace(right_of(66, "b"), samples="others")
    assert pareto.front(twice, [right_of(66, "a"), other].__getitem__) == (0,)


def test_each_of_a_front_is_held_against_the_best_of_its_own_cost_or_the_cost_before() -> None:
    assert pareto.beside([1, 2, 2, 2, 3]) == (None, 0, 1, 1, 1)
    assert pareto.beside([1, 1, 2]) == (None, 0, 0)
    along = [right_of(50), right_of(67), right_of(66), right_of(90)]
    values = [g and round(g.value, 9) for g in pareto.gains(along, [1, 2, 2, 3])]
    assert values == [None, 0.17, -0.01, 0.23]
    assert [g and g.tie for g in pareto.gains(along, [1, 2, 2, 3])] == [None, False, True, False]


def test_the_plan_names_what_is_impossible_and_does_nothing(here: Path) -> None:
    result = cli("--alpha", "0.25,0.5", "--res", "64,7", "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    jobs = {row["what"]: row for row in json.loads(result.stdout)["jobs"]}
    assert {what: row["state"] for what, row in jobs.items()} == {
        "mobilenet_v1 0.25 64": "to do",
        "mobilenet_v1 0.25 7": "impossible",
        "mobilenet_v1 0.5 64": "to do",
        "mobilenet_v1 0.5 7": "impossible",
    }
    assert "resolution 7" in jobs["mobilenet_v1 0.25 7"]["why"]
    assert list(here.iterdir()) == []


def states(**options: object) -> dict[str, tuple[str, str]]:
    swept = sweep.sweep(
        alpha=(0.25, 1.0),
        res=(128, 224),
        format="tflite",
        weights="random",
        dry_run=True,
        reporter=SILENT,
        **options,
    )
    by_what = {drop.what: drop for drop in swept.dropped}
    for job in swept.jobs:
        assert (job.state == "dropped") == (job.what in by_what)
        if job.what in by_what:
            assert by_what.pop(job.what).why == job.why
    assert by_what == {}
    return {job.what.removeprefix("mobilenet_v1 "): (job.state, job.why) for job in swept.jobs}


def test_a_limit_drops_networks_before_their_export(here: Path) -> None:
    slow = states(device="pixel-3", max_latency=8.0)
    assert {what for what, (state, _) in slow.items() if state == "dropped"} == {"1.0 224"}
    # The fastest of its files decides.
    _, why = slow["1.0 224"]
    line = re.fullmatch(
        r"int8_best.tflite takes an estimated (\S+) ms "
        r"\((\S+) ms to \S+ ms\) on pixel-3, over 8 ms",
        why,
    )
    assert line is not None
    value, low = float(line[1]), float(line[2])
    # The estimate is over this limit, and its interval is not.
    between = states(device="pixel-3", max_latency=(value + low) / 2)
    assert between["1.0 224"][0] == "to do"
    large = states(device=(), max_size=2_000_000)
    assert {what for what, (state, _) in large.items() if state == "dropped"} == {
        "1.0 128",
        "1.0 224",
    }
    # No accuracy is known before the export.
    assert {state for state, _ in states(device="pixel-3", keep_front=True).values()} == {"to do"}
    # Nothing is known of this machine.
    assert {state for state, _ in states(max_latency=0.001).values()} == {"to do"}
    assert list(here.iterdir()) == []


def test_fronts_show_what_may_be_within_the_limits(here: Path) -> None:
    names = "abc"
    keep(*(artifact(n * 64) for n in names))
    keep(*(judged_on(n * 64, right, 100) for n, right in zip(names, (60, 70, 90), strict=True)))
    keep(*(measured(n * 64, ns) for n, ns in zip(names, (1000, 2000, 3000), strict=True)))

    def shown(limits: SweepLimits, slow: str = "") -> dict[str, str]:
        found = sweep.fronts({n * 64 for n in names}, limits, [n * 64 for n in slow])
        return {f.kind: "".join(r.artifact_sha256[0] for r in f.results) for f in found}

    assert shown(SweepLimits()) == {"measured": "abc", "size": "c"}
    # Of one size, the most accurate that is fast enough.
    assert shown(SweepLimits(latency_ns=2000.0)) == {"measured": "ab", "size": "b"}
    # An end of the interval is within it.
    assert shown(SweepLimits(latency_ns=1999.5)) == {"measured": "ab", "size": "b"}
    assert shown(SweepLimits(latency_ns=1998.5)) == {"measured": "a", "size": "a"}
    assert shown(SweepLimits(size_bytes=999)) == {}
    # What was not timed because it is too slow.
    keep(artifact("d" * 64), judged_on("d" * 64, 99, 100))
    names = "abcd"
    assert shown(SweepLimits(latency_ns=2000.0), "d") == {"measured": "ab", "size": "b"}
    assert shown(SweepLimits(latency_ns=2000.0)) == {"measured": "ab", "size": "d"}


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan])
def test_a_limit_that_is_none_is_refused(here: Path, limit: float) -> None:
    with pytest.raises(UsageError, match="is no limit"):
        sweep.sweep(max_latency=limit, dry_run=True)


def test_a_device_that_is_not_there_ends_in_5(here: Path) -> None:
    result = cli("--device", "moon")
    assert result.returncode == 5
    assert result.stderr.startswith("error: no phone moon is connected")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--alpha", ","), "the grid is empty: --alpha"),
        (("--arch", ""), "the grid is empty: --arch"),
        (("--alpha", "wide"), "is not comma-separated floats"),
        (("--res", "7"), "no cell of the grid is possible"),
        (("--recipe", "int7"), "no recipes named"),
        (("--executor", "cloud"), "no executor"),
        (("--ray-address", "a:1"), "goes with --executor ray"),
        (("--max-latency", "10"), "is not a time"),
        (("--max-latency", "10ms", "--device", ""), "--max-latency needs a device"),
        (("--keep-front", "--device", ""), "--keep-front needs a device"),
    ],
)
def test_a_refusal_is_one_line(here: Path, argv, message) -> None:
    result = cli(*argv)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line


def test_a_device_is_known_by_the_name_that_its_figures_bear(here: Path) -> None:
    assert sweep._name("pixel") == device_cards.matching("pixel").name != "pixel"
    assert sweep._name("host") == "host"
    assert sweep._name("nokia-3310") == "nokia-3310"


def test_workers_share_the_cores() -> None:
    cores = [0, 1, 4, 5, 8]
    shares = [sweep_job.share(cores, worker, 2) for worker in range(2)]
    assert shares == [{0, 1}, {4, 5}]
    assert sweep_job.share([3], 5, 8) == {3}
    assert sweep_job.share(cores, 0, 1) == set(cores)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_job_that_is_killed_is_an_answer(here: Path, monkeypatch, number) -> None:
    # The process that the job runs in, as the system would find it.
    monkeypatch.setattr(child_process, "INTERPRETER", (str(here / "python"),))
    (here / "python").write_text(f"#!/bin/sh\nkill -{int(number)} $$\n")
    (here / "python").chmod(0o755)
    order = sweep_job.SweepJob("mobilenet_v1", 0.25, None, 64, ("float32",), None, None, None, 1)
    failure = records.loads(Failure, sweep_job.work(records.line(order), 0))
    killed = number == signal.SIGKILL
    assert ("killed by signal 9" if killed else "crashed (SIGSEGV)") in failure.message
    assert failure.exit_code == (5 if killed else 70)
    assert ("fewer --jobs" in failure.hint) == killed


def test_what_failed_is_a_line_of_error(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(child_process, "INTERPRETER", (str(here / "python"),))
    (here / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (here / "python").chmod(0o755)
    argv = ["sweep", "--alpha", "0.25", "--res", "64", "--recipe", "float32", "--device", "", "-q"]
    result = CliRunner().invoke(main.cli, argv)
    assert result.exit_code == 5
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: mobilenet_v1 0.25 64: its process was killed by signal 9")


def test_what_a_job_left_that_died_with_its_worker_is_swept(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(child_process, "INTERPRETER", ("/bin/false",))
    monkeypatch.setattr(tempfile, "tempdir", str(here / "tmp"))
    order = records.line(
        sweep_job.SweepJob("mobilenet_v1", 0.25, None, 64, ("float32",), None, None, None, 1)
    )
    sweep_job.work(order, 0)
    remaining = here / "tmp" / f".{sweep_job._FOLDER}.abc.staging"
    remaining.mkdir(parents=True)
    (remaining / "lock").touch()
    (remaining / "store.db").touch()
    sweep_job.work(order, 0)
    assert not remaining.exists()


def test_an_answer_cannot_leave_its_folder(here: Path) -> None:
    order = sweep_job.SweepJob("mobilenet_v1", 0.25, None, 64, ("float32",), None, None, None, 1)
    for name in ("../evil", "/tmp/evil-of-a-sweep"):
        made = sweep_job.JobResult("key", {name: ""}, (), (), ())
        with pytest.raises(Exception, match="not below"):
            sweep._take(order, records.line(made), here / "build")
    assert not (here / "evil").exists()


def test_an_answer_follows_no_link_out_of_its_folder(here: Path) -> None:
    order = sweep_job.SweepJob("mobilenet_v1", 0.25, None, 64, ("float32",), None, None, None, 1)
    folder = export_files.folder(order.config(here / "build"))
    folder.mkdir(parents=True)
    (folder / "file").symlink_to(here / "evil")
    content = base64.b85encode(zlib.compress(b"x")).decode()
    made = sweep_job.JobResult("key", {"aside/file": content}, (), (), ())
    with pytest.raises(InputError, match="not below"):
        sweep._take(order, records.line(made), here / "build")
    assert not (here / "evil").exists()


def test_what_was_judged_on_other_images_has_a_front_of_its_own(here: Path) -> None:
    def judged(sha: str, top1: float, source: str, identity: str) -> Evaluation:
        data = DataRef(source, "validation", (8, 8), (), identity)
        return dataclasses.replace(evaluation(sha, top1), data=data)

    names = "abcd"
    keep(*(artifact(n * 64) for n in names), *(measured(n * 64, 1000 + ord(n)) for n in names))
    keep(
        judged("a" * 64, 0.6, "demo", "at 64"),
        judged("b" * 64, 0.7, "demo", "at 96"),
        judged("c" * 64, 0.1, "my/photos", "1" * 64),
        judged("d" * 64, 0.9, "photos", "2" * 64),
    )
    found = sweep.fronts({n * 64 for n in names})
    assert [(f.kind, f.images, [r.artifact_sha256[0] for r in f.results]) for f in found] == [
        ("measured", "demo validation", ["a", "b"]),
        ("measured", "photos 11111111", ["c"]),
        ("measured", "photos 22222222", ["d"]),
        ("size", "demo validation", ["b", "a"]),
        ("size", "photos 11111111", ["c"]),
        ("size", "photos 22222222", ["d"]),
    ]


def judged_on(sha: str, right: int, of: int) -> Evaluation:
    """An evaluation of which the first images are right."""
    predictions = tuple(
        Prediction(str(n), 1, (1, 0) if n < right else (0, 1), (0.9, 0.1)) for n in range(of)
    )
    return dataclasses.replace(evaluation(sha, right / of), images=of, predictions=predictions)


def test_what_the_images_do_not_tell_apart_is_a_tie(here: Path) -> None:
    names = "abc"
    keep(*(artifact(n * 64) for n in names), *(measured(n * 64, 1000 + ord(n)) for n in names))
    keep(*(judged_on(n * 64, right, 100) for n, right in zip(names, (66, 67, 90), strict=True)))
    (front, sizes) = sweep.fronts({n * 64 for n in names})
    first, tie, sure = front.gains
    assert first is None
    assert tie and sure
    assert (round(tie.value, 9), tie.tie) == (0.01, True)
    low, high = gate.bounds(0, 1, 100)
    assert (tie.low, tie.high) == (-high, -low)
    assert (round(sure.value, 9), sure.tie) == (0.23, False)
    # All are of one size, where the best is told from the others.
    assert [r.artifact_sha256[0] for r in sizes.results] == ["c"]
    # Other images are no pairs.
    other = dataclasses.replace(judged_on("d" * 64, 95, 90), data=evaluation().data)
    keep(artifact("d" * 64), measured("d" * 64, 2000), other)
    (front, _) = sweep.fronts({n * 64 for n in "abcd"})
    assert front.gains[3] is None


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        sweep.sweep(arch=())


SMALL = (
    "--alpha",
    "0.25",
    "--res",
    "64",
    "--recipe",
    "float32",
    "--format",
    "tflite",
    "--device",
    "",
)


@pytest.mark.slow
def test_a_sweep_is_made_once(here: Path) -> None:
    result = cli(*SMALL, "--json")
    assert result.returncode == 0, result.stderr
    first = records.loads(sweep.SweepResult, result.stdout)
    assert first.made == 1
    assert [f.kind for f in first.fronts] == ["size"]
    path = here / "build" / "mobilenet_v1_0.25_64_demo" / "float32.tflite"
    assert artifacts.load(path).recipe.name == "float32"
    again = records.loads(sweep.SweepResult, cli(*SMALL, "--json").stdout)
    assert again.made == 0
    assert again.jobs[0].state == "standing"
    assert again.fronts == first.fronts


@pytest.mark.slow
def test_a_file_that_fails_costs_that_file_only(here: Path) -> None:
    """GoogLeNet's logarithm has no kernel for codes of 16 bits."""
    argv = ("--arch", "googlenet", "--res", "64", "--weights", "random", "--format", "tflite")
    argv += ("--recipe", "float32,int16x8_ptq", "--device", "host")
    result = cli(*argv, "--json")
    assert result.returncode == 7, result.stderr
    swept = records.loads(sweep.SweepResult, result.stdout)
    (failed,) = swept.failed
    assert failed.what == "googlenet 64"
    assert failed.message.startswith("int16x8_ptq.tflite would still compute LOG in float")
    assert swept.made == 1
    kinds = {f.kind: [(r.model, r.recipe) for r in f.results] for f in swept.fronts}
    assert kinds["measured"] == kinds["size"] == [("googlenet_64", "float32")]
    folder = here / "build" / "googlenet_64_random"
    assert artifacts.load(folder / "float32.tflite").recipe.name == "float32"
    assert not (folder / "int16x8_ptq.tflite").exists()
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: googlenet 64: int16x8_ptq.tflite would still compute LOG")


def fronts(
    swept: sweep.SweepResult,
) -> list[tuple[str, list[tuple[str, str, float | None, int | None]]]]:
    return [
        (f.kind, [(r.model, r.recipe, r.top1, r.size_bytes) for r in f.results])
        for f in swept.fronts
    ]


GRID = (
    "--arch",
    "mobilenet_v1",
    "--alpha",
    "0.25,0.5",
    "--res",
    "64,96,128,160",
    "--recipe",
    "float32,int8_ptq",
    "--device",
    "",
    "--jobs",
    "2",
)


@pytest.mark.slow
def test_thirty_two_cells_killed_three_times_have_the_front_of_an_unbroken_run(
    here: Path, monkeypatch
) -> None:
    unbroken = records.loads(sweep.SweepResult, cli(*GRID, "--out", "whole", "--json").stdout)
    assert unbroken.made == 8
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "killed.db"))
    dice = random.Random(7)
    for _ in range(3):
        running = subprocess.Popen(
            [sys.executable, "-m", "mobiledeploy", "sweep", *GRID, "--out", "killed"],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(dice.uniform(20, 60))
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    result = cli(*GRID, "--out", "killed", "--json")
    assert result.returncode == 0, result.stderr
    resumed = records.loads(sweep.SweepResult, result.stdout)
    connection = sqlite3.connect(here / "killed.db")
    jobs = [row[0] for row in connection.execute("SELECT what FROM job WHERE outcome = 'done'")]
    cells = connection.execute("SELECT count(*) FROM artifact").fetchone()
    connection.close()
    assert len(jobs) == len(set(jobs)) == 8
    assert cells == (32,)
    assert fronts(resumed) == fronts(unbroken)


@pytest.mark.slow
def test_ray_has_the_front_of_local(here: Path, monkeypatch) -> None:
    pytest.importorskip("ray", reason="no Ray (pip install 'mobiledeploy[ray]')")
    local = records.loads(sweep.SweepResult, cli(*GRID, "--out", "local", "--json").stdout)
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "ray.db"))
    result = cli(*GRID, "--executor", "ray", "--out", "ray", "--json")
    assert result.returncode == 0, result.stderr
    ray = records.loads(sweep.SweepResult, result.stdout)
    assert ray.made == local.made == 8
    assert fronts(ray) == fronts(local)
    hashes = [
        sorted(
            (p.name, records.sha256(p)) for p in (here / out).glob("*/*.*") if p.suffix != ".json"
        )
        for out in ("local", "ray")
    ]
    assert len(hashes[0]) == 32
    assert hashes[0] == hashes[1]


def test_groups_are_a_side_of_the_grid(here):
    result = sweep.sweep(
        arch="shufflenet_v1", groups=(3, 8), res=64, weights="random", dry_run=True
    )
    assert [job.what for job in result.jobs] == ["shufflenet_v1 g3 64", "shufflenet_v1 g8 64"]
    assert {job.state for job in result.jobs} == {"to do"}


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_what_a_limit_drops_stays_dropped(here: Path, executor: str) -> None:
    if executor == "ray":
        pytest.importorskip("ray", reason="no Ray (pip install 'mobiledeploy[ray]')")
    argv = ("--alpha", "0.25,0.5", "--res", "128", "--recipe", "float32", "--format", "tflite")
    argv += ("--device", "pixel-3", "--max-latency", "2ms", "--jobs", "1")
    result = cli(*argv, "--executor", executor, "--json")
    assert result.returncode == 0, result.stderr
    first = records.loads(sweep.SweepResult, result.stdout)
    assert [(job.what, job.state) for job in first.jobs] == [
        ("mobilenet_v1 0.25 128", "to do"),
        ("mobilenet_v1 0.5 128", "dropped"),
    ]
    (drop,) = first.dropped
    assert f"dropped: {drop.what}: {drop.why}" in result.stderr
    assert first.made == 1
    assert not (here / "build" / "mobilenet_v1_0.5_128_demo").exists()
    again = records.loads(sweep.SweepResult, cli(*argv, "--executor", executor, "--json").stdout)
    assert (again.made, again.dropped, again.fronts) == (0, first.dropped, first.fronts)
    connection = sqlite3.connect(here / ".mobiledeploy" / "store.db")
    outcomes = connection.execute("SELECT outcome, what, message FROM job ORDER BY id").fetchall()
    connection.close()
    assert outcomes == [
        ("dropped latency", drop.what, drop.why),
        ("done", "mobilenet_v1 0.25 128", ""),
    ]
