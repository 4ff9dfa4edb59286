"""Golden samples: runs the images beside an artifact again and compares with its record."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import artifacts, inputs
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Artifact, DataRef, Golden, NamedWarning, Outcome, Verdict
from mobiledeploy.steps import answers, golden_inputs

TOLERATED_STEPS = 1.0
"""The same runtime and instruction set must reproduce golden outputs within this limit."""
_LEVELS = 255
# The CPU features by which runtimes choose kernels, with the names of Linux.
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
    """The current answers of an artifact to its golden samples: real-valued logits [N, classes].

    `step` is the value of one code of the logits, or a 255th of their range if they are floats.
    """

    logits: NDArray[np.float32]
    step: float
    runtime: str
    isa: str


def isa() -> str:
    """This machine's instruction set as kernels depend on it: 'x86_64 avx2 avx512_vnni'."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    flags = next((ln.split(":", 1)[1] for ln in lines if ln.startswith(("flags", "Features"))), "")
    there = set(flags.split())
    return " ".join((platform.machine(), *(name for name in _FEATURES if name in there)))


def images(path: Path, golden: Golden) -> tuple[Path, ...]:
    """The golden images of the artifact at `path`.

    Raises:
        InputError: there are none, one is absent or was changed, or the record names a file
            elsewhere.
    """
    paths = tuple(path.parent / name for name in golden.images)
    for image in paths:
        golden_inputs.golden_content(path.parent, image)
    if not paths or len(paths) != len(golden.logits):
        raise InputError(
            f"{path} has no golden samples",
            "they come with files of mobiledeploy export; if it is one, export it again with "
            "--force",
        )
    return paths


def replay(path: Path, artifact: Artifact, reporter: Reporter) -> Replay:
    """Runs the golden images again, on the default runtime of the artifact's format.

    Raises:
        InputError: see `images`; or NaN among the answers.
    """
    paths = images(path, artifact.golden)
    shelf = FORMATS.load(artifact.format)
    with artifacts.scratch() as scratch:
        probe = Path(scratch, f"probe-{path.name}")
        content = answers.probe(inputs.read(path, inputs.FINISHED), artifact)
        probe.write_bytes(content)
        facts = shelf.inspect(content)
        source = golden_inputs.data_set(path.parent, artifact.golden.images, scratch)
        data = DataRef(source, "all", artifact.spec.resolution)
        runtime, logits = answers.logits(
            probe,
            facts,
            artifacts.signature(artifact).inputs,
            data,
            range(len(paths)),
            reporter=reporter,
        )
    scale = facts.outputs[0].scale
    return Replay(logits, scale[0] if scale else float(np.ptp(logits)) / _LEVELS, runtime, isa())


def judge(artifact: Artifact, now: Replay) -> tuple[Verdict | None, NamedWarning | None]:
    """Whether the golden outputs are reproduced.

    Another runtime or machine gives a warning only.
    """
    golden = artifact.golden
    golden_logits = np.asarray(golden.logits, np.float32)
    if golden_logits.shape != now.logits.shape:
        raise InputError(
            f"{artifact.path} answers with {now.logits.shape[1]} classes, its record has "
            f"{golden_logits.shape[1]}",
            "export it again, with --force",
        )
    steps = float(np.max(np.abs(golden_logits - now.logits)) / now.step) if now.step else 0.0
    count = len(golden.images)
    message = f"golden outputs differ by {steps:.3g} steps at most from those of the export"
    if (golden.runtime, golden.isa) != (now.runtime, now.isa):
        origin = f"{golden.runtime} on {golden.isa or 'an unknown machine'}"
        message = f"{message}, which ran on {origin}; this is {now.runtime} on {now.isa}"
        return None, NamedWarning("golden-elsewhere", message, "other kernels round otherwise")
    within = steps <= TOLERATED_STEPS
    line = (
        message
        if within
        else f"{message}: the file is not what was exported, or its kernels changed"
    )
    kind: Outcome = "pass" if within else "fail"
    return Verdict("golden", "", kind, steps, None, TOLERATED_STEPS, count, None, line), None
