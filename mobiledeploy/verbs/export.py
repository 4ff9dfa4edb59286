"""Trained or loaded model -> artifacts with their records, examined, evaluated and timed.

The order: a plan that is checked before anything is written; a child that converts into a folder
aside (`verbs/convert`); each file opened again and held against the float model; then all renamed
into place, each record last. What follows (evaluation, timing) finds whole artifacts only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core.ports import SILENCE, Notify
from mobiledeploy.core.types import (
    Artifact,
    Doubt,
    Evaluation,
    Failed,
    Measured,
    Measurement,
    ModelSpec,
    Target,
)
from mobiledeploy.steps import runtimes, timings
from mobiledeploy.steps.export_files import earlier, make, refuse_irregular, refuse_readonly_store
from mobiledeploy.steps.export_plan import Order, Plan, plan
from mobiledeploy.steps.file_checks import Collector
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import bench as bench_verb
from mobiledeploy.verbs import evaluate as evaluate_verb

# A glance for the table; `bench` takes its time.
BENCH_SECONDS = 2.0


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


def export(order: Order, notify: Notify = SILENCE, *, timed: bool = True) -> Exported:
    """Makes the artifacts that `order` asks for, or finds that they stand already.

    `timed` False leaves out the glance at their latencies.
    """
    heard = Collector(notify)
    planned = plan(order, heard)
    refuse_irregular(planned)
    artifacts = None if order.force else earlier(planned)
    reused = artifacts is not None
    if artifacts is None:
        refuse_readonly_store()
        artifacts = make(planned, order, heard)
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


# The making: aside, then renamed into place.


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
            for target in (runtimes.target(a),)
        }
    absent = [Path(path) for path, a in artifacts.items() if known[a.sha256] is None]
    made = evaluate_verb.evaluate(absent, notify=notify) if absent else ()
    return {sha: e for sha, e in known.items() if e} | {e.artifact_sha256: e for e in made}


def _measurements(artifacts: dict[str, Artifact], notify: Notify) -> dict[str, Measured]:
    with Store.open() as store:
        known = {
            a.sha256: store.measurement(a.sha256, target, _version(target))
            for a in artifacts.values()
            for target in (timings.target(a),)
        }
    absent = [Path(path) for path, a in artifacts.items() if known[a.sha256] is None]
    made: tuple[Measurement, ...] = ()
    if absent:
        heard = Collector(SILENCE)
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
    return runtimes.runtime_version(target.runtime)


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
