"""Trained or loaded model -> artifacts with their records, examined, evaluated and timed.

The order: a plan that is checked before anything is written; a child that converts into a folder
aside (`verbs/convert`); each file opened again and held against the float model; then all renamed
into place, each record last. What follows (evaluation, timing) finds whole artifacts only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core.display import Record
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import (
    Artifact,
    Evaluation,
    Failed,
    Measured,
    Measurement,
    ModelSpec,
    NamedWarning,
    Target,
)
from mobiledeploy.steps import runtimes, timings
from mobiledeploy.steps.export_files import earlier, make, refuse_irregular, refuse_readonly_store
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, plan
from mobiledeploy.steps.file_checks import Collector
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import bench as bench_verb
from mobiledeploy.verbs import evaluate as evaluate_verb

# A glance for the table; `bench` takes its time.
BENCH_SECONDS = 2.0


@dataclass(frozen=True)
class ExportRow(Record):
    """One artifact of an export and what is known of it; None where it was not asked.

    `sqnr_db` and `divergence` (in nats) are of its logits beside the float32 file's, over
    `compared` images; None for a float32 file.
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
class ExportResult(Record):
    """The answer of `export`. `reused` says that an earlier export with the same inputs stood.

    `failed` are files that were asked for by name and could not be made; `rows` are the others.
    """

    folder: str
    spec: ModelSpec
    reused: bool
    rows: tuple[ExportRow, ...]
    warnings: tuple[NamedWarning, ...]
    failed: tuple[Failed, ...] = ()


def export(
    config: ExportConfig, reporter: Reporter = SILENT, *, timed: bool = True
) -> ExportResult:
    """Makes the artifacts that `config` asks for, or finds that they stand already.

    `timed` False leaves out the glance at their latencies.
    """
    heard = Collector(reporter)
    planned = plan(config, heard)
    refuse_irregular(planned)
    artifacts = None if config.force else earlier(planned)
    reused = artifacts is not None
    if artifacts is None:
        refuse_readonly_store()
        artifacts = make(planned, config, heard)
    for artifact in artifacts.values():
        for warning in artifact.warnings:
            heard.warn(warning)
    with Store.open() as store:
        store.add_export(planned.key, artifacts)
    evaluations = _evaluations(planned, artifacts, heard)
    measurements = _measurements(artifacts, heard) if timed else {}
    return ExportResult(
        folder=str(planned.folder),
        spec=next(iter(artifacts.values())).spec,
        reused=reused,
        rows=tuple(
            _row(path, a, evaluations.get(a.sha256), measurements.get(a.sha256))
            for path, a in artifacts.items()
        ),
        warnings=tuple(heard.warnings),
        failed=tuple(heard.failed),
    )


# The making: aside, then renamed into place.


# What is known of them: predictions and times, from the store where it has them already.


def _evaluations(
    planned: ExportPlan, artifacts: dict[str, Artifact], reporter: Reporter
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
    made = evaluate_verb.evaluate(absent, reporter=reporter) if absent else ()
    return {sha: e for sha, e in known.items() if e} | {e.artifact_sha256: e for e in made}


def _measurements(artifacts: dict[str, Artifact], reporter: Reporter) -> dict[str, Measured]:
    with Store.open() as store:
        known = {
            a.sha256: store.measurement(a.sha256, target, _version(target))
            for a in artifacts.values()
            for target in (timings.target(a),)
        }
    absent = [Path(path) for path, a in artifacts.items() if known[a.sha256] is None]
    made: tuple[Measurement, ...] = ()
    if absent:
        heard = Collector(SILENT)
        heard.progress, heard.say = reporter.progress, reporter.say
        made = bench_verb.bench(absent, seconds=BENCH_SECONDS, reporter=heard)
        names = sorted({warning.name for warning in heard.warnings})
        if names:
            # One line for all the files: a glance is a glance.
            reporter.warn(
                NamedWarning(
                    "rough-times",
                    f"the times below are rough ({', '.join(names)})",
                    "mobiledeploy bench takes longer over them, and says more",
                )
            )
    all_ = (*known.values(), *made)
    return {m.artifact_sha256: m for m in all_ if isinstance(m, Measured)}


def _version(target: Target) -> str:
    return runtimes.runtime_version(target.runtime)


def _row(path: str, a: Artifact, seen: Evaluation | None, timed: Measured | None) -> ExportRow:
    return ExportRow(
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
