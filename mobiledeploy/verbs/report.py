"""Writes the content of the store as a page, a site, a table or an image."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from mobiledeploy.analysis import cost, masks
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import inputs, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS, REPORTS, TASKS, missing
from mobiledeploy.core.ports import Reporter, SiteFile
from mobiledeploy.core.types import (
    AcceptedDifference,
    Artifact,
    Counted,
    Detail,
    Evaluation,
    Flip,
    LayerFigure,
    Measured,
    Pair,
    Prediction,
    Report,
    StoredColdStart,
    Target,
)
from mobiledeploy.steps import baseline, forecasts, report_images, site_folder
from mobiledeploy.steps.accepted_differences import differences
from mobiledeploy.steps.arguments import AnyPath
from mobiledeploy.steps.defaults import BASELINE, DIFF_LAYERS, REPORT_FORMATS, REPORT_TITLE
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.store_records import filters
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path
from mobiledeploy.verbs import diff

DETAILED = 24
"""So many artifacts have a section of their own, the last exported ones."""
FLIPS = 12
"""So many images of changed answers are shown per artifact."""


@dataclass(frozen=True)
class WrittenReport(Record):
    """The answer of `report`."""

    path: str
    format: str
    size_bytes: int
    results: int


def report(
    *,
    format: Literal["html", "markdown", "csv", "json", "svg", "png"] = "html",  # noqa: A002
    out: AnyPath | None = None,
    title: str = REPORT_TITLE,
    model: str | None = None,
    recipe: str | None = None,
    kind: str | None = None,
    device: str | None = None,
    site: AnyPath | None = None,
    reporter: Reporter | None = None,
) -> WrittenReport:
    """Writes accuracy against latency, size and mult-adds, with the tables behind them.

    Measured, counted and estimated figures have separate plots. The file is written whole or not at
    all.

    Example:
        >>> md.report(device="host", out="front.html")

    Args:
        format: html is one file that needs no network.
        out: the file; the default is report.<format>.
        title: its heading.
        model: only this one, such as mobilenet_v1_0.5_160.
        recipe: only this one, such as int8_best.
        kind: `measured`, `counted` or `estimated`.
        device: only this one, such as host.
        site: a folder for linked pages instead of a file: a front page with a leaderboard, and a
            page for each model with its history, verdicts and difference from the accepted files of
            `mobiledeploy-baseline.json`. It is new, empty, or a site that was made before.
        reporter: is told what is left out; the default is a `PythonReporter`.

    Returns:
        The path and size of the file, or of the folder's files.

    Raises:
        UsageError: an unknown format, no store in this folder, `out` or `site` cannot be written,
            or `site` has content of others.
        InputError: with `site`, a baseline that cannot be read.
        MissingError: the plotting library is not installed.
    """
    reporter = reporter or PythonReporter()
    path = default(format) if out is None else Path(out)
    if format not in REPORT_FORMATS:
        raise UsageError(f"no report in {format!r}", f"there are {', '.join(REPORT_FORMATS)}")
    where = filters(model=model, recipe=recipe, kind=kind, device=device)
    if site is not None:
        if out is not None or format != "html":
            raise UsageError("a site has files of its own", "leave out --out and --format")
        return _site(Path(site), where, title, reporter)
    report_ = gather(where, title=title, detailed=format == "html", reporter=reporter)
    content: str | bytes = REPORTS.load("svg" if format == "png" else format).render(report_)
    if format == "png":
        content = _png(str(content))
    records.write_atomic(path, content)
    size = len(content.encode() if isinstance(content, str) else content)
    return WrittenReport(str(path), format, size, len(report_.results))


def _site(folder: Path, where: Mapping[str, str], title: str, reporter: Reporter) -> WrittenReport:
    site_folder.check(folder)
    shelf = cast(SiteFile, REPORTS.load("html"))
    report_ = gather(where, title=title, detailed=True, reporter=reporter)
    accepted = _accepted(report_, reporter)
    size = site_folder.write(folder, shelf.pages(report_, accepted))
    return WrittenReport(str(folder), "site", size, len(report_.results))


def _accepted(report_: Report, reporter: Reporter) -> tuple[AcceptedDifference, ...]:
    path = Path(BASELINE)
    if not path.exists():
        return ()
    entries = baseline.read(path, "mobiledeploy check --update-baseline").accepted

    def layers(before: Path, now: Path) -> Table:
        difference = diff.diff(before, now, reporter=reporter)
        changed = tuple(filter(_changed, difference.layers))
        return dataclasses.replace(difference, layers=changed).table(DIFF_LAYERS)

    with Store.open() as store:
        files = _files(store, {e.artifact_sha256 for e in entries} | store.artifacts().keys())
        return tuple(differences(entries, report_.results, store, files, layers))


def _changed(pair: Pair) -> bool:
    """Whether a layer is not the same in both files, as far as they can be compared."""
    a, b = pair.a, pair.b
    if a is None or b is None or pair.odd or a.type != b.type:
        return True
    return pair.sqnr_db is not None and not math.isnan(pair.sqnr_db)


def default(format: str) -> Path:  # noqa: A002 - the option's name
    """The default file of a report."""
    return Path(f"report.{'md' if format == 'markdown' else format}")


def gather(where: Mapping[str, str], *, title: str, detailed: bool, reporter: Reporter) -> Report:
    """Collects the content of a report; `detailed` also reads files and images."""
    if not store_path().exists():
        raise UsageError(
            f"nothing is kept in {store_path()} yet", "mobiledeploy export or bench come first"
        )
    with Store.open() as store:
        results = store.results(where) + (() if where else store.unmeasured())
        if not results:
            raise UsageError("no figure of the store is so", "mobiledeploy results lists them")
        hashes = {r.artifact_sha256 for r in results}
        artifacts = {sha: a for sha, a in store.artifacts().items() if sha in hashes}
        files = _files(store, set(artifacts))
        mult_adds = {sha: sum(f.value for f in _profile(path)) for sha, path in files.items()}
        results = tuple(
            dataclasses.replace(r, mult_adds=mult_adds.get(r.artifact_sha256)) for r in results
        )
        order = dict.fromkeys(r.artifact_sha256 for r in results if r.artifact_sha256 in artifacts)
        details: tuple[Detail, ...] = ()
        if detailed:
            if len(order) > DETAILED:
                reporter.say(f"details of {DETAILED} artifacts of {len(order)}")
            images = report_images.ReportImages()
            details = tuple(
                _detail(store, artifacts, sha, files.get(sha), images)
                for sha in list(order)[:DETAILED]
            )
        evaluated = sorted({r.artifact_sha256 for r in results if r.value is not None})
        evaluations = [store.judgement(sha) for sha in evaluated]
        answers = tuple(filter(None, map(baseline.image_answers, filter(None, evaluations))))
        verdicts = tuple(v for v in store.verdicts() if v.artifact_sha256 in hashes)
        cold_starts = _cold_starts(store, hashes, where)
        calibrations = forecasts.calibrations(store, results)
        results = forecasts.beside(store, results)
    return Report(
        title,
        results=results,
        details=details,
        verdicts=verdicts,
        answers=answers,
        cold_starts=cold_starts,
        calibrations=calibrations,
    )


def _cold_starts(
    store: Store, hashes: set[str], where: Mapping[str, str]
) -> tuple[StoredColdStart, ...]:
    """The newest of each artifact on each target. They are measured, and no other kind."""
    newest: dict[tuple[str, Target, str], StoredColdStart] = {}
    for stored in store.cold_starts() if where.get("kind", "measured") == "measured" else ():
        cold = stored.cold_start
        if cold.artifact_sha256 in hashes and where.get("device") in (None, cold.target.device):
            key = (cold.artifact_sha256, cold.target, cold.runtime_version)
            newest.setdefault(key, stored)
    return tuple(newest.values())


def _files(store: Store, hashes: set[str]) -> dict[str, Path]:
    """The artifacts whose files still exist at the place of their export, by sha256."""
    files: dict[str, Path] = {}
    for text in store.places():
        path = Path(text)
        try:
            sha = records.loads(
                Artifact, inputs.read(artifacts_.record_path(path), inputs.RECORD), path.name
            ).sha256
            if sha in hashes and sha not in files and records.sha256(path) == sha:
                files[sha] = path
        except InputError:
            # The file is gone or was replaced: the report does without it.
            continue
    return files


def _profile(path: Path) -> tuple[LayerFigure, ...]:
    for name in FORMATS.names():
        shelf = FORMATS.load(name)
        if path.suffix == shelf.SUFFIX:
            rows = cost.cost(shelf.inspect(inputs.read(path, inputs.FINISHED)).layers).layers
            return tuple(LayerFigure(r.name, r.kind, r.mult_adds) for r in rows if r.mult_adds)
    return ()


def _detail(
    store: Store,
    artifacts: Mapping[str, Artifact],
    sha: str,
    file: Path | None,
    images: report_images.ReportImages,
) -> Detail:
    artifact, evaluation = artifacts[sha], store.evaluation_of(sha)
    figures = store.measurements_of(sha)
    counts = next((m for m in figures if isinstance(m, Counted) and m.by_layer), None)
    if counts is not None:
        profile = tuple(LayerFigure(x.name, x.op, x.instructions) for x in counts.by_layer)
    else:
        profile = _profile(file) if file else ()
    against, flip_count = "", 0
    flips: tuple[Flip, ...] = ()
    changed: list[str] = []
    others: dict[str, Prediction] = {}
    reference = _reference(artifacts, artifact)
    if evaluation is not None and reference is not None:
        before = store.evaluation_of(reference.sha256)
        if before is not None and before.data.identity == evaluation.data.identity:
            against = f"{reference.recipe.name}.{reference.format}"
            others = {p.sample: p for p in before.predictions}
            if any(p.mask for p in evaluation.predictions):
                changed, flip_count = _changed_masks(others, evaluation)
            else:
                changes = _changes(before, evaluation)
                changed, flip_count = [sample for sample, *_ in changes], len(changes)
                if not any(p.boxes for p in evaluation.predictions):
                    flips = images.flips(evaluation, artifact, changes[:FLIPS])
    return Detail(
        sha,
        _network(artifact),
        artifact.recipe.name,
        units.format_name(artifact.format, artifact.ends),
        profile,
        counts is not None,
        _classes(evaluation, artifact) if evaluation else (),
        against,
        flips,
        flip_count,
        _environment(figures, artifact),
        images.drawn(evaluation, artifact, changed, others) if evaluation else (),
    )


def _network(artifact: Artifact) -> str:
    weights = artifact.spec.weights
    return units.network(artifact.spec.name, weights.source, weights.sha256)


def _reference(artifacts: Mapping[str, Artifact], artifact: Artifact) -> Artifact | None:
    """The float32 artifact of the same model, of the same format if there is one."""
    fits = [
        a
        for a in artifacts.values()
        if a.recipe.name == "float32"
        and artifacts_.same_spec(a, artifact)
        and a.sha256 != artifact.sha256
    ]
    if artifact.recipe.name == "float32":
        return None
    return min(fits, key=lambda a: (a.format != artifact.format, a.sha256), default=None)


def _classes(evaluation: Evaluation, artifact: Artifact) -> tuple[tuple[str, int, int], ...]:
    total: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for p in evaluation.predictions:
        if p.label >= 0:
            total[p.label] += 1
            right[p.label] += p.classes[:1] == (p.label,)
    return tuple(
        (report_images.named(evaluation, artifact, c), total[c], right[c]) for c in sorted(total)
    )


def _changes(before: Evaluation, now: Evaluation) -> list[tuple[str, int, int, int]]:
    """(sample, label, best class before, best class now) for changed answers."""
    first = {p.sample: p.classes[0] for p in before.predictions if p.classes}
    return [
        (p.sample, p.label, first[p.sample], p.classes[0])
        for p in now.predictions
        if p.classes and p.sample in first and first[p.sample] != p.classes[0]
    ]


def _changed_masks(before: Mapping[str, Prediction], now: Evaluation) -> tuple[list[str], int]:
    """Samples by how much their masks differ, most first; how many are no more the same answer."""
    task, shares, others = TASKS.load(now.task), {}, 0
    for p in now.predictions:
        q = before.get(p.sample)
        # Records of other machines may have masks that are none.
        with suppress(InputError):
            if q is not None and p.mask and q.mask:
                shares[p.sample] = masks.differing(p.mask, q.mask)
                others += not task.agrees(p, q)
    return sorted(shares, key=lambda sample: -shares[sample]), others


def _environment(figures: tuple[object, ...], artifact: Artifact) -> dict[str, str]:
    tools = {f"made with {name}": version for name, version in artifact.tools.items() if version}
    for m in figures:
        if isinstance(m, Measured):
            return tools | dict(m.facts_before) | {m.target.runtime: m.runtime_version}
        if isinstance(m, Counted):
            return tools | dict(m.versions)
    return tools


def _png(svg: str) -> bytes:
    try:
        import vl_convert
    except ModuleNotFoundError as error:
        raise missing("vl_convert") from error
    return bytes(vl_convert.svg_to_png(svg, scale=2))
