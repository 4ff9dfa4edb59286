from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from mobiledeploy.core import cpu, inputs, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import DataRef, NamedWarning
from mobiledeploy.steps import store_records
from mobiledeploy.store.database import Store, StoredRecord
from mobiledeploy.verbs import results
from tests import namespaces
from tests.figures import (
    HOST,
    SHA,
    artifact,
    cold_start,
    command,
    counted,
    estimated,
    evaluation,
    integers,
    keep,
    measured,
)
from tests.variants import slow_but

cli = partial(command, "results")


@pytest.fixture(autouse=True)
def _this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the figures."""
    monkeypatch.setattr(cpu, "name", lambda: "c")


def test_figures_are_listed_newest_first_each_in_the_column_of_its_unit(here: Path) -> None:
    keep(
        artifact(), evaluation(top1=0.1), evaluation(top1=0.75), measured(), counted(), estimated()
    )
    found = results.results().results
    assert [r.kind for r in found] == ["estimated", "counted", "measured"]
    assert [(r.latency_ns, r.instructions) for r in found] == [
        (5e6, None),
        (None, 100_000),
        (1000.0, None),
    ]
    assert found[0].latency_interval_ns == (2.5e6, 1e7)
    assert found[1].latency_interval_ns is None
    assert {(r.model, r.recipe, r.format, r.size_bytes, r.top1) for r in found} == {
        ("net", "float32", "tflite", 1000, 0.75)
    }
    assert {(r.data_source, r.data_split, r.data_identity, r.images) for r in found} == {
        ("demo", "validation", "id", 1)
    }


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"kind": "counted"}, {"counted"}),
        ({"device": "host"}, {"measured"}),
        ({"recipe": "int8_ptq"}, set()),
        ({"recipe": "int8"}, set()),
        ({"model": "net", "runtime": "litert"}, {"measured", "counted", "estimated"}),
        ({"artifact": "aaa"}, {"measured", "counted", "estimated"}),
        ({"artifact": "aab"}, set()),
        ({"since": "2099-01-01T12:00"}, set()),
        ({"since": "2000-01-01"}, {"measured", "counted", "estimated"}),
    ],
)
def test_filters(here: Path, where: dict[str, str], expected: set[str]) -> None:
    keep(artifact(), measured(), counted(), estimated())
    assert {r.kind for r in results.results(**where).results} == expected


def test_top1_is_of_the_images_of_the_export_where_there_is_one(here: Path) -> None:
    """Another set of images asks another question, and an answer without labels is none."""
    known = dataclasses.replace(
        artifact(), data=dataclasses.replace(artifact().data, identity="id")
    )
    keep(known, measured(), evaluation(top1=0.75))
    other = dataclasses.replace(evaluation(top1=0.1).data, identity="other")
    keep(dataclasses.replace(evaluation(top1=0.1), data=other))
    keep(dataclasses.replace(evaluation(), top1=None))
    assert [r.top1 for r in results.results().results] == [0.75]


def test_the_metric_is_that_of_the_task(here: Path) -> None:
    detector = dataclasses.replace(
        evaluation(), task="detection", metrics={"map": 0.31, "ap50": 0.5}, top1=None
    )
    keep(artifact(), measured(), detector)
    answer = results.results()
    (row,) = answer.results
    assert (row.task, row.metric, row.value, row.top1) == ("detection", "map", 0.31, None)
    (table,) = answer.tables()
    assert table.headers[3] == "mAP@[.5:.95]" and table.rows[0][3] == "31.0 %"
    other = "b" * 64
    keep(artifact(other), measured(other), evaluation(other, top1=0.75))
    (table,) = results.results().tables()
    assert table.headers[3] == "metric"
    assert {row[3] for row in table.rows} == {"mAP@[.5:.95] 31.0 %", "top-1 75.0 %"}


def test_a_task_that_is_not_installed_has_a_metric_without_a_unit(here: Path) -> None:
    poses = dataclasses.replace(evaluation(), task="pose", metrics={"oks": 0.5}, top1=None)
    keep(artifact(), measured(), poses)
    (table,) = results.results().tables()
    assert table.headers[3] == "oks" and table.rows[0][3] == "0.5"


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("2026-03-02T12:00", 1),
        ("20260302T1200", 1),
        ("2026-03-02 12:00+00:00", 1),
        ("2026-03-02T21:59+10:00", 1),
        ("2026-03-02T22:01+10:00", 0),
        ("2026-W10-1", 1),
        ("2026-03-02 12:01", 0),
        ("20260303", 0),
    ],
)
def test_since_is_a_moment_however_it_is_written(here: Path, since: str, found: int) -> None:
    with Store.open() as store:
        store.load([StoredRecord("2026-03-02T12:00:00.000+00:00", "", measured())])
    assert len(results.results(since=since).results) == found


def test_the_newest_figure_is_the_one_made_last_not_the_one_that_came_last(here: Path) -> None:
    """Old records may be imported at any time: they are the baseline, and not held against it."""
    keep(artifact(), evaluation(top1=0.5))
    with Store.open() as store:
        store.load([StoredRecord("2026-03-02T12:00:00.000+00:00", "", measured(ns=1000))])
    base = saved(here / "base.jsonl")
    old = evaluation(top1=0.1)
    keep(measured(ns=3000))
    assert results.results_regress(base).outcome == "fail"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
        keep(artifact(), evaluation(top1=0.5), measured(ns=3000))
        results.results_import(base)
        with Store.open() as store:
            store.load([StoredRecord("2026-03-01T12:00:00.000+00:00", "", old)])
            assert store.evaluation_of(SHA) == evaluation(top1=0.5)
            assert store.measurement(SHA, HOST) == measured(ns=3000)
        assert [r.latency_ns for r in results.results().results] == [3000.0, 1000.0]
        assert [r.latency_ns for r in results.results(newest=True).results] == [3000.0]
        assert results.results_regress(base).outcome == "fail"


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), -0.1])
def test_a_margin_that_is_none_is_refused(here: Path, margin: float) -> None:
    with pytest.raises(UsageError, match="a margin of "):
        results.results_regress(here / "base.jsonl", margin=margin)


def test_two_trainings_of_one_network_are_told_apart(here: Path) -> None:
    data = DataRef("a/photos", "all", (8, 8), (), "f" * 64)
    other = dataclasses.replace(evaluation("b" * 64), data=data)
    keep(
        artifact(weights="1" * 64, of="demo"),
        measured(),
        evaluation(),
        artifact("b" * 64, weights="2" * 64, of="run"),
        measured("b" * 64),
        other,
    )
    new, old = results.results().results
    assert (old.model, old.weights, old.weights_sha256) == ("net", "demo", "1" * 64)
    assert (new.model, new.weights, new.weights_sha256) == ("net", "run", "2" * 64)
    assert (new.data_source, new.data_identity) == ("a/photos", "f" * 64)
    output = cli()
    assert "net demo " in output and "net run 22222222 " in output
    assert "demo validation " in output and "photos ffffffff " in output
    assert "weights,weights_sha256,data_source" in cli("--csv")


def test_figures_of_other_weights_never_pair(here: Path) -> None:
    keep(artifact(weights="1" * 64, of="demo"), measured())
    path = saved(here / "base.jsonl")
    keep(artifact("b" * 64, weights="2" * 64, of="run"), measured("b" * 64, ns=1630))
    with Store.open(here / "other.db") as store:
        kept = store_records.read(saved(here / "all.jsonl"))
        store.load(k for k in kept if "b" * 64 in records.line(k.record))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
        (one,) = results.results_regress(path).regressions
    assert one.outcome == "inconclusive"
    assert "net demo float32.tflite on host" in one.path
    assert "no measured figure of it here, only of other weights: run 22222222" in (
        one.verdicts[0].line
    )


def test_files_of_other_ends_are_no_series(here: Path) -> None:
    keep(integers(), measured())
    path = saved(here / "base.jsonl")
    keep(integers("b" * 64, "uint8"), measured("b" * 64, ns=1630))
    output = cli()
    assert "int8_ptq.tflite " in output and "int8_ptq.tflite uint8 " in output
    rows = csv.DictReader(cli("--csv").splitlines())
    assert [row["io"] for row in rows] == ["uint8", "int8"]
    with Store.open(here / "other.db") as store:
        kept = store_records.read(saved(here / "all.jsonl"))
        store.load(k for k in kept if "b" * 64 in records.line(k.record))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
        (one,) = results.results_regress(path).regressions
        assert one.outcome == "inconclusive"
        assert "no measured figure of it here, only with --io uint8; " in one.verdicts[0].line
        keep(
            integers("c" * 64, spec=artifact(weights="2" * 64, of="run").spec),
            measured("c" * 64),
        )
        (one,) = results.results_regress(path).regressions
        message = "only of other weights: run 22222222 and with --io uint8"
        assert message in one.verdicts[0].line
        # A newer one of the same ends is what the baseline's figure is of.
        keep(integers("d" * 64), measured("d" * 64))
        (one,) = results.results_regress(path).regressions
        assert (one.outcome, one.artifact_sha256) == ("pass", "d" * 64)


def test_a_recipe_has_its_short_name_here_too(here: Path) -> None:
    keep(artifact(recipe="int8_best"), measured())
    assert len(results.results(recipe="int8").results) == 1


def test_newest_and_most(here: Path) -> None:
    keep(artifact(), measured(ns=1000), measured(ns=2000), counted())
    assert [r.latency_ns for r in results.results(newest=True).results] == [None, 2000.0]
    assert len(results.results(most=1).results) == 1
    assert len(results.results().results) == 3


def test_records_move_to_another_machine_once(here: Path) -> None:
    kept = (artifact(), evaluation(), measured(), measured(ns=2000), counted(), estimated())
    keep(*kept)
    results.results_regress(saved(here / "base.jsonl"))  # leaves verdicts
    moved = results.results_export(here / "all.jsonl")
    assert moved.records == len(kept) + 3
    before = results.results()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
        assert results.results_import(here / "all.jsonl").new == moved.records
        assert results.results_import(here / "all.jsonl").new == 0
        assert results.results() == before
        with Store.open() as store:
            assert [v.gate for v in store.verdicts()] == ["regress"] * 3
            assert store.evaluation_of("a" * 64) == evaluation()


def test_the_host_of_another_machine_is_not_this_one(here: Path, monkeypatch) -> None:
    keep(artifact(), measured(ns=2000), cold_start(), counted())
    results.results_export(here / "all.jsonl")
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
    monkeypatch.setattr(cpu, "name", lambda: "d")
    for new in (4, 0):
        assert results.results_import(here / "all.jsonl").new == new
    own = dataclasses.replace(measured(ns=3000), facts_before={"cpu": "d"})
    keep(own)
    with Store.open() as store:
        assert store.measurement(SHA, HOST) == own
    assert [r.device for r in results.results(kind="measured").results] == ["host", "host:c"]
    (cold,) = results.results_cold().cold_starts
    assert cold.cold_start.target.device == "host:c"
    # What comes back to its own machine is known there.
    results.results_export(here / "back.jsonl")
    monkeypatch.setattr(cpu, "name", lambda: "c")
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "third.db"))
    results.results_import(here / "all.jsonl")
    # The other machine's own timing alone is new.
    assert results.results_import(here / "back.jsonl").new == 1
    devices = [r.device for r in results.results(kind="measured").results]
    assert sorted(devices) == ["host", "host:d"]


def saved(path: Path) -> Path:
    results.results_export(path, newest=True)
    return path


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        '{"made_at": "2026-01-01T00:00:00+00:00", "of": "", "kept": {"record": "Password"}}',
        '{"made_at": "yesterday", "of": "", "kept": {"record": "Measured"}}',
        '{"made_at": "2026-01-01T00:00:00+00:00", "of": "", "kept": {"record": "Measured"}}',
        '{"made_at": "2026-01-01T00:00:00", "of": "", "kept": {"record": "Artifact"}}',
    ],
)
def test_a_bad_line_is_named_and_nothing_is_taken(here: Path, line: str) -> None:
    keep(artifact(), measured())
    path = saved(here / "moved.jsonl")
    path.write_text(path.read_text() + line + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
        with pytest.raises(InputError, match=r"moved.jsonl, line 3"):
            results.results_import(path)
        assert not (here / "other.db").exists()


def test_nothing_kept_is_said_and_no_store_is_made(here: Path) -> None:
    with pytest.raises(UsageError, match="nothing is kept"):
        results.results()
    assert list(here.iterdir()) == []


def test_a_time_that_is_none_is_refused(here: Path) -> None:
    keep(measured())
    assert "'yesterday' is not a time" in cli("--since", "yesterday", code=2)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        (measured(ns=1000), measured(ns=1000), "pass"),
        (measured(ns=1000), measured(ns=1200), "fail"),
        (measured(ns=1000), measured(ns=500), "pass"),
        (measured(ns=1000, spread=30), measured(ns=1050, spread=30), "inconclusive"),
        (counted(), counted(instructions=100_100), "pass"),
        (counted(), counted(instructions=100_101), "fail"),
        (counted(), counted(instructions=99_000), "pass"),
        (counted(), counted(instructions=200_000, versions={"qemu": "9"}), "inconclusive"),
        (measured(), measured(ns=9000, facts_before={"cpu": "d"}), "inconclusive"),
        (estimated(), estimated(ns=5.1e6), "fail"),
        (estimated(), estimated(), "pass"),
        (cold_start(), cold_start(), "pass"),
        (cold_start(), cold_start(ns=1200), "fail"),
        (cold_start(), cold_start(peak=9000), "fail"),
        (cold_start(), cold_start(ns=500, peak=2000), "pass"),
        (cold_start(), cold_start(ns=1048), "inconclusive"),
        (cold_start(), cold_start(ns=1200, facts_before={"cpu": "d"}), "inconclusive"),
        (cold_start(), cold_start(figures=cold_start().figures[:3]), "inconclusive"),
    ],
)
def test_regress(here: Path, old: object, new: object, outcome: str) -> None:
    keep(artifact(), old)
    path = saved(here / "base.jsonl")
    # Of another commit: other bytes, the same model.
    keep(artifact("b" * 64), dataclasses.replace(new, artifact_sha256="b" * 64))
    result = results.results_regress(path)
    assert result.outcome == outcome
    (one,) = result.regressions
    assert (one.accepted_sha256, one.artifact_sha256) == ("a" * 64, "b" * 64)


def test_a_cold_start_is_judged_by_its_first_answer_and_its_memory(here: Path) -> None:
    keep(artifact(), cold_start(), measured())
    path = saved(here / "base.jsonl")
    keep(artifact("b" * 64), cold_start("b" * 64, peak=9000), measured("b" * 64))
    verdicts = [v for one in results.results_regress(path).regressions for v in one.verdicts]
    assert {v.metric: v.outcome for v in verdicts} == {
        "latency": "pass",
        "first_answer": "pass",
        "peak_memory": "fail",
    }
    (line,) = [v.line for v in verdicts if v.outcome == "fail"]
    assert "1 thread, fresh processes: peak memory +80" in line
    assert line.endswith("margin 5 %")


def test_a_figure_that_is_missing_is_inconclusive(here: Path) -> None:
    keep(artifact(), artifact("b" * 64, "other"), measured(), measured("b" * 64))
    path = saved(here / "base.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
        keep(artifact(), measured())
        result = results.results_regress(path)
    assert [(r.model, r.outcome) for r in result.regressions] == [
        ("net", "pass"),
        ("other", "inconclusive"),
    ]
    assert result.outcome == "inconclusive"


def test_a_figure_is_not_held_against_itself(here: Path) -> None:
    """Where nothing was benched since, nothing was compared."""
    keep(artifact(), measured(), counted(), estimated())
    path = saved(here / "base.jsonl")
    result = results.results_regress(path)
    assert [r.outcome for r in result.regressions] == ["inconclusive"] * 3
    message = {r.verdicts[0].line.partition(": ")[2].partition(" (")[0] for r in result.regressions}
    assert message == {f"not {k} since the baseline" for k in ("measured", "counted", "estimated")}
    assert "not measured since the baseline" in cli("regress", "base.jsonl", code=3)
    # The same count again is a count all the same.
    keep(measured(), counted(), estimated())
    assert results.results_regress(path).outcome == "pass"


def test_what_is_older_than_the_baseline_is_not_held_against_it(here: Path) -> None:
    keep(artifact(), measured(ns=3000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "other.db"))
        keep(artifact(), measured(ns=1000))
        path = saved(here / "base.jsonl")
    assert results.results_regress(path).outcome == "inconclusive"


@pytest.mark.parametrize("name", ["busy-machine", "unsteady", "wide-interval"])
@pytest.mark.parametrize(("uncertain", "whose"), [(0, "the baseline's"), (1, "the new figure")])
@pytest.mark.parametrize("ns", [1000, 3000])
def test_a_figure_with_a_warning_decides_nothing(
    here: Path, name: str, uncertain: int, whose: str, ns: int
) -> None:
    figures = [measured(), measured(ns=ns)]
    figures[uncertain] = dataclasses.replace(
        figures[uncertain], warnings=(NamedWarning(name, "so"),)
    )
    keep(artifact(), figures[0])
    path = saved(here / "base.jsonl")
    keep(figures[1])
    (one,) = results.results_regress(path).regressions
    assert one.outcome == "inconclusive"
    assert f"{whose} is uncertain ({name})" in one.verdicts[0].line


def test_a_warning_of_what_a_figure_is_leaves_it_as_good(here: Path) -> None:
    """Estimates are of their card: both sides alike."""
    keep(artifact(), estimated(warnings=(NamedWarning("borrowed-shape", "of another card"),)))
    path = saved(here / "base.jsonl")
    keep(estimated(ns=6e6, warnings=(NamedWarning("borrowed-shape", "of another card"),)))
    assert results.results_regress(path).outcome == "fail"


def test_the_command_line(here: Path) -> None:
    keep(artifact(), evaluation(), measured(), counted(), estimated())
    listing = cli("--kind", "counted").splitlines()
    assert "100,000" in listing[1] and len(listing) == 2
    assert len(records.loads(results.ResultList, cli("--json")).results) == 3
    assert cli("--csv").splitlines()[0].startswith("made_at,artifact_sha256,model")
    cli("export", "base.jsonl", "--newest")
    keep(measured(ns=3000))
    message = cli("regress", "base.jsonl", "--junit", "out.xml", code=1)
    assert "fail: net m.h5 float32.tflite on host" in message
    assert 'failures="1"' in Path("out.xml").read_text()
    assert json.loads(cli("regress", "base.jsonl", "--json", code=1))["outcome"] == "fail"
    assert "::error" in cli("regress", "base.jsonl", "--github", code=1)
    assert "is not a record of a store" in cli("import", "out.xml", code=7)
    assert "nothing.jsonl cannot be read" in cli("regress", "nothing.jsonl", code=7)


@pytest.mark.parametrize(("ns", "code"), [pytest.param(1000, 0, marks=pytest.mark.slow), (3000, 1)])
@pytest.mark.parametrize(
    "piped",
    slow_but(["| true", "--json | head -c 1", "2>&1 | true", ">&-"], ">&-"),
)
def test_a_reader_that_leaves_does_not_change_the_verdict(
    here: Path, ns: int, code: int, piped: str
) -> None:
    keep(artifact(), measured(ns=1000))
    path = saved(here / "base.jsonl")
    keep(measured(ns=ns))
    line = f"{sys.executable} -m mobiledeploy results regress {path} {piped}"
    result = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (code, "")
    listing = f"{sys.executable} -m mobiledeploy results | head -1; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", listing], timeout=60, check=False).returncode == 0


def fill(count: int) -> None:
    """`count` figures of 50 artifacts, quickly: the rows that `add_measurement` writes."""
    from mobiledeploy.store import database as module

    with Store.open() as store, store._transaction() as connection:
        for number in range(50):
            sha = f"{number:064x}"
            recipe = ("float32", "int8_ptq")[number % 2]
            module._insert_artifact(connection, artifact(sha, f"net_{number // 2}", recipe), "2026")
            module._insert_evaluation(connection, evaluation(sha, number / 50), "2026")
        for number in range(count):
            sha = f"{number % 50:064x}"
            made = (measured(sha, 1000 + number % 977), counted(sha), estimated(sha))[number % 3]
            day = f"2026-{1 + number % 12:02}-{1 + number % 28:02}T00:00:00.000+00:00"
            module._insert_measurement(connection, made, day)


@pytest.mark.slow
def test_many_figures_are_filtered_at_once(here: Path) -> None:
    fill(100_000)
    for where in (
        {"device": "host"},
        {"kind": "counted", "recipe": "int8_ptq"},
        {"model": "net_3"},
    ):
        start = time.perf_counter()
        found = results.results(**where, most=50)
        print(where, len(found.results), f"{1000 * (time.perf_counter() - start):.1f} ms")
        assert len(found.results) == 50


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script where mounts are private; skips where the kernel forbids it."""
    result = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True)
    namespaces.need(result)
    return result


