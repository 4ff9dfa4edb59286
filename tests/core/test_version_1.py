"""Records of version 1, as mobiledeploy 0.1 wrote them, are read as ever.

The files in version_1/ were written by that version: a record beside an artifact, `results export`,
and a store (as SQL).
"""

import json
import sqlite3
from pathlib import Path

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.types import Artifact, NamedWarning
from mobiledeploy.store.database import SCHEMA, Store, path
from mobiledeploy.verbs import results
from tests.figures import SHA

HERE = Path(__file__).parent / "version_1"
WARNING = NamedWarning("busy-machine", "other programs computed meanwhile", "close them")


def test_a_record_beside_an_artifact_is_read() -> None:
    text = (HERE / "artifact.json").read_text("utf-8")
    assert json.loads(text)["schema_version"] == 1
    assert '"doubts"' in text
    artifact = records.loads(Artifact, text)
    assert artifact.warnings == (WARNING,)
    again = json.loads(records.dumps(artifact))
    assert again["schema_version"] == records.SCHEMA_VERSION
    assert "doubts" not in again


def test_an_export_of_results_is_imported_once(here: Path) -> None:
    assert results.results_import(HERE / "results.jsonl").new == 7
    assert results.results_import(HERE / "results.jsonl").new == 0
    found = results.results().results
    assert {r.kind for r in found} == {"measured", "counted", "estimated"}
    (comparison,) = results.results_compared().comparisons
    assert comparison.ratio == 1.1
    with Store.open() as store:
        assert store.artifacts()[SHA].warnings == (WARNING,)


def test_a_store_is_brought_up_to_date(here: Path) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path())
    connection.executescript((HERE / "store.sql").read_text("utf-8"))
    connection.close()
    with Store.open() as store:
        assert store.artifacts()[SHA].warnings == (WARNING,)
        assert {m.kind for m in store.measurements_of(SHA)} == {"measured", "counted", "estimated"}
        assert all(m.warnings == (WARNING,) for m in store.measurements_of(SHA))
        evaluation = store.evaluation_of(SHA)
        assert evaluation is not None
        assert evaluation.warnings == (WARNING,)
    # What was brought up to date is what the import of the same records would add: nothing is new.
    assert results.results_import(HERE / "results.jsonl").new == 0
    connection = sqlite3.connect(path())
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    texts = [r for (r,) in connection.execute("SELECT record FROM measurement")]
    connection.close()
    assert not any('"doubts"' in text or '"schema_version":1,' in text for text in texts)


def test_another_version_is_refused() -> None:
    data = json.loads((HERE / "artifact.json").read_text("utf-8")) | {"schema_version": 99}
    with pytest.raises(records.InputError, match="schema version 99"):
        records.loads(Artifact, json.dumps(data))
