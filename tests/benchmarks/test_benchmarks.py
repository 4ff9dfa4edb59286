from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mobiledeploy.analysis import paired
from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import dataset
from tests.scripts import script
from tests.variants import slow_but

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture
def side_by_side() -> Iterator[ModuleType]:
    with script("benchmarks/_side_by_side.py") as module:
        yield module


def test_too_few_runs_are_refused_before_the_first(side_by_side) -> None:
    def never() -> float:
        raise AssertionError("it ran")

    with pytest.raises(UsageError, match="5 runs have no 95 % interval; give 6 or more"):
        side_by_side.compare("x", ("a", never), ("b", never), bar=1.0, runs=5)
    result = side_by_side.compare("x", ("a", lambda: 1.0), ("b", lambda: 2.0), bar=0.5, runs=6)
    assert (result.ratio, result.interval, result.met) == (0.5, (0.5, 0.5), True)
    turns = iter([0.5, 0.9, 0.9, 0.9, 0.9, 0.9])
    result = side_by_side.compare(
        "x", ("a", lambda: next(turns)), ("b", lambda: 1.0), bar=0.8, runs=6, median=True
    )
    assert (result.interval[0], result.ratio, result.met) == (0.5, 0.9, False)
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "conversion.py"), "--runs", "5"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "x>=6" in done.stderr


def test_a_pruned_network_is_compared_with_the_narrow_one_of_its_seed() -> None:
    with script("benchmarks/structured_pruning.py") as module:

        def result(way: str, seed: int, right: str, instructions: int | None) -> Any:
            top1 = right.count("1") / len(right)
            return module.Result(way, seed, "float32", 90, 10, 40, instructions, top1, right)

        narrow = [result("narrow", seed, "0110" * 50, 200) for seed in (0, 1)]
        # One of four images more for seed 0, as many for seed 1; seed 2 has no narrow network.
        pruned = [
            result("pruned to 1 M", seed, right * 50, 150)
            for seed, right in enumerate(("0111", "1010", "1111"))
        ]
        gain, *others = module.compared([*narrow, *pruned])
        assert not others
        assert (gain.gain, gain.instructions_ratio, gain.mult_adds_ratio) == (0.125, 0.75, 1.0)
        low, high = gain.interval
        # Two seeds alone: a draw may have the same one twice.
        assert -0.1 < low < 0.02 and 0.24 < high < 0.35
        uncounted = [result("narrow", 0, "01", None), result("pruned to 1 M", 0, "11", None)]
        assert module.compared(uncounted)[0].instructions_ratio is None


def test_a_ratio_of_paired_errors_is_surer_than_that_of_two_sets_of_images(side_by_side) -> None:
    dice = np.random.default_rng(5)
    theirs = dice.gamma(0.3, size=500)
    ours = 0.5 * theirs * dice.uniform(0.9, 1.1, 500)
    ratio, low, high = side_by_side.mean_ratio(ours, theirs)
    assert ratio == pytest.approx(ours.mean() / theirs.mean())
    assert 0.48 < low < ratio < high < 0.52
    _, low, high = side_by_side.mean_ratio(dice.permutation(ours), theirs)
    assert low < 0.4
    assert high > 0.6


