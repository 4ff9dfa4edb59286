"""An artifact against its own golden samples, and a caller's preprocessing against its contract."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobiledeploy.analysis import pipelines
from mobiledeploy.analysis.pipelines import PipelineDiagnosis
from mobiledeploy.core import arrays, artifacts, inputs
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Array, Reporter
from mobiledeploy.core.types import Artifact, NamedWarning, Verdict
from mobiledeploy.steps import arguments, golden, golden_inputs
from mobiledeploy.steps.arguments import AnyPath
from mobiledeploy.steps.reporters import PythonReporter

PATIENCE_S = 600.0
LARGEST_BYTES = 1 << 30


@dataclass(frozen=True)
class VerifyResult(Record):
    """The answer of `verify`.

    `sealed`: the file itself carries its contract, the same as the record. `golden` is None where
    another runtime or machine made the golden outputs. `pipeline` is None where none was given.
    """

    path: str
    artifact_sha256: str
    sealed: bool
    samples: int
    golden: Verdict | None
    pipeline: PipelineDiagnosis | None
    warnings: tuple[NamedWarning, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        as_wanted = self.pipeline is None or (
            self.pipeline.explained and not self.pipeline.differences
        )
        return as_wanted and (self.golden is None or self.golden.outcome == "pass")

    @property
    def lines(self) -> tuple[str, ...]:
        """What it comes to, in words."""
        lines = []
        if self.sealed:
            lines.append(f"{self.path} carries its preprocessing, the same as its record's")
        if self.golden:
            lines.append(f"{self.golden.outcome}: {self.golden.line} ({self.samples} samples)")
        if self.pipeline is None:
            return tuple(lines)
        told = self.pipeline
        off = f"{told.error_as_wanted:.3g} grey levels from what the model wants, on the average"
        if not told.explained:
            lines.append(
                f"fail: the pipeline's tensors are {off}, and no usual mistake explains them "
                f"(the nearest is {told.error:.3g} away)"
            )
        elif told.differences:
            lines += [f"fail: {difference}" for difference in told.differences]
        else:
            lines.append(f"pass: the pipeline feeds the model what it wants ({off})")
        return tuple(lines)

    def tables(self) -> tuple[Table, ...]:
        """A row for each line."""
        return (Table(("verify",), tuple((line,) for line in self.lines)),)


def verify(
    artifact: AnyPath, *, pipeline: AnyPath | None = None, reporter: Reporter | None = None
) -> VerifyResult:
    """Replays an artifact's golden samples; says what is wrong with an app's preprocessing.

    Example:
        >>> md.verify("build/int8_best.tflite", pipeline="python preprocess.py").sound

    Args:
        artifact: the file, its record and its golden images beside it.
        pipeline: what your app feeds the model: an .npz of the tensors that it makes of the golden
            images, in their order, or a command that writes one. The command is called with the
            file to write and the images' paths after its own arguments, and no shell.
        reporter: hears of warnings; by default a `PythonReporter`.

    Returns:
        Whether the file answers as it did, and what the pipeline does otherwise.

    Raises:
        InputError: no artifact, golden images that are not those of its record, a file whose own
            contract is not its record's, or tensors that cannot be read.
        UsageError: a command that fails.
        MissingError: a command that is not there.
    """
    reporter = reporter or PythonReporter()
    path, program = Path(artifact), arguments.text(pipeline)
    known = artifacts.load(path)
    warnings = []
    sealed = _sealed(path, known)
    if not sealed:
        warnings.append(
            NamedWarning(
                "no-contract",
                f"{path} carries no preprocessing contract of its own: its record alone has it",
                "export it again, with --force",
            )
        )
    now = golden.replay(path, known, reporter)
    verdict, warning = golden.judge(known, now)
    warnings += [warning] if warning else []
    diagnosis = _diagnosed(path, known, program) if program else None
    if diagnosis and diagnosis.untold:
        warnings.append(
            NamedWarning(
                "untold", f"the golden images cannot tell {', '.join(diagnosis.untold)} apart"
            )
        )
    for told in warnings:
        reporter.warn(told)
    return VerifyResult(
        path=str(path),
        artifact_sha256=known.sha256,
        sealed=sealed,
        samples=len(known.golden.images),
        golden=verdict,
        pipeline=diagnosis,
        warnings=tuple(warnings),
    )


def _sealed(path: Path, artifact: Artifact) -> bool:
    said = FORMATS.load(artifact.format).contract(inputs.read(path, inputs.FINISHED))
    if said is None:
        return False
    spec = artifact.spec
    pairs = {
        "preprocessing": (said.preprocessing, spec.preprocessing),
        "resolution": (said.resolution, spec.resolution),
        "layout": (said.layout, artifact.layout),
        "golden samples": (said.golden, artifact.golden),
    }
    for name, (inside, beside) in pairs.items():
        if inside != beside:
            raise InputError(
                f"{path} says itself another {name} than its record does",
                "export it again, with --force",
            )
    return True


def _diagnosed(path: Path, artifact: Artifact, pipeline: str) -> PipelineDiagnosis:
    kept = golden.images(path, artifact.golden)
    return pipelines.diagnose(
        [golden_inputs.golden(path.parent, image) for image in kept],
        _tensors(pipeline, kept),
        artifact.spec.preprocessing,
        artifact.spec.resolution,
        artifact.inputs[0],
        artifact.layout,
    )


def _tensors(pipeline: str, images: Sequence[Path]) -> Array:
    if pipeline.lower().endswith(".npz") and " " not in pipeline.strip():
        return _read(Path(pipeline), images)
    with artifacts.scratch() as scratch:
        made = Path(scratch, "tensors.npz")
        _call(pipeline, (str(made), *(str(p.resolve()) for p in images)))
        if not made.is_file():
            raise UsageError(
                f"the pipeline {pipeline!r} wrote no tensors",
                "it is called with the .npz to write, then the images' paths",
            )
        return _read(made, images)


def _call(pipeline: str, arguments: tuple[str, ...]) -> None:
    try:
        argv = shlex.split(pipeline)
    except ValueError as error:
        raise UsageError(f"the pipeline {pipeline!r} cannot be split: {error}") from error
    if not argv:
        raise UsageError("the pipeline is empty", "give a command or an .npz")
    try:
        done = subprocess.run(
            [*argv, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise MissingError(f"the pipeline's program {argv[0]} is not there") from error
    except OSError as error:
        raise UsageError(f"the pipeline {argv[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"the pipeline took more than {PATIENCE_S:g} s") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UsageError(
            f"the pipeline {pipeline!r} ended with status {done.returncode}",
            lines[-1] if lines else "",
        )


def _read(path: Path, images: Sequence[Path]) -> Array:
    """The tensors of an archive: its one array, or one for each image by its name."""
    with arrays.open_archive(path, LARGEST_BYTES) as archive:
        names = [image.stem for image in images]
        if set(names) <= set(archive.files):
            found = [np.squeeze(archive[name]) for name in names]
            if len({tensor.shape for tensor in found}) > 1:
                raise InputError(f"{path} holds tensors of several shapes")
            return np.stack(found)
        if len(archive.files) != 1:
            raise InputError(
                f"{path} holds {', '.join(archive.files) or 'nothing'}",
                "one array is wanted, or one for each golden image by its name",
            )
        return archive[archive.files[0]]
