"""The store of this folder: artifacts and figures in one SQLite file, `.mobiledeploy/store.db`.

It holds whole records as JSON, and columns for filters. Several processes may write at once. A
store of an earlier schema is brought up to date when it is opened; one on a disk that cannot be
written is read as it is.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mobiledeploy.core import inputs, records, units
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.package import project_folders
from mobiledeploy.core.types import (
    Artifact,
    ColdStart,
    Counted,
    DataRef,
    Estimated,
    Evaluation,
    LatencyComparison,
    Measured,
    Measurement,
    NamedWarning,
    Preprocessing,
    Result,
    StoredColdStart,
    StoredComparison,
    StoredEvaluation,
    StoredVerdict,
    Target,
    Verdict,
)

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Reporter

SCHEMA = 11
WAIT_SECONDS = 30.0
# The largest damaged store, in bytes, that is read as a whole for a copy.
_MOST_COPIED = 512 << 20
_STEPS: dict[int, tuple[str, ...]] = {
    1: (
        """CREATE TABLE artifact (
            sha256 TEXT PRIMARY KEY, made_at TEXT NOT NULL, name TEXT NOT NULL,
            recipe TEXT NOT NULL, format TEXT NOT NULL, size_bytes INTEGER NOT NULL,
            record TEXT NOT NULL)""",
        """CREATE TABLE evaluation (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, artifact_sha256 TEXT NOT NULL,
            runtime TEXT NOT NULL, data_identity TEXT NOT NULL, images INTEGER NOT NULL,
            top1 REAL, agreement REAL, record TEXT NOT NULL)""",
        """CREATE TABLE measurement (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, artifact_sha256 TEXT NOT NULL,
            device TEXT NOT NULL, runtime TEXT NOT NULL, threads INTEGER NOT NULL,
            delegate TEXT NOT NULL, median_ns REAL NOT NULL, record TEXT NOT NULL)""",
        """CREATE TABLE export (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, key TEXT NOT NULL,
            paths TEXT NOT NULL)""",
        "CREATE INDEX evaluation_of ON evaluation (artifact_sha256)",
        "CREATE INDEX measurement_of ON measurement (artifact_sha256)",
        "CREATE INDEX export_of ON export (key)",
    ),
    # Every kind of figure, each in a column of its own unit, and the version that gave it; and
    # what became of the jobs of a sweep, and verdicts.
    2: (
        "ALTER TABLE measurement RENAME TO measurement_1",
        "DROP INDEX measurement_of",
        "DROP INDEX evaluation_of",
        "DROP INDEX export_of",
        """CREATE TABLE measurement (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, artifact_sha256 TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('measured', 'counted', 'estimated')),
            device TEXT NOT NULL, runner TEXT NOT NULL, runtime TEXT NOT NULL,
            runtime_version TEXT NOT NULL, threads INTEGER NOT NULL, delegate TEXT NOT NULL,
            latency_ns REAL, instructions INTEGER, record TEXT NOT NULL,
            CHECK ((kind = 'counted') = (instructions IS NOT NULL)),
            CHECK ((kind = 'counted') = (latency_ns IS NULL)))""",
        """INSERT INTO measurement SELECT
            id, made_at, artifact_sha256, 'measured', device,
            coalesce(json_extract(record, '$.target.runner'), ''), runtime,
            coalesce(json_extract(record, '$.runtime_version'), ''), threads, delegate,
            median_ns, NULL, record
            FROM measurement_1 ORDER BY id""",
        "DROP TABLE measurement_1",
        "ALTER TABLE evaluation ADD COLUMN runtime_version TEXT NOT NULL DEFAULT ''",
        """UPDATE evaluation SET runtime_version =
            coalesce(json_extract(record, '$.runtime_version'), '')""",
        """CREATE TABLE verdict (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, artifact_sha256 TEXT NOT NULL,
            gate TEXT NOT NULL, metric TEXT NOT NULL, outcome TEXT NOT NULL,
            record TEXT NOT NULL)""",
        """CREATE TABLE job (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, key TEXT NOT NULL, what TEXT NOT NULL,
            outcome TEXT NOT NULL, message TEXT NOT NULL)""",
        "CREATE INDEX measurement_of ON measurement (artifact_sha256, made_at)",
        # The columns for filters and groups, so that a query reads no records.
        """CREATE INDEX measurement_by ON measurement (
            artifact_sha256, kind, device, runner, runtime, threads, delegate, made_at)""",
        "CREATE INDEX evaluation_of ON evaluation (artifact_sha256, made_at)",
        "CREATE INDEX verdict_of ON verdict (artifact_sha256, made_at)",
        "CREATE INDEX job_of ON job (key)",
    ),
    # Two artifacts timed in turns.
    3: (
        """CREATE TABLE comparison (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, a_sha256 TEXT NOT NULL,
            b_sha256 TEXT NOT NULL, device TEXT NOT NULL, ratio REAL NOT NULL,
            low REAL NOT NULL, high REAL NOT NULL, record TEXT NOT NULL)""",
    ),
    # Whether it was played back from a recording: then `made_at` is when that was made.
    4: (
        "ALTER TABLE measurement ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE comparison ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0",
    ),
    # The weights and the images, which a model's name does not show.
    5: (
        "ALTER TABLE artifact ADD COLUMN weights TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE artifact ADD COLUMN weights_sha256 TEXT NOT NULL DEFAULT ''",
        """UPDATE artifact SET
            weights = coalesce(json_extract(record, '$.spec.weights.source'), ''),
            weights_sha256 = coalesce(json_extract(record, '$.spec.weights.sha256'), '')""",
        "ALTER TABLE evaluation ADD COLUMN data_source TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE evaluation ADD COLUMN data_split TEXT NOT NULL DEFAULT ''",
        """UPDATE evaluation SET
            data_source = coalesce(json_extract(record, '$.data.source'), ''),
            data_split = coalesce(json_extract(record, '$.data.split'), '')""",
    ),
    # How an image became the input: a trial of another way is no figure of the artifact's.
    6: (
        "ALTER TABLE artifact ADD COLUMN preprocessing TEXT NOT NULL DEFAULT ''",
        """UPDATE artifact SET
            preprocessing = coalesce(json_extract(record, '$.spec.preprocessing'), '')""",
        "ALTER TABLE evaluation ADD COLUMN preprocessing TEXT NOT NULL DEFAULT ''",
        """UPDATE evaluation SET
            preprocessing = coalesce(json_extract(record, '$.preprocessing'), '')""",
    ),
    # Of an integer file, what it takes and gives: `Artifact.ends`.
    7: (
        "ALTER TABLE artifact ADD COLUMN io TEXT NOT NULL DEFAULT ''",
        """UPDATE artifact SET io = coalesce(json_extract(record, '$.io'), '')
            WHERE json_extract(record, '$.recipe.calibration') IS NOT NULL
            AND json_extract(record, '$.recipe.activation_bits') <= 16""",
    ),
    # Records of version 2: what was a doubt is a warning.
    8: tuple(
        f"""UPDATE {table} SET record = replace(replace(replace(record,
            '"schema_version":1,', '"schema_version":2,'),
            '"record":"Compared"', '"record":"LatencyComparison"'), '"doubts":', '"warnings":')"""  # noqa: S608 - of constants
        for table in ("artifact", "evaluation", "measurement", "verdict", "comparison")
    ),
    # The first metric of the evaluation's task. An evaluation without a task is a classifier's.
    9: (
        "ALTER TABLE evaluation ADD COLUMN task TEXT NOT NULL DEFAULT 'classification'",
        "ALTER TABLE evaluation ADD COLUMN metric TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE evaluation ADD COLUMN value REAL",
        """UPDATE evaluation SET
            task = coalesce(json_extract(record, '$.task'), 'classification'),
            metric = CASE WHEN top1 IS NULL
                THEN coalesce((SELECT key FROM json_each(record, '$.metrics') LIMIT 1), '')
                ELSE 'top1' END,
            value = coalesce(top1, (SELECT value FROM json_each(record, '$.metrics') LIMIT 1))""",
    ),
    # Where it was made: until now on the host, always.
    10: (
        "ALTER TABLE evaluation ADD COLUMN device TEXT NOT NULL DEFAULT 'host'",
        "ALTER TABLE evaluation ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0",
        """UPDATE evaluation SET
            device = coalesce(json_extract(record, '$.target.device'), 'host')""",
    ),
    # What fresh processes need until their first answer.
    11: (
        """CREATE TABLE cold_start (
            id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, artifact_sha256 TEXT NOT NULL,
            device TEXT NOT NULL, runtime TEXT NOT NULL, record TEXT NOT NULL)""",
        "CREATE INDEX cold_start_of ON cold_start (artifact_sha256, made_at)",
    ),
}
# The filters of `results`.
_TESTS = {
    "model": "m.artifact_sha256 IN (SELECT sha256 FROM artifact WHERE name = ?)",
    "recipe": "m.artifact_sha256 IN (SELECT sha256 FROM artifact WHERE recipe = ?)",
    "format": "m.artifact_sha256 IN (SELECT sha256 FROM artifact WHERE format = ?)",
    "artifact": "m.artifact_sha256 GLOB ? || '*'",
    "kind": "m.kind = ?",
    "device": "m.device = ?",
    "runtime": "m.runtime = ?",
    "since": "m.made_at >= ?",
}
# In the artifact's own preprocessing and of the images that it was exported with, before others,
# which are other questions.
_OWN = (
    "preprocessing = (SELECT x.preprocessing FROM artifact x WHERE x.sha256 = artifact_sha256) "
    "DESC, data_identity = (SELECT json_extract(x.record, '$.data.identity') FROM artifact x "
    "WHERE x.sha256 = artifact_sha256) DESC, made_at DESC, id DESC"
)
# Answers of another device are another question, and never stand for those of the host.
_HOST = "device = 'host' AND NOT recorded"
# The most relevant evaluation of an artifact, with and without labels.
_NEWEST = (
    "(SELECT id FROM evaluation e WHERE e.artifact_sha256 = m.artifact_sha256 "  # noqa: S608 - of constants
    f"AND {{0}} IS NOT NULL AND {_HOST} ORDER BY {_OWN} LIMIT 1)"
)
_EVALUATION_JOIN = (
    f"LEFT JOIN evaluation e ON e.id = {_NEWEST.format('value')} "
    f"LEFT JOIN evaluation g ON g.id = {_NEWEST.format('agreement')} "
)
_EVALUATION_COLUMNS = (
    "coalesce(e.data_source, ''), coalesce(e.data_split, ''), coalesce(e.data_identity, ''), "
    "coalesce(e.images, 0)"
)
_METRIC_COLUMNS = "coalesce(e.task, ''), coalesce(e.metric, ''), e.value"
# The newest figure of an artifact on a target, whenever it came into this store.
_NEWEST_FIGURES = (
    "(SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY artifact_sha256, kind, device, "
    "runner, runtime, threads, delegate ORDER BY made_at DESC, id DESC) AS place "
    "FROM measurement INDEXED BY measurement_by) WHERE place = 1)"
)
_RECORDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Artifact,
        Evaluation,
        Measured,
        Counted,
        Estimated,
        Verdict,
        LatencyComparison,
        ColdStart,
    )
}
_KINDS: dict[str, type[Measurement]] = {
    "measured": Measured,
    "counted": Counted,
    "estimated": Estimated,
}
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FOLDER = ".mobiledeploy"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
T = TypeVar("T")
R = TypeVar("R")
Record = Artifact | Evaluation | Measurement | Verdict | LatencyComparison | ColdStart
# In JSON text: what may be half of a surrogate pair.
_HALF = re.compile(r"\\ud[c-f]", re.IGNORECASE)


def path() -> Path:
    """The store's path: MOBILEDEPLOY_STORE, or .mobiledeploy/store.db.

    That lies in the current folder, or in one above it in the same git repository.
    """
    if named := os.environ.get("MOBILEDEPLOY_STORE"):
        return Path(named)
    file = Path(_FOLDER, "store.db")
    there = (Path(os.path.relpath(folder)) / file for folder in project_folders())
    return next((path for path in there if path.is_file()), file)


def writable() -> bool:
    """Whether the store can be written, or created if there is none."""
    file = path().absolute()
    place = file.parent
    while not place.exists():
        place = place.parent
    return os.access(place, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


class Store:
    """An open store; a context manager that closes it."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self._file = file
        self._connection = connection

    @classmethod
    def open(cls, file: Path | None = None) -> Store:
        """Opens the store at `file` (default: `path()`), or creates it.

        An existing store on a read-only disk can be read.

        Raises:
            UsageError: its folder cannot be written, or another process keeps it busy.
            InputError: it is damaged, not a store, or of a newer mobiledeploy.
        """
        file = path() if file is None else file
        # SQLite would wait for a pipe for ever; it also keeps two more files beside the store.
        for suffix in ("", "-wal", "-shm", "-journal"):
            records.refuse_irregular(file.parent / f"{file.name}{suffix}")
        place = str(file)
        if file.is_file() and not os.access(file.parent, os.W_OK):
            # Nobody else can write there either, so it may be read without locks.
            place = f"{file.absolute().as_uri()}?immutable=1"
        else:
            new = not file.parent.exists()
            with records.writing(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
            if new and file.parent.name == _FOLDER:
                records.keep_out_of_git(file.parent)
        with _refusals(file):
            connection = sqlite3.connect(
                place, timeout=WAIT_SECONDS, isolation_level=None, uri=place.startswith("file:")
            )
            try:
                _prepare(connection, file)
            except BaseException:
                connection.close()
                raise
        return cls(file, connection)

    @classmethod
    def keeping(cls, reporter: Reporter) -> Store:
        """The store for a verb whose result is useful even if it cannot be stored.

        If it cannot be written, `reporter` gets a warning: existing records can be read, and new
        ones are lost with the process.

        Raises:
            UsageError, InputError: as of `open`.
        """
        file = path()
        if writable():
            return cls.open(file)
        reporter.warn(
            NamedWarning(
                "not-stored",
                f"results are not stored: {file} cannot be written",
                "to store them, work in a folder of your own or set MOBILEDEPLOY_STORE",
            )
        )
        connection = sqlite3.connect(":memory:", isolation_level=None)
        records.refuse_irregular(file)
        with _refusals(file):
            if file.exists():
                there = sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)
                with closing(there):
                    there.backup(connection)
            _prepare(connection, file)
        return cls(file, connection)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add_export(self, key: str, artifacts: Mapping[str, Artifact]) -> None:
        """Stores the files of one export: path -> artifact. `key` identifies its inputs."""
        paths = json.dumps([str(Path(p).resolve()) for p in artifacts])
        with self._transaction() as connection:
            for artifact in artifacts.values():
                _insert_artifact(connection, artifact, _now())
            connection.execute("INSERT INTO export VALUES (NULL, ?, ?, ?)", (_now(), key, paths))

    def last_export(self) -> tuple[str, ...]:
        """The files of the newest export; () if there was none."""
        return self._paths("SELECT paths FROM export ORDER BY id DESC LIMIT 1")

    def add_evaluation(self, evaluation: Evaluation, played: str = "") -> None:
        """Stores an evaluation; `played` as in `add_measurement`."""
        with self._transaction() as connection:
            if not (played and _here(connection, evaluation)):
                _insert_evaluation(connection, evaluation, played or _now(), bool(played))

    def evaluations(self) -> tuple[StoredEvaluation, ...]:
        """Every evaluation, newest first, without its predictions."""
        rows = self._all(
            "SELECT e.made_at, e.artifact_sha256, coalesce(name, ''), coalesce(recipe, ''), "
            "coalesce(format, ''), device, e.runtime, runtime_version, "
            "coalesce(json_extract(e.record, '$.target.delegate'), ''), "
            "coalesce(json_extract(e.record, '$.isa'), ''), task, metric, value, agreement, "
            "images, data_source, data_split, data_identity, recorded "
            "FROM evaluation e LEFT JOIN artifact a ON a.sha256 = e.artifact_sha256 "
            "ORDER BY e.made_at DESC, e.id DESC"
        )
        evaluations = (StoredEvaluation(*row) for row in rows)
        return tuple(replace(e, recorded=bool(e.recorded)) for e in evaluations)

    def evaluation(
        self,
        sha256: str,
        data: DataRef,
        preprocessing: Preprocessing,
        target: Target,
        runtime_version: str = "",
    ) -> Evaluation | None:
        """The newest evaluation of an artifact on these images, prepared and run like this.

        Images are the same by their identity, whatever name they went by; a target without a
        delegate takes every one, and so does no version.
        """

        def fits(e: Evaluation) -> bool:
            return (
                replace(e.data, source="") == replace(data, source="")
                and e.preprocessing == preprocessing
                and _fits(e.target, target)
            )

        return self._newest(
            Evaluation,
            fits,
            "SELECT record FROM evaluation WHERE artifact_sha256 = ? AND runtime = ? "
            "AND data_identity = ? AND NOT recorded AND ? IN ('', runtime_version) "
            "ORDER BY made_at DESC, id DESC",
            sha256,
            target.runtime,
            data.identity,
            runtime_version,
        )

    def add_measurement(self, measurement: Measurement, played: str = "") -> None:
        """Stores a figure of any kind, with its raw samples.

        `played` is the time of the recording for a replayed figure: it keeps that time, and is not
        stored twice.
        """
        with self._transaction() as connection:
            if not (played and _here(connection, measurement)):
                _insert_measurement(connection, measurement, played or _now(), bool(played))

    def measurement(
        self, sha256: str, target: Target, runtime_version: str = ""
    ) -> Measurement | None:
        """The newest figure of an artifact on a target that is not a replay.

        A target without a delegate matches every delegate. With a version, figures of other
        versions of the runtime do not match. An estimate has no version and matches its own device
        only.
        """
        return self._newest_of(
            _KINDS,
            lambda m: _fits(m.target, target),
            "SELECT record FROM measurement WHERE artifact_sha256 = ? AND device = ? "
            "AND runtime = ? AND threads = ? AND NOT recorded "
            "AND (? IN ('', runtime_version) OR kind = 'estimated') ORDER BY made_at DESC, id DESC",
            sha256,
            target.device,
            target.runtime,
            target.threads,
            runtime_version,
        )

    def measurements_of(self, sha256: str) -> tuple[Measurement, ...]:
        """Every figure of an artifact, of any kind and from anywhere, newest first."""
        measurements = []
        for text in self._rows(
            "SELECT record FROM measurement WHERE artifact_sha256 = ? "
            "ORDER BY made_at DESC, id DESC",
            sha256,
        ):
            # A record of a mobiledeploy with other fields.
            with suppress(InputError):
                measurements.append(decode_measurement(text, str(self._file)))
        return tuple(measurements)

    def estimates(self, shas: Collection[str]) -> tuple[Estimated, ...]:
        """Every estimate of these artifacts, newest first."""
        estimates = []
        for text in self._rows(
            "SELECT record FROM measurement WHERE kind = 'estimated' AND artifact_sha256 IN "
            "(SELECT value FROM json_each(?)) ORDER BY made_at DESC, id DESC",
            json.dumps(sorted(shas)),
        ):
            with suppress(InputError):
                estimates.append(records.loads(Estimated, text, str(self._file)))
        return tuple(estimates)

    def device_models(self) -> dict[str, str]:
        """The model of each device with a timing, as its newest one has it; "" if not known."""
        rows = self._all(
            "SELECT device, coalesce(json_extract(record, '$.facts_before.model'), '') "
            "FROM measurement WHERE id IN "
            "(SELECT max(id) FROM measurement WHERE kind = 'measured' GROUP BY device)"
        )
        return dict(rows)

    def measurement_by_id(self, number: int) -> Measurement | None:
        """The figure of this id in `results`; InputError if its fields are not today's."""
        rows = self._rows("SELECT record FROM measurement WHERE id = ?", number)
        return decode_measurement(rows[0], str(self._file)) if rows else None

    def add_artifact(self, artifact: Artifact) -> None:
        """Stores the record of an artifact that was made elsewhere."""
        with self._transaction() as connection:
            _insert_artifact(connection, artifact, _now())

    def add_verdict(self, sha256: str, gate: str, verdict: Verdict) -> None:
        """Stores the verdicts of `gate` (check, regress) about an artifact."""
        with self._transaction() as connection:
            _insert_verdict(connection, sha256, gate, verdict, _now())

    def verdicts(self) -> tuple[StoredVerdict, ...]:
        """Every verdict, newest first."""
        rows = self._all(
            "SELECT made_at, artifact_sha256, gate, metric, outcome, "
            "json_extract(record, '$.line') FROM verdict ORDER BY made_at DESC, id DESC"
        )
        return tuple(StoredVerdict(*row) for row in rows)

    def add_comparison(self, compared: LatencyComparison, played: str = "") -> None:
        """Stores a comparison with all blocks; `played` as in `add_measurement`."""
        with self._transaction() as connection:
            if not (played and _here(connection, compared)):
                _insert_comparison(connection, compared, played or _now(), bool(played))

    def comparisons(self) -> tuple[StoredComparison, ...]:
        """Every comparison, newest first."""
        rows = self._all(
            "SELECT made_at, device, json_extract(record, '$.a'), json_extract(record, '$.b'), "
            "ratio, low, high, json_extract(record, '$.changed'), "
            "json_extract(record, '$.rounds'), recorded FROM comparison "
            "ORDER BY made_at DESC, id DESC"
        )
        return tuple(
            StoredComparison(
                made_at, device, a, b, ratio, (low, high), bool(changed), rounds, bool(old)
            )
            for made_at, device, a, b, ratio, low, high, changed, rounds, old in rows
        )

    def add_cold_start(self, cold: ColdStart) -> None:
        """Stores a cold start with all its samples."""
        with self._transaction() as connection:
            _insert_cold_start(connection, cold, _now())

    def cold_starts(self) -> tuple[StoredColdStart, ...]:
        """Every cold start, newest first; those of other record fields are left out."""
        starts = []
        for made_at, model, recipe, format_, text in self._all(
            "SELECT c.made_at, coalesce(name, ''), coalesce(recipe, ''), coalesce(format, ''), "
            "c.record FROM cold_start c LEFT JOIN artifact a ON a.sha256 = c.artifact_sha256 "
            "ORDER BY c.made_at DESC, c.id DESC"
        ):
            with suppress(InputError):
                cold = records.loads(ColdStart, text, str(self._file))
                starts.append(StoredColdStart(made_at, model, recipe, format_, cold))
        return tuple(starts)

    def add_job(self, key: str, what: str, outcome: str, message: str = "") -> None:
        """Stores the outcome of a job of a sweep."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO job VALUES (NULL, ?, ?, ?, ?, ?)",
                (_now(), key, *(units.whole(text) for text in (what, outcome, message))),
            )

    def job(self, key: str) -> tuple[str, str] | None:
        """The newest outcome of the job of a sweep with this key, and its message."""
        rows = self._all(
            "SELECT outcome, message FROM job WHERE key = ? ORDER BY id DESC LIMIT 1", key
        )
        return tuple(rows[0]) if rows else None

    def results(
        self,
        where: Mapping[str, str] | None = None,
        *,
        newest: bool = False,
        most: int | None = None,
    ) -> tuple[Result, ...]:
        """Figures, newest first, with the facts about their artifacts.

        Args:
            where: values of columns: model, recipe, format, artifact (the start of its sha256),
                kind, device, runtime, since (a moment as the store writes them, or its start).
            newest: only the newest figure of an artifact on a target.
            most: the largest number of figures.
        """
        filters = where or {}
        tests = [_TESTS[name] for name in filters]
        if newest:
            tests.append(f"m.id IN {_NEWEST_FIGURES}")
        # The page of figures is selected by ids first: records are long, and sorting would copy
        # them.
        query = (
            "WITH page AS (SELECT m.id FROM measurement m INDEXED BY measurement_by "  # noqa: S608 - of constants
            f"{'WHERE ' * bool(tests)}{' AND '.join(tests)} "
            "ORDER BY m.made_at DESC, m.id DESC LIMIT ?) "
            "SELECT m.made_at, m.artifact_sha256, coalesce(name, ''), coalesce(recipe, ''), "
            "coalesce(format, ''), size_bytes, kind, m.device, runner, m.runtime, "
            "m.runtime_version, threads, delegate, latency_ns, "
            "json_extract(m.record, '$.interval_ns'), instructions, e.top1, g.agreement, NULL, "
            "m.id, m.recorded, coalesce(weights, ''), coalesce(weights_sha256, ''), "
            f"{_EVALUATION_COLUMNS}, coalesce(io, ''), "
            f"{_METRIC_COLUMNS} FROM page JOIN measurement m ON m.id = page.id "
            f"LEFT JOIN artifact a ON a.sha256 = m.artifact_sha256 {_EVALUATION_JOIN}"
            "ORDER BY m.made_at DESC, m.id DESC"
        )
        rows = self._all(query, *filters.values(), -1 if most is None else most)
        return tuple(_result(row) for row in rows)

    def unmeasured(self) -> tuple[Result, ...]:
        """Artifacts without any figure, newest first."""
        rows = self._all(
            "SELECT m.made_at, sha256, name, recipe, format, size_bytes, '', '', '', '', '', 0, "  # noqa: S608 - of constants
            "'', NULL, NULL, NULL, e.top1, g.agreement, NULL, NULL, 0, weights, weights_sha256, "
            f"{_EVALUATION_COLUMNS}, io, {_METRIC_COLUMNS} FROM "
            f"(SELECT *, sha256 AS artifact_sha256 FROM artifact) m {_EVALUATION_JOIN}"
            "WHERE sha256 NOT IN (SELECT artifact_sha256 FROM measurement) ORDER BY m.made_at DESC"
        )
        return tuple(_result(row) for row in rows)

    def artifacts(self) -> dict[str, Artifact]:
        """Every artifact by its sha256; those of other record fields are left out."""
        artifacts_ = {}
        for text in self._rows("SELECT record FROM artifact"):
            with suppress(InputError):
                artifact = records.loads(Artifact, text, str(self._file))
                artifacts_[artifact.sha256] = artifact
        return artifacts_

    def evaluation_of(self, sha256: str) -> Evaluation | None:
        """The newest evaluation on the host, of the images of the export if there is one."""
        return self._newest(
            Evaluation,
            lambda _: True,
            f"SELECT record FROM evaluation WHERE artifact_sha256 = ? AND {_HOST} ORDER BY {_OWN}",  # noqa: S608 - of constants
            sha256,
        )

    def judgement(self, sha256: str) -> Evaluation | None:
        """The evaluation whose metric `results` shows for an artifact."""
        return self._newest(
            Evaluation,
            lambda _: True,
            "SELECT record FROM evaluation WHERE artifact_sha256 = ? AND value IS NOT NULL "  # noqa: S608 - of constants
            f"AND {_HOST} ORDER BY {_OWN}",
            sha256,
        )

    def places(self) -> tuple[str, ...]:
        """The paths of exported files, each once, newest first; some may no longer exist."""
        rows = self._rows("SELECT paths FROM export ORDER BY id DESC")
        return tuple(dict.fromkeys(path for paths in rows for path in json.loads(paths)))

    def dump(self, newest: bool = False, of: Collection[str] | None = None) -> Iterator[str]:
        """Every record as a line of JSON for `load`.

        `newest`: only the newest figures, as in `results`. `of`: only what is of artifacts with
        these sha256; of a comparison both must be among them.
        """
        only = [f"id IN {_NEWEST_FIGURES}"] * newest
        ours = "IN (SELECT value FROM json_each(?))"
        chosen = () if of is None else (json.dumps(sorted(of)),)
        with _refusals(self._file):
            # Table, the part of a verdict's `of`, whether it was recorded, its columns of sha256.
            for table, subject, recorded_, columns, tests in (
                ("artifact", "''", "0", ("sha256",), []),
                ("evaluation", "''", "recorded", ("artifact_sha256",), []),
                ("measurement", "''", "recorded", ("artifact_sha256",), only),
                ("verdict", "artifact_sha256 || ' ' || gate", "0", ("artifact_sha256",), []),
                ("comparison", "''", "recorded", ("a_sha256", "b_sha256"), []),
                ("cold_start", "''", "0", ("artifact_sha256",), []),
            ):
                wanted = [*tests, *(f"{column} {ours}" for column in columns if chosen)]
                order = "sha256" if table == "artifact" else "made_at, id"
                query = (
                    f"SELECT made_at, {subject}, {recorded_}, record FROM {table}"  # noqa: S608 - of constants
                    f"{' WHERE ' * bool(wanted)}{' AND '.join(wanted)} ORDER BY {order}"
                )
                values = chosen * len(columns)
                for made_at, name, recorded, record in self._connection.execute(query, values):
                    extra = {"recorded": True} if recorded else {}
                    head = json.dumps({"made_at": made_at, "of": name} | extra)
                    yield f'{head[:-1]}, "kept": {record}}}'

    def load(
        self,
        stored_records: Iterable[StoredRecord],
        adapt: Callable[[StoredRecord], StoredRecord] = lambda one: one,
    ) -> int:
        """Adds records of another store, all or none; returns the number of new ones.

        `adapt` makes of a record that this store does not have what is kept of it.
        """
        with self._transaction() as connection:
            before = connection.total_changes
            for one in stored_records:
                if not _is_stored(connection, one):
                    adapted = adapt(one)
                    if adapted is one or not _is_stored(connection, adapted):
                        _insert_stored(connection, adapted)
            return connection.total_changes - before

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _refusals(self._file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk rolls back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _all(self, query: str, *values: Any) -> list[Any]:
        with _refusals(self._file):
            return self._connection.execute(query, values).fetchall()

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with _refusals(self._file):
            return [row[0] for row in self._connection.execute(query, values)]

    def _newest(
        self, kind: type[T], fits: Callable[[T], bool], query: str, *values: Any
    ) -> T | None:
        """The first row of `query` that fits; no row after it is read."""
        return self._newest_of({kind.__name__.lower(): kind}, fits, query, *values)

    def _newest_of(
        self, kinds: Mapping[str, type[T]], fits: Callable[[T], bool], query: str, *values: Any
    ) -> T | None:
        with _refusals(self._file):
            for (text,) in self._connection.execute(query, values):
                try:
                    record = _decode(kinds, text, str(self._file))
                except InputError:
                    # Records of a mobiledeploy with other fields do not match.
                    continue
                if fits(record):
                    return record
        return None

    def _paths(self, query: str, *values: str) -> tuple[str, ...]:
        rows = self._rows(query, *values)
        return tuple(_near(Path(text)) for text in json.loads(rows[0])) if rows else ()


def decode_measurement(text: str | bytes, where: str = "record") -> Measurement:
    """The figure in a record's text, of any kind; InputError for anything else."""
    return _decode(_KINDS, text, where)


