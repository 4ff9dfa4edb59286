"""A model card: what the artifacts of a bundle are, what they were made of, how good they are.

Mitchell et al. 2019, arXiv:1810.03993. It says only what records and figures say; what nobody
recorded is called unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mobiledeploy import __version__
from mobiledeploy.analysis import choice
from mobiledeploy.core import artifacts, builtin_data, units
from mobiledeploy.core.display import Record
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.types import (
    Artifact,
    Counted,
    Estimated,
    Evaluation,
    Measured,
    Measurement,
    Metric,
    ModelInput,
    ModelOutput,
    NamedWarning,
    Preprocessing,
)
from mobiledeploy.steps import bundle_commands
from mobiledeploy.store.database import StoredRecord

UNKNOWN = "unknown"
# Weights and images that come with mobiledeploy have its own licence.
_OURS = "MIT"
_OWN_WEIGHTS = ("demo", "random")
# Shares of images whose answer is right or wrong, besides the first metric of an exact gate.
_SHARES = ("top5", "agreement")
_UNSAID = (
    "Intended use, users, and ethical considerations were not recorded. Where a licence is "
    f"{UNKNOWN}, nobody named it. An interval is the exact 95 % interval of a share of images; "
    "other metrics have none here."
)
_AGREEMENT = Metric("agreement", "agreement with float", "share")


@dataclass(frozen=True)
class Licences(Record):
    """The licences of a user's weights and data: SPDX identifiers, or other names."""

    weights: str = UNKNOWN
    data: str = UNKNOWN


@dataclass(frozen=True)
class CardSource(Record):
    """Weights or images. `sha256` identifies the content, "" where nobody knows it.

    `role` is weights, evaluation, calibration or training. `licence` is an SPDX identifier or
    another name.
    """

    role: str
    name: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class CardMetric(Record):
    """A metric of a file on `images` images of `data`; `slice` is where they ran.

    `interval` is the exact 95 % interval (Clopper and Pearson), None for a metric that is no share
    of images: the records do not hold what a bootstrap needs.
    """

    name: str
    title: str
    unit: str
    value: float
    interval: tuple[float, float] | None
    images: int
    data: str
    slice: str


@dataclass(frozen=True)
class CardLatency(Record):
    """A time in nanoseconds or a count of instructions; `interval` is that of the time, 95 %."""

    kind: str
    where: str
    latency_ns: float | None
    interval_ns: tuple[float, float] | None
    instructions: int | None


@dataclass(frozen=True)
class CardArtifact(Record):
    """One file of a model card; `name` is its path in the bundle, `command` what made it."""

    name: str
    sha256: str
    size_bytes: int
    format: str
    model: str
    architecture: str
    paper: str
    task: str
    recipe: str
    recipe_summary: str
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    preprocessing: Preprocessing
    sources: tuple[CardSource, ...]
    metrics: tuple[CardMetric, ...]
    latencies: tuple[CardLatency, ...]
    warnings: tuple[NamedWarning, ...]
    command: str


@dataclass(frozen=True)
class BundleCard(Record):
    """MODEL_CARD.json of a bundle: its files in the order of their names."""

    mobiledeploy: str
    artifacts: tuple[CardArtifact, ...]


def card(
    bundled: Sequence[tuple[str, Artifact]], figures: Sequence[StoredRecord], licences: Licences
) -> BundleCard:
    """The card of artifacts with their names in the bundle, by the records of the store."""
    return BundleCard(
        __version__,
        tuple(_artifact(name, artifact, figures, licences) for name, artifact in bundled),
    )


def _artifact(
    name: str, artifact: Artifact, figures: Sequence[StoredRecord], licences: Licences
) -> CardArtifact:
    spec, signature = artifact.spec, artifacts.signature(artifact)
    return CardArtifact(
        name=name,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        format=artifact.format,
        model=spec.name,
        architecture=spec.architecture,
        paper=spec.paper,
        task=spec.task,
        recipe=artifact.recipe.name,
        recipe_summary=artifact.recipe.summary,
        inputs=signature.inputs,
        outputs=signature.outputs,
        preprocessing=spec.preprocessing,
        sources=tuple(_sources(artifact, licences)),
        metrics=tuple(_metrics(artifact, figures)),
        latencies=tuple(_latencies(artifact, figures)),
        warnings=artifact.warnings,
        command=bundle_commands.line(artifact),
    )


