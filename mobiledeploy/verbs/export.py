"""Trained or loaded model -> artifacts with their records, examined, evaluated and timed.

The order: a plan that is checked before anything is written; a child that converts into a folder
aside (`verbs/convert`); each file opened again and held against the float model; then all renamed
into place, each record last. What follows (evaluation, timing) finds whole artifacts only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io as io_
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from mobiledeploy import __version__
from mobiledeploy.analysis import accuracy
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import preprocessing, records
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import BrokenImage, InputError, UsageError
from mobiledeploy.core.plugins import CONVERTERS, FORMATS, PACKAGE, RECIPES, dataset, missing
from mobiledeploy.core.ports import SILENCE, Notify, Samples
from mobiledeploy.core.store import Store
from mobiledeploy.core.store import path as store_path
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Doubt,
    Evaluation,
    FileFacts,
    Golden,
    InputOutput,
    Measured,
    ModelFile,
    ModelSpec,
    Output,
    Overrides,
    Preprocessing,
    Recipe,
    Weights,
)
from mobiledeploy.verbs import bench as bench_verb
from mobiledeploy.verbs import convert, models
from mobiledeploy.verbs import evaluate as evaluate_verb

GOLDEN_SAMPLES = 4
# A glance for the table; `bench` takes its time.
BENCH_SECONDS = 2.0
# What generated pictures are drawn at to see that they are there.
ANY_RESOLUTION = (224, 224)
# TFLite's flatbuffers end at 2 GB: alpha 10 of the widest network here stays below.
LARGEST_ALPHA = 10.0
LARGEST_RESOLUTION = 4096
# Below these the file is not the model that it was made from: dB, on golden logits.
LEAST_SQNR = {32: 60.0, 16: 30.0}
DOUBTFUL_INT8_SQNR = 10.0


@dataclass(frozen=True)
class Order:
    """What the command line asks for; None means the default of the card or of the recipes."""

    model: Path | None = None
    arch: str = "mobilenet_v1"
    alpha: float | None = None
    res: int | None = None
    weights: str | None = None
    data: str | None = None
    recipes: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    io: InputOutput = "int8"
    output: Output = "softmax"
    overrides: Overrides = Overrides()
    out: Path = Path("build")
    force: bool = False
    unsafe: bool = False


@dataclass(frozen=True)
class Row:
    """One artifact of an export and what is known of it; None where it was not asked."""

    path: str
    recipe: str
    format: str
    size_bytes: int
    sha256: str
    sqnr_db: float
    top1: float | None
    agreement: float | None
    images: int
    latency_ns: float | None
    latency_interval_ns: tuple[float, float] | None


@dataclass(frozen=True)
class Exported:
    """The answer of `export`. `reused` says that an earlier export with the same inputs stood."""

    folder: str
    spec: ModelSpec
    reused: bool
    rows: tuple[Row, ...]
    doubts: tuple[Doubt, ...]


@dataclass(frozen=True)
class Plan:
    """An order that was found possible. `key` is the sha256 of all that it depends on.

    `resolution` is None where the model file alone knows it; `judged` says whether the pictures
    can tell anything of accuracy.
    """

    spec: ModelSpec
    resolution: tuple[int, int] | None
    model: ModelFile | None
    weights: str | None
    jobs: tuple[tuple[str, str], ...]
    data: DataRef
    judged: bool
    folder: Path
    key: str


class _Collector:
    """Passes everything on, and keeps the doubts for the record."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self.doubts: list[Doubt] = []
        self.progress, self.say = notify.progress, notify.say

    def doubt(self, doubt: Doubt) -> None:
        if doubt not in self.doubts:
            self.doubts.append(doubt)
        self._notify.doubt(doubt)


def export(order: Order, notify: Notify = SILENCE) -> Exported:
    """Makes the artifacts that `order` asks for, or finds that they stand already."""
    notify = _Collector(notify)
    planned = plan(order, notify)
    artifacts = None if order.force else _earlier(planned)
    reused = artifacts is not None
    if artifacts is None:
        artifacts = _make(planned, order, notify)
        with Store.open() as store:
            store.add_export(planned.key, artifacts)
    evaluations = _evaluations(planned, artifacts, notify)
    measurements = _measurements(artifacts, notify)
    first = next(iter(artifacts.values()))
    return Exported(
        folder=str(planned.folder),
        spec=first.spec,
        reused=reused,
        rows=tuple(
            _row(path, a, evaluations.get(a.sha256), measurements.get(a.sha256))
            for path, a in artifacts.items()
        ),
        doubts=tuple(dict.fromkeys((*first.doubts, *notify.doubts))),
    )


