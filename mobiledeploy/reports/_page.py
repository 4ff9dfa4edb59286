"""What the page shows: numbers of the records as texts, columns and rows; `templates/` draw them.

No text is escaped here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mobiledeploy.core import cold_columns, metric_columns, units
from mobiledeploy.core.types import (
    CardCalibration,
    Check,
    Detail,
    DrawnAnswer,
    LayerFigure,
    Regression,
    Report,
    Result,
    StoredVerdict,
    Verdict,
    gravest,
)
from mobiledeploy.reports import _plots

MOST_COLD = 100
"""So many cold starts are listed, the newest ones."""
MOST_VERDICTS = 100
"""So many judgements are listed, the newest ones."""
_BETWEEN_RUNS_S = 2
"""Seconds between two verdicts of different runs of a gate about one file, at least."""
LONGEST_LAYER = 44
"""Characters of a layer's name; a longer one is shortened in its middle."""
SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "error": "!"}
_WORDS = ("artifact", "model", "recipe", "format", "kind", "device", "target", "images")
_NUMBERS = ("when", "x", "low", "high", "value", "interval", "size", "multadds", "newest")
_JPEG = "data:image/jpeg;base64,"
_PNG = "data:image/png;base64,"
_BASE64 = re.compile("[A-Za-z0-9+/]+=*")
_COLOR = re.compile("[0-9a-f]{6}")


@dataclass(frozen=True)
class Judgement:
    """What a gate answered about one artifact in one run."""

    when: str
    gate: str
    artifact: str
    outcome: str
    lines: tuple[str, ...]

    @property
    def sign(self) -> str:
        """The outcome for who sees no colours."""
        return SIGNS[self.outcome]


@dataclass(frozen=True)
class ShortLayer:
    """A layer of a profile; `share` of the largest one, in percent."""

    name: str
    short: str
    op: str
    value: str
    share: str


def context(report: Report) -> dict[str, Any]:
    """The variables of page.html."""
    return {
        "title": report.title,
        "data": data(report),
        "plots": plots(report.results),
        "judgements": list(judgements(report)),
        "cold": cold_starts(report),
        "details": [detail(one) for one in report.details],
        "calibrations": [calibration(one) for one in report.calibrations],
    }


def calibration(one: CardCalibration) -> dict[str, Any]:
    """A table of estimates beside timings, and the plot of both."""
    (table,) = one.tables()
    heading = f"{one.card}, {one.series}"
    return {
        "heading": heading,
        "summary": one.summary,
        "heads": table.headers,
        "rows": table.rows,
        "plot": _plots.calibration(one),
    }


def name(r: Result) -> str:
    """The name of an artifact for people."""
    network = units.network(r.model, r.weights, r.weights_sha256)
    return f"{network} {r.recipe}.{units.format_name(r.format, r.io)}"


def names(results: Iterable[Result]) -> dict[str, str]:
    """The name of each artifact by its sha256; two of one name also have the start of theirs."""
    by_sha = {r.artifact_sha256: name(r) for r in results}
    count = Counter(by_sha.values())
    return {sha: f"{n} ({sha[:8]})" if count[n] > 1 else n for sha, n in by_sha.items()}


def moment(made_at: str) -> str:
    """A moment of the store to the minute."""
    return made_at[:16].replace("T", " ")


