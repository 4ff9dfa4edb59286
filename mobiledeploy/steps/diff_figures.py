"""Two figures of one kind: the ratio, layer by layer where both were counted so, what else differs.

A figure is named by its id in the store, or by a file: the JSON of `bench`, or of `results export`.
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
    LayerCount,
    Measured,
    Measurement,
    NamedWarning,
)
from mobiledeploy.steps import bench_figures, bench_tables, store_records
from mobiledeploy.store.database import Store
from mobiledeploy.store.database import path as store_path

_FILES = (".json", ".jsonl")
# SQLite's integers end there.
_DIGITS = 18
# What a machine's facts say of the moment alone: no two readings of them are alike.
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
    )
)


@dataclass(frozen=True)
class LayerCountPair(Record):
    """An operator of both counts, or of one of them only."""

    a: LayerCount | None
    b: LayerCount | None

    @property
    def change(self) -> int:
        """Instructions that B has more."""
        return (self.b.instructions if self.b else 0) - (self.a.instructions if self.a else 0)


@dataclass(frozen=True)
class DifferentFact(Record):
    """What the figures were had with, where it differs; "" is not told."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class FigureDifference(Record):
    """Two figures, `a` and `b` as they were named, of the artifacts `models`.

    `values` are nanoseconds (of what was measured, the median) or, of `counted`, instructions.
    `ratio` is of B to A, its `interval` that of 95 % for what was measured, else exact. `layers`
    are what executed instructions, what changed most first; () where that is not known of both.
    `between` are the instructions between them.
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


def named(name: str) -> bool:
    """Whether an argument of the command names a figure; else it is an artifact's path."""
    return _is_id(name) or name.endswith(_FILES)


def diff(a: str, b: str) -> FigureDifference:
    """Compares two figures of one kind, of one artifact or of two.

    Args:
        a: an id of the store, or a file with one figure.
        b: another.

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
    )


def value(m: Measurement) -> float:
    """The figure itself: nanoseconds, or instructions."""
    if isinstance(m, Counted):
        return float(m.instructions)
    return m.median_ns if isinstance(m, Measured) else m.latency_ns


def _is_id(name: str) -> bool:
    return name.isdecimal() and len(name) <= _DIGITS


def _figure(name: str) -> Measurement:
    if not _is_id(name):
        return _only(_read(Path(name)), name)
    with store_records.present() as store:
        found = store.measurement_by_id(int(name))
    if found is None:
        raise UsageError(f"{store_path()} has no figure {name}", "mobiledeploy results lists ids")
    return found


def _read(path: Path) -> Sequence[Measurement]:
    """The figures in a file of either sort."""
    if path.suffix == ".jsonl":
        kept = [one.record for one in store_records.read(path)]
        return [m for m in kept if isinstance(m, Measured | Counted | Estimated)]
    text = inputs.read(path, inputs.RECORD)
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error})") from error
    if isinstance(head, dict) and head.get("record") == "Artifact":
        raise InputError(f"{path} is the record of an artifact", f"name {path.stem} itself")
    return records.loads(bench_figures.BenchResult, text, str(path)).measurements


def _only(found: Sequence[Measurement], name: str) -> Measurement:
    if len(found) == 1:
        return found[0]
    hint = "results import it, and name figures by the ids that results lists"
    if not name.endswith(".jsonl"):
        hint = "bench one artifact, or name figures by the ids that results lists"
    if not found:
        raise InputError(f"{name} holds no figure", hint)
    raise UsageError(f"{name} holds {len(found)} figures", hint)


def _model(m: Measurement) -> str:
    """What it is of, by the store; else by its hash."""
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
    """Operators are aligned by what they are, in their order: names change with the format."""
    if not (isinstance(a, Counted) and isinstance(b, Counted) and a.by_layer and b.by_layer):
        return (), None
    keys = [[layer.op for layer in m.by_layer] for m in (a, b)]
    found = [
        LayerCountPair(None if i is None else a.by_layer[i], None if j is None else b.by_layer[j])
        for i, j in alignment.pairs(*keys)
    ]
    found.sort(key=lambda layers: abs(layers.change), reverse=True)
    return tuple(found), (_between(a), _between(b))


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
    found = {
        "artifact": m.artifact_sha256[:12],
        "device": t.device,
        "runner": t.runner,
        "runtime": t.runtime,
        "threads": str(t.threads),
        "delegate": t.delegate,
    }
    if isinstance(m, Estimated):
        fit = m.fit
        known = fit.version or str(fit.year or "")
        return found | {"fit": f"{fit.card}, {fit.points} points, {fit.runtime} {known}".strip()}
    found["runtime version"] = m.runtime_version
    if isinstance(m, Counted):
        return found | {"core": m.core} | dict(m.versions)
    # Of the fixed-performance mode, whether it was on: what it did is measured each time.
    standing = {
        k: v.partition(":")[0] if k == "fixed_performance" else v
        for k, v in m.facts_before.items()
        if k not in _OF_THE_MOMENT
    }
    return found | {"delegated": bench_tables.delegated(m)} | standing
