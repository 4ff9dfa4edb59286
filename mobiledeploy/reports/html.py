"""One page that stands alone: plots, tables and images inside it, nothing from the network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape as _escaped
from pathlib import Path
from typing import Any

import vl_convert

from mobiledeploy.core import metric_columns, units
from mobiledeploy.core.types import Detail, Report, Result
from mobiledeploy.reports import _plots

SUFFIX = ".html"
_PAGE = Path(__file__).with_name("page")
_COLUMNS = ("artifact", "model", "recipe", "format", "kind", "device", "target", "images")


def render(report: Report) -> str:
    """The page. Its data are columns of numbers and of indices into lists of words."""
    parts = {
        "title": escape(report.title),
        "style": (_PAGE / "page.css").read_text("utf-8"),
        "fronts": _fronts(report.results),
        "verdicts": _verdicts(report),
        "details": "".join(map(_detail, report.details)),
        "data": _embedded(_data(report)),
        "vega": _script(vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;")),
        "script": _script((_PAGE / "page.js").read_text("utf-8")),
    }
    text = (_PAGE / "page.html").read_text("utf-8")
    # One pass over the page: what was put in is never looked at again.
    pieces = text.split("{{")
    return pieces[0] + "".join(
        parts[name.strip()] + rest for name, _, rest in (p.partition("}}") for p in pieces[1:])
    )


def escape(text: str) -> str:
    """Text of a page on one line, without control characters: names are the user's."""
    return _escaped(units.one_line(text))