def test_a_store_on_a_read_only_disk_is_listed_and_not_written(here: Path) -> None:
    keep(artifact(), measured())
    saved(here / "base.jsonl")
    (here / "disk").mkdir()
    mount = "mount -t tmpfs none disk && cp -r .mobiledeploy base.jsonl disk && cd disk"
    tool = f"{sys.executable} -m mobiledeploy results"
    result = in_a_namespace(f"{mount} && mount -o remount,ro . && cd . && {tool} --json")
    assert result.returncode == 0, result.stderr
    assert len(records.loads(results.ResultList, result.stdout).results) == 1
    result = in_a_namespace(f"{mount} && mount -o remount,ro . && {tool} regress base.jsonl")
    assert result.returncode in (0, 3), result.stderr
    assert result.stderr.count("[not-stored]") == 1
    mount += " && rm -r .mobiledeploy && mount -o remount,ro ."
    result = in_a_namespace(f"{mount} && {tool} import base.jsonl")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: cannot write in")


def test_a_full_disk_leaves_the_store_as_it_was(here: Path) -> None:
    keep(artifact(), *(measured(ns=1000 + n) for n in range(400)))
    saved(here / "all.jsonl")
    results.results_export(here / "all.jsonl")
    (here / "disk").mkdir()
    tool = f"{sys.executable} -m mobiledeploy results"
    script = (
        "mount -t tmpfs -o size=300k none disk && export MOBILEDEPLOY_STORE=disk/store.db; "
        f"{tool} import all.jsonl; echo $?; {tool} --json"
    )
    result = in_a_namespace(script)
    code, _, listing = result.stdout.partition("\n")
    assert code == "2", result.stderr
    assert (
        "cannot write in disk/store.db: database or disk is full; free some space" in result.stderr
    )
    assert records.loads(results.ResultList, listing).results == ()


