"""A plan -> the artifacts, which are made in a temporary folder and renamed into place."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import inputs, locks, records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import DEVICES, missing, source_of
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Artifact, Evaluation
from mobiledeploy.steps import (
    conversion_process,
    defaults,
    evaluations,
    fidelity,
    target_core,
)
from mobiledeploy.steps.conversion_process import ConvertedFile
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


@dataclass
class SharedFloats:
    """What exports of one model share that differ in their recipes and layers in float only.

    The first leaves it here for the others. `folder` has the opened model and the pixels of the
    evaluation; `reference` is the float TFLite file with its artifact, `evaluations` and `answers`
    belong to float files, by sha256.
    """

    folder: Path
    reference: tuple[Path, Artifact] | None = None
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    answers: dict[str, fidelity.Rows] = field(default_factory=dict)


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


def make(
    planned: ExportPlan,
    config: ExportConfig,
    reporter: Collector,
    shared: SharedFloats | None = None,
) -> dict[str, Artifact]:
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
        adds_reference = (
            planned.evaluates
            and not (shared and shared.reference)
            and not any(recipe == "float32" for recipe, _ in planned.jobs)
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
            opened=str(shared.folder) if shared else "",
            forms=config.core is not None,
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
        judged = _examined(files, exam, config.core, reporter)
        files = tuple(file for file, _ in judged)
        artifacts = [(Path(file.path), artifact) for file, artifact in judged]
        for path, artifact in artifacts:
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
        if planned.evaluates:
            # Before any file is renamed into place, because images may turn out to be bad input.
            artifacts = _judged(artifacts, staging, reporter, shared or SharedFloats(staging))
        requested = [
            artifact
            for file, artifact in zip(files, artifacts, strict=True)
            if (file.recipe, file.format) in planned.jobs
        ]
        placed = _commit(requested, staging, planned.folder)
    _keep_out_of_git(planned, new)
    shutil.rmtree(_unfinished(planned).parent, ignore_errors=True)
    return placed


def _examined(
    files: Sequence[ConvertedFile], exam: Exam, core: str | None, reporter: Reporter
) -> list[tuple[ConvertedFile, Artifact]]:
    """Each file with its record; of the forms of a file the cheapest on a core."""
    if core is not None:
        return target_core.fewest(files, exam, core, reporter)
    judged = []
    for number, file in enumerate(files):
        reporter.progress("checking", number, len(files))
        judged.append((file, exam.artifact(file)))
    reporter.progress("checking", len(files), len(files))
    return judged


def place(artifacts: dict[str, Artifact], planned: ExportPlan) -> dict[str, Artifact]:
    """Moves finished artifacts of one folder, by path, into the folder of an equal export."""
    files = [(Path(path), artifact) for path, artifact in artifacts.items()]
    for path, artifact in files:
        records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
    new = not Path(defaults.BUILD).exists()
    placed = _commit(files, files[0][0].parent, planned.folder)
    _keep_out_of_git(planned, new)
    return placed


def _keep_out_of_git(planned: ExportPlan, new: bool) -> None:
    """Has git ignore the default folder of exports if this export made it."""
    if new and Path(defaults.BUILD) in planned.folder.parents:
        records.keep_out_of_git(Path(defaults.BUILD))


def _nothing_made(reporter: Collector) -> InputError:
    if reporter.failed:
        return InputError(reporter.failed[0].message)
    last = [warning for warning in reporter.warnings if warning.name == "left-out"][-1]
    return InputError(last.message, last.advice)


def _judged(
    artifacts: Sequence[tuple[Path, Artifact]],
    staging: Path,
    reporter: Reporter,
    shared: SharedFloats,
) -> list[tuple[Path, Artifact]]:
    """Evaluates the artifacts; adds their distance from float on these images to their records."""
    pixels = shared.folder / "pixels"
    pixels.mkdir(exist_ok=True)
    files = dict(artifacts)
    if shared.reference:
        # Beside the others, where an evaluation looks for it.
        path, artifact = shared.reference
        copy = staging / path.name
        records.write_atomic(copy, inputs.read(path, inputs.FINISHED))
        records.write_atomic(artifacts_.record_path(copy), records.dumps(artifact))
        files[copy] = artifact
    evaluated = evaluations.all_of(list(files), reporter, pixels, shared.evaluations)
    for path, artifact in files.items():
        if artifact.recipe.name == "float32":
            shared.evaluations[artifact.sha256] = evaluated[path]
    fidelities = fidelity.fidelities(files, pixels=pixels, floats=shared.answers, reporter=reporter)
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
