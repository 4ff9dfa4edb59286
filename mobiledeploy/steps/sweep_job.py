"""One job of a sweep in its own process: exports a model with all recipes and evaluates it.

The process works in a temporary folder with its own store. Its files and records come back as text.
So only the driver writes, and a job that dies leaves nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.deaths import KILLED, death
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.types import Failed, Failure
from mobiledeploy.steps import child_process
from mobiledeploy.steps.export_plan import ExportConfig

_FOLDER = "mobiledeploy-job"


@dataclass(frozen=True)
class SweepJob:
    """The export of one job; `workers` share the cores of a machine."""

    arch: str
    alpha: float | None
    groups: int | None
    res: int | None
    recipes: tuple[str, ...] | None
    formats: tuple[str, ...] | None
    weights: str | None
    data: str | None
    workers: int

    def config(self, out: Path) -> ExportConfig:
        """The arguments of the export."""
        return ExportConfig(
            arch=self.arch,
            alpha=self.alpha,
            groups=self.groups,
            res=self.res,
            recipes=self.recipes,
            formats=self.formats,
            weights=self.weights,
            data=self.data,
            out=out,
        )

    def __str__(self) -> str:
        groups = None if self.groups is None else f"g{self.groups}"
        parts = (self.arch, self.alpha, groups, self.res)
        return " ".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True)
class JobResult:
    """The result of a job: its compressed files, by their path below `--out`, and its records.

    `artifacts` are the exported files in the order of the export, `failed` those without a file.
    """

    key: str
    files: dict[str, str]
    artifacts: tuple[str, ...]
    kept: tuple[str, ...]
    failed: tuple[Failed, ...]


def work(text: str, worker: int) -> str:
    """Runs the job in `text` in its own process; returns a record of `JobResult` or `Failure`.

    The death of that process, also by an out-of-memory kill, is a `Failure`.
    """
    job = records.loads(SweepJob, text, "the job")
    # This also removes folders of jobs that were killed with their worker, as Ray does.
    with artifacts.staging(Path(tempfile.gettempdir(), _FOLDER)) as folder:
        log = folder / "log"
        with (
            log.open("wb") as stderr,
            subprocess.Popen(
                [*child_process.INTERPRETER, "-m", "mobiledeploy.verbs.sweep"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                # Without a buffer, closing the pipe to a dead child raises no error.
                bufsize=0,
                env=os.environ | {"MOBILEDEPLOY_STORE": str(folder / "store.db")},
            ) as child,
        ):
            assert child.stdin and child.stdout
            try:
                # Its standard input stays open, so the child ends with this process.
                with suppress(BrokenPipeError):
                    child.stdin.write(f"{worker} {records.line(job)}\n".encode())
                    child.stdin.flush()
                answer = child.stdout.read()
                child.wait()
            finally:
                child.kill()
        if child.returncode == 0 and answer:
            return answer.decode()
        return records.line(_death(child.returncode, log))


def _death(code: int, log: Path) -> Failure:
    error = death("its process", code, log.read_text("utf-8", "replace"))
    hint = "give fewer --jobs" if code == KILLED else error.hint
    return Failure(error.exit_code, error.message, hint)


def share(cores: Sequence[int], worker: int, workers: int) -> frozenset[int]:
    """The cores of a worker, an equal part; workers beyond the number of cores share cores."""
    each = max(1, len(cores) // workers)
    first = worker * each % len(cores)
    return frozenset(cores[first : first + each])


def serve(make: Callable[[SweepJob], JobResult]) -> None:
    """The child's side of `work`: reads the job, runs it on its share of the cores, and answers."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    number, _, text = sys.stdin.readline().partition(" ")
    threading.Thread(target=_die_with_parent, args=(Path.cwd(),), daemon=True).start()
    job = records.loads(SweepJob, text, "the job")
    # Thread pools of all libraries follow the affinity.
    os.sched_setaffinity(0, share(sorted(os.sched_getaffinity(0)), int(number), job.workers))
    try:
        answer: JobResult | Failure = make(job)
    except DeployError as error:
        answer = Failure(error.exit_code, error.message, error.hint)
    out.write(records.line(answer))
    out.flush()


def _die_with_parent(folder: Path) -> None:
    sys.stdin.read()
    # The parent that made this folder is gone.
    if folder.name.startswith(f".{_FOLDER}."):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
