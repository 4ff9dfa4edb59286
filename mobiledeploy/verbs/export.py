"""Trained or loaded model -> artifacts with their records, examined, evaluated and timed.

The order: a plan that is checked before anything is written; a child that converts into a folder
aside (`verbs/convert`); each file opened again and held against the float model; then all renamed
into place, each record last. What follows (evaluation, timing) finds whole artifacts only.
"""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import importlib.util
import io
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import BrokenImage, InputError, MissingError, UsageError
from mobiledeploy.core.plugins import DEVICES, FORMATS, RECIPES, dataset, missing, source_of
from mobiledeploy.core.ports import SILENCE, Notify, Samples
from mobiledeploy.core.types import (
    Artifact,
    Contract,
    DataRef,
    Doubt,
    Evaluation,
    Failed,
    FileFacts,
    Golden,
    InputOutput,
    Measured,
    Measurement,
    ModelSpec,
    Output,
    Recipe,
    Target,
)
from mobiledeploy.steps import consumers, conversion_process, fidelity
from mobiledeploy.steps import golden as golden_
from mobiledeploy.steps.export_plan import Order, Plan, plan, tools
from mobiledeploy.store.database import Store, writable
from mobiledeploy.store.database import path as store_path
from mobiledeploy.verbs import bench as bench_verb
from mobiledeploy.verbs import evaluate as evaluate_verb

GOLDEN_SAMPLES = 4
# The level of the gzip program itself.
GZIP_LEVEL = 6
# A glance for the table; `bench` takes its time.
BENCH_SECONDS = 2.0
# Below these the file is not the model that it was made from: dB, on golden logits.
LEAST_SQNR = {32: 60.0, 16: 20.0}
# Below it an integer file is far from its float model: dB, over all pictures that judge it.
DOUBTFUL_INT8_SQNR = 10.0
# What agreement is measured against where no float32 file was asked for.
REFERENCE = ("float32", "tflite")


@dataclass(frozen=True)
class Row:
    """One artifact of an export and what is known of it; None where it was not asked.

    `sqnr_db` and `divergence` (in nats) are of its logits beside the float32 file's, over
    `compared` pictures; None for a float32 file.
    """

    path: str
    recipe: str
    format: str
    size_bytes: int
    gzip_bytes: int
    sparsity: float
    sha256: str
    sqnr_db: float | None
    divergence: float | None
    compared: int
    top1: float | None
    agreement: float | None
    images: int
    latency_ns: float | None
    latency_interval_ns: tuple[float, float] | None


@dataclass(frozen=True)
class Exported:
    """The answer of `export`. `reused` says that an earlier export with the same inputs stood.

    `failed` are files that were asked for by name and could not be made; `rows` are the others.
    """

    folder: str
    spec: ModelSpec
    reused: bool
    rows: tuple[Row, ...]
    doubts: tuple[Doubt, ...]
    failed: tuple[Failed, ...] = ()


class _Collector:
    """Passes everything on, and keeps the doubts for the record, and what failed."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self.doubts: list[Doubt] = []
        self.failed: list[Failed] = []
        self.progress, self.say = notify.progress, notify.say

    def doubt(self, doubt: Doubt) -> None:
        if doubt not in self.doubts:
            self.doubts.append(doubt)
            self._notify.doubt(doubt)


def standing(order: Order, notify: Notify = SILENCE) -> tuple[str, dict[str, Artifact] | None]:
    """The key of what `order` makes, and the artifacts where they stand; DeployError as `plan`."""
    planned = plan(order, notify)
    _refuse_irregular(planned)
    return planned.key, _earlier(planned)


def folder(order: Order) -> Path:
    """Where the files of `order` go; DeployError as `plan`."""
    return plan(order, SILENCE).folder


def export(order: Order, notify: Notify = SILENCE, *, timed: bool = True) -> Exported:
    """Makes the artifacts that `order` asks for, or finds that they stand already.

    `timed` False leaves out the glance at their latencies.
    """
    heard = _Collector(notify)
    planned = plan(order, heard)
    _refuse_irregular(planned)
    artifacts = None if order.force else _earlier(planned)
    reused = artifacts is not None
    if artifacts is None:
        _refuse_readonly_store()
        artifacts = _make(planned, order, heard)
    for artifact in artifacts.values():
        for doubt in artifact.doubts:
            heard.doubt(doubt)
    with Store.open() as store:
        store.add_export(planned.key, artifacts)
    evaluations = _evaluations(planned, artifacts, heard)
    measurements = _measurements(artifacts, heard) if timed else {}
    return Exported(
        folder=str(planned.folder),
        spec=next(iter(artifacts.values())).spec,
        reused=reused,
        rows=tuple(
            _row(path, a, evaluations.get(a.sha256), measurements.get(a.sha256))
            for path, a in artifacts.items()
        ),
        doubts=tuple(heard.doubts),
        failed=tuple(heard.failed),
    )


def _refuse_irregular(planned: Plan) -> None:
    """UsageError where a device or a pipe stands in the place of a file that will be made."""
    for recipe, format_ in planned.jobs:
        path = planned.folder / conversion_process.file_name(recipe, format_)
        for place in (path, artifacts_.record_path(path)):
            records.refuse_irregular(place)


def _refuse_readonly_store() -> None:
    """Before an hour's work, not after it; the store itself appears with its first record."""
    if not writable():
        raise UsageError(
            f"cannot write in {store_path().absolute().parent}",
            "work in a folder of yours, or set MOBILEDEPLOY_STORE",
        )


