from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import ColdFigure, Preprocessing, Verdict
from mobiledeploy.store import database as store_
from mobiledeploy.store.database import _STEPS, SCHEMA, Store, path
from tests.conftest import REPOSITORY, Heard
from tests.figures import (
    HOST,
    SHA,
    artifact,
    cold_start,
    counted,
    estimated,
    evaluation,
    integers,
    measured,
)

MEASURED, COUNTED, ESTIMATED = measured(), counted(), estimated()
EVALUATION, ARTIFACT = evaluation(), artifact()

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from mobiledeploy.store.database import Store
from tests.figures import measured
print("go", flush=True)
sys.stdin.readline()
with Store.open() as store:
    for number in range(int(sys.argv[2])):
        store.add_measurement(measured(sys.argv[3]))
        print(number, flush=True)
"""


def writer(count: int, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(REPOSITORY), str(count), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kept(sha256: str) -> list[float]:
    """The median of every measurement of an artifact that the store's file holds."""
    connection = sqlite3.connect(path())
    query = "SELECT latency_ns FROM measurement WHERE artifact_sha256 = ?"
    rows = connection.execute(query, (sha256,)).fetchall()
    connection.close()
    return [median for (median,) in rows]


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_a_store_that_is_not_a_regular_file_is_refused_by_name(here: Path, suffix: str) -> None:
    """SQLite would wait for a pipe for ever, and /dev/null stores nothing."""
    pipe = Path(f"own.db{suffix}")
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=f"own.db{suffix} is not a regular file"):
        Store.open(Path("own.db"))
    with pytest.raises(UsageError, match="/dev/null is not a regular file"):
        Store.open(Path("/dev/null"))
    assert os.listdir() == [pipe.name]