def _decode(kinds: Mapping[str, type[T]], text: str | bytes, where: str) -> T:
    # The head of a record has its type; the whole is parsed once.
    head = text[:80] if isinstance(text, str) else text[:80].decode("utf-8", "replace")
    kind = next((k for k in kinds.values() if f'"record":"{k.__name__}"' in head), None)
    return records.loads(kind or next(iter(kinds.values())), text, where)


def _storable(record: R) -> tuple[R, str]:
    """A record and its text in a form that SQLite accepts, which stores whole characters only.

    Bytes of a file's name that are not text are escaped (`units.whole`).
    """
    text = records.line(record)
    if not _HALF.search(text):
        return record, text
    record = records.loads(type(record), json.dumps(_whole(json.loads(text))))
    return record, records.line(record)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {units.whole(key): _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return units.whole(value) if isinstance(value, str) else value


def _prepared(preprocessing: Preprocessing) -> str:
    """The preprocessing in the form of SQLite's json_extract."""
    return json.dumps(records.encode(preprocessing), separators=(",", ":"))


def _insert_measurement(
    connection: sqlite3.Connection, m: Measurement, made_at: str, recorded: bool = False
) -> None:
    m, text = _storable(m)
    t = m.target
    latency = {"measured": "median_ns", "estimated": "latency_ns"}.get(m.kind)
    connection.execute(
        "INSERT INTO measurement VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            made_at,
            m.artifact_sha256,
            m.kind,
            t.device,
            t.runner,
            t.runtime,
            getattr(m, "runtime_version", ""),
            t.threads,
            t.delegate,
            None if latency is None else getattr(m, latency),
            getattr(m, "instructions", None),
            text,
            recorded,
        ),
    )


