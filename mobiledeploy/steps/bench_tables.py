"""Figures as tables for people: times, counts and estimates apart, for none is another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mobiledeploy.core import units
from mobiledeploy.core.display import Table
from mobiledeploy.core.types import Counted, Estimated, Measured, Measurement

# How many operators a single artifact's table shows: the heaviest.
LAYERS = 12
MULTIPLICATIONS = ("sdot", "mmla", "mla", "fmla", "fmla16", "fmadd")


def tables(
    paths: Sequence[str], figures: Sequence[Measurement], recorded_at: str
) -> tuple[Table, ...]:
    """A table for each kind of figure; the operators of a single count have one of their own."""
    both = list(zip(paths, figures, strict=True))
    return (
        *_measured([(path, m) for path, m in both if isinstance(m, Measured)], recorded_at),
        *_estimated([(path, m) for path, m in both if isinstance(m, Estimated)]),
        *_counted([(path, m) for path, m in both if isinstance(m, Counted)]),
    )


def delegated(m: Measurement) -> str:
    """How much of the graph a delegate took; "" where there is none, or nobody tells.

    "?" stands for a count that the runner did not learn.
    """
    if not isinstance(m, Measured) or m.total_nodes is None or m.target.delegate == "none":
        return ""
    taken = "?" if m.delegated_nodes is None else m.delegated_nodes
    return f"{taken}/{m.total_nodes} {m.target.delegate}"


def recorded(at: str) -> str:
    """What stands before a title where figures were played back."""
    return f"recorded on {at[:10]}, " if at else ""


def machine(measured: Measured) -> str:
    """The machine that a time was taken on, for people."""
    facts = measured.facts_before
    if "model" not in facts:
        return facts.get("cpu", measured.target.device)
    return f"{facts['model']} ({facts.get('soc', 'unknown SoC')}, {measured.target.device})"


def _measured(made: Sequence[tuple[str, Measured]], recorded_at: str) -> Iterator[Table]:
    if not made:
        return
    first = made[0][1]
    yield Table(
        ("file", "runtime", "median", "95 % interval", "runs", "delegated", "peak memory"),
        tuple(
            (
                path,
                f"{m.target.runtime} {m.runtime_version}",
                units.duration(m.median_ns),
                " to ".join(units.duration(end) for end in m.interval_ns),
                str(len(m.samples_ns)),
                delegated(m) or "–",
                units.size(m.peak_rss_bytes),
            )
            for path, m in made
        ),
        f"{recorded(recorded_at)}measured on {machine(first)}, "
        f"{units.several(first.target.threads, 'thread')}, batch 1",
    )


def _estimated(made: Sequence[tuple[str, Estimated]]) -> Iterator[Table]:
    if not made:
        return
    first = made[0][1]
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
            for path, m in made
        ),
        f"estimated, not measured: {first.target.device}, batch 1",
    )


def _points(estimated: Estimated) -> str:
    like = len(estimated.fit.borrowed)
    borrowed = f", borrowing from {like} like" if like else ""
    return f"{estimated.fit.points}{borrowed}"


def _counted(made: Sequence[tuple[str, Counted]]) -> Iterator[Table]:
    if not made:
        return
    first = made[0][1]
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
            for path, c in made
        ),
        f"counted on an emulated {first.core} ({first.versions.get('qemu', 'qemu')}), "
        "1 thread, batch 1: instructions of one inference, not a time",
    )
    if len(made) == 1 and first.by_layer:
        yield _layers(first)


def _layers(counted: Counted) -> Table:
    heaviest = sorted(counted.by_layer, key=lambda layer: -layer.instructions)[:LAYERS]
    rest = counted.instructions - sum(layer.instructions for layer in heaviest)
    return Table(
        ("operator", "kernel", "instructions", "share"),
        tuple(
            (name, kernel, f"{number:,}", units.percent(number / counted.instructions))
            for name, kernel, number in (
                *((_short(layer.name), layer.kernel, layer.instructions) for layer in heaviest),
                ("all others, and the runtime", "", max(0, rest)),
            )
        ),
    )


def _multiplying(counted: Counted) -> str:
    """The classes that multiply, largest first, each with its share."""
    shares = {
        name: counted.by_class.get(name, 0) / counted.instructions for name in MULTIPLICATIONS
    }
    return ", ".join(
        f"{name} {100 * share:.0f} %"
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
        if share >= 0.01
    )


def _short(name: str) -> str:
    """The first of the names that a fused operator has, the end of it where it is long."""
    first = name.partition(";")[0]
    return first if len(first) <= 48 else "…" + first[-47:]
