"""A plan -> the artifacts, which are made in a temporary folder and renamed into place."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import locks, records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import DEVICES, missing, source_of
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact
from mobiledeploy.steps import conversion_process, defaults, evaluations, fidelity
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, plan
from mobiledeploy.steps.file_checks import (
    Collector,
    Exam,
    far_from_float,
    golden_samples,
    of_the_right_types,
)
from mobiledeploy.store.database import path as store_path
from mobiledeploy.store.database import writable

# The reference for agreement if no float32 file is requested.
REFERENCE = ("float32", "tflite")


def standing(
    config: ExportConfig, reporter: Reporter = SILENT
) -> tuple[str, dict[str, Artifact] | None]:
    """The key of an export, and its artifacts if they exist already; DeployError as `plan`."""
    planned = plan(config, reporter)
    refuse_irregular(planned)
    return planned.key, earlier(planned)


def folder(config: ExportConfig) -> Path:
    """The folder for the files of `config`; DeployError as `plan`."""
    return plan(config, SILENT).folder


def refuse_irregular(planned: ExportPlan) -> None:
    """UsageError if a device or a pipe has the path of a file that will be made."""
    for recipe, format_ in planned.jobs:
        path = planned.folder / conversion_process.file_name(recipe, format_)
        for place in (path, artifacts_.record_path(path)):
            records.refuse_irregular(place)


def refuse_readonly_store() -> None:
    """Checks that the store can be written before the work, not after it.

    Does not make the store.
    """
    if not writable():
        raise UsageError(
            f"cannot write in {store_path().absolute().parent}",
            "work in a folder of yours, or set MOBILEDEPLOY_STORE",
        )


def earlier(planned: ExportPlan) -> dict[str, Artifact] | None:
    """The artifacts of an earlier export with the same key, if all of them are still complete."""
    artifacts: dict[str, Artifact] = {}
    absent = []
    for recipe, format_ in planned.jobs:
        path = planned.folder / conversion_process.file_name(recipe, format_)
        try:
            artifact = artifacts_.load(path)
        except InputError:
            absent.append(path.name)
            continue
        golden = (planned.folder / image for image in artifact.golden.images)
        if artifact.key != planned.key or not all(image.is_file() for image in golden):
            return None
        artifacts[str(path)] = artifact
    names = {
        d.message.split()[0] for a in artifacts.values() for d in a.warnings if d.name == "left-out"
    }
    whole = artifacts and (names.issuperset(absent) if not planned.strict else not absent)
    return artifacts if whole else None


def make(planned: ExportPlan, config: ExportConfig, reporter: Collector) -> dict[str, Artifact]:
    """Makes the artifacts of a plan in a temporary folder, renames them, returns them by path."""
    for module in source_of(planned.source).NEEDS:
        if importlib.util.find_spec(module) is None:
            error = missing(module)
            hint = f"{error.hint}; a float .tflite is exported without"
            raise MissingError(f"{error.message}, and this model needs it", hint)
    golden = golden_samples(planned, reporter)
    new = not Path(defaults.BUILD).exists()
    with artifacts_.staging(planned.folder) as staging:
        # An evaluation needs the float file, even if it is not requested.
        adds_reference = planned.evaluates and not any(
            recipe == "float32" for recipe, _ in planned.jobs
        )
        request = conversion_process.ConversionRequest(
            source=planned.source,
            jobs=planned.jobs + (REFERENCE,) * adds_reference,
            data=planned.data,
            classes=planned.classes,
            golden=golden,
            io=config.io,
            output=config.output,
            folder=str(staging),
            strict=planned.strict,
            keep_float=config.keep_float,
            shrink=config.shrink,
            unfinished=str(_unfinished(planned)),
        )
        with DEVICES.load("host").open("host", exclusive=False, reporter=reporter):
            files, summary = conversion_process.produce(
                request, staging / "conversion.log", reporter
            )
        reporter.failed += summary.failed
        files = of_the_right_types(files, planned, config, reporter)
        if not any((file.recipe, file.format) in planned.jobs for file in files):
            # Only the float reference could be made.
            raise _nothing_made(reporter)
        exam = Exam(planned, config, summary, golden, staging, reporter)
        artifacts = []
        for number, file in enumerate(files):
            reporter.progress("checking", number, len(files))
            artifact = exam.artifact(file)
            path = Path(file.path)
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
            artifacts.append((path, artifact))
        reporter.progress("checking", len(files), len(files))
        if planned.evaluates:
            # Before any file is renamed into place, because images may turn out to be bad input.
            pixels = staging / "pixels"
            pixels.mkdir()
            evaluations.all_of([path for path, _ in artifacts], reporter, pixels)
            artifacts = _with_fidelity(artifacts, pixels, reporter)
        requested = [
            artifact
            for file, artifact in zip(files, artifacts, strict=True)
            if (file.recipe, file.format) in planned.jobs
        ]
        placed = _commit(requested, staging, planned.folder)
    if new and Path(defaults.BUILD) in planned.folder.parents:
        records.keep_out_of_git(Path(defaults.BUILD))
    shutil.rmtree(_unfinished(planned).parent, ignore_errors=True)
    return placed


def _nothing_made(reporter: Collector) -> InputError:
    if reporter.failed:
        return InputError(reporter.failed[0].message)
    last = [warning for warning in reporter.warnings if warning.name == "left-out"][-1]
    return InputError(last.message, last.advice)


def _with_fidelity(
    artifacts: Sequence[tuple[Path, Artifact]], pixels: Path, reporter: Reporter
) -> list[tuple[Path, Artifact]]:
    """Adds the distance from float on the evaluation images to the artifacts and their records."""
    fidelities = fidelity.fidelities(dict(artifacts), pixels=pixels, reporter=reporter)
    result = []
    for path, artifact in artifacts:
        if path in fidelities:
            fidelity_ = fidelities[path]
            far = far_from_float(artifact, fidelity_.sqnr_db, f"{fidelity_.images} images")
            artifact = dataclasses.replace(
                artifact, fidelity=fidelity_, warnings=(*artifact.warnings, *far)
            )
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
        result.append((path, artifact))
    return result


def _unfinished(planned: ExportPlan) -> Path:
    """The folder for the parts of an interrupted training, of this plan only."""
    return planned.folder / ".unfinished" / planned.key[:16]


def _commit(
    artifacts: Sequence[tuple[Path, Artifact]], staging: Path, folder: Path
) -> dict[str, Artifact]:
    """Renames all files into place; a model is replaced while it has no record."""
    with records.writing(folder):
        (folder / "golden").mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            # Two exports at once must not mix their files and records.
            locks.lock(handle)
            for image in (staging / "golden").iterdir():
                records.put(image, folder / "golden" / image.name)
            placed = {}
            for path, artifact in artifacts:
                target = folder / path.name
                record = artifacts_.record_path(target)
                # Links stay and point to the new files.
                record.resolve().unlink(missing_ok=True)
                records.put(path, target)
                records.put(artifacts_.record_path(path), record)
                placed[str(target)] = artifact
        finally:
            os.close(handle)
    return placed