def data(report: Report) -> dict[str, Any]:
    """What the page's script draws from: a column of numbers or of indices into words each."""
    words: dict[str, dict[str, int]] = {name: {} for name in _WORDS}
    columns: dict[str, list[Any]] = {name: [] for name in (*_WORDS, *_NUMBERS)}
    intervals: dict[tuple[float, float] | None, int] = {}
    sets: dict[str, list[Any]] = {}
    keys: set[tuple[object, ...]] = set()
    for r in report.results:
        texts = [units.one_line(text) for text in _words(r)]
        for column, text in zip(_WORDS, texts, strict=True):
            columns[column].append(words[column].setdefault(text, len(words[column])))
        value, metric = metric_columns.height(r), metric_columns.of(r)
        if value is not None:
            sign = 1 if metric.higher_is_better else -1
            images = units.images(r.data_source, r.data_split, r.data_identity)
            described = [metric_columns.axis(metric), sign, metric.title, units.one_line(images), 0]
            sets.setdefault(texts[-1], described)[-1] += 1
        key = (r.artifact_sha256, r.kind, r.device, r.runner, r.runtime, r.threads, r.delegate)
        low, high = r.latency_interval_ns or (None, None)
        row = (
            _seconds(r.made_at),
            _millions(r.latency_ns if r.latency_ns is not None else r.instructions),
            _millions(low),
            _millions(high),
            None if value is None else float(f"{value:.5g}"),
            intervals.setdefault(_plots.accuracy_interval(r), len(intervals)),
            None if r.size_bytes is None else round(r.size_bytes / 1e6, 4),
            None if r.mult_adds is None else round(r.mult_adds / 1e6, 4),
            int(key not in keys),
        )
        keys.add(key)
        for column, number in zip(_NUMBERS, row, strict=True):
            columns[column].append(number)
    titles = {kind: title for kind, (_, title, _) in _plots.KINDS.items()}
    titles |= {name: title for name, (title, _) in _plots.PLAIN.items()}
    return {
        "words": {column: list(known) for column, known in words.items()},
        "columns": columns,
        "intervals": list(intervals),
        "answers": {
            a.artifact_sha256[:12]: [a.samples[:16], a.images, a.right] for a in report.answers
        },
        "verdicts": [
            [_seconds(v.made_at), v.artifact_sha256[:12], v.metric, v.outcome]
            for v in report.verdicts
        ],
        "sets": sets,
        "fronts": {
            axis: {name: _plots.front(title, axis) for name, title in titles.items()}
            for axis in {axis for axis, *_ in sets.values()}
        },
        "shapes": _plots.MOST_SHAPES,
        "shared": _plots.SEVERAL_DEVICES,
        "history": _plots.history(),
        "kinds": {kind: [what, title] for kind, (what, title, _) in _plots.KINDS.items()},
    }


def _words(r: Result) -> tuple[str, ...]:
    runtime = f"{r.runtime} {r.runtime_version}".strip()
    target = f"{runtime}, {units.several(r.threads, 'thread')}"
    if r.delegate:
        target += ", no delegate" if r.delegate == "none" else f", {r.delegate}"
    if r.recorded:
        target += ", recorded"
    return (
        r.artifact_sha256[:12],
        units.network(r.model, r.weights, r.weights_sha256),
        r.recipe,
        units.format_name(r.format, r.io),
        r.kind,
        r.device,
        target,
        metric_columns.judged_on(r),
    )


def _millions(value: float | None) -> float | None:
    """Nanoseconds in milliseconds, or instructions in millions."""
    return None if value is None else float(f"{value / 1e6:.5g}")


def _seconds(made_at: str) -> int:
    try:
        return int(datetime.fromisoformat(made_at).timestamp())
    except ValueError:
        return 0


def plots(results: Iterable[Result]) -> list[tuple[str, str, str]]:
    """(name, heading, note) of each plot of a front: one kind of figure each."""
    kinds = {r.kind for r in results}
    fronts = [
        (kind, f"Accuracy and {kind} {what}", note)
        for kind, (what, _, note) in _plots.KINDS.items()
        if kind in kinds
    ]
    return fronts + [(name, heading, "") for name, (_, heading) in _plots.PLAIN.items()]


def judgements(report: Report) -> Iterator[Judgement]:
    """Of the checks of this report first, then those of the store, newest first."""
    for one in report.failed:
        yield Judgement("", "check", one.what, "error", (one.message,))
    checks: tuple[Check | Regression, ...] = (*report.checks, *report.regressions)
    for check in checks:
        yield Judgement("", "check", check.path, check.outcome, _lines(check.verdicts))
    known = names(report.results)
    for verdicts in _runs(report.verdicts):
        newest = verdicts[0]
        sha = newest.artifact_sha256
        artifact = known.get(sha, f"file {sha[:12]}")
        outcome = gravest({v.outcome for v in verdicts})
        when = moment(newest.made_at)
        # They were stored in the order in which a gate tells them.
        yield Judgement(when, newest.gate, artifact, outcome, _lines(reversed(verdicts)))


def _runs(verdicts: Iterable[StoredVerdict]) -> list[list[StoredVerdict]]:
    """The verdicts of each run of a gate about a file, newest first; the newest runs."""
    runs: list[list[StoredVerdict]] = []
    latest: dict[tuple[str, str], list[StoredVerdict]] = {}
    for v in verdicts:
        run = latest.get((v.gate, v.artifact_sha256))
        # Those of one run are stored within moments of each other.
        if run is None or _seconds(run[-1].made_at) - _seconds(v.made_at) > _BETWEEN_RUNS_S:
            if len(runs) == MOST_VERDICTS:
                break
            run = latest[v.gate, v.artifact_sha256] = []
            runs.append(run)
        run.append(v)
    return runs