def _embedded(data: object) -> str:
    """JSON that no name in it can end the script element of."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _script(text: str) -> str:
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _data(report: Report) -> dict[str, Any]:
    words: dict[str, dict[str, int]] = {name: {} for name in _COLUMNS}
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    numbers: dict[str, list[Any]] = {
        name: [] for name in ("when", "x", "low", "high", "value", "size", "multadds", "newest")
    }
    sets: dict[str, tuple[str, int, str]] = {}
    keys: set[tuple[object, ...]] = set()
    for r in report.results:
        target = f"{r.runtime} {r.runtime_version}, {r.threads} thread{'s' * (r.threads != 1)}"
        if r.delegate:
            target += f", {r.delegate}"
        if r.recorded:
            target += ", recorded"
        notes = (
            r.artifact_sha256[:12],
            units.network(r.model, r.weights, r.weights_sha256),
            r.recipe,
            units.format_name(r.format, r.io),
            r.kind,
            r.device,
            target,
            metric_columns.judged_on(r),
        )
        value, metric = metric_columns.height(r), metric_columns.of(r)
        if value is not None:
            sign = 1 if metric.higher_is_better else -1
            sets[units.one_line(notes[-1])] = (metric_columns.axis(metric), sign, metric.title)
        for name, word in zip(_COLUMNS, notes, strict=True):
            columns[name].append(words[name].setdefault(units.one_line(word), len(words[name])))
        key = (r.artifact_sha256, r.kind, r.device, r.runner, r.runtime, r.threads, r.delegate)
        low, high = r.latency_interval_ns or (None, None)
        row = (
            _moment(r.made_at),
            _millions(r.latency_ns, r.instructions),
            _round(low),
            _round(high),
            None if value is None else float(f"{value:.5g}"),
            None if r.size_bytes is None else round(r.size_bytes / 1e6, 4),
            None if r.mult_adds is None else round(r.mult_adds / 1e6, 4),
            int(key not in keys),
        )
        keys.add(key)
        for name, value in zip(numbers, row, strict=True):
            numbers[name].append(value)
    titles = {kind: title for kind, (_, title, _) in _plots.KINDS.items()}
    titles |= {name: title for name, (title, _) in _plots.PLAIN.items()}
    return {
        "words": {name: list(known) for name, known in words.items()},
        "columns": columns | numbers,
        "answers": {
            a.artifact_sha256[:12]: [a.samples[:16], a.images, a.right] for a in report.answers
        },
        "verdicts": [
            [_moment(v.made_at), v.artifact_sha256[:12], v.metric, v.outcome]
            for v in report.verdicts
        ],
        "sets": sets,
        "fronts": {
            axis: {name: _plots.front(title, axis) for name, title in titles.items()}
            for axis in {axis for axis, _, _ in sets.values()}
        },
        "histories": {kind: _plots.history(t) for kind, (_, t, _) in _plots.KINDS.items()},
    }


def _millions(latency_ns: float | None, instructions: int | None) -> float | None:
    """Milliseconds, or millions of instructions."""
    value = latency_ns if latency_ns is not None else instructions
    return None if value is None else _round(value)


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value / 1e6:.5g}")


def _moment(made_at: str) -> int:
    try:
        return int(datetime.fromisoformat(made_at).timestamp())
    except ValueError:
        return 0


def _fronts(results: Sequence[Result]) -> str:
    kinds = {r.kind for r in results}
    parts = [
        _figure(kind, f"Accuracy and {kind} {what}", text)
        for kind, (what, _, text) in _plots.KINDS.items()
        if kind in kinds
    ]
    parts += [_figure(name, heading, "") for name, (_, heading) in _plots.PLAIN.items()]
    parts += [
        _figure(
            f"history-{kind}", f"History: {kind} {what}", "Of the model chosen above, or the first."
        )
        for kind, (what, _, _) in _plots.KINDS.items()
        if kind in kinds
    ]
    return "".join(parts)


def _figure(name: str, heading: str, text: str) -> str:
    return (
        f'<section class="plot" id="plot-{name}"><h2>{escape(heading)}</h2><p>{escape(text)}</p>'
        f'<figure aria-label="{escape(heading)}; the table below has the numbers">'
        f'<div id="view-{name}" class="view"></div>'
        "<figcaption></figcaption></figure></section>"
    )


def _verdicts(report: Report) -> str:
    names = {
        r.artifact_sha256: f"{units.network(r.model, r.weights, r.weights_sha256)} "
        f"{r.recipe}.{units.format_name(r.format, r.io)}"
        for r in report.results
    }
    rows: list[tuple[str, ...]] = [
        (v.made_at[:16], v.gate, names.get(v.artifact_sha256, ""), v.outcome, v.line)
        for v in report.verdicts[:200]
    ]
    rows += [("", "check", c.path, v.outcome, v.line) for c in report.checks for v in c.verdicts]
    rows += [("", "check", one.what, "error", one.message) for one in report.failed]
    if not rows:
        return "<p>No gate has judged anything of this yet.</p>"
    return _table(
        ("when", "gate", "artifact", "verdict", "what was said"), rows, "Verdicts, newest first"
    )


def _detail(d: Detail) -> str:
    parts = [f"<details><summary>{escape(d.model)} {escape(d.recipe)}.{escape(d.format)}</summary>"]
    if d.profile:
        unit = "instructions" if d.counted else "mult-adds"
        most = max(layer.value for layer in d.profile) or 1
        rows = "".join(
            f"<tr><td>{escape(units.one_line(x.name))[:80]}</td><td>{escape(x.op)}</td>"
            f'<td class="n">{x.value:,}</td><td class="bar"><i style="width:'
            f'{100 * x.value / most:.1f}%"></i></td></tr>'
            for x in d.profile
        )
        parts.append(
            f'<h3>Layers</h3><div class="wide"><table><caption>{unit} of each layer</caption>'
            f'<thead><tr><th scope="col">layer</th><th scope="col">operator</th>'
            f'<th scope="col">{unit}</th><th scope="col" aria-label="bar"></th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    if d.classes:
        parts.append("<h3>Accuracy of each class</h3>")
        parts.append(
            _table(
                ("class", "images", "right", "share"),
                [(n, str(k), str(r), units.percent(r / k if k else None)) for n, k, r in d.classes],
                "Images of each class, and how many were named rightly",
            )
        )
    if d.against:
        parts.append(f"<h3>Flips against {escape(d.against)}: {d.flipped}</h3>")
        parts.append(
            '<ul class="flips">'
            + "".join(
                f"<li>{_image(f.image, f.label)}<p>{escape(f.label)}: {escape(f.before)} "
                f"→ {escape(f.now)}<br><small>{escape(units.one_line(f.sample))}</small></p></li>"
                for f in d.flips
            )
            + "</ul>"
        )
    if d.environment:
        parts.append("<h3>Where it ran</h3>")
        rows_ = [(name, value) for name, value in sorted(d.environment.items())]
        parts.append(_table(("fact", "value"), rows_, "Facts of the machine and versions"))
    return "".join(parts) + "</details>"


def _image(image: str, label: str) -> str:
    if not image.startswith("data:image/jpeg;base64,"):
        return ""
    return f'<img src="{escape(image)}" alt="An image of class {escape(label)}">'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(units.one_line(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )
