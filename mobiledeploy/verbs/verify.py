"""Checks an artifact by its golden samples, and an app's preprocessing by its contract."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobiledeploy.analysis import pipelines
from mobiledeploy.analysis.pipelines import PipelineDiagnosis
from mobiledeploy.core import arrays, artifacts
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.ports import Array, Reporter
from mobiledeploy.core.types import Artifact, NamedWarning, Verdict
from mobiledeploy.steps import arguments, golden, golden_inputs
from mobiledeploy.steps.arguments import AnyPath
from mobiledeploy.steps.predictors import HOST, PredictionOptions, Predictor
from mobiledeploy.steps.reporters import PythonReporter

PATIENCE_S = 600.0
LARGEST_BYTES = 1 << 30


@dataclass(frozen=True)
class VerifyResult(Record):
    """The answer of `verify`.

    `sealed` says that the file itself holds its contract, the same as the record. `golden` is None
    if another runtime or machine than this host made the golden outputs. `pipeline` is None without
    one. The file ran on `device` by `runtime` (its name and version) with `delegate`, and `isa` is
    the device's instruction set.
    """

    path: str
    artifact_sha256: str
    sealed: bool
    samples: int
    golden: Verdict | None
    pipeline: PipelineDiagnosis | None
    warnings: tuple[NamedWarning, ...]
    device: str = HOST
    runtime: str = ""
    delegate: str = ""
    isa: str = ""

    @property
    def sound(self) -> bool:
        """Whether everything passed."""
        pipeline_passes = self.pipeline is None or (
            self.pipeline.explained and not self.pipeline.differences
        )
        return pipeline_passes and (self.golden is None or self.golden.outcome == "pass")

    @property
    def lines(self) -> tuple[str, ...]:
        """The result in words."""
        lines = []
        if self.sealed:
            lines.append(f"{self.path} carries its preprocessing, the same as its record's")
        if self.golden:
            lines.append(f"{self.golden.outcome}: {self.golden.line} ({self.samples} samples)")
        if self.pipeline is None:
            return tuple(lines)
        diagnosis = self.pipeline
        off = (
            f"{diagnosis.error_as_wanted:.3g} grey levels from what the model wants, on the average"
        )
        if not diagnosis.explained:
            lines.append(
                f"fail: the pipeline's tensors are {off}, and no usual mistake explains them "
                f"(the nearest is {diagnosis.error:.3g} away)"
            )
        elif diagnosis.differences:
            lines += [f"fail: {difference}" for difference in diagnosis.differences]
        else:
            lines.append(f"pass: the pipeline feeds the model what it wants ({off})")
        return tuple(lines)

    def tables(self) -> tuple[Table, ...]:
        """A row for each line."""
        return (Table(("verify",), tuple((line,) for line in self.lines)),)


def verify(
    artifact: AnyPath,
    *,
    pipeline: AnyPath | None = None,
    device: str = HOST,
    delegate: str | None = None,
    strict: bool = False,
    record: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> VerifyResult:
    """Replays an artifact's golden samples; says what is wrong with an app's preprocessing.

    Example:
        >>> md.verify("build/int8_best.tflite", pipeline="python preprocess.py").sound

    Args:
        artifact: the file, with its record and its golden images beside it.
        pipeline: your app's preprocessing: an .npz of its tensors for the golden images, in their
            order, or a command that writes one. The command is called without a shell; the file to
            write and the images' paths follow its own arguments.
        device: where the file runs, as for `evaluate`.
        delegate: as for `evaluate`.
        strict: the delegate must take all operators.
        record: a file for the recording of the session, for `replay:FILE`.
        reporter: is told of warnings; the default is a `PythonReporter`.

    Returns:
        Whether the file still gives its golden outputs, and what the pipeline does differently.

    Raises:
        InputError: no artifact, golden images or a contract that differ from its record, or tensors
            that cannot be read.
        UsageError: a command that fails; an unknown device or delegate.
        DeviceError: the runner died or hangs, or the device was lost.
        MissingError: a command that does not exist; the emulator is not installed.
    """
    reporter = reporter or PythonReporter()
    path, program = Path(artifact), arguments.text(pipeline)
    artifact_ = artifacts.load(path)
    warnings = []
    has_contract = golden.has_contract(path, artifact_)
    if not has_contract:
        warnings.append(
            NamedWarning(
                "no-contract",
                f"{path} carries no preprocessing contract of its own: its record alone has it",
                "export it again, with --force",
            )
        )
    options = PredictionOptions(
        device, delegate=delegate, record=arguments.path(record), strict=strict
    )
    with Predictor(options, "verify", reporter) as predictor:
        now = golden.replay(path, artifact_, reporter, predictor)
    verdict, warning = golden.judge(artifact_, now)
    warnings += [warning] if warning else []
    diagnosis = _diagnose(path, artifact_, program) if program else None
    if diagnosis and diagnosis.untold:
        warnings.append(
            NamedWarning(
                "untold", f"the golden images cannot tell {', '.join(diagnosis.untold)} apart"
            )
        )
    for warning_ in warnings:
        reporter.warn(warning_)
    return VerifyResult(
        path=str(path),
        artifact_sha256=artifact_.sha256,
        sealed=has_contract,
        samples=len(artifact_.golden.images),
        golden=verdict,
        pipeline=diagnosis,
        warnings=tuple(warnings),
        device=now.device,
        runtime=now.runtime,
        delegate=now.delegate,
        isa=now.isa,
    )


def _diagnose(path: Path, artifact: Artifact, pipeline: str) -> PipelineDiagnosis:
    images = golden.images(path, artifact.golden)
    return pipelines.diagnose(
        [golden_inputs.golden(path.parent, image) for image in images],
        _tensors(pipeline, images),
        artifact.spec.preprocessing,
        artifact.spec.resolution,
        artifact.inputs[0],
        artifact.layout,
    )


def _tensors(pipeline: str, images: Sequence[Path]) -> Array:
    if pipeline.lower().endswith(".npz") and " " not in pipeline.strip():
        return _read(Path(pipeline), images)
    with artifacts.scratch() as scratch:
        file = Path(scratch, "tensors.npz")
        _call(pipeline, (str(file), *(str(p.resolve()) for p in images)))
        if not file.is_file():
            raise UsageError(
                f"the pipeline {pipeline!r} wrote no tensors",
                "it is called with the .npz to write, then the images' paths",
            )
        return _read(file, images)


def _call(pipeline: str, arguments: tuple[str, ...]) -> None:
    try:
        argv = shlex.split(pipeline)
    except ValueError as error:
        raise UsageError(f"the pipeline {pipeline!r} cannot be split: {error}") from error
    if not argv:
        raise UsageError("the pipeline is empty", "give a command or an .npz")
    try:
        completed = subprocess.run(
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
    if completed.returncode:
        lines = [line.strip() for line in completed.stderr.splitlines() if line.strip()]
        raise UsageError(
            f"the pipeline {pipeline!r} ended with status {completed.returncode}",
            lines[-1] if lines else "",
        )


def _read(path: Path, images: Sequence[Path]) -> Array:
    """The tensors of an archive: its only array, or one for each image by name."""
    with arrays.open_archive(path, LARGEST_BYTES) as archive:
        names = [image.stem for image in images]
        if set(names) <= set(archive.files):
            tensors = [np.squeeze(archive[name]) for name in names]
            if len({tensor.shape for tensor in tensors}) > 1:
                raise InputError(f"{path} holds tensors of several shapes")
            return np.stack(tensors)
        if len(archive.files) != 1:
            raise InputError(
                f"{path} holds {', '.join(archive.files) or 'nothing'}",
                "one array is wanted, or one for each golden image by its name",
            )
        return archive[archive.files[0]]