def cold_starts(report: Report) -> dict[str, Any] | None:
    """A row for each cold start, each figure with its interval; None without any.

    A step that no runner told has no column.
    """
    if not report.cold_starts:
        return None
    files = names(report.results)
    reported = {f.name for c in report.cold_starts for f in c.cold_start.figures}
    order = dict.fromkeys((*cold_columns.FIRST, *cold_columns.LABELS))
    columns = [name for name in order if name in reported]
    rows = []
    for stored in report.cold_starts[:MOST_COLD]:
        cold = stored.cold_start
        figures = {f.name: cold_columns.shown(f) for f in cold.figures}
        target = f"{cold.target.runtime} {cold.runtime_version}, {cold.target.runner}"
        rows.append(
            {
                "name": files.get(cold.artifact_sha256, f"file {cold.artifact_sha256[:12]}"),
                "where": cold.target.device,
                "target": f"{target}, {units.several(cold.target.threads, 'thread')}, "
                f"{cold.processes} processes",
                "figures": [figures.get(name, ("–", "")) for name in columns],
                "when": moment(stored.made_at).split(" "),
            }
        )
    return {"heads": [cold_columns.LABELS[name] for name in columns], "rows": rows}


def _lines(verdicts: Iterable[Verdict | StoredVerdict]) -> tuple[str, ...]:
    """The verdicts in words, those that did not pass first.

    Classes that passed are one line, for there are many.
    """
    told, classes = [], 0
    for v in sorted(verdicts, key=lambda one: one.outcome == "pass"):
        if v.metric == "class" and v.outcome == "pass":
            classes += 1
        else:
            told.append(v.line)
    if classes:
        told.append(f"{units.several(classes, 'class')} did not regress")
    return tuple(told)


def detail(d: Detail) -> dict[str, Any]:
    """A section of one artifact."""
    return {
        "name": f"{d.model} {d.recipe}.{d.format}",
        "unit": "instructions" if d.counted else "mult-adds",
        "layers": list(_layers(d.profile)),
        "classes": [
            (n, str(images), str(right), units.percent(right / images if images else None))
            for n, images, right in d.classes
        ],
        "against": d.against,
        "flipped": units.several(d.flipped, "image") if d.flipped else "",
        "flips": [
            {
                "label": f.label,
                "before": f.before,
                "now": f.now,
                "sample": f.sample,
                "image": _uri(f.image, _JPEG),
            }
            for f in d.flips
        ],
        "drawn": [_drawn(one, d.against) for one in d.drawn if _uri(one.image, _JPEG)],
        "environment": sorted(d.environment.items()),
    }


def _drawn(answer: DrawnAnswer, against: str) -> dict[str, Any]:
    boxes: list[dict[str, Any]] = [
        {
            "x": 100 * b.box[0],
            "y": 100 * b.box[1],
            "width": max(0.0, 100 * (b.box[2] - b.box[0])),
            "height": max(0.0, 100 * (b.box[3] - b.box[1])),
            "true": b.score is None,
            "name": b.name if b.score is None else f"{b.name} {units.percent(b.score, 0)}",
        }
        for b in answer.boxes
    ]
    note = ""
    if answer.differing is not None:
        note = f"{units.percent(answer.differing)} of the pixels differ"
    return {
        "sample": answer.sample,
        "image": answer.image,
        "differing": note,
        "masks": [
            (title, mask, more)
            for title, mask, more in (
                (against, answer.before_mask, ""),
                ("This file", answer.mask, note),
                ("Annotated", answer.true_mask, ""),
            )
            if _uri(mask, _PNG)
        ],
        "boxes": boxes,
        "answer": ", ".join(b["name"] for b in boxes if not b["true"]) or "nothing",
        "truth": ", ".join(b["name"] for b in boxes if b["true"]) or "nothing",
        "classes": [(n, color) for n, color in answer.classes if _COLOR.fullmatch(color)],
    }


def _layers(profile: tuple[LayerFigure, ...]) -> Iterator[ShortLayer]:
    most = max((layer.value for layer in profile), default=0) or 1
    for x in profile:
        full = units.one_line(x.name)
        share = f"{100 * x.value / most:.1f}"
        yield ShortLayer(full, short_layer(full), x.op, f"{x.value:,}", share)


def short_layer(name: str) -> str:
    """A name that fits a column."""
    return units.shortened(name, LONGEST_LAYER)


def _uri(image: str, start: str) -> str:
    """A data URI that begins so; "" for anything else, since records are untrusted."""
    sound = image.startswith(start) and _BASE64.fullmatch(image, len(start))
    return image if sound else ""
