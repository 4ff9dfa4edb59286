"""Reads records of the store and of exported files for the verbs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mobiledeploy.core import inputs, records, units
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import RECIPE_ALIASES
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store, StoredRecord


def filters(**values: str | None) -> dict[str, str]:
    """The filters that are not None, for `Store.results`; UsageError for a wrong `since`."""
    chosen_values = {name: value for name, value in values.items() if value is not None}
    if "recipe" in chosen_values:
        chosen_values["recipe"] = RECIPE_ALIASES.get(
            chosen_values["recipe"], chosen_values["recipe"]
        )
    if "since" in chosen_values:
        chosen_values["since"] = _moment(chosen_values["since"])
    for name, value in chosen_values.items():
        if value != units.whole(value):
            raise UsageError(f"the {name} {units.whole(value)} is not text", "give UTF-8")
    return chosen_values


def _moment(text: str) -> str:
    """A moment in the form of the store, in UTC; without an offset it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return records.timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is not a time", "give 2026-01-31 or 2026-01-31T12:00"
        ) from error


def read(path: Path) -> Iterator[StoredRecord]:
    """The records of a file of `results export`; InputError for another file."""
    with inputs.open_file(path, inputs.RECORDS) as stream:
        number = 0
        # Reads at most the size of a record, because the whole file may be one line.
        while line := stream.readline(inputs.RECORD + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > inputs.RECORD:
                raise InputError(f"{where} is too long for a record")
            if not line.isspace():
                yield store.read_stored(line, where)


def present() -> Store:
    """Opens the store; UsageError if there is none, because reading must not make it."""
    if not store.path().exists():
        raise UsageError(
            f"nothing is kept in {store.path()} yet",
            "mobiledeploy export, bench or results import come first",
        )
    return Store.open()