def _insert_artifact(connection: sqlite3.Connection, a: Artifact, made_at: str) -> None:
    a, text = _storable(a)
    connection.execute(
        "INSERT OR REPLACE INTO artifact VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            a.sha256,
            made_at,
            a.spec.name,
            a.recipe.name,
            a.format,
            a.size_bytes,
            text,
            a.spec.weights.source,
            a.spec.weights.sha256,
            _prepared(a.spec.preprocessing),
            a.ends,
        ),
    )


def _insert_evaluation(
    connection: sqlite3.Connection, e: Evaluation, made_at: str, recorded: bool = False
) -> None:
    e, text = _storable(e)
    metric, value = _metric(e)
    connection.execute(
        "INSERT INTO evaluation VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            made_at,
            e.artifact_sha256,
            e.target.runtime,
            e.data.identity,
            e.images,
            e.top1,
            e.agreement,
            text,
            e.runtime_version,
            e.data.source,
            e.data.split,
            _prepared(e.preprocessing),
            e.task,
            metric,
            value,
            e.target.device,
            recorded,
        ),
    )


def _metric(e: Evaluation) -> tuple[str, float | None]:
    """The name and value of the first metric; ("", None) if there is none.

    Evaluations of version 0.1 have a top-1 and no metrics.
    """
    if e.top1 is not None:
        return "top1", e.top1
    return next(((name, value) for name, value in e.metrics.items()), ("", None))


