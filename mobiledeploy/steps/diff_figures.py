"""Compares two figures of one kind: their ratio, their layers if both are counts, their facts.

A figure is named by its id in the store, or by a file of `bench --json` or `results export`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.analysis import alignment, regression
from mobiledeploy.core import inputs, records, units
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import (
    Counted,
    Estimated,
    Forecast,
    LayerCount,
    Measured,
    Measurement,
    NamedWarning,
)
from mobiledeploy.steps import bench_figures, bench_tables, forecasts, store_records
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path

_FILES = (".json", ".jsonl")
# The limit of SQLite's integers.
_DIGITS = 18
# Facts of a machine that change from moment to moment and are not compared.
_OF_THE_MOMENT = frozenset(
    (
        "battery_c",
        "battery_percent",
        "busy_cpu_s",
        "frequency_khz",
        "frequency_mhz",
        "load",
        "memory_available_kb",
        "stolen_cpu_s",
        "temperature_cpu_c",
        "temperature_millicelsius",
        "temperatures_millicelsius",
        "time_in_state",
        "time_in_state_of_runs",
    )
)


@dataclass(frozen=True)
class LayerCountPair(Record):
    """An operator of both counts, or of only one of them."""

    a: LayerCount | None
    b: LayerCount | None

    @property
    def change(self) -> int:
        """The instructions of B less those of A."""
        return (self.b.instructions if self.b else 0) - (self.a.instructions if self.a else 0)


@dataclass(frozen=True)
class DifferentFact(Record):
    """A fact that differs between the figures; "" is unknown."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class FigureDifference(Record):
    """Two figures of the artifacts `models`; `a` and `b` are the arguments.

    `values` are nanoseconds (the median of a measurement) or, for counts, instructions. `ratio` is
    of B to A; its `interval` is that of 95 % for measurements, else exact. `layers` begin with the
    largest change; they are () unless known for both. `between` are the instructions between the
    layers. `forecasts` are what a card estimated for two timings, None if none did.
    """

    a: str
    b: str
    kind: str
    models: tuple[str, str]
    values: tuple[float, float]
    ratio: float
    interval: tuple[float, float]
    layers: tuple[LayerCountPair, ...]
    between: tuple[int, int] | None
    facts: tuple[DifferentFact, ...]
    warnings: tuple[NamedWarning, ...] = ()
    forecasts: tuple[Forecast | None, Forecast | None] = (None, None)


def is_figure(name: str) -> bool:
    """Whether an argument names a figure; otherwise it is the path of an artifact."""
    return _is_id(name) or name.endswith(_FILES)


def diff(a: str, b: str) -> FigureDifference:
    """Compares two figures of one kind, of one artifact or of two.

    Args:
        a: an id of the store, or a file with one figure.
        b: the other figure, named in the same way.

    Raises:
        UsageError: no such id, a file with several figures, or figures of two kinds.
        InputError: a file that cannot be read or holds no figure; a figure of nothing.
    """
    old, new = _figure(a), _figure(b)
    if old.kind != new.kind:
        raise UsageError(
            f"{a} is {old.kind} and {b} is {new.kind}", "kinds of figures are never compared"
        )
    try:
        ratio, low, high = regression.ratio(new, old)
    except ValueError as error:
        raise InputError(f"{a} and {b} have no ratio: {error}") from error
    layers, between = _layers(old, new)
    return FigureDifference(
        a,
        b,
        new.kind,
        (_model(old), _model(new)),
        (value(old), value(new)),
        ratio,
        (low, high),
        layers,
        between,
        tuple(_facts(old, new)),
        tuple(dict.fromkeys((*old.warnings, *new.warnings))),
        (forecasts.of_figure(old), forecasts.of_figure(new)),
    )


def value(m: Measurement) -> float:
    """The value of a figure: nanoseconds, or instructions."""
    if isinstance(m, Counted):
        return float(m.instructions)
    return m.median_ns if isinstance(m, Measured) else m.latency_ns


