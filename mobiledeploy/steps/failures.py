"""Several items of one command: one that fails does not lose the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobiledeploy.core.errors import DeployError, UsageError
from mobiledeploy.core.types import Failed


class Failures:
    """What failed so far, by path."""

    def __init__(self) -> None:
        self._errors: dict[Path, DeployError] = {}

    def __contains__(self, path: Path) -> bool:
        return path in self._errors

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Keeps the refusal of what is done to `path`; a UsageError, of the whole, passes."""
        try:
            yield
        except UsageError:
            raise
        except DeployError as error:
            self._errors[path] = error

    def add(self, path: Path, error: DeployError) -> None:
        """Keeps one that was caught elsewhere."""
        self._errors[path] = error

    def told(self) -> tuple[Failed, ...]:
        """All of them, as a record holds them."""
        return tuple(
            Failed(str(path), str(error), error.exit_code) for path, error in self._errors.items()
        )

    def check(self, kind: type[DeployError] = DeployError) -> None:
        """Raises the gravest of a kind, if there is one."""
        found = [error for error in self._errors.values() if isinstance(error, kind)]
        if found:
            raise max(found, key=lambda error: error.exit_code)