def test_a_read_only_store_is_read_and_stores_nothing(
    here: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open() as store:
        store.add_measurement(MEASURED)
    before = path().read_bytes()
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with Store.keeping(heard) as store:
        assert store.measurement(SHA, HOST) == MEASURED
        store.add_evaluation(EVALUATION)
    assert path().read_bytes() == before
    (warning,) = heard.warnings
    assert warning.name == "not-stored"
    monkeypatch.setenv("MOBILEDEPLOY_STORE", "none/here.db")
    with Store.keeping(heard) as store:
        assert store.measurement(SHA, HOST) is None
    assert not Path("none").exists()


def test_a_store_may_be_a_link(here: Path) -> None:
    Path("far").mkdir()
    Path("own.db").symlink_to("far/real.db")
    with Store.open(Path("own.db")) as store:
        store.add_measurement(MEASURED)
    assert Path("own.db").is_symlink()
    with Store.open(Path("far/real.db")) as store:
        assert store.measurement(SHA, HOST) == MEASURED


def test_stored_records_are_read_back(here: Path) -> None:
    with Store.open() as store:
        assert store.measurement(SHA, HOST) is None
        store.add_measurement(MEASURED)
        store.add_measurement(dataclasses.replace(MEASURED, median_ns=1.0))
        store.add_evaluation(EVALUATION)
    with Store.open() as store:
        assert store.measurement(SHA, HOST) == dataclasses.replace(MEASURED, median_ns=1.0)
        request = (EVALUATION.data, EVALUATION.preprocessing, HOST)
        assert store.evaluation(SHA, *request) == EVALUATION
        assert store.evaluation("other", *request) is None


def test_a_measurement_answers_for_its_own_target_alone(here: Path) -> None:
    others = [
        dataclasses.replace(HOST, **change)
        for change in (
            {"device": "phone"},
            {"runner": "native"},
            {"runtime": "tflite_runtime"},
            {"threads": 2},
            {"delegate": "none"},
        )
    ]
    with Store.open() as store:
        for number, other in enumerate([HOST, *others]):
            output = dataclasses.replace(MEASURED, target=other, median_ns=float(number))
            store.add_measurement(output)
        for number, other in enumerate([HOST, *others]):
            result = store.measurement(SHA, other)
            assert result and (result.target, result.median_ns) == (other, number)
        # Without a delegate the newest of all matches.
        result = store.measurement(SHA, dataclasses.replace(HOST, delegate=""))
        assert result and result.target.delegate == "none"
        assert store.measurement(SHA, dataclasses.replace(HOST, threads=4)) is None


@pytest.mark.parametrize("result", [MEASURED, COUNTED, ESTIMATED], ids=lambda m: m.kind)
def test_every_kind_of_figure_is_stored_in_the_column_of_its_unit(here: Path, result: Any) -> None:
    with Store.open() as store:
        store.add_measurement(result)
        assert store.measurement(SHA, result.target) == result
        assert store.measurements_of(SHA) == (result,)
    connection = sqlite3.connect(path())
    kind, latency, instructions = connection.execute(
        "SELECT kind, latency_ns, instructions FROM measurement"
    ).fetchone()
    connection.close()
    assert kind == result.kind
    assert (latency is None, instructions is None) == (kind == "counted", kind != "counted")


def test_no_figure_matches_after_an_upgrade_of_the_runtime(here: Path) -> None:
    request = (EVALUATION.data, EVALUATION.preprocessing, HOST)
    with Store.open() as store:
        store.add_measurement(MEASURED)
        store.add_measurement(COUNTED)
        store.add_evaluation(EVALUATION)
        for version, answers in (("2", True), ("3", False), ("", True)):
            assert (store.measurement(SHA, HOST, version) is not None) == answers
            assert (store.measurement(SHA, COUNTED.target, version) is not None) == answers
            assert (store.evaluation(SHA, *request, version) is not None) == answers


def of_schema(number: int) -> sqlite3.Connection:
    """An empty store as an earlier schema had it, open for its rows."""
    path().parent.mkdir()
    connection = sqlite3.connect(path())
    for step in range(1, number + 1):
        for statement in _STEPS[step]:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {number}")
    return connection


def test_a_store_of_the_first_schema_is_brought_up_to_date(here: Path) -> None:
    connection = of_schema(1)
    connection.execute(
        "INSERT INTO measurement VALUES (NULL, '2026-01-01', ?, 'host', 'litert', 1, 'xnnpack', ?,"
        " ?)",
        (SHA, MEASURED.median_ns, records.line(MEASURED)),
    )
    connection.execute(
        "INSERT INTO evaluation VALUES (NULL, '2026-01-01', ?, 'litert', 'id', 1, 1.0, NULL, ?)",
        (SHA, records.line(EVALUATION)),
    )
    connection.commit()
    connection.close()
    request = (EVALUATION.data, EVALUATION.preprocessing, HOST)
    for _ in range(2):
        with Store.open() as store:
            assert store.measurement(SHA, HOST, "2") == MEASURED
            assert store.measurement(SHA, HOST, "3") is None
            assert store.evaluation(SHA, *request, "2") == EVALUATION
            assert store.evaluation(SHA, *request, "3") is None
    assert kept(SHA) == [MEASURED.median_ns]
    connection = sqlite3.connect(path())
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    connection.close()


def test_a_store_of_the_third_schema_gets_weights_and_images(here: Path) -> None:
    connection = of_schema(3)
    known_values = artifact(weights="1" * 64, of="run")
    own = dataclasses.replace(EVALUATION, preprocessing=known_values.spec.preprocessing)
    connection.execute(
        "INSERT INTO artifact VALUES (?, '2026-01-01', 'net', 'float32', 'tflite', 1000, ?)",
        (SHA, records.line(known_values)),
    )
    connection.execute(
        "INSERT INTO measurement VALUES (NULL, '2026-01-01', ?, 'measured', 'host', 'python', "
        "'litert', '2', 1, 'xnnpack', 1000.0, NULL, ?)",
        (SHA, records.line(MEASURED)),
    )
    connection.execute(
        "INSERT INTO evaluation VALUES (NULL, '2026-01-01', ?, 'litert', 'id', 1, 0.5, NULL, ?, "
        "'2')",
        (SHA, records.line(own)),
    )
    connection.execute(
        "INSERT INTO evaluation VALUES (NULL, '2026-01-02', ?, 'litert', 'id', 1, 0.5, NULL, "
        "'{\"of\": \"another mobiledeploy\"}', '2')",
        ("b" * 64,),
    )
    connection.commit()
    connection.close()
    with Store.open() as store:
        # The later one has another preprocessing.
        trial = dataclasses.replace(EVALUATION, preprocessing=Preprocessing((0.0, 9.0)), top1=0.9)
        store.add_evaluation(trial)
        (row,) = store.results()
        assert (row.weights, row.weights_sha256) == ("run", "1" * 64)
        assert (row.top1, row.data_source, row.data_split) == (0.5, "demo", "validation")
        assert not row.recorded
        assert store.artifacts() == {SHA: known_values}
        assert store.measurement(SHA, HOST) == MEASURED


def test_a_store_of_the_sixth_schema_gets_the_ends_of_integer_files(here: Path) -> None:
    connection = of_schema(6)
    known_values = [integers("a" * 64, "uint8"), integers("b" * 64, "float"), artifact("c" * 64)]
    for one in known_values:
        connection.execute(
            "INSERT INTO artifact VALUES (?, '2026-01-01', 'net', ?, 'tflite', 1000, ?, '', '', "
            "'')",
            (one.sha256, one.recipe.name, records.line(one)),
        )
    connection.commit()
    connection.close()
    with Store.open() as store:
        ends = {r.artifact_sha256[0]: r.io for r in store.unmeasured()}
        assert ends == {"a": "uint8", "b": "float", "c": ""}
        # As for new artifacts.
        for one in known_values:
            store.add_artifact(one)
        assert ends == {r.artifact_sha256[0]: r.io for r in store.unmeasured()}
        for one in known_values:
            store.add_measurement(measured(one.sha256))
        assert ends == {r.artifact_sha256[0]: r.io for r in store.results()}


def test_a_store_of_the_eighth_schema_gets_the_metric_of_each_task(here: Path) -> None:
    connection = of_schema(8)
    detector = dataclasses.replace(
        EVALUATION, task="detection", metrics={"map": 0.3, "ap50": 0.5}, top1=None
    )
    evaluations = {"a": EVALUATION, "b": detector, "c": dataclasses.replace(EVALUATION, top1=None)}
    for name, one in evaluations.items():
        connection.execute(
            "INSERT INTO evaluation VALUES (NULL, '2026-01-01', ?, 'litert', 'id', 1, ?, NULL, ?, "
            "'2', '', '', '')",
            (name * 64, one.top1, records.line(one)),
        )
    connection.commit()
    connection.close()
    with Store.open() as store:
        for name in evaluations:
            store.add_artifact(artifact(name * 64))
        rows = {r.artifact_sha256[0]: (r.task, r.metric, r.value) for r in store.unmeasured()}
        assert rows == {
            "a": ("classification", "top1", EVALUATION.top1),
            "b": ("detection", "map", 0.3),
            "c": ("", "", None),
        }
        # As for new evaluations.
        for name, one in evaluations.items():
            store.add_evaluation(dataclasses.replace(one, artifact_sha256=name * 64))
        assert rows == {
            r.artifact_sha256[0]: (r.task, r.metric, r.value) for r in store.unmeasured()
        }


def test_a_store_of_the_ninth_schema_gets_the_device_of_evaluations(here: Path) -> None:
    connection = of_schema(9)
    away = dataclasses.replace(
        EVALUATION, target=dataclasses.replace(EVALUATION.target, device="adb:1")
    )
    for one in (EVALUATION, away):
        connection.execute(
            "INSERT INTO evaluation VALUES (NULL, '2026-01-01', ?, 'litert', 'id', 1, ?, NULL, ?, "
            "'2', '', '', '', 'classification', 'top1', ?)",
            (one.artifact_sha256, one.top1, records.line(one), one.top1),
        )
    connection.commit()
    connection.close()
    with Store.open() as store:
        assert [(e.device, e.recorded) for e in store.evaluations()] == [
            ("adb:1", False),
            ("host", False),
        ]
        judged = store.judgement(EVALUATION.artifact_sha256)
        assert judged is not None
        assert judged.target.device == "host"
        # A replayed one is stored once, with its own time.
        replayed = dataclasses.replace(away, images_per_second=2.0)
        for _ in range(2):
            store.add_evaluation(replayed, "2026-01-02T00:00:00.000000+00:00")
        assert [(e.made_at[:10], e.device, e.recorded) for e in store.evaluations()] == [
            ("2026-01-02", "adb:1", True),
            ("2026-01-01", "adb:1", False),
            ("2026-01-01", "host", False),
        ]


def test_a_store_of_the_tenth_schema_gets_cold_starts(here: Path) -> None:
    connection = of_schema(10)
    connection.execute(
        "INSERT INTO comparison VALUES (NULL, '2026-01-01', ?, ?, 'host', 1.0, 0.9, 1.1, '{}', 0)",
        (SHA, SHA),
    )
    connection.commit()
    connection.close()
    first, second = cold_start(), cold_start(size_bytes=2000)
    with Store.open() as store:
        assert len(store.comparisons()) == 1
        assert store.cold_starts() == ()
        store.add_artifact(ARTIFACT)
        store.add_cold_start(first)
        store.add_cold_start(second)
        kept_ = store.cold_starts()
        assert [(k.model, k.recipe, k.cold_start) for k in kept_] == [
            ("net", "float32", second),
            ("net", "float32", first),
        ]
        # They are no figures of `results`.
        assert store.results() == ()
        lines = [line for line in store.dump() if "ColdStart" in line]
    with Store.open(here / "other.db") as other:
        assert [other.load([store_.read_stored(line, "it")]) for line in lines * 2] == [1, 1, 0, 0]
        assert [k.cold_start for k in other.cold_starts()] == [second, first]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"figures": ()}, "figures"),
        (
            {"figures": (*cold_start().figures[:1], ColdFigure("load_ns", (1,), 1, (1, 1)))},
            "figures",
        ),
        ({"figures": (ColdFigure("load_ns", (-1,), 1, (1, 1)),)}, "figures"),
        ({"figures": (ColdFigure("load_ns", (1,), 3, (1, 2)),)}, "figures"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"artifact_sha256": "a"}, "artifact_sha256"),
        ({"target": dataclasses.replace(HOST, threads=0)}, "threads"),
    ],
)
def test_a_cold_start_that_nobody_measured_is_refused(change, field: str) -> None:
    kept_ = json.loads(records.line(cold_start(**change)))
    line = json.dumps({"made_at": "2026-01-01T00:00:00+00:00", "of": "", "kept": kept_})
    with pytest.raises(InputError, match=f"line 1: {field} is not valid"):
        store_.read_stored(line, "line 1")