def _earlier(planned: Plan) -> dict[str, Artifact] | None:
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
        golden = (planned.folder / picture for picture in artifact.golden.images)
        if artifact.key != planned.key or not all(picture.is_file() for picture in golden):
            return None
        found[str(path)] = artifact
    said = {d.message.split()[0] for a in found.values() for d in a.doubts if d.name == "left-out"}
    whole = found and (said.issuperset(absent) if not planned.strict else not absent)
    return found if whole else None


# The making: aside, then renamed into place.


def _make(planned: Plan, order: Order, notify: _Collector) -> dict[str, Artifact]:
    for module in source_of(planned.source).NEEDS:
        if importlib.util.find_spec(module) is None:
            error = missing(module)
            hint = f"{error.hint}; a float .tflite is exported without"
            raise MissingError(f"{error.message}, and this model needs it", hint)
    golden = _golden_samples(planned, notify)
    with artifacts_.staging(planned.folder) as staging:
        # What is judged is compared with float, whether or not that was asked for.
        compared = planned.judged and not any(recipe == "float32" for recipe, _ in planned.jobs)
        request = conversion_process.Request(
            source=planned.source,
            jobs=planned.jobs + (REFERENCE,) * compared,
            data=planned.data,
            golden=golden,
            io=order.io,
            output=order.output,
            folder=str(staging),
            strict=planned.strict,
            keep_float=order.keep_float,
            unfinished=str(_unfinished(planned)),
        )
        with DEVICES.load("host").open("host", exclusive=False, notify=notify):
            converted, finished = conversion_process.produce(
                request, staging / "conversion.log", notify
            )
        notify.failed += finished.failed
        converted = _of_the_right_types(converted, planned, order, notify)
        if not any((file.recipe, file.format) in planned.jobs for file in converted):
            # Only what the others would be held against could be made.
            raise _nothing_made(notify)
        exam = _Exam(planned, order, finished, golden, staging, notify)
        made = []
        for done, file in enumerate(converted):
            notify.progress("checking", done, len(converted))
            artifact = exam.artifact(file)
            path = Path(file.path)
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
            made.append((path, artifact))
        notify.progress("checking", len(converted), len(converted))
        if planned.judged:
            # Before anything is renamed into place: pictures too may turn out to be bad input.
            evaluate_verb.evaluate([path for path, _ in made], notify=notify)
            made = _with_fidelity(made, notify)
        asked = [
            made_
            for file, made_ in zip(converted, made, strict=True)
            if (file.recipe, file.format) in planned.jobs
        ]
        placed = _commit(asked, staging, planned.folder)
    shutil.rmtree(_unfinished(planned).parent, ignore_errors=True)
    return placed


def _nothing_made(notify: _Collector) -> InputError:
    if notify.failed:
        return InputError(notify.failed[0].message)
    last = [doubt for doubt in notify.doubts if doubt.name == "left-out"][-1]
    return InputError(last.message, last.advice)