def _sources(artifact: Artifact, licences: Licences) -> Iterator[CardSource]:
    weights, data = artifact.spec.weights, artifact.data
    ours = artifact.spec.card is not None and weights.source in _OWN_WEIGHTS
    yield CardSource("weights", weights.source, weights.sha256, _OURS if ours else licences.weights)
    licence = _OURS if data.source in builtin_data.NAMES else licences.data
    name = units.images(data.source, data.split, "")
    yield CardSource("evaluation", name, data.identity, licence)
    if artifact.calibration:
        yield CardSource("calibration", data.source, artifact.calibration, licence)
    if artifact.trained_on:
        yield CardSource("training", data.source, artifact.trained_on, licence)


# Figures


def _metrics(artifact: Artifact, figures: Sequence[StoredRecord]) -> Iterator[CardMetric]:
    """The metrics of the newest evaluation on each set of images and device, as it was exported."""
    newest: dict[tuple[str, str, str], Evaluation] = {}
    for one in figures:
        e = one.record
        # Another preprocessing is a trial, and no figure of the artifact.
        if (
            isinstance(e, Evaluation)
            and e.artifact_sha256 == artifact.sha256
            and e.preprocessing == artifact.spec.preprocessing
            and not one.recorded
        ):
            newest[e.data.identity, e.target.device, e.target.runtime] = e
    for e in newest.values():
        yield from _of_evaluation(e)
    if artifact.fidelity is not None:
        fidelity, name = artifact.fidelity, units.images(artifact.data.source, "", "")
        sqnr = Metric("sqnr_db", "SQNR against float", "dB")
        yield _metric(sqnr, fidelity.sqnr_db, fidelity.images, name, "", exact=False)


def _of_evaluation(e: Evaluation) -> Iterator[CardMetric]:
    task = TASKS.load(e.task)
    data = units.images(e.data.source, e.data.split, e.data.identity)
    where = f"{e.target.device}, {e.target.runtime} {e.runtime_version}".strip()
    labelled = sum(p.label >= 0 for p in e.predictions) if e.task == "classification" else e.images
    former = {"top1": e.top1, "top5": e.top5}
    for number, metric in enumerate(task.METRICS):
        value = e.metrics.get(metric.name, former.get(metric.name))
        if value is not None:
            exact = metric.name in _SHARES or (number == 0 and task.GATE == "exact")
            yield _metric(metric, value, labelled, data, where, exact=exact)
    if e.agreement is not None:
        yield _metric(_AGREEMENT, e.agreement, e.images, data, where, exact=True)


def _metric(
    metric: Metric, value: float, images: int, data: str, where: str, *, exact: bool
) -> CardMetric:
    interval = choice.share_interval(value, images) if exact and images else None
    return CardMetric(metric.name, metric.title, metric.unit, value, interval, images, data, where)


def _latencies(artifact: Artifact, figures: Sequence[StoredRecord]) -> Iterator[CardLatency]:
    """The newest figure of each kind on each target; a replay is none of this artifact's own."""
    newest: dict[tuple[object, ...], Measurement] = {}
    for one in figures:
        m = one.record
        if (
            isinstance(m, Measured | Counted | Estimated)
            and m.artifact_sha256 == artifact.sha256
            and not one.recorded
        ):
            newest[m.kind, m.target] = m
    for m in newest.values():
        yield _latency(m)


def _latency(m: Measurement) -> CardLatency:
    target = m.target
    threads = units.several(target.threads, "thread")
    where = f"{target.device}, {target.runtime}, {threads}, {target.delegate}".rstrip(", ")
    if isinstance(m, Counted):
        return CardLatency(m.kind, where, None, None, m.instructions)
    value = m.median_ns if isinstance(m, Measured) else m.latency_ns
    return CardLatency(m.kind, where, value, m.interval_ns, None)


# Markdown


def markdown(card_: BundleCard) -> str:
    """The card for people."""
    lines = ["# Model card", "", *_overview(card_)]
    for artifact in card_.artifacts:
        lines += _section(artifact)
    lines += ["## What this card does not say", "", _UNSAID, ""]
    return "\n".join(lines)


def _overview(card_: BundleCard) -> Iterator[str]:
    yield f"Written by mobiledeploy {card_.mobiledeploy} from records; see MODEL_CARD.json."
    yield ""
    yield "| file | task | recipe | size | first metric |"
    yield "|---|---|---|--:|--:|"
    for a in card_.artifacts:
        first = _value(a.metrics[0]) if a.metrics else "–"
        cells = (_cell(a.name), _cell(a.task), _cell(a.recipe), units.size(a.size_bytes), first)
        yield f"| {' | '.join(cells)} |"
    yield ""


def _section(a: CardArtifact) -> Iterator[str]:
    yield f"## {_cell(a.name)}"
    yield ""
    paper = f" ({_cell(a.paper)})" if a.paper else ""
    yield f"- model: {_cell(a.model)}, architecture {_cell(a.architecture)}{paper}"
    yield f"- task: {_cell(a.task)}; recipe: {_cell(a.recipe)}, {_cell(a.recipe_summary)}"
    yield f"- format: {_cell(a.format)}, {units.size(a.size_bytes)}, sha256 {a.sha256}"
    yield f"- command: {_cell(a.command) if a.command else UNKNOWN}"
    for end in a.inputs:
        yield f"- input {_cell(end.name)}: {end.kind} {list(end.shape)}, {end.dtype}"
    for output in a.outputs:
        yield f"- output {_cell(output.name)}: {list(output.shape)}"
    if any(end.kind == "image" for end in a.inputs):
        yield f"- an image becomes the input by: {_cell(_prepared(a.preprocessing))}"
    labels = a.preprocessing.labels
    if labels:
        yield f"- classes: {len(labels)}, in {_cell(a.name)}.labels.txt"
    yield ""
    yield "| made of | name | sha256 | licence |"
    yield "|---|---|---|---|"
    for source in a.sources:
        digest = source.sha256 or UNKNOWN
        yield f"| {source.role} | {_cell(source.name)} | {digest} | {_cell(source.licence)} |"
    yield ""
    yield from _figure_tables(a)
    for warning in a.warnings:
        yield f"- warning: {_cell(warning.text)}"
    if a.warnings:
        yield ""


def _figure_tables(a: CardArtifact) -> Iterator[str]:
    if a.metrics:
        yield "| metric | value | 95 % interval | images | data | where |"
        yield "|---|--:|--:|--:|---|---|"
        for m in a.metrics:
            between = "–"
            if m.interval:
                between = " to ".join(units.metric(end, m.unit) for end in m.interval)
            cells = (
                _cell(m.title),
                _value(m),
                between,
                str(m.images),
                _cell(m.data),
                _cell(m.slice) or "–",
            )
            yield f"| {' | '.join(cells)} |"
    else:
        yield "No accuracy was recorded."
    yield ""
    if a.latencies:
        yield "| kind | where | latency | 95 % interval | instructions |"
        yield "|---|---|--:|--:|--:|"
        for one in a.latencies:
            time = "–" if one.latency_ns is None else units.duration(one.latency_ns)
            between = "–"
            if one.interval_ns:
                between = " to ".join(units.duration(end) for end in one.interval_ns)
            count = "–" if one.instructions is None else f"{one.instructions:,}"
            yield f"| {one.kind} | {_cell(one.where)} | {time} | {between} | {count} |"
        yield ""


def _prepared(how: Preprocessing) -> str:
    low, high = how.input_range
    return (
        f"central crop {how.crop:g}, {how.resize} resize, {how.channels}, pixels 0 to 255 become "
        f"{low:g} to {high:g}, mean {_numbers(how.mean)}, std {_numbers(how.std)}"
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _value(metric: CardMetric) -> str:
    return units.metric(metric.value, metric.unit)


_cell = units.markdown
