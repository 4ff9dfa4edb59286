from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiledeploy.analysis import stats
from mobiledeploy.cli import results as results_command
from mobiledeploy.cli.bench import command
from mobiledeploy.core import locks, records
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import ColdStart
from mobiledeploy.steps import store_records
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import results
from mobiledeploy.verbs.cold_start import MOST_PROCESSES, cold_start
from tests.conftest import Heard

RUNS = 6
ALL = ["library_ns", "load_ns", "prepare_ns", "first_inference_ns", "first_answer_ns"]


def sound(cold: ColdStart, path: Path, steps: list[str]) -> None:
    """All figures are there, positive, of every process, and those of their samples."""
    assert [figure.name for figure in cold.figures] == [*steps, "peak_rss_bytes"]
    assert cold.processes == RUNS
    for figure in cold.figures:
        assert len(figure.samples) == RUNS
        assert min(figure.samples) > 0
        assert (figure.median, *figure.interval) == stats.median_interval(figure.samples)
    *parts, whole = (figure.samples for figure in cold.figures[:-1])
    assert whole == tuple(map(sum, zip(*parts, strict=True)))
    assert cold.size_bytes == path.stat().st_size


def test_a_file_on_the_host_is_started_anew_each_time(exported, here, heard: Heard) -> None:
    path = exported["int8_ptq", "tflite"]
    done = cold_start(path, runs=RUNS, reporter=heard)
    assert (done.paths, done.failed) == ((str(path),), ())
    (cold,) = done.cold_starts
    sound(cold, path, ALL)
    assert cold.library_bytes is None
    assert (cold.target.device, cold.target.runner, cold.target.delegate) == (
        "host",
        "python",
        "xnnpack",
    )
    assert [n for what, n, _ in heard.steps if what == f"starting {path.name}"] == [
        *range(RUNS + 1)
    ]
    # The store has it with its samples, and so has a file that leaves it.
    (kept,) = results.results_cold().cold_starts
    assert (kept.recipe, kept.format, kept.cold_start) == ("int8_ptq", "tflite", cold)
    assert results.results().results == ()
    results.results_export(here / "all.jsonl")
    assert [
        one.record
        for one in store_records.read(here / "all.jsonl")
        if isinstance(one.record, ColdStart)
    ] == [cold]
    (table,) = done.tables()
    assert "6 processes, files in the system's cache" in table.title
    assert [row[0] for row in table.rows][-2:] == ["peak memory", "size of the file"]


def test_the_native_runner_is_smaller_and_has_a_library(exported, emulator, here, heard) -> None:
    tflite, onnx = exported["int8_ptq", "tflite"], exported["float32", "onnx"]
    done = cold_start([tflite, onnx], runner="native", runs=RUNS, reporter=heard)
    lite, session = done.cold_starts
    sound(lite, tflite, ALL)
    # ONNX Runtime loads and prepares in one call.
    sound(session, onnx, [name for name in ALL if name != "load_ns"])
    assert lite.library_bytes is not None
    assert 1e6 < lite.library_bytes < 100e6
    assert lite.figures[-1].median < 50e6
    (of_python,) = cold_start(tflite, runs=RUNS, reporter=heard).cold_starts
    assert lite.figures[-1].interval[1] < of_python.figures[-1].interval[0]
    shown = CliRunner().invoke(results_command.command, ["cold"])
    assert shown.exit_code == 0, shown.output
    assert len([line for line in shown.stdout.splitlines() if ", native" in line]) == 2


def test_the_command_prints_the_record(exported, here) -> None:
    path = str(exported["int8_ptq", "tflite"])
    done = CliRunner().invoke(command, [path, "--cold", "--runs", str(RUNS), "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["record"] == "ColdStartResult"
    (cold,) = printed["cold_starts"]
    assert [len(figure["samples"]) for figure in cold["figures"]] == [RUNS] * 6
    (kept,) = results.results_cold().cold_starts
    assert json.loads(records.line(kept.cold_start))["figures"] == cold["figures"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runs": 5}, "5 processes have no 95 % interval of their median; give 6 or more"),
        ({"runs": MOST_PROCESSES + 1}, "1001 processes are too many; give 1000 or fewer"),
        ({"threads": 0}, "0 threads cannot work"),
        ({"device": "emulator:cortex-a53"}, "emulator:cortex-a53 emulates: it has neither"),
        ({"device": "replay:no.json"}, "replay:no.json only plays back"),
        ({"runner": "benchmark_model"}, "benchmark_model is for phones and boards"),
        ({"runtime": "abacus"}, "has no runtime 'abacus'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(here, emulator, settings, message) -> None:
    """Before the artifact is opened, which is not there."""
    with pytest.raises(UsageError) as refused:
        cold_start("a.tflite", **settings)
    assert message in str(refused.value)
    assert refused.value.exit_code == 2
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compare"], "--compare and --cold are two questions"),
        (["--record", "r.json"], "--record is for timings, not for --cold"),
        (["--rounds", "8"], "--rounds is for --compare"),
    ],
)
def test_options_of_other_questions_are_refused(here, options, message) -> None:
    done = CliRunner().invoke(command, ["a.tflite", "b.tflite", "--cold", *options])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_one_of_several_that_fails_costs_itself_only(exported, here, heard) -> None:
    path = exported["int8_ptq", "tflite"]
    broken = here / "broken.tflite"
    broken.write_bytes(b"no model")
    done = cold_start([broken, path], runs=RUNS, reporter=heard)
    assert done.paths == (str(path),)
    assert [(failed.what, failed.exit_code) for failed in done.failed] == [(str(broken), 7)]


class Interrupting(Heard):
    """Interrupts after three processes, with the machine still leased, exclusively."""

    def progress(self, what: str, done: int, total: int) -> None:
        if done == 3:
            lease = cache_dir() / "leases" / "host.lock"
            with lease.open() as stream, pytest.raises(BlockingIOError):
                locks.lock(stream.fileno(), exclusive=False, wait=False)
            raise KeyboardInterrupt


def test_an_interruption_keeps_nothing(exported, here) -> None:
    with pytest.raises(KeyboardInterrupt):
        cold_start(exported["int8_ptq", "tflite"], runs=RUNS, reporter=Interrupting())
    with Store.open() as store:
        assert store.cold_starts() == ()
        assert store.artifacts() == {}