def test_an_evaluation_with_another_preprocessing_is_not_the_artifacts_figure(here: Path) -> None:
    own = dataclasses.replace(EVALUATION, preprocessing=ARTIFACT.spec.preprocessing, top1=0.8)
    trial = dataclasses.replace(own, preprocessing=Preprocessing((0.0, 9.0)), top1=0.1)
    with Store.open() as store:
        store.add_artifact(ARTIFACT)
        for one in (own, trial):
            store.add_evaluation(one)
        (row,) = store.unmeasured()
        assert row.top1 == own.top1
        assert store.judgement(ARTIFACT.sha256) == own


def test_an_evaluation_answers_for_the_same_images_prepared_alike(here: Path) -> None:
    data, pre = EVALUATION.data, EVALUATION.preprocessing
    ours = (data, pre, HOST)
    others = [
        (dataclasses.replace(data, identity="changed"), pre, HOST),
        (dataclasses.replace(data, split="all"), pre, HOST),
        (dataclasses.replace(data, labels=("b", "a")), pre, HOST),
        (dataclasses.replace(data, resolution=(9, 9)), pre, HOST),
        (data, Preprocessing((0.0, 1.0)), HOST),
        (data, pre, dataclasses.replace(HOST, delegate="none")),
        (data, pre, dataclasses.replace(HOST, runtime="tflite_runtime")),
    ]
    with Store.open() as store:
        for number, (where, how, target) in enumerate([ours, *others]):
            store.add_evaluation(
                dataclasses.replace(
                    EVALUATION, data=where, preprocessing=how, target=target, images=number
                )
            )
        for number, request in enumerate([ours, *others]):
            result = store.evaluation(SHA, *request)
            assert result and result.images == number
        # The same images by another path are the same.
        result = store.evaluation(SHA, dataclasses.replace(data, source="./demo"), pre, HOST)
        assert result and result.images == 0