def _insert_comparison(
    connection: sqlite3.Connection, c: LatencyComparison, made_at: str, recorded: bool = False
) -> None:
    c, text = _storable(c)
    a, b = c.blocks[:2]
    connection.execute(
        "INSERT INTO comparison VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            made_at,
            a.artifact_sha256,
            b.artifact_sha256,
            a.target.device,
            c.ratio,
            *c.interval,
            text,
            recorded,
        ),
    )


def _insert_cold_start(connection: sqlite3.Connection, c: ColdStart, made_at: str) -> None:
    c, text = _storable(c)
    connection.execute(
        "INSERT INTO cold_start VALUES (NULL, ?, ?, ?, ?, ?)",
        (made_at, c.artifact_sha256, c.target.device, c.target.runtime, text),
    )


def _insert_verdict(
    connection: sqlite3.Connection, sha256: str, gate: str, v: Verdict, made_at: str
) -> None:
    v, text = _storable(v)
    connection.execute(
        "INSERT INTO verdict VALUES (NULL, ?, ?, ?, ?, ?, ?)",
        (made_at, sha256, gate, v.metric, v.outcome, text),
    )


@dataclass(frozen=True)
class StoredRecord:
    """A record of a store, and when it was made.

    `of` is "", or "sha256 gate" for a verdict, whose record does not hold these. `recorded` says
    that it is a replay.
    """

    made_at: str
    of: str
    record: Record
    recorded: bool = False


