"""The default reporter of the Python API: warnings, a log, a progress bar in notebooks."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from html import escape
from pathlib import Path
from typing import Protocol

from mobiledeploy.core.errors import DeployWarning
from mobiledeploy.core.package import PACKAGE
from mobiledeploy.core.types import NamedWarning

_LOG = logging.getLogger("mobiledeploy")


class _DisplayHandle(Protocol):
    """IPython's handle of an output that can be replaced."""

    def update(self, output: object) -> None:
        """Shows `output` in its place."""
        ...


class PythonReporter:
    """A Reporter for scripts and notebooks, the default of the verbs.

    Warnings go to `warnings` as `DeployWarning`; lines go to the logger `mobiledeploy` at level
    INFO. In a notebook a bar shows the progress of a step; elsewhere nothing is printed.
    """

    def __init__(self) -> None:
        self._bar: _DisplayHandle | None = None

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of a step named `what`: a bar in a notebook, nothing elsewhere."""
        # The process of a notebook has already imported this module.
        if "ipykernel.zmqshell" not in sys.modules:
            return
        from IPython.display import HTML, display

        output = HTML(_bar(what, done, total) if done < total else "")
        if self._bar is None:
            self._bar = display(output, display_id=True)
        else:
            self._bar.update(output)

    def warn(self, warning: NamedWarning) -> None:
        """Issues a warning at the calling line outside of mobiledeploy."""
        warnings.warn(warning.text, DeployWarning, stacklevel=_outside())

    def say(self, line: str) -> None:
        """A line about what is going on."""
        _LOG.info("%s", line)


def _bar(what: str, done: int, total: int) -> str:
    return (
        f'<progress value="{done}" max="{total}" style="width: 20em"></progress> '
        f"{escape(what)}: {done} of {total}"
    )


def _outside() -> int:
    """The `stacklevel` of the first caller outside of this package."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