@pytest.fixture(scope="module")
def quantization() -> Iterator[ModuleType]:
    """benchmarks/quantization.py, which imports its neighbours by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("quantization")


def test_each_image_judges_once_and_never_files_that_it_calibrated(quantization) -> None:
    judging = []
    for fold in range(quantization.FOLDS):
        calibrating, fresh = quantization.dealt(500, fold)
        assert len(calibrating) == len(fresh) == 100
        assert not set(calibrating) & set(fresh)
        judging += list(fresh)
    assert sorted(judging) == list(range(500))


def test_float_logits_are_rounded_as_an_int8_output_rounds_them(quantization) -> None:
    logits = np.array([[-1.0, 0.0, 4.1]], np.float32)
    low, high = quantization.logits_range(logits)
    rounded = quantization.to_codes(logits, low, high)
    assert rounded[0, 1] == 0
    assert np.abs(rounded - logits).max() <= (high - low) / 255 / 2 + 1e-6
    assert quantization.to_codes(logits + 9, low, high).max() <= high + (high - low) / 255


@pytest.mark.parametrize(
    ("network", "tool", "changed", "met"),
    [
        ("v1", "NNCF accurate", (31, 30), False),
        ("v1", "NNCF accurate", (30, 29), True),
        ("v1", "x", (31, 30), None),
        ("v3", "NNCF accurate", (16, 30), False),
        ("v3", "NNCF accurate", (15, 30), True),
    ],
)
def test_a_count_is_a_bar_only_beside_a_rival_that_changes_30_answers(
    quantization, network, tool, changed, met
) -> None:
    dice = np.random.default_rng(6)
    divergence = dice.gamma(0.3, size=500)

    def judged(tool: str, changes: int, factor: float) -> Any:
        values = (factor * divergence * dice.uniform(0.9, 1.1, 500)).tolist()
        is_changed = [index < changes for index in range(500)]
        return quantization.Judged(
            network, 0, tool, is_changed, is_changed, values, values, 1.0, 0.1, 9, 1.0, 1.0
        )

    ours, theirs = changed
    one = quantization.against([judged("ours", ours, 0.3)], [judged(tool, theirs, 1.0)], 0.5)
    assert (one.only_ours, one.only_theirs) == (max(ours - theirs, 0), max(theirs - ours, 0))
    assert one.met is met
    assert one.high < 0.5


@pytest.mark.slow
def test_both_ways_of_evaluating_take_the_same_images(exported, here) -> None:
    path = exported["int8_ptq", "tflite"]
    data = artifacts.load(path).data
    photos = here / "photos"
    shutil.copytree(data.source, photos)
    # Whoever takes more than the images for validation finds one that cannot be read.
    held = dataset(str(photos)).open(
        str(photos), "calibration", resolution=data.resolution, labels=data.labels
    )
    assert len(held) > 0
    for index in range(len(held)):
        (photos / held.id(index)).write_text("no image")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "evaluation.py"), str(path), str(photos)],
        capture_output=True,
        text=True,
    )
    # 1 says that the bar was missed, which the weather may do.
    assert done.returncode in (0, 1), done.stderr
    report = json.loads((here / "build" / "benchmarks" / "evaluation.json").read_text())
    (comparison,) = report["result"]["comparisons"]
    assert len(comparison["ours_s"]) == len(comparison["theirs_s"]) == 7


def gate_statistics(out: Path, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    """What benchmarks/gate_statistics.py finds, all bars met."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gate_statistics.py"), *arguments, "--out", out],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all bars met" in done.stdout
    return json.loads(out.read_text())["result"]


@pytest.mark.slow
def test_the_gate_errs_no_more_than_it_says(tmp_path) -> None:
    cells = gate_statistics(tmp_path / "gate.json", "--largest", "400", "--sets", "0")["cells"]
    assert len(cells) == 18
    assert max(c["passed"] or 0 for c in cells) < 0.05 < max(c["passed_tango"] or 0 for c in cells)
    assert max(c["passed_wald"] or 0 for c in cells) > 0.2


@pytest.mark.slow
def test_the_gate_of_means_and_metrics_errs_no_more_than_it_says(tmp_path) -> None:
    cells = gate_statistics(tmp_path / "gate.json", "--largest", "100", "--sets", "100")["paired"]
    assert {c["metric"] for c in cells} == {"mean", "AUC", "mIoU", "mAP", "mIoU, one class"}
    for metric in ("mean", "mIoU"):
        rates = [c for c in cells if c["metric"] == metric]
        assert max(c["passed"] for c in rates) < 0.055
        assert max(c["passed_plain"] for c in rates) > 0.3