# The plan: everything that can be refused is refused here, before anything is written.


def plan(order: Order, notify: Notify) -> Plan:
    """Everything that an export depends on; DeployError for whatever can be refused beforehand."""
    said = order.overrides.over(Preprocessing((-1.0, 1.0)))
    assert said is not None
    preprocessing.validate(said)
    jobs = _jobs(order)
    own = _own_model(order) if order.model else None
    names = sorted({recipe for recipe, _ in jobs if RECIPES.load(recipe).RECIPE.calibration})
    builtin = order.model is None and order.weights in (None, "demo", "random")
    if order.data is None and names and not builtin:
        raise UsageError(
            f"{', '.join(names)} needs pictures like those that the model will see",
            "give --data DIR or FILE.npz, or --recipe float32,float16",
        )
    # Only now: this may download weights.
    spec, model, weights = own or _from_card(order, notify)
    source = order.data or "demo"
    if source == "demo" and not builtin:
        if order.data:
            raise UsageError(
                "the demo pictures say nothing about a model that was not trained on them",
                "give --data DIR or FILE.npz",
            )
        notify.doubt(
            Doubt(
                "no-data",
                "no pictures were given: nothing is said of accuracy",
                "--data DIR or FILE.npz",
            )
        )
    resolution = None if order.res is None else (order.res, order.res)
    labels = spec.preprocessing.labels if order.overrides.labels else ()
    # A model file's own resolution is known only once a framework has opened it.
    look = resolution or (spec.resolution if spec.card else ANY_RESOLUTION)
    held = dataset(source).open(source, "validation", resolution=look, labels=labels)
    data = DataRef(source, "validation", look, labels, held.identity)
    if not spec.preprocessing.labels and source != "demo":
        spec = dataclasses.replace(
            spec, preprocessing=dataclasses.replace(spec.preprocessing, labels=held.classes)
        )
    folder = order.out / _folder_name(spec, order)
    key = _key(order, spec, model, jobs, data)
    judged = order.data is not None or builtin
    return Plan(spec, resolution, model, weights, jobs, data, judged, folder, key)


def _jobs(order: Order) -> tuple[tuple[str, str], ...]:
    """(recipe, format) pairs, TFLite first, the most precise recipe first."""
    formats = order.formats or CONVERTERS.names()[::-1]
    for format_ in formats:
        if format_ not in CONVERTERS.names():
            raise UsageError(
                f"no format named {format_!r}", f"there are {', '.join(CONVERTERS.names())}"
            )
    known = [RECIPES.load(name).RECIPE for name in RECIPES.names()]
    if order.recipes is None:
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.plain]
    elif order.recipes == ("all",):
        jobs = [(recipe, f) for recipe in known for f in formats if f in recipe.formats]
    else:
        asked = [RECIPES.load(name).RECIPE for name in dict.fromkeys(order.recipes)]
        for recipe in asked:
            for f in order.formats or ():
                _refuse_impossible(recipe, f, known)
        jobs = [(recipe, f) for recipe in asked for f in formats if f in recipe.formats]
    jobs.sort(key=lambda j: (formats.index(j[1]), -j[0].weight_bits, -j[0].activation_bits))
    return tuple((recipe.name, format_) for recipe, format_ in jobs)


def _refuse_impossible(recipe: Recipe, format_: str, known: Sequence[Recipe]) -> None:
    if format_ not in recipe.formats:
        can = ", ".join(other.name for other in known if format_ in other.formats)
        raise InputError(f"{format_} cannot do {recipe.name}", f"it can do {can}")