def _with_fidelity(
    made: Sequence[tuple[Path, Artifact]], notify: Notify
) -> list[tuple[Path, Artifact]]:
    """The artifacts, and their records, with how far each is from float on what judges it."""
    known = fidelity.fidelities(dict(made), notify=notify)
    told = []
    for path, artifact in made:
        if path in known:
            found = known[path]
            far = _far_from_float(artifact, found.sqnr_db, f"{found.images} images")
            artifact = dataclasses.replace(
                artifact, fidelity=found, doubts=(*artifact.doubts, *far)
            )
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
        told.append((path, artifact))
    return told


def _unfinished(planned: Plan) -> Path:
    """Where a training that is broken off leaves its parts: of this plan, and of no other."""
    return planned.folder / ".unfinished" / planned.key[:16]


def _of_the_right_types(
    converted: Sequence[conversion_process.Converted],
    planned: Plan,
    order: Order,
    notify: _Collector,
) -> tuple[conversion_process.Converted, ...]:
    """Those that hold the numbers that their recipe says.

    A file that nobody asked for by name is left out with a warning, another one has failed.
    """
    kept = []
    for file in converted:
        shelf = FORMATS.load(file.format)
        facts = shelf.inspect(inputs.read(Path(file.path), inputs.FINISHED))
        recipe = RECIPES.load(file.recipe).RECIPE
        try:
            alone = _without(facts, file.kept)
            between = shelf.between_integers(alone)
            in_float = Counter(shelf.float_layers(alone)) - Counter(between)
            _check_types(Path(file.path).name, facts, recipe, order.io, tuple(in_float))
        except InputError as error:
            asked = (file.recipe, file.format) in planned.jobs
            if planned.strict and asked:
                notify.failed.append(conversion_process.failure(file.recipe, file.format, error))
            else:
                notify.doubt(conversion_process.left_out(file.recipe, file.format, error))
        else:
            kept.append(file)
            if recipe.full_integer and between:
                notify.doubt(_computed_in_float(Path(file.path).name, between))
    return tuple(kept)


def _computed_in_float(name: str, ops: Sequence[str]) -> Doubt:
    return Doubt(
        "float-operators",
        f"{name} computes {', '.join(sorted(set(ops)))} in float, between integers",
        "its runtime has no integer form of them; the TFLite file of the same recipe has",
    )


def _without(facts: FileFacts, kept: Sequence[str]) -> FileFacts:
    """The facts without the layers that make `kept` tensors, or are a part of them."""
    # ONNX names what an operator of TFLite becomes after the first path of its tensor.
    stems = tuple(name.partition(";")[0] for name in kept)

    def stays(name: str) -> bool:
        return name not in kept and not any(
            name == stem or name.startswith(f"{stem}/") for stem in stems
        )

    return dataclasses.replace(facts, layers=tuple(x for x in facts.layers if stays(x.name)))


def _opened(data: DataRef) -> Samples:
    return dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
    )


def _golden_samples(planned: Plan, notify: Notify) -> tuple[int, ...]:
    """Indices of readable pictures, spread over the validation split and so over its classes."""
    samples = _opened(planned.data)
    found: list[int] = []
    for start in np.linspace(0, len(samples), GOLDEN_SAMPLES, endpoint=False, dtype=int):
        for index in range(start, len(samples)):
            if index in found:
                continue
            try:
                samples.image(index)
            except BrokenImage as error:
                notify.doubt(Doubt("broken-image", error.message))
                continue
            found.append(index)
            break
    if not found:
        raise InputError(f"{planned.data.source} has no picture that can be read")
    return tuple(found)


