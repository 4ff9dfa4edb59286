"""Golden samples: the pictures beside an artifact, answered again and held against its record."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import artifacts, inputs
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Notify
from mobiledeploy.core.types import Artifact, DataRef, Doubt, Golden, Outcome, Verdict
from mobiledeploy.steps import answers, golden_inputs

TOLERATED_STEPS = 1.0
"""On the runtime and the instruction set that made them, golden outputs come again."""
_LEVELS = 255
# What the kernels of the runtimes choose by, as Linux names it.
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "sve",
)


@dataclass(frozen=True)
class Replay:
    """What an artifact answers now for its golden samples: logits [N, classes], real-valued.

    `step` is what one code of the logits stands for, or a 255th of their range where they are
    floats.
    """

    logits: NDArray[np.float32]
    step: float
    runtime: str
    isa: str


def isa() -> str:
    """This machine's instruction set, as far as kernels depend on it: 'x86_64 avx2 avx512_vnni'."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    flags = next((ln.split(":", 1)[1] for ln in lines if ln.startswith(("flags", "Features"))), "")
    there = set(flags.split())
    return " ".join((platform.machine(), *(name for name in _FEATURES if name in there)))


def pictures(path: Path, golden: Golden) -> tuple[Path, ...]:
    """The golden pictures of the artifact at `path`.

    Raises:
        InputError: none were kept, one is absent or not the one that was kept, or the record names
            a file elsewhere.
    """
    found = tuple(path.parent / name for name in golden.images)
    for picture in found:
        golden_inputs.golden_content(path.parent, picture)
    if not found or len(found) != len(golden.logits):
        raise InputError(f"{path} has no golden samples", "export it again, with --force")
    return found


def replay(path: Path, artifact: Artifact, notify: Notify) -> Replay:
    """Answers the golden pictures again, on the default runtime of the artifact's format.

    Raises:
        InputError: see `pictures`; or NaN among the answers.
    """
    kept = pictures(path, artifact.golden)
    shelf = FORMATS.load(artifact.format)
    with artifacts.scratch() as scratch:
        tap = Path(scratch, f"tap-{path.name}")
        tap.write_bytes(shelf.tap(inputs.read(path, inputs.FINISHED), artifact.logits))
        facts = shelf.inspect(inputs.read(tap, inputs.FINISHED))
        # A data set of class folders, in order, one for each picture; two classes at least.
        for number, picture in enumerate((*kept, *kept[:1])):
            folder = Path(scratch, "golden", f"{number:04}")
            folder.mkdir(parents=True)
            (folder / picture.name).write_bytes(inputs.read(picture, inputs.IMAGE))
        data = DataRef(str(Path(scratch, "golden")), "all", artifact.spec.resolution)
        runtime, logits = answers.logits(
            tap, facts, artifact.spec.preprocessing, data, range(len(kept)), notify=notify
        )
    scale = facts.outputs[0].scale
    return Replay(logits, scale[0] if scale else float(np.ptp(logits)) / _LEVELS, runtime, isa())


def judge(artifact: Artifact, now: Replay) -> tuple[Verdict | None, Doubt | None]:
    """Whether the golden outputs came again; on another runtime or machine that is only told."""
    golden = artifact.golden
    recorded = np.asarray(golden.logits, np.float32)
    if recorded.shape != now.logits.shape:
        raise InputError(
            f"{artifact.path} answers with {now.logits.shape[1]} classes, its record has "
            f"{recorded.shape[1]}",
            "export it again, with --force",
        )
    steps = float(np.max(np.abs(recorded - now.logits)) / now.step) if now.step else 0.0
    count = len(golden.images)
    told = f"golden outputs differ by {steps:.3g} steps at most from those of the export"
    if (golden.runtime, golden.isa) != (now.runtime, now.isa):
        made = f"{golden.runtime} on {golden.isa or 'an unknown machine'}"
        message = f"{told}, which ran on {made}; this is {now.runtime} on {now.isa}"
        return None, Doubt("golden-elsewhere", message, "other kernels round otherwise")
    passed = steps <= TOLERATED_STEPS
    line = told if passed else f"{told}: the file is not what was exported, or its kernels changed"
    kind: Outcome = "pass" if passed else "fail"
    return Verdict("golden", "", kind, steps, None, TOLERATED_STEPS, count, None, line), None