GOOD_LINE = json.dumps(
    {"made_at": "2026-01-01T00:00:00+00:00", "of": "", "kept": json.loads(records.line(measured()))}
)
BAD = {
    "a number without end": ('"median_ns":1000.0', '"median_ns":1e999'),
    "a number of 400 digits": ('"median_ns":1000.0', f'"median_ns":1{"0" * 400}'),
    "a number of 5000 digits": ('"median_ns":1000.0', f'"median_ns":1{"0" * 5000}'),
    "no number": ('"median_ns":1000.0', '"median_ns":null'),
    "NaN": ('"median_ns":1000.0', '"median_ns":NaN'),
    "a list": ('"median_ns":1000.0', '"median_ns":[]'),
    "a time below 0": ('"median_ns":1000.0', '"median_ns":-1.0'),
    "an interval beside it": ('"interval_ns":[999.0,', '"interval_ns":[1001.0,'),
    "more than 64 bits": ('"peak_rss_bytes":1,', f'"peak_rss_bytes":{2**70},'),
    "half a surrogate pair": ('"device":"host"', r'"device":"\ud800"'),
    "no thread": ('"threads":1', '"threads":0'),
    "another sha256": (SHA, "A" * 64),
    "the first moment": ("2026-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00"),
    "the last moment": ("2026-01-01T00:00:00+00:00", "9999-12-31T23:59:59-14:00"),
    "year 0": ("2026-01-01T00:00:00+00:00", "0000-01-01T00:00:00+00:00"),
    "no offset": ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00"),
    "another type of record": ('"record":"Measured"', '"record":[]'),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_record_is_named_and_the_store_stays_as_it_was(here: Path, what: str) -> None:
    keep(artifact(), measured())
    line = GOOD_LINE.replace(": ", ":").replace(", ", ",")
    sound, bad = BAD[what]
    assert sound in line
    (here / "bad.jsonl").write_text(f"{line}\n\n{line.replace(sound, bad)}\n")
    with pytest.raises(InputError, match=r"bad\.jsonl, line 3") as error_info:
        results.results_import(here / "bad.jsonl")
    assert "damaged" not in str(error_info.value)
    assert len(results.results().results) == 1
    with Store.open() as store:
        assert len(store.measurements_of(SHA)) == 1
        assert store.verdicts() == store.comparisons() == ()
    assert not list(here.glob("**/*.damaged"))


@pytest.mark.parametrize("moment", ["0001-01-02T00:00:00+00:00", "9999-12-30T23:59:59.999+00:00"])
def test_a_moment_at_the_edge_is_kept_and_read(here: Path, moment: str) -> None:
    (here / "edge.jsonl").write_text(GOOD_LINE.replace("2026-01-01T00:00:00+00:00", moment))
    assert results.results_import(here / "edge.jsonl").new == 1
    assert results.results(since="0001-01-01").results[0].made_at[:10] == moment[:10]


@pytest.mark.parametrize(
    "since", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "0000-01-01"]
)
def test_since_at_the_edge_is_no_time(here: Path, since: str) -> None:
    keep(measured())
    with pytest.raises(UsageError, match="is not a time"):
        results.results(since=since)