@dataclass
class _Exam:
    """Opens each finished file again and holds it against what it was made from."""

    planned: Plan
    order: Order
    finished: conversion_process.Finished
    golden: tuple[int, ...]
    staging: Path
    notify: _Collector

    def __post_init__(self) -> None:
        size = self.finished.resolution
        spec = dataclasses.replace(
            self.planned.source.spec, resolution=size, classes=self.finished.classes
        )
        named = self.planned.named
        if not spec.preprocessing.labels and len(named) == spec.classes:
            said = dataclasses.replace(spec.preprocessing, labels=named)
            spec = dataclasses.replace(spec, preprocessing=said)
        data = dataclasses.replace(self.planned.data, resolution=size)
        self.samples = _opened(data)
        self.spec = spec
        self.data = dataclasses.replace(data, identity=self.samples.identity)
        self.shared = tuple(self.notify.doubts)
        self.pictures = self._save_pictures()
        self.reference = np.asarray(self.finished.reference, np.float32)
        if not np.any(self.reference):
            raise InputError(
                "the model answers 0 for every class of every golden picture",
                "are its weights trained?",
            )

    def _save_pictures(self) -> tuple[str, ...]:
        """Writes the golden pictures as golden/<sha256>.png; their names."""
        (self.staging / "golden").mkdir()
        names = []
        for index in self.golden:
            stream = io.BytesIO()
            Image.fromarray(self.samples.image(index)).save(stream, "PNG")
            name = f"golden/{records.sha256(stream.getvalue())[:16]}.png"
            records.write_atomic(self.staging / name, stream.getvalue())
            names.append(name)
        return tuple(names)

    def artifact(self, file: conversion_process.Converted) -> Artifact:
        """The record of one file; InputError where it is not what it should be."""
        path = Path(file.path)
        content = inputs.read(path, inputs.FINISHED)
        recipe = RECIPES.load(file.recipe).RECIPE
        shelf = FORMATS.load(file.format)
        facts = shelf.inspect(content)
        tap = path.with_name(f"tap-{path.name}")
        records.write_atomic(tap, shelf.tap(content, facts.logits))
        runtime, logits = evaluate_verb.logits(
            tap,
            shelf.inspect(inputs.read(tap, inputs.FINISHED)),
            self.spec.preprocessing,
            self.data,
            self.golden,
            notify=self.notify,
        )
        tap.unlink()
        sqnr = accuracy.sqnr_db(self.reference, logits)
        _check_sqnr(path.name, recipe, sqnr)
        there = consumers.doubts(self.spec.preprocessing, facts)
        golden = Golden(
            ids=tuple(self.samples.id(i) for i in self.golden),
            images=self.pictures,
            logits=tuple(tuple(float(v) for v in row) for row in logits),
            runtime=runtime,
            isa=golden_.isa(),
        )
        contract = Contract(
            self.spec.name,
            self.spec.preprocessing,
            self.spec.resolution,
            facts.layout,
            _ends_in(self.order.output, facts),
            golden,
        )
        content = shelf.inscribe(content, contract)
        records.write_atomic(path, content)
        artifact = Artifact(
            path=path.name,
            sha256=records.sha256(content),
            size_bytes=len(content),
            gzip_bytes=len(gzip.compress(content, GZIP_LEVEL)),
            sparsity=shelf.sparsity(content),
            format=file.format,
            spec=self.spec,
            recipe=recipe,
            output=_ends_in(self.order.output, facts),
            io=self.order.io if recipe.full_integer else "float",
            layout=facts.layout,
            inputs=facts.inputs,
            outputs=facts.outputs,
            logits=facts.logits,
            golden=golden,
            sqnr_db=sqnr,
            data=self.data,
            calibration=self.planned.calibration if recipe.calibration else "",
            calibration_images=self.finished.calibration_images if recipe.calibration else 0,
            key=self.planned.key,
            convert_seconds=file.seconds,
            tools=tools(),
            tried=file.tried,
            trained_on=self.planned.training if recipe.training else "",
            kept_float=self.order.keep_float if recipe.full_integer else (),
            doubts=(*self.shared, *there),
        )
        if self.planned.judged:
            return artifact
        far = _far_from_float(artifact, sqnr, f"{len(self.golden)} golden images")
        return dataclasses.replace(artifact, doubts=(*artifact.doubts, *far))


def _ends_in(output: Output, facts: FileFacts) -> Output:
    """What a record says that a file ends in; what its model ends in may be a softmax."""
    if output == "model" and facts.logits != facts.outputs[0].name:
        return "softmax"
    return output