def _from_card(order: Order, notify: Notify) -> tuple[ModelSpec, None, str | None]:
    (card,) = models.models(order.arch)
    source = order.weights or "demo"
    alpha = _default_alpha(card, source) if order.alpha is None else order.alpha
    size = card.default_resolution if order.res is None else order.res
    low, high = card.resolution_limits
    if not 0 < alpha <= LARGEST_ALPHA:
        raise UsageError(f"alpha {alpha:g} is not above 0 and at most {LARGEST_ALPHA:g}")
    if not low <= size <= high:
        raise UsageError(f"resolution {size} is not within {low} to {high}")
    found = models.weights(card, source, alpha, size, notify, unsafe=order.unsafe)
    if source == "random":
        notify.doubt(
            Doubt(
                "random-weights",
                "the weights are random: sizes and times mean something, accuracy does not",
            )
        )
    base = (
        found.preprocessing
        if found.labels == ()
        else dataclasses.replace(found.preprocessing, labels=found.labels)
    )
    chosen = order.overrides.over(base)
    assert chosen is not None
    spec = ModelSpec(
        name=f"{card.name}_{alpha:g}_{size}",
        card=card.name,
        architecture=card.architecture,
        arguments={"alpha": alpha},
        resolution=(size, size),
        classes=found.classes,
        preprocessing=chosen,
        weights=found.weights,
        paper=card.paper,
    )
    return spec, None, None if found.path is None else str(found.path)


def _default_alpha(card: ModelCard, source: str) -> float:
    """The card's, or for the demo weights the widest that there are."""
    if source == "demo" and card.weights.demo and card.weights.demo.files:
        return max(file.alpha for file in card.weights.demo.files)
    return card.default_alpha


def _own_model(order: Order) -> tuple[ModelSpec, ModelFile, None]:
    path = order.model
    assert path is not None
    for name, given in (("--alpha", order.alpha), ("--weights", order.weights)):
        if given is not None:
            raise UsageError(f"{name} does not go with a model file", "leave it away")
    if order.res is not None and not 1 <= order.res <= LARGEST_RESOLUTION:
        raise UsageError(f"resolution {order.res} is not within 1 to {LARGEST_RESOLUTION}")
    file = models.detect(path, unsafe=order.unsafe)
    if file.content == "weights":
        raise InputError(
            f"{path.name} holds weights without a model",
            f"mobiledeploy export --weights {path} --alpha A --res R",
        )
    chosen = order.overrides.over(None)
    if chosen is None:
        raise UsageError(
            "what pixels were scaled to when this model was trained is not in its file",
            "say --input-range 0,1 or -1,1 or 0,255",
        )
    spec = ModelSpec(
        name=path.stem,
        card=None,
        architecture=file.framework,
        arguments={},
        resolution=(0, 0),
        classes=0,
        preprocessing=chosen,
        weights=Weights(path.name, file.sha256, pinned=False),
    )
    return spec, file, None


def _folder_name(spec: ModelSpec, order: Order) -> str:
    """<arch>_<alpha>_<res>_<weights>; a model of the user's own: its file's name."""
    if spec.card is None:
        name = spec.name if order.res is None else f"{spec.name}_{order.res}"
    else:
        source = spec.weights.source
        name = f"{spec.name}_{Path(source).stem if os.sep in source or '.' in source else source}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".") or "model"