def test_a_filter_that_is_no_text_is_a_usage_error(here: Path) -> None:
    keep(measured())
    with pytest.raises(UsageError, match=r"the model .udcff is not text"):
        results.results(model="\udcff")


def test_regress_passes_over_records_of_another_mobiledeploy(here: Path) -> None:
    keep(artifact(), measured())
    results.results_export(here / "base.jsonl")
    with Store.open() as store, store._transaction() as connection:
        connection.execute("UPDATE artifact SET record = '{}'")
    keep(artifact("b" * 64))
    assert results.results_regress(here / "base.jsonl").regressions[0].outcome == "inconclusive"


def test_a_line_too_long_for_a_record_is_named(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(inputs, "RECORD", 100)
    (here / "long.jsonl").write_text("\n" + " " * 200)
    with pytest.raises(InputError, match=r"long\.jsonl, line 2 is too long"):
        results.results_import(here / "long.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["results_import", "results_regress"])
def test_a_file_larger_than_memory_is_read_piece_by_piece(here: Path, verb: str) -> None:
    samples = tuple(range(1000, 21_000))
    with (here / "many.jsonl").open("w") as stream:
        for number in range(50):
            moment = f"2026-03-02T12:00:{number // 10:02}.{number % 10}00+00:00"
            kept = {"made_at": moment, "of": ""}
            stream.write(json.dumps(kept)[:-1] + ', "kept": ')
            stream.write(records.line(measured(samples_ns=samples)) + "}\n")
    keep(measured())
    code = (
        "from pathlib import Path; from mobiledeploy.verbs import results\n"
        "status = Path('/proc/self/status')\n"
        "def peak(): return int(status.read_text().split('VmHWM:')[1].split()[0]) >> 10\n"
        f"before = peak(); results.{verb}(Path('many.jsonl')); print(peak() - before)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Of one record it is 1 MB, of all of them 40.
    assert int(result.stdout) < 15, result.stderr
