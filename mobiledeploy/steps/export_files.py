"""A plan -> the artifacts, made in a folder aside and renamed into place."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import DEVICES, missing, source_of
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact
from mobiledeploy.steps import conversion_process, evaluations, fidelity
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, plan
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.file_checks import (
    Collector,
    Exam,
    far_from_float,
    golden_samples,
    of_the_right_types,
)
from mobiledeploy.store.database import path as store_path
from mobiledeploy.store.database import writable

# What agreement is measured against where no float32 file was asked for.
REFERENCE = ("float32", "tflite")


def standing(
    config: ExportConfig, reporter: Reporter = SILENT
) -> tuple[str, dict[str, Artifact] | None]:
    """The key of what `config` makes, and the artifacts where they stand; DeployError as `plan`."""
    planned = plan(config, reporter)
    refuse_irregular(planned)
    return planned.key, earlier(planned)


def folder(config: ExportConfig) -> Path:
    """Where the files of `config` go; DeployError as `plan`."""
    return plan(config, SILENT).folder


def refuse_irregular(planned: ExportPlan) -> None:
    """UsageError where a device or a pipe stands in the place of a file that will be made."""
    for recipe, format_ in planned.jobs:
        path = planned.folder / conversion_process.file_name(recipe, format_)
        for place in (path, artifacts_.record_path(path)):
            records.refuse_irregular(place)


def refuse_readonly_store() -> None:
    """Before an hour's work, not after it; the store itself appears with its first record."""
    if not writable():
        raise UsageError(
            f"cannot write in {store_path().absolute().parent}",
            "work in a folder of yours, or set MOBILEDEPLOY_STORE",
        )


def earlier(planned: ExportPlan) -> dict[str, Artifact] | None:
    """The artifacts of an earlier export with the same key, if every one still stands whole."""
    found: dict[str, Artifact] = {}
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
        found[str(path)] = artifact
    said = {
        d.message.split()[0] for a in found.values() for d in a.warnings if d.name == "left-out"
    }
    whole = found and (said.issuperset(absent) if not planned.strict else not absent)
    return found if whole else None


def make(planned: ExportPlan, config: ExportConfig, reporter: Collector) -> dict[str, Artifact]:
    """The artifacts of a plan, by path; they are made in a folder aside and renamed into place."""
    for module in source_of(planned.source).NEEDS:
        if importlib.util.find_spec(module) is None:
            error = missing(module)
            hint = f"{error.hint}; a float .tflite is exported without"
            raise MissingError(f"{error.message}, and this model needs it", hint)
    golden = golden_samples(planned, reporter)
    with artifacts_.staging(planned.folder) as staging:
        # What is judged is compared with float, whether or not that was asked for.
        compared = planned.judged and not any(recipe == "float32" for recipe, _ in planned.jobs)
        request = conversion_process.ConversionRequest(
            source=planned.source,
            jobs=planned.jobs + (REFERENCE,) * compared,
            data=planned.data,
            golden=golden,
            io=config.io,
            output=config.output,
            folder=str(staging),
            strict=planned.strict,
            keep_float=config.keep_float,
            unfinished=str(_unfinished(planned)),
        )
        with DEVICES.load("host").open("host", exclusive=False, reporter=reporter):
            converted, finished = conversion_process.produce(
                request, staging / "conversion.log", reporter
            )
        reporter.failed += finished.failed
        converted = of_the_right_types(converted, planned, config, reporter)
        if not any((file.recipe, file.format) in planned.jobs for file in converted):
            # Only what the others would be held against could be made.
            raise _nothing_made(reporter)
        exam = Exam(planned, config, finished, golden, staging, reporter)
        made = []
        for done, file in enumerate(converted):
            reporter.progress("checking", done, len(converted))
            artifact = exam.artifact(file)
            path = Path(file.path)
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
            made.append((path, artifact))
        reporter.progress("checking", len(converted), len(converted))
        if planned.judged:
            # Before anything is renamed into place: images too may turn out to be bad input.
            failures = Failures()
            evaluations.each([path for path, _ in made], failures, reporter=reporter)
            failures.check()
            made = _with_fidelity(made, reporter)
        asked = [
            made_
            for file, made_ in zip(converted, made, strict=True)
            if (file.recipe, file.format) in planned.jobs
        ]
        placed = _commit(asked, staging, planned.folder)
    shutil.rmtree(_unfinished(planned).parent, ignore_errors=True)
    return placed


def _nothing_made(reporter: Collector) -> InputError:
    if reporter.failed:
        return InputError(reporter.failed[0].message)
    last = [warning for warning in reporter.warnings if warning.name == "left-out"][-1]
    return InputError(last.message, last.advice)


def _with_fidelity(
    made: Sequence[tuple[Path, Artifact]], reporter: Reporter
) -> list[tuple[Path, Artifact]]:
    """The artifacts, and their records, with how far each is from float on what judges it."""
    known = fidelity.fidelities(dict(made), reporter=reporter)
    told = []
    for path, artifact in made:
        if path in known:
            found = known[path]
            far = far_from_float(artifact, found.sqnr_db, f"{found.images} images")
            artifact = dataclasses.replace(
                artifact, fidelity=found, warnings=(*artifact.warnings, *far)
            )
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
        told.append((path, artifact))
    return told


def _unfinished(planned: ExportPlan) -> Path:
    """Where a training that is broken off leaves its parts: of this plan, and of no other."""
    return planned.folder / ".unfinished" / planned.key[:16]


def _commit(
    made: Sequence[tuple[Path, Artifact]], staging: Path, folder: Path
) -> dict[str, Artifact]:
    """Renames all into place. A model is replaced between its record's going and coming."""
    with records.writing(folder):
        (folder / "golden").mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            # Two exports at once may not give one's file to the other's record.
            fcntl.flock(handle, fcntl.LOCK_EX)
            for image in (staging / "golden").iterdir():
                records.put(image, folder / "golden" / image.name)
            placed = {}
            for path, artifact in made:
                target = folder / path.name
                record = artifacts_.record_path(target)
                # Links stay, and lead to the new files.
                record.resolve().unlink(missing_ok=True)
                records.put(path, target)
                records.put(artifacts_.record_path(path), record)
                placed[str(target)] = artifact
        finally:
            os.close(handle)
    return placed