def read_stored(text: str | bytes, where: str) -> StoredRecord:
    """A line of `Store.dump`; InputError for any other."""
    try:
        data = json.loads(text)
        made_at, of, content = data["made_at"], data["of"], data["kept"]
        recorded = data.get("recorded", False)
        moment = datetime.fromisoformat(made_at)
        if content["schema_version"] == 1:
            content = records.from_version_1(content)
        kind = _RECORDS[content["record"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{where} is not a record of a store", "give a file of mobiledeploy results export"
        ) from error
    if moment.tzinfo is None or not isinstance(of, str) or (kind is Verdict) != (" " in of):
        raise InputError(f"{where} does not say when, or of what, it was")
    record = records.loads(kind, json.dumps(content), where)
    _check(record, where)
    try:
        return StoredRecord(records.timestamp(moment), of, record, recorded is True)
    except OverflowError as error:
        raise InputError(f"{where} was made at {made_at}, which is not a moment in UTC") from error


def _check(record: Record, where: str) -> None:
    """InputError for values that we never write: records are untrusted input too."""
    match record:
        case Artifact():
            # Not at the top: doctor also opens a store, and numpy may be missing there.
            from mobiledeploy.core import artifacts

            artifacts.check(record, where)
            sound = {"sha256": _is_sha256(record.sha256)}
        case Evaluation():
            shares = (record.top1, record.top5, record.agreement)
            sound = {
                "images": record.images == len(record.predictions) > 0,
                "shares": all(share is None or 0 <= share <= 1 for share in shares),
                "predictions": all(
                    0 < len(p.classes) == len(p.scores) and min(p.classes) >= 0 and p.label >= -1
                    for p in record.predictions
                ),
            }
        case Measured():
            sound = {
                "samples_ns": min(record.samples_ns, default=0) > 0,
                "median_ns": record.median_ns > 0,
                "interval_ns": _holds(record.interval_ns, record.median_ns),
            }
        case Estimated():
            sound = {
                "latency_ns": record.latency_ns > 0,
                "interval_ns": _holds(record.interval_ns, record.latency_ns),
            }
        case Counted():
            sound = {
                "instructions": record.instructions > 0,
                "by_layer": all(layer.instructions >= 0 for layer in record.by_layer),
            }
        case LatencyComparison():
            for block in record.blocks:
                _check(block, where)
            sound = {
                "rounds": 0 < 4 * record.rounds == len(record.blocks),
                "ratio": record.ratio > 0 and _holds(record.interval, record.ratio),
            }
        case ColdStart():
            sound = {
                "figures": bool(record.figures)
                and all(
                    len(figure.samples) == record.processes > 0
                    and min(figure.samples) >= 0
                    and _holds(figure.interval, figure.median)
                    for figure in record.figures
                ),
                "size_bytes": record.size_bytes > 0,
            }
        case Verdict():
            # `regress` has no value for what was not measured anew.
            sound = {"margin": record.margin >= 0, "images": record.images >= 0}
    if isinstance(record, Evaluation | Measured | Counted | Estimated | ColdStart):
        sound["artifact_sha256"] = _is_sha256(record.artifact_sha256)
        sound["threads"] = record.target.threads > 0
    for field, holds in sound.items():
        if not holds:
            raise InputError(f"{where}: {field} is not valid")


def _holds(interval: tuple[float, float], value: float) -> bool:
    """False for a NaN too."""
    return 0 <= interval[0] <= value <= interval[1]


def _is_sha256(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _is_stored(connection: sqlite3.Connection, stored: StoredRecord) -> bool:
    record, at = stored.record, stored.made_at
    if isinstance(record, Artifact):
        query = "SELECT 1 FROM artifact WHERE sha256 = ?"
        return connection.execute(query, (record.sha256,)).fetchone() is not None
    if isinstance(record, LatencyComparison):
        query = "SELECT record FROM comparison WHERE made_at = ?"
        return _among(record, connection.execute(query, (at,)))
    table = {
        Evaluation: "evaluation",
        Verdict: "verdict",
        ColdStart: "cold_start",
    }.get(type(record), "measurement")
    sha = stored.of.partition(" ")[0] if isinstance(record, Verdict) else record.artifact_sha256
    query = f"SELECT record FROM {table} WHERE artifact_sha256 = ? AND made_at = ?"  # noqa: S608 - of constants
    return _among(record, connection.execute(query, (sha, at)))


def _insert_stored(connection: sqlite3.Connection, stored: StoredRecord) -> None:
    record, at = stored.record, stored.made_at
    if isinstance(record, Artifact):
        _insert_artifact(connection, record, at)
    elif isinstance(record, LatencyComparison):
        _insert_comparison(connection, record, at, stored.recorded)
    elif isinstance(record, Verdict):
        sha, _, gate = stored.of.partition(" ")
        _insert_verdict(connection, sha, gate, record, at)
    elif isinstance(record, Evaluation):
        _insert_evaluation(connection, record, at, stored.recorded)
    elif isinstance(record, ColdStart):
        _insert_cold_start(connection, record, at)
    else:
        _insert_measurement(connection, record, at, stored.recorded)


def _among(record: Record, rows: Iterable[Sequence[str]]) -> bool:
    """Whether the record is one of those in `rows`.

    A record of an earlier version lacks the fields that have come since.
    """
    line = records.line(record)
    return any(records.line(_decode(_RECORDS, text, "record")) == line for (text,) in rows)


def _here(
    connection: sqlite3.Connection, record: Evaluation | Measurement | LatencyComparison
) -> bool:
    """Whether exactly this record is in the store."""
    if isinstance(record, LatencyComparison):
        query = "SELECT 1 FROM comparison WHERE a_sha256 = ? AND record = ?"
        sha = record.blocks[0].artifact_sha256
    else:
        table = "evaluation" if isinstance(record, Evaluation) else "measurement"
        query = f"SELECT 1 FROM {table} WHERE artifact_sha256 = ? AND record = ?"  # noqa: S608 - of constants
        sha = record.artifact_sha256
    # As it is kept, not as it was made.
    return connection.execute(query, (sha, _storable(record)[1])).fetchone() is not None


def _result(row: Sequence[Any]) -> Result:
    values = list(row)
    values[14], values[20] = _interval(row[14]), bool(row[20])
    return Result(*values)


def _interval(text: str | None) -> tuple[float, float] | None:
    low, high = json.loads(text) if text else (None, None)
    return None if low is None or high is None else (low, high)


def _fits(present: Target, requested: Target) -> bool:
    return present == (
        requested if requested.delegate else replace(requested, delegate=present.delegate)
    )


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    if _schema(connection, file) == SCHEMA:
        return
    # The mode is stored in the file, so it is set once. SQLite refuses at once if another process
    # is setting it, which is enough for both.
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _BUSY:
            raise
    connection.execute("BEGIN IMMEDIATE")
    for step in range(_schema(connection, file) + 1, SCHEMA + 1):
        for statement in _STEPS[step]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {step}")
    connection.execute("COMMIT")


def _schema(connection: sqlite3.Connection, file: Path) -> int:
    """The schema that the file holds, 0 for an empty one; InputError for others."""
    # One statement sees one moment: between two, another process may have made the tables.
    version, tables = connection.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    ).fetchone()
    if 1 <= version <= SCHEMA or (version == 0 and tables == 0):
        return int(version)
    raise InputError(
        f"{file} has schema {version}, this mobiledeploy reads {SCHEMA}",
        "use the mobiledeploy that wrote it, or MOBILEDEPLOY_STORE for another file",
    )


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except (OverflowError, UnicodeEncodeError) as error:
        # Raised before anything reaches the file, which is sound.
        raise InputError(f"{file} stores only whole characters and numbers of 64 bits") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            raise UsageError(
                f"another process has blocked {file} for {WAIT_SECONDS:.0f} s",
                "try again, or MOBILEDEPLOY_STORE for another file",
            ) from error
        if code == sqlite3.SQLITE_CONSTRAINT:
            raise InputError(f"{file} cannot store this record: {error}") from error
        if code in _DAMAGE_CODES:
            raise InputError(f"{file} is damaged or not a store: {error}", _rescue(file)) from error
        remedy = "free some space" if code == sqlite3.SQLITE_FULL else "work in a folder of yours"
        raise UsageError(
            f"cannot write in {file}: {error}",
            f"{remedy}, or MOBILEDEPLOY_STORE for another file",
        ) from error


def _rescue(file: Path) -> str:
    """Copies a damaged file once; returns a hint for it."""
    copy = file.with_name(file.name + ".damaged")
    try:
        if not copy.exists():
            records.write_atomic(copy, inputs.read(file, _MOST_COPIED))
    except (OSError, InputError, UsageError):
        return "it could not be copied; move it away"
    return f"a copy is in {copy.name}; `sqlite3 {copy.name} .recover` reads the rest of it"


def _now() -> str:
    return records.timestamp(datetime.now(UTC))


def _near(path: Path) -> str:
    """Relative where the file lies below the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
