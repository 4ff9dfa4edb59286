"""Failures of single items of one command; the other items go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobiledeploy.core.errors import DeployError, UsageError
from mobiledeploy.core.types import Failed


class Failures:
    """The failures so far, by path."""

    def __init__(self) -> None:
        self._errors: dict[Path, DeployError] = {}

    def __contains__(self, path: Path) -> bool:
        return path in self._errors

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Keeps an error of the work on `path`.

        A UsageError concerns the whole command and passes.
        """
        try:
            yield
        except UsageError:
            raise
        except DeployError as error:
            self._errors[path] = error

    def add(self, path: Path, error: DeployError) -> None:
        """Keeps an error that was caught elsewhere."""
        self._errors[path] = error

    def add_all(self, others: Failures) -> None:
        """Keeps the errors of `others`, of paths that have none here."""
        self._errors = others._errors | self._errors

    def records(self) -> tuple[Failed, ...]:
        """All failures in the form of records."""
        return tuple(
            Failed(str(path), str(error), error.exit_code) for path, error in self._errors.items()
        )

    def check(self, kind: type[DeployError] = DeployError) -> None:
        """Raises the gravest error of a kind, if there is one."""
        errors = [error for error in self._errors.values() if isinstance(error, kind)]
        if errors:
            raise max(errors, key=lambda error: error.exit_code)