def _key(
    order: Order, spec: ModelSpec, model: ModelFile | None, jobs: Sequence[object], data: DataRef
) -> str:
    """What an export depends on, as one sha256: inputs, choices, and the code that makes it."""
    code = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        code.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    parts = {
        "code": code.hexdigest(),
        "tools": _tools(),
        "spec": records.encode(spec),
        "model": model.sha256 if model else None,
        "jobs": jobs,
        "data": records.encode(data),
        "io": order.io,
        "output": order.output,
        "res": order.res,
        "folder": str((order.out / _folder_name(spec, order)).resolve()),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


TOOLS = (
    "tensorflow", "tf_keras", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy",
)  # fmt: skip


def _tools() -> dict[str, str]:
    """Versions of what takes part in a conversion, "" for what is not installed."""
    versions = {"mobiledeploy": __version__}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return versions


def _earlier(plan: Plan) -> dict[str, Artifact] | None:
    """The artifacts of an earlier export with the same key, if every one still stands whole."""
    if not store_path().exists():
        return None
    with Store.open() as store:
        paths = store.export_of(plan.key)
    found: dict[str, Artifact] = {}
    for path in paths:
        try:
            artifact = artifacts_.load(Path(path))
        except InputError:
            return None
        found[path] = artifact
    return found or None


# The making: aside, then renamed into place.


def _make(plan: Plan, order: Order, notify: _Collector) -> dict[str, Artifact]:
    absent = [name for name, version in _tools().items() if not version]
    if absent:
        raise missing(absent[0])
    golden = _golden_samples(plan, notify)
    with _staging(plan.folder) as staging:
        request = convert.Request(
            spec=plan.spec, resolution=plan.resolution, model=plan.model, weights=plan.weights,
            jobs=plan.jobs, data=plan.data, golden=golden, io=order.io, output=order.output,
            folder=str(staging),
        )  # fmt: skip
        converted, finished = convert.produce(request, staging / "conversion.log", notify)
        spec = dataclasses.replace(
            plan.spec, resolution=finished.resolution, classes=finished.classes
        )
        data = dataclasses.replace(plan.data, resolution=finished.resolution)
        data = dataclasses.replace(data, identity=_opened(data).identity)
        pictures = _save_golden(data, golden, staging)
        made = []
        for done, file in enumerate(converted):
            notify.progress("checking", done, len(converted))
            path = Path(file.path)
            artifact = _examine(file, finished, spec, data, golden, pictures, order, notify)
            records.write_atomic(artifacts_.record_path(path), records.dumps(artifact))
            made.append((path, artifact))
        notify.progress("checking", len(converted), len(converted))
        return _commit(made, staging, plan.folder)


def _opened(data: DataRef) -> Samples:
    return dataset(data.source).open(
        data.source, "validation", resolution=data.resolution, labels=data.labels
    )


def _golden_samples(plan: Plan, notify: Notify) -> tuple[int, ...]:
    """Indices of the first readable pictures of the validation split."""
    samples = _opened(plan.data)
    found: list[int] = []
    for index in range(len(samples)):
        try:
            samples.image(index)
        except BrokenImage as error:
            notify.doubt(Doubt("broken-image", error.message))
            continue
        found.append(index)
        if len(found) == GOLDEN_SAMPLES:
            break
    if not found:
        raise InputError(f"{plan.data.source} has no readable picture")
    return tuple(found)


def _save_golden(data: DataRef, indices: Sequence[int], staging: Path) -> tuple[str, ...]:
    """Writes the golden pictures as golden/<sha256>.png; their names."""
    samples = _opened(data)
    names = []
    (staging / "golden").mkdir()
    for index in indices:
        stream = io_.BytesIO()
        Image.fromarray(samples.image(index)).save(stream, "PNG")
        name = f"golden/{records.sha256(stream.getvalue())[:16]}.png"
        records.write_atomic(staging / name, stream.getvalue())
        names.append(name)
    return tuple(names)


def _examine(
    file: convert.Converted, finished: convert.Finished, spec: ModelSpec, data: DataRef,
    golden: Sequence[int], pictures: tuple[str, ...], order: Order, notify: _Collector,
) -> Artifact:  # fmt: skip
    """Opens the finished file again and holds it against what it was made from."""
    path = Path(file.path)
    content = path.read_bytes()
    recipe = RECIPES.load(file.recipe).RECIPE
    shelf = FORMATS.load(file.format)
    facts = shelf.inspect(content)
    _check_types(path.name, facts, recipe, order.io, shelf.float_layers(facts))
    tap = path.with_name(f"tap-{path.name}")
    records.write_atomic(tap, shelf.tap(content, facts.logits))
    tapped = shelf.inspect(tap.read_bytes())
    runtime, logits = evaluate_verb.logits(
        tap, tapped, spec.preprocessing, data, golden, notify=notify
    )
    tap.unlink()
    reference = np.asarray(finished.reference, np.float32)
    sqnr = accuracy.sqnr_db(reference, logits)
    _check_sqnr(path.name, recipe, sqnr, notify)
    samples = _opened(data)
    return Artifact(
        path=path.name,
        sha256=records.sha256(content),
        size_bytes=len(content),
        format=file.format,
        spec=spec,
        recipe=recipe,
        output=order.output,
        io=order.io if recipe.full_integer else "float",
        layout=facts.layout,
        inputs=facts.inputs,
        outputs=facts.outputs,
        logits=facts.logits,
        golden=Golden(
            ids=tuple(samples.id(i) for i in golden),
            images=pictures,
            logits=tuple(tuple(float(v) for v in row) for row in logits),
            runtime=runtime,
        ),
        sqnr_db=sqnr,
        data=data,
        calibration_images=finished.calibration_images if recipe.calibration else 0,
        convert_seconds=file.seconds,
        tools=_tools(),
        doubts=tuple(notify.doubts),
    )


def _check_types(
    name: str, facts: FileFacts, recipe: Recipe, io: InputOutput, in_float: Sequence[str]
) -> None:
    if len(facts.inputs) != 1 or len(facts.outputs) != 1:
        raise InputError(f"{name} has {len(facts.inputs)} inputs, {len(facts.outputs)} outputs")
    wanted = "int8" if recipe.full_integer and io == "int8" else "float32"
    for tensor in (*facts.inputs, *facts.outputs):
        if tensor.dtype != wanted:
            raise InputError(f"{name} came out with {tensor.name} in {tensor.dtype}, not {wanted}")
    if recipe.full_integer and in_float:
        raise InputError(
            f"{name} would still compute {', '.join(sorted(set(in_float)))} in float",
            "that operator has no int8 form here; --recipe float32,float16,dynamic_int8 work",
        )


def _check_sqnr(name: str, recipe: Recipe, sqnr: float, notify: Notify) -> None:
    least = LEAST_SQNR.get(recipe.weight_bits)
    if not np.isfinite(sqnr) or (least is not None and sqnr < least):
        raise InputError(
            f"{name} does not answer as its model does: {sqnr:.0f} dB against {least or 0:.0f} dB",
            "please report it with the model",
        )
    if least is None and sqnr < DOUBTFUL_INT8_SQNR:
        notify.doubt(
            Doubt(
                "far-from-float",
                f"{name} answers far from its float model ({sqnr:.1f} dB on golden logits)",
                "calibrate with more typical pictures; compare the agreement column",
            )
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, gone afterwards, with whatever was made on the way to it."""
    created = [p for p in (folder.parent, *folder.parent.parents) if not p.exists()]
    staging = artifacts_.staging(folder)
    try:
        with records.writing(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            for path in artifacts_.left_aside(folder.parent):
                shutil.rmtree(path, ignore_errors=True)
            staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for path in created:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _commit(
    made: Sequence[tuple[Path, Artifact]], staging: Path, folder: Path
) -> dict[str, Artifact]:
    """Renames all into place. A model is replaced between its record's going and coming."""
    with records.writing(folder):
        (folder / "golden").mkdir(parents=True, exist_ok=True)
        for picture in (staging / "golden").iterdir():
            picture.replace(folder / "golden" / picture.name)
        placed = {}
        for path, artifact in made:
            target = folder / path.name
            artifacts_.record_path(target).unlink(missing_ok=True)
            path.replace(target)
            artifacts_.record_path(path).replace(artifacts_.record_path(target))
            placed[str(target)] = artifact
    return placed


# What is known of them: predictions and times, from the store where it has them already.


def _evaluations(
    plan: Plan, artifacts: dict[str, Artifact], notify: Notify
) -> dict[str, Evaluation]:
    if not plan.judged:
        return {}
    with Store.open() as store:
        known = {a.sha256: store.evaluations(a.sha256) for a in artifacts.values()}
    if all(known.values()):
        return {sha: found[-1] for sha, found in known.items()}
    made = evaluate_verb.evaluate(tuple(map(Path, artifacts)), notify=notify)
    return {e.artifact_sha256: e for e in made}


def _measurements(artifacts: dict[str, Artifact], notify: Notify) -> dict[str, Measured]:
    with Store.open() as store:
        known = {a.sha256: store.measurements(a.sha256) for a in artifacts.values()}
    missing = tuple(Path(p) for p, a in artifacts.items() if not known[a.sha256])
    made = bench_verb.bench(missing, seconds=BENCH_SECONDS, notify=notify) if missing else ()
    return {sha: found[-1] for sha, found in known.items() if found} | {
        m.artifact_sha256: m for m in made
    }


def _row(path: str, a: Artifact, seen: Evaluation | None, timed: Measured | None) -> Row:
    return Row(
        path=path,
        recipe=a.recipe.name,
        format=a.format,
        size_bytes=a.size_bytes,
        sha256=a.sha256,
        sqnr_db=a.sqnr_db,
        top1=seen.top1 if seen else None,
        agreement=seen.agreement if seen else None,
        images=seen.images if seen else 0,
        latency_ns=timed.median_ns if timed else None,
        latency_interval_ns=timed.interval_ns if timed else None,
    )
