"""The errors, and the exit code of each kind.

    DeployError
    ├── UsageError      2   the command line, a setting, or the place that it names to write to
    ├── VoidError       4   the machine changed while it was timed: there is no figure
    ├── DeviceError     5   the machine for the work is absent or lost, or it killed a process
    ├── MissingError    6   a dependency, weights or another asset is absent
    └── InputError      7   a model, image or record cannot be read or converted
        └── BrokenImage     one image of a data set; the others are still good

Any other exception is a defect of ours and ends in 70 (`cli/main.py`). Verdicts (1, 3) are results,
not errors.
"""

from __future__ import annotations

from typing import ClassVar


class DeployError(Exception):
    """A refusal in one line: what is wrong (`message`) and what to do about it (`hint`)."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(DeployError):
    """The command line or a setting asks for something that is not possible."""

    exit_code = 2


class VoidError(DeployError):
    """The machine changed during the timing, at each attempt."""

    exit_code = 4


class DeviceError(DeployError):
    """The device, the runner on it, or another process of ours failed there."""

    exit_code = 5


class MissingError(DeployError):
    """A dependency or an asset is absent; the hint is the command that installs it."""

    exit_code = 6


class InputError(DeployError):
    """A file cannot be read, trusted or converted."""

    exit_code = 7


class NoSplit(InputError):
    """The data has folders of splits, and none of the one that is needed."""


class BrokenImage(InputError):
    """One image cannot be read; a caller that reads many skips it, names it and counts it."""


class DeployWarning(UserWarning):
    """A named warning, as Python's `warnings` hear it; the result stands."""


def of_code(
    exit_code: int, message: str, hint: str, other: type[DeployError] = DeployError
) -> DeployError:
    """The refusal that another process ended in, to be raised again here.

    `other` is the kind for a code that no refusal has.
    """
    kinds = {
        kind.exit_code: kind
        for kind in (UsageError, VoidError, DeviceError, MissingError, InputError)
    }
    return kinds.get(exit_code, other)(message, hint)


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not empty."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
