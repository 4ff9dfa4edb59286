"""What was made and measured in this folder: one SQLite file, `.mobiledeploy/store.db`.

Whole records as JSON, and columns for what one filters by. Several processes may write at once.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Evaluation,
    Measured,
    Preprocessing,
    Target,
)

SCHEMA = 1
WAIT_SECONDS = 30.0
_TABLES = (
    """CREATE TABLE artifact (
        sha256 TEXT PRIMARY KEY, made_at TEXT NOT NULL, name TEXT NOT NULL, recipe TEXT NOT NULL,
        format TEXT NOT NULL, size_bytes INTEGER NOT NULL, record TEXT NOT NULL)""",
    """CREATE TABLE evaluation (
        id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, artifact_sha256 TEXT NOT NULL,
        runtime TEXT NOT NULL, data_identity TEXT NOT NULL, images INTEGER NOT NULL, top1 REAL,
        agreement REAL, record TEXT NOT NULL)""",
    """CREATE TABLE measurement (
        id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, artifact_sha256 TEXT NOT NULL,
        device TEXT NOT NULL, runtime TEXT NOT NULL, threads INTEGER NOT NULL,
        delegate TEXT NOT NULL, median_ns REAL NOT NULL, record TEXT NOT NULL)""",
    """CREATE TABLE export (
        id INTEGER PRIMARY KEY, made_at TEXT NOT NULL, key TEXT NOT NULL, paths TEXT NOT NULL)""",
    "CREATE INDEX evaluation_of ON evaluation (artifact_sha256)",
    "CREATE INDEX measurement_of ON measurement (artifact_sha256)",
    "CREATE INDEX export_of ON export (key)",
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
T = TypeVar("T")


def path() -> Path:
    """Where the store is: MOBILEDEPLOY_STORE, or .mobiledeploy/store.db in the current folder."""
    return Path(os.environ.get("MOBILEDEPLOY_STORE") or Path(".mobiledeploy", "store.db"))


class Store:
    """An open store; a context manager that closes it."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self._file = file
        self._connection = connection

    @classmethod
    def open(cls, file: Path | None = None) -> Store:
        """Opens the store at `file` (default: `path()`), and makes it where there is none.

        Raises:
            UsageError: its folder cannot be written, or another process keeps it busy.
            InputError: it is damaged, no store, or of a newer mobiledeploy.
        """
        file = path() if file is None else file
        with records.writing(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        with _refusals(file):
            connection = sqlite3.connect(file, timeout=WAIT_SECONDS, isolation_level=None)
            try:
                _prepare(connection, file)
            except BaseException:
                connection.close()
                raise
        return cls(file, connection)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add_export(self, key: str, artifacts: Mapping[str, Artifact]) -> None:
        """Notes what one export made: path -> artifact. `key` stands for its inputs."""
        paths = json.dumps([str(Path(p).resolve()) for p in artifacts])
        with self._transaction() as connection:
            for artifact in artifacts.values():
                connection.execute(
                    "INSERT OR REPLACE INTO artifact VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (artifact.sha256, _now(), artifact.spec.name, artifact.recipe.name,
                     artifact.format, artifact.size_bytes, records.line(artifact)),
                )  # fmt: skip
            connection.execute("INSERT INTO export VALUES (NULL, ?, ?, ?)", (_now(), key, paths))

    def last_export(self) -> tuple[str, ...]:
        """The files that the newest export made; () where there was none."""
        return self._paths("SELECT paths FROM export ORDER BY id DESC LIMIT 1")

    def export_of(self, key: str) -> tuple[str, ...]:
        """The files that the newest export with this key made; () where there was none."""
        return self._paths("SELECT paths FROM export WHERE key = ? ORDER BY id DESC LIMIT 1", key)

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Keeps an evaluation."""
        e = evaluation
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO evaluation VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_now(), e.artifact_sha256, e.target.runtime, e.data.identity, e.images, e.top1,
                 e.agreement, records.line(e)),
            )  # fmt: skip

    def evaluation(
        self, sha256: str, data: DataRef, preprocessing: Preprocessing, target: Target
    ) -> Evaluation | None:
        """The newest evaluation of an artifact on these pictures, prepared and run like this.

        Pictures are the same by their identity, whatever name they went by; a target without a
        delegate takes every one.
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
            "AND data_identity = ? ORDER BY id DESC",
            sha256, target.runtime, data.identity,
        )  # fmt: skip

    def add_measurement(self, measurement: Measured) -> None:
        """Keeps a measurement with its raw samples."""
        m, t = measurement, measurement.target
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO measurement VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_now(), m.artifact_sha256, t.device, t.runtime, t.threads, t.delegate,
                 m.median_ns, records.line(m)),
            )  # fmt: skip

    def measurement(self, sha256: str, target: Target) -> Measured | None:
        """The newest measurement of an artifact on a target; one without delegate takes every."""
        return self._newest(
            Measured,
            lambda m: _fits(m.target, target),
            "SELECT record FROM measurement WHERE artifact_sha256 = ? AND device = ? "
            "AND runtime = ? AND threads = ? ORDER BY id DESC",
            sha256, target.device, target.runtime, target.threads,
        )  # fmt: skip

    def measurements_of(self, sha256: str) -> tuple[Measured, ...]:
        """What was measured of an artifact, anywhere, newest first; other records are left out."""
        found = []
        for text in self._rows(
            "SELECT record FROM measurement WHERE artifact_sha256 = ? ORDER BY id DESC", sha256
        ):
            # Of a mobiledeploy whose records held other fields, or of another kind of figure.
            with suppress(InputError):
                found.append(records.loads(Measured, text, str(self._file)))
        return tuple(found)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _refusals(self._file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk has rolled back on its own.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with _refusals(self._file):
            return [row[0] for row in self._connection.execute(query, values)]

    def _newest(
        self, kind: type[T], fits: Callable[[T], bool], query: str, *values: Any
    ) -> T | None:
        """The first row of `query` that fits; no row after it is read."""
        with _refusals(self._file):
            for (text,) in self._connection.execute(query, values):
                try:
                    record = records.loads(kind, text, str(self._file))
                except InputError:
                    # A mobiledeploy whose records held other fields: nothing fits that lacks one.
                    continue
                if fits(record):
                    return record
        return None

    def _paths(self, query: str, *values: str) -> tuple[str, ...]:
        rows = self._rows(query, *values)
        return tuple(_near(Path(text)) for text in json.loads(rows[0])) if rows else ()


def _fits(made: Target, wanted: Target) -> bool:
    return made == (wanted if wanted.delegate else replace(wanted, delegate=made.delegate))


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    if _known(connection, file):
        return
    # Kept in the file, so that it is set once. It is refused at once, without waiting, when
    # another process is just doing it: that one does it for both.
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _BUSY:
            raise
    connection.execute("BEGIN IMMEDIATE")
    if not _known(connection, file):
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    connection.execute("COMMIT")


def _known(connection: sqlite3.Connection, file: Path) -> bool:
    """Whether the file holds our tables already, False for an empty one; InputError for others."""
    # One statement sees one moment: between two, another process may have made the tables.
    found, tables = connection.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    ).fetchone()
    if found == SCHEMA:
        return True
    if found == 0 and tables == 0:
        return False
    raise InputError(
        f"{file} has schema {found}, this mobiledeploy knows {SCHEMA}",
        "use the mobiledeploy that wrote it, or MOBILEDEPLOY_STORE for another file",
    )


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            raise UsageError(
                f"another process has kept {file} busy for {WAIT_SECONDS:.0f} s",
                "try again, or MOBILEDEPLOY_STORE for another file",
            ) from error
        if code in _DAMAGED or not isinstance(error, sqlite3.OperationalError):
            raise InputError(
                f"{file} is damaged or no store of ours: {error}", "move it away"
            ) from error
        raise UsageError(
            f"cannot write in {file}: {error}",
            "work in a folder of yours, or MOBILEDEPLOY_STORE for another file",
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _near(path: Path) -> str:
    """Relative where the file lies below the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
