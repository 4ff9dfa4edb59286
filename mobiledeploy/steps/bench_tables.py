"""Figures as tables for people, one table each for times, counts and estimates."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from mobiledeploy.analysis.layer_counts import MULTIPLICATIONS
from mobiledeploy.core import units
from mobiledeploy.core.display import Table
from mobiledeploy.core.types import ColdStart, Counted, Estimated, Measured, Measurement

# The table of one artifact shows so many operators, the heaviest.
LAYERS = 12


def tables(
    paths: Sequence[str], figures: Sequence[Measurement], recorded_at: str
) -> tuple[Table, ...]:
    """A table for each kind of figure, and one for the operators of a single count."""
    both = list(zip(paths, figures, strict=True))
    return (
        *_measured([(path, m) for path, m in both if isinstance(m, Measured)], recorded_at),
        *_energies([(path, m) for path, m in both if isinstance(m, Measured)]),
        *_estimated([(path, m) for path, m in both if isinstance(m, Estimated)]),
        *_counted([(path, m) for path, m in both if isinstance(m, Counted)]),
    )


def delegation(m: Measurement) -> str:
    """The share of the graph that a delegate took; "" without a delegate, or if it is not known.

    "?" stands for a count that the runner did not get.
    """
    if not isinstance(m, Measured) or m.total_nodes is None or m.target.delegate == "none":
        return ""
    count = "?" if m.delegated_nodes is None else m.delegated_nodes
    return f"{count}/{m.total_nodes} {m.target.delegate}"


def recorded_prefix(at: str) -> str:
    """The beginning of a title for figures that were played back."""
    return f"recorded on {at[:10]}, " if at else ""


def machine(timing: Measured | ColdStart) -> str:
    """The machine of a timing, for people."""
    facts = timing.facts_before
    if "model" not in facts:
        return facts.get("cpu", timing.target.device)
    return f"{facts['model']} ({facts.get('soc', 'unknown SoC')}, {timing.target.device})"


def _measured(figures: Sequence[tuple[str, Measured]], recorded_at: str) -> Iterator[Table]:
    if not figures:
        return
    first = figures[0][1]
    yield Table(
        ("file", "runtime", "median", "95 % interval", "runs", "delegated", "peak memory"),
        tuple(
            (
                path,
                f"{m.target.runtime} {m.runtime_version}",
                units.duration(m.median_ns),
                " to ".join(units.duration(end) for end in m.interval_ns),
                str(len(m.samples_ns)),
                delegation(m) or "–",
                units.size(m.peak_rss_bytes),
            )
            for path, m in figures
        ),
        f"{recorded_prefix(recorded_at)}measured on {machine(first)}, "
        f"{units.several(first.target.threads, 'thread')}, batch 1",
        optional=("peak memory", "runs", "delegated"),
    )


def _energies(figures: Sequence[tuple[str, Measured]]) -> Iterator[Table]:
    rows = tuple(
        (
            path,
            units.energy(e.above_idle_j),
            " to ".join(units.energy(end) for end in e.interval_j),
            units.energy(e.whole_j),
            f"{statistics.median(e.idle_w):.3g} W",
            f"{statistics.median(e.load_w):.3g} W",
        )
        for path, m in figures
        if (e := m.energy) is not None
    )
    if not rows:
        return
    e = next(m.energy for _, m in figures if m.energy is not None)
    sources = {"pmic": "its PMIC's rails", "rails": "its power rails"}
    how = sources.get(e.source, f"its battery's {e.method}")
    yield Table(
        ("file", "above idle", "95 % interval", "whole machine", "at idle", "under load"),
        rows,
        f"energy of an inference, measured by {how}",
        optional=("at idle", "under load"),
    )


def _estimated(figures: Sequence[tuple[str, Estimated]]) -> Iterator[Table]:
    if not figures:
        return
    first = figures[0][1]
    yield Table(
        ("file", "estimated", "95 % interval", "for", "threads", "points", "their error"),
        tuple(
            (
                path,
                units.duration(m.latency_ns),
                " to ".join(units.duration(end) for end in m.interval_ns),
                f"{m.target.runtime} {m.fit.version or m.fit.year or ''}".strip(),
                str(m.target.threads),
                _points(m),
                f"{units.percent(m.fit.rmspe)}, {m.fit.held_out} left out",
            )
            for path, m in figures
        ),
        f"estimated, not measured: {first.target.device}, batch 1",
        optional=("threads", "for", "their error"),
    )


def _points(estimated: Estimated) -> str:
    like = len(estimated.fit.borrowed)
    lenders = f", borrowing from {like} like" if like else ""
    return f"{estimated.fit.points}{lenders}"


def _counted(figures: Sequence[tuple[str, Counted]]) -> Iterator[Table]:
    if not figures:
        return
    first = figures[0][1]
    # What is in brackets is the package of a distribution; the record has it.
    qemu = first.versions.get("qemu", "qemu").partition(" (")[0]
    yield Table(
        ("file", "runtime", "instructions", "multiplying", "loaded", "stored", "like the host"),
        tuple(
            (
                path,
                f"{c.target.runtime} {c.runtime_version}",
                f"{c.instructions:,}",
                _multiplying(c),
                units.size(c.bytes_loaded),
                units.size(c.bytes_stored),
                "equal" if c.host_difference == 0 else f"within {c.host_difference:.2g}",
            )
            for path, c in figures
        ),
        f"counted on an emulated {first.core} ({qemu}), "
        "1 thread, batch 1: instructions of one inference, not a time",
        optional=("stored", "loaded", "multiplying"),
    )
    if len(figures) == 1 and first.by_layer:
        yield _layers(first)


def _layers(figure: Counted) -> Table:
    heaviest = sorted(figure.by_layer, key=lambda layer: -layer.instructions)[:LAYERS]
    rest = figure.instructions - sum(layer.instructions for layer in heaviest)
    return Table(
        ("operator", "kernel", "instructions", "share"),
        tuple(
            (name, kernel, f"{number:,}", units.percent(number / figure.instructions))
            for name, kernel, number in (
                *((_short(layer.name), layer.kernel, layer.instructions) for layer in heaviest),
                ("all others, and the runtime", "", max(0, rest)),
            )
        ),
        optional=("kernel",),
    )


def _multiplying(figure: Counted) -> str:
    """The classes that multiply, largest first, each with its share."""
    shares = {name: figure.by_class.get(name, 0) / figure.instructions for name in MULTIPLICATIONS}
    return ", ".join(
        f"{name} {100 * share:.0f} %"
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
        if share >= 0.01
    )


def _short(name: str) -> str:
    """The first name of a fused operator; only the end of a long name."""
    first = name.partition(";")[0]
    return first if len(first) <= 48 else "…" + first[-47:]