def test_a_record_with_other_fields_is_skipped(here: Path) -> None:
    with Store.open() as store:
        store.add_measurement(MEASURED)
        store.add_measurement(dataclasses.replace(MEASURED, median_ns=7.0))
    connection = sqlite3.connect(path())
    with connection:
        connection.execute(
            "UPDATE measurement SET record = json_remove(record, '$.facts_after') WHERE id = 2"
        )
    connection.close()
    with Store.open() as store:
        assert store.measurement(SHA, HOST) == MEASURED


def test_the_newest_export_is_found(here: Path) -> None:
    with Store.open() as store:
        assert store.last_export() == ()
        store.add_export("one", {"build/a.tflite": ARTIFACT, "build/b.onnx": ARTIFACT})
        store.add_export("two", {"build/c.tflite": ARTIFACT})
        assert store.last_export() == ("build/c.tflite",)
    os.mkdir("inside")
    os.chdir("inside")
    with Store.open(here / ".mobiledeploy" / "store.db") as store:
        assert store.last_export() == (str(here / "build" / "c.tflite"),)


def test_its_path_is_set_by_the_environment(here: Path) -> None:
    assert path() == Path(".mobiledeploy", "store.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(here / "elsewhere.db"))
        Store.open().__exit__()
    assert (here / "elsewhere.db").is_file()
    assert not (here / ".mobiledeploy").exists()


def test_a_newer_store_is_refused_and_not_changed(here: Path) -> None:
    Store.open().__exit__()
    connection = sqlite3.connect(path())
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    before = path().read_bytes()
    with pytest.raises(InputError, match=rf"store.db has schema {SCHEMA + 1}"):
        Store.open()
    assert path().read_bytes() == before


@pytest.mark.parametrize("place", [".", "/", ".."])
def test_a_folder_is_not_a_store(place: str) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        Store.open(Path(place))


def test_another_programs_database_is_not_changed(here: Path) -> None:
    connection = sqlite3.connect(here / "photos.db")
    connection.execute("CREATE TABLE photo (name TEXT)")
    connection.close()
    with pytest.raises(InputError, match=r"photos.db has schema 0"):
        Store.open(here / "photos.db")


@pytest.mark.parametrize("content", [b"no database at all, but some text" * 100, None])
def test_a_damaged_store_is_named(here: Path, content: bytes | None) -> None:
    with Store.open() as store:
        for _ in range(50):
            store.add_measurement(MEASURED)
    for leftover in path().parent.glob("store.db-*"):
        leftover.unlink()
    whole = path().read_bytes()
    path().write_bytes(content or whole[:4096] + b"\xa5" * (len(whole) - 4096))
    damaged = path().read_bytes()
    with pytest.raises(InputError, match=r"store.db is damaged.*a copy is in"):  # noqa: SIM117
        with Store.open() as store:
            store.measurement(SHA, HOST)
            store.add_measurement(MEASURED)
    assert path().with_name("store.db.damaged").read_bytes() == damaged


def test_a_damaged_store_that_is_larger_than_memory_is_not_copied(here: Path) -> None:
    path().parent.mkdir()
    with path().open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(InputError, match=r"store.db is damaged.*it could not be copied"):
        Store.open()
    assert [file.name for file in path().parent.iterdir()] == ["store.db"]


def test_a_place_that_cannot_be_written_is_a_usage_error(here: Path) -> None:
    (here / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        Store.open(here / "file" / "store.db")
    with pytest.raises(UsageError, match="is a folder"):
        Store.open(here)


def test_several_processes_write_at_once_from_the_first_moment_on(here: Path) -> None:
    writers = [writer(25, f"writer {number}") for number in range(4)]
    for process in writers:
        assert process.stdout
        assert process.stdout.readline() == "go\n"
    for process in writers:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    for number in range(4):
        assert kept(f"writer {number}") == [MEASURED.median_ns] * 25


def test_a_killed_writer_leaves_its_finished_records(here: Path) -> None:
    with writer(100_000, "killed") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        while process.stdout.readline().strip() != "20":
            pass
        process.send_signal(signal.SIGKILL)
    with Store.open() as store:
        assert len(kept("killed")) > 20
        last = store.measurement("killed", HOST)
        assert last == measured("killed")
        store.add_measurement(MEASURED)
        assert store.measurement(SHA, HOST) == MEASURED


def test_bytes_of_a_name_that_are_not_text_are_escaped(here: Path) -> None:
    """A folder's name may be of another encoding; the store keeps text."""
    name = "caf\udce9"
    target = dataclasses.replace(MEASURED.target, device=f"replay:{name}")
    verdict = Verdict("golden", "", "pass", 0.0, None, 1.0, 4, None, f"{name}/a.tflite: fine")
    with Store.open() as store:
        store.add_measurement(dataclasses.replace(MEASURED, target=target))
        store.add_verdict("a" * 64, "check", verdict)
        store.add_job("key", name, "failed", name)
        assert store.results()[0].device == r"replay:caf\udce9"
        assert store.verdicts()[0].line == r"caf\udce9/a.tflite: fine"
        lines = tuple(store.dump())
    with Store.open(here / "other.db") as other:
        assert other.load(store_.read_stored(line, "it") for line in lines) == 2
        assert other.load(store_.read_stored(line, "it") for line in lines) == 0


def test_a_sound_store_is_never_called_damaged(here: Path) -> None:
    with Store.open() as store:
        store.add_measurement(MEASURED)
        with pytest.raises(InputError, match="cannot store this record"):
            store.add_measurement(dataclasses.replace(MEASURED, median_ns=float("nan")))
        with pytest.raises(InputError, match="whole characters and numbers of 64 bits"):
            store.measurement_by_id(2**70)
        assert len(store.results()) == 1
    assert not list(here.glob("**/*.damaged"))


LINES = [
    json.dumps({"made_at": "2026-01-01T00:00:00+00:00", "of": "", "kept": json.loads(text)})
    for text in map(
        records.line, (MEASURED, COUNTED, ESTIMATED, EVALUATION, ARTIFACT, cold_start())
    )
]
ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 2**70, -1, 0])
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from([[], {}, [None], ["\ud800"], "0001-01-01T00:00+14:00"])
)


@given(data=st.data(), line=st.sampled_from(LINES))
def test_any_json_is_stored_or_refused_by_its_place(data: Any, line: str) -> None:
    whole = json.loads(line)
    place = whole
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(ANY)
            break
        place = place[key]
    try:
        one = store_.read_stored(json.dumps(whole), "the line")
    except InputError as error:
        # The place comes first, and the message does not mention a store.
        messages = str(error)
    else:
        messages = "the line"
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder, "s.db")) as store:
            assert store.load([one]) == 1
            assert store.load([one]) == 0
            assert len(tuple(store.dump())) == 1
            store.results()
            store.unmeasured()
            store.artifacts()
            store.cold_starts()
    assert messages.startswith("the line")


def test_git_ignores_a_store_of_ours_and_no_folder_of_the_user(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MOBILEDEPLOY_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    with Store.open():
        assert (tmp_path / ".mobiledeploy" / ".gitignore").read_text() == "*\n"
    with Store.open(tmp_path / "mine" / "store.db"):
        assert not (tmp_path / "mine" / ".gitignore").exists()