def _is_id(name: str) -> bool:
    return name.isdecimal() and len(name) <= _DIGITS


def _figure(name: str) -> Measurement:
    if not _is_id(name):
        return _only(_read(Path(name)), name)
    with store_records.present() as store:
        figure = store.measurement_by_id(int(name))
    if figure is None:
        raise UsageError(f"{store_path()} has no figure {name}", "mobiledeploy results lists ids")
    return figure


def _read(path: Path) -> Sequence[Measurement]:
    """The figures in a file of either kind."""
    if path.suffix == ".jsonl":
        figures = [one.record for one in store_records.read(path)]
        return [m for m in figures if isinstance(m, Measured | Counted | Estimated)]
    text = inputs.read(path, inputs.RECORD)
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error})") from error
    if isinstance(head, dict) and head.get("record") == "Artifact":
        raise InputError(f"{path} is the record of an artifact", f"name {path.stem} itself")
    return records.loads(bench_figures.BenchResult, text, str(path)).measurements


def _only(figures: Sequence[Measurement], name: str) -> Measurement:
    if len(figures) == 1:
        return figures[0]
    hint = "results import it, and name figures by the ids that results lists"
    if not name.endswith(".jsonl"):
        hint = "bench one artifact, or name figures by the ids that results lists"
    if not figures:
        raise InputError(f"{name} holds no figure", hint)
    raise UsageError(f"{name} holds {len(figures)} figures", hint)


def _model(m: Measurement) -> str:
    """The name of its artifact from the store, or else its hash."""
    if store_path().exists():
        with Store.open() as store:
            for r in store.results({"artifact": m.artifact_sha256}, most=1):
                if r.model:
                    network = units.network(r.model, r.weights, r.weights_sha256)
                    return f"{network} {r.recipe}.{units.format_name(r.format, r.io)}"
    return m.artifact_sha256[:12]


def _layers(
    a: Measurement, b: Measurement
) -> tuple[tuple[LayerCountPair, ...], tuple[int, int] | None]:
    """Pairs operators by their kind, in their order, because names change with the format."""
    if not (isinstance(a, Counted) and isinstance(b, Counted) and a.by_layer and b.by_layer):
        return (), None
    keys = [[layer.op for layer in m.by_layer] for m in (a, b)]
    pairs = [
        LayerCountPair(None if i is None else a.by_layer[i], None if j is None else b.by_layer[j])
        for i, j in alignment.pairs(*keys)
    ]
    pairs.sort(key=lambda layers: abs(layers.change), reverse=True)
    return tuple(pairs), (_between(a), _between(b))


def _between(m: Counted) -> int:
    return max(0, m.instructions - sum(layer.instructions for layer in m.by_layer))


def _facts(a: Measurement, b: Measurement) -> Iterator[DifferentFact]:
    before, after = _environment(a), _environment(b)
    for name in dict.fromkeys((*before, *after)):
        pair = before.get(name, ""), after.get(name, "")
        if pair[0] != pair[1]:
            yield DifferentFact(name, *pair)


def _environment(m: Measurement) -> dict[str, str]:
    t = m.target
    facts = {
        "artifact": m.artifact_sha256[:12],
        "device": t.device,
        "runner": t.runner,
        "runtime": t.runtime,
        "threads": str(t.threads),
        "delegate": t.delegate,
    }
    if isinstance(m, Estimated):
        fit = m.fit
        version = fit.version or str(fit.year or "")
        return facts | {"fit": f"{fit.card}, {fit.points} points, {fit.runtime} {version}".strip()}
    facts["runtime version"] = m.runtime_version
    if isinstance(m, Counted):
        return facts | {"core": m.core} | dict(m.versions)
    # The fixed-performance mode only counts as on or off: its effect is measured each time.
    lasting = {
        k: v.partition(":")[0] if k == "fixed_performance" else v
        for k, v in m.facts_before.items()
        if k not in _OF_THE_MOMENT
    }
    return facts | {"delegated": bench_tables.delegation(m)} | lasting