def _check_types(
    name: str, facts: FileFacts, recipe: Recipe, io: InputOutput, in_float: Sequence[str]
) -> None:
    if len(facts.inputs) != 1 or len(facts.outputs) != 1:
        raise InputError(f"{name} has {len(facts.inputs)} inputs, {len(facts.outputs)} outputs")
    wanted = "float32"
    if recipe.full_integer and io != "float":
        wanted = "uint8" if io == "uint8" else f"int{recipe.activation_bits}"
    for tensor in (*facts.inputs, *facts.outputs):
        if tensor.dtype != wanted:
            raise InputError(f"{name} came out with {tensor.name} in {tensor.dtype}, not {wanted}")
    if recipe.full_integer and in_float:
        raise InputError(
            f"{name} would still compute {', '.join(sorted(set(in_float)))} in float",
            "that operator has no int8 form here; --recipe float32,float16,dynamic_int8 work",
        )


def _check_sqnr(name: str, recipe: Recipe, sqnr: float) -> None:
    """InputError where golden logits say that the file is not its model."""
    least = LEAST_SQNR.get(recipe.weight_bits)
    if not np.isfinite(sqnr) or (least is not None and sqnr < least):
        raise InputError(
            f"{name} does not answer as its model does: {sqnr:.0f} dB on golden logits, "
            f"not {least or 0:.0f} dB or more",
            "is --input-range what the model was trained with? If so, please report it",
        )


def _far_from_float(artifact: Artifact, sqnr: float, over: str) -> tuple[Doubt, ...]:
    if artifact.recipe.weight_bits in LEAST_SQNR or sqnr >= DOUBTFUL_INT8_SQNR:
        return ()
    message = f"{artifact.path} answers far from its float model ({sqnr:.1f} dB over {over})"
    advice = "calibrate with more typical pictures; compare the agreement column"
    return (Doubt("far-from-float", message, advice),)


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
            for picture in (staging / "golden").iterdir():
                records.put(picture, folder / "golden" / picture.name)
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


# What is known of them: predictions and times, from the store where it has them already.


def _evaluations(
    planned: Plan, artifacts: dict[str, Artifact], notify: Notify
) -> dict[str, Evaluation]:
    if not planned.judged:
        return {}
    with Store.open() as store:
        known = {
            a.sha256: store.evaluation(
                a.sha256, a.data, a.spec.preprocessing, target, _version(target)
            )
            for a in artifacts.values()
            for target in (evaluate_verb.target(a),)
        }
    absent = [Path(path) for path, a in artifacts.items() if known[a.sha256] is None]
    made = evaluate_verb.evaluate(absent, notify=notify) if absent else ()
    return {sha: e for sha, e in known.items() if e} | {e.artifact_sha256: e for e in made}


def _measurements(artifacts: dict[str, Artifact], notify: Notify) -> dict[str, Measured]:
    with Store.open() as store:
        known = {
            a.sha256: store.measurement(a.sha256, target, _version(target))
            for a in artifacts.values()
            for target in (bench_verb.target(a),)
        }
    absent = [Path(path) for path, a in artifacts.items() if known[a.sha256] is None]
    made: tuple[Measurement, ...] = ()
    if absent:
        heard = _Collector(SILENCE)
        heard.progress, heard.say = notify.progress, notify.say
        made = bench_verb.bench(absent, seconds=BENCH_SECONDS, notify=heard)
        names = sorted({doubt.name for doubt in heard.doubts})
        if names:
            # One line for all the files: a glance is a glance.
            notify.doubt(
                Doubt(
                    "rough-times",
                    f"the times below are rough ({', '.join(names)})",
                    "mobiledeploy bench takes longer over them, and says more",
                )
            )
    all_ = (*known.values(), *made)
    return {m.artifact_sha256: m for m in all_ if isinstance(m, Measured)}


def _version(target: Target) -> str:
    return evaluate_verb.runtime_version(target.runtime)


def _row(path: str, a: Artifact, seen: Evaluation | None, timed: Measured | None) -> Row:
    return Row(
        path=path,
        recipe=a.recipe.name,
        format=a.format,
        size_bytes=a.size_bytes,
        gzip_bytes=a.gzip_bytes,
        sparsity=a.sparsity,
        sha256=a.sha256,
        sqnr_db=a.fidelity.sqnr_db if a.fidelity else None,
        divergence=a.fidelity.divergence if a.fidelity else None,
        compared=a.fidelity.images if a.fidelity else 0,
        top1=seen.top1 if seen else None,
        agreement=seen.agreement if seen else None,
        images=seen.images if seen else 0,
        latency_ns=timed.median_ns if timed else None,
        latency_interval_ns=timed.interval_ns if timed else None,
    )
