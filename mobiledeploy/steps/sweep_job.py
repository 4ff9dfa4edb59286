"""One job of a sweep, in a process of its own: a model exported with all its recipes, and judged.

The process works in a folder aside with a store of its own. What it made comes back as text, files
and records, so that the driver alone writes, and a job that dies has left nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.deaths import death
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.types import Failed, Failure
from mobiledeploy.steps import child_process
from mobiledeploy.steps.export_plan import ExportConfig

_FOLDER = "mobiledeploy-job"


@dataclass(frozen=True)
class SweepJob:
    """What is exported; `workers` share the cores of a machine."""

    arch: str
    alpha: float | None
    groups: int | None
    res: int | None
    recipes: tuple[str, ...]
    formats: tuple[str, ...] | None
    weights: str | None
    data: str | None
    workers: int

    def config(self, out: Path) -> ExportConfig:
        """The export that it is."""
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
    """What a job gives back: its files, compressed, by their path below `--out`, and records.

    `artifacts` are the files that the export made, in its order, `failed` those that it could not.
    """

    key: str
    files: dict[str, str]
    artifacts: tuple[str, ...]
    kept: tuple[str, ...]
    failed: tuple[Failed, ...]


def work(text: str, worker: int) -> str:
    """Runs the job in `text` in a process of its own; a record of `JobResult`, or of `Failure`.

    Whatever happens to that process, an out-of-memory kill too, is an answer.
    """
    job = records.loads(SweepJob, text, "the job")
    # What jobs left that were killed along with their worker goes, too: Ray does so.
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
                # What a buffer still holds for a child that died would be an error on closing.
                bufsize=0,
                env=os.environ | {"MOBILEDEPLOY_STORE": str(folder / "store.db")},
            ) as child,
        ):
            assert child.stdin and child.stdout
            try:
                # Its standard input stays open: it ends with this process.
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
    hint = "give fewer --jobs" if code == -signal.SIGKILL else error.hint
    return Failure(error.exit_code, error.message, hint)


def share(cores: Sequence[int], worker: int, workers: int) -> frozenset[int]:
    """The cores of a worker: their equal part; workers beyond the number of cores share them."""
    each = max(1, len(cores) // workers)
    first = worker * each % len(cores)
    return frozenset(cores[first : first + each])


def serve(make: Callable[[SweepJob], JobResult]) -> None:
    """The child's side of `work`: reads the job, does it on its share of the cores, and answers."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    number, _, text = sys.stdin.readline().partition(" ")
    threading.Thread(target=_die_with_parent, args=(Path.cwd(),), daemon=True).start()
    job = records.loads(SweepJob, text, "the job")
    # Affinity, which every library's pool of threads goes by.
    os.sched_setaffinity(0, share(sorted(os.sched_getaffinity(0)), int(number), job.workers))
    try:
        answer: JobResult | Failure = make(job)
    except DeployError as error:
        answer = Failure(error.exit_code, error.message, error.hint)
    out.write(records.line(answer))
    out.flush()


def _die_with_parent(folder: Path) -> None:
    sys.stdin.read()
    # Who made this folder is gone.
    if folder.name.startswith(f".{_FOLDER}."):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
