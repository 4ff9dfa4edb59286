"""The store's records as verbs read them, and the files that records are moved in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mobiledeploy.core import inputs, records, units
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import RECIPE_ALIASES
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store, StoredRecord


def filters(**given: str | None) -> dict[str, str]:
    """What is given as `Store.results` takes it; UsageError for a wrong `since`."""
    wanted = {name: value for name, value in given.items() if value is not None}
    if "recipe" in wanted:
        wanted["recipe"] = RECIPE_ALIASES.get(wanted["recipe"], wanted["recipe"])
    if "since" in wanted:
        wanted["since"] = _moment(wanted["since"])
    for name, value in wanted.items():
        if value != units.whole(value):
            raise UsageError(f"the {name} {units.whole(value)} is no text", "give UTF-8")
    return wanted


def _moment(text: str) -> str:
    """A moment as the store writes them, in UTC, which it also is without an offset of its own."""
    try:
        moment = datetime.fromisoformat(text)
        return records.timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time", "give 2026-01-31 or 2026-01-31T12:00") from error


def read(path: Path) -> Iterator[StoredRecord]:
    """The records of a file that `export` wrote; InputError where it is no such file."""
    with inputs.open_file(path, inputs.RECORDS) as stream:
        number = 0
        # Not more of a line than a record can be: the whole file may be one.
        while line := stream.readline(inputs.RECORD + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > inputs.RECORD:
                raise InputError(f"{where} is too long for a record")
            if not line.isspace():
                yield store.read_stored(line, where)


def present() -> Store:
    """The store, where there is one: to look for it is no reason to make it."""
    if not store.path().exists():
        raise UsageError(
            f"nothing is kept in {store.path()} yet",
            "mobiledeploy export, bench or results import come first",
        )
    return Store.open()