@pytest.fixture
def simulation(monkeypatch) -> ModuleType:
    """benchmarks/_paired_gate.py, which imports its neighbour by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("_paired_gate")


@pytest.mark.parametrize("population", ["flips", "independent", "clustered", "1 in 100"])
def test_the_simulation_judges_means_as_the_gate_does(simulation, population) -> None:
    n, margin, sets = 400, 0.02, 200
    dice = np.random.default_rng(4)
    results = []
    for _ in range(sets):
        losses = simulation.populations.score_losses(population, dice, n, margin)
        results.append(paired.outcome(paired.mean_bounds(*simulation.pair(losses)), margin))
    rates = simulation.mean_verdicts(population, n, margin, margin, sets, np.random.default_rng(4))
    assert rates[[0, 3]] * sets == pytest.approx([results.count("pass"), results.count("fail")])


@pytest.mark.parametrize("metric", slow_but(["AUC", "mIoU", "mAP"], "AUC"))
def test_the_simulation_judges_metrics_as_the_gate_does(simulation, metric) -> None:
    n, margin = 300, 0.02
    make, *_ = simulation.METRICS[metric]
    results = set()
    for seed, loss in enumerate((0.0, 0.0, 0.02, 0.1)):
        dice = np.random.default_rng(seed)
        draws_seed = int(dice.integers(2**31))
        pair = make("independent", dice, n, loss)
        one, other = SimpleNamespace(), SimpleNamespace(metric=lambda counts: 0.0)
        one.metric = lambda counts, pair=pair: float(pair.losses(counts[None] / paired.GRAIN)[0])
        bounds = paired.corpus_bounds(one, other, n, seed=draws_seed, share=pair.share)
        rates = simulation.corpus_verdicts(
            make, "independent", n, margin, loss, 1, np.random.default_rng(seed)
        )
        result = paired.outcome(bounds, margin)
        assert (rates[0], rates[3]) == (result == "pass", result == "fail")
        results.add(result)
    assert len(results) > 1


WATCHED = """
import json, os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import _bad_inputs, _watched
Path("sound").mkdir()
_watched.adopt()
_watched.SECONDS, _watched.LARGEST_BYTES = float(sys.argv[3]), 1 << 28
def run():
    exec(sys.argv[1])
    return int(sys.argv[2])
_watched.main.run = run
for number, argv in enumerate(json.loads(sys.argv[2])):
    place = Path(str(number)).absolute()
    _watched.place_for(Path("sound"), place)
    seen = _watched.watch(_bad_inputs.Case("x", argv), place, place / "python")
    print(*seen.faults, sep=",")
"""
SEEN = {
    ("print('error: x', file=sys.stderr)", "7"): "",
    ("print('error: x', file=sys.stderr)", "70"): "exit 70",
    ("pass", "7"): "other",
    ("pass", "3"): "other",
    ("open('made.csv', 'w')", "0"): "",
    ("open('other.csv', 'w')", "0"): "files left",
    ("open('../tmp/made', 'w')", "0"): "files left",
    ("print('Traceback (most recent call last):')", "0"): "traceback",
    ("time.sleep(60)", "0"): "hang",
    ("os.abort()", "0"): "other",
    ("os.fork() or time.sleep(60)", "0"): "other",
    ("bytearray(1 << 28)[::4096] = b'x' * (1 << 16)", "0"): "over 1 GB",
}


def watched(seen: dict[tuple[str, str], str], seconds: int) -> None:
    """Each program and the code that it ends in are found to be wrong in what stands beside it."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(BENCHMARKS), json.dumps(list(seen)), str(seconds)],
        capture_output=True,
        text=True,
    )
    assert (done.stdout.splitlines(), done.stderr) == (list(seen.values()), "")


@pytest.mark.slow
def test_what_is_wrong_with_an_input_is_seen(here) -> None:
    watched(SEEN, 4)


@pytest.mark.slow
def test_what_adb_leaves_is_no_fault_of_a_command(here) -> None:
    if shutil.which("adb", path="/usr/bin:/bin") is None:
        pytest.skip("adb is not installed (apt install adb)")
    devices = "subprocess.run(['adb', 'devices'], check=True, capture_output=True)"
    watched(
        {
            (devices, "0"): "",
            (f"{devices}; open('../home/.android/other', 'w')", "0"): "files left",
            (f"{devices}; open('../tmp/adb.log', 'w')", "0"): "files left",
            (f"{devices}; os.fork() or time.sleep(60)", "0"): "other",
        },
        40,
    )
    for number in range(4):
        kept = {path.name for path in Path(str(number)).rglob(".android/*")}
        assert {"adbkey", "adbkey.pub"} <= kept - {"other"}


@pytest.mark.slow
def test_no_bad_input_and_no_kill_does_harm(tmp_path) -> None:
    out = tmp_path / "robustness.json"
    argv = ["--seconds", "180", "--seed", "1", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "robustness.py"), *argv], capture_output=True, text=True
    )
    result = json.loads(out.read_text())["result"]
    assert result["faults"] == []
    assert done.returncode == 0, done.stderr
    assert sum(row["inputs"] for row in result["inputs"]) >= 100
    assert sum(row["recovered"] for row in result["kills"]) >= 1


def test_bad_inputs_have_a_sound_line_of_every_command() -> None:
    with script("benchmarks/_bad_inputs.py") as bad_inputs:
        assert set(bad_inputs.COMMANDS) <= set(bad_inputs.SOUND)
