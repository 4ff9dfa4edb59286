"""Latency, size, memory and accuracy budgets -> the network and recipe to take.

Candidates come from published tables, trainings and the store (`steps/candidates.py`). Figures have
intervals, and what these cannot exclude is in the answer (`analysis/choice.py`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mobiledeploy.analysis import choice, pareto
from mobiledeploy.analysis.choice import ChoiceLimits, ChoiceOption, Fits
from mobiledeploy.core import units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import WRITERS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import NamedWarning
from mobiledeploy.steps import arguments
from mobiledeploy.steps.arguments import Names
from mobiledeploy.steps.candidates import (
    Candidate,
    CandidateFilter,
    Candidates,
    ChoiceFigure,
    LeftOut,
)
from mobiledeploy.steps.reporters import PythonReporter

NEAREST = 3
MEASUREMENTS = 2
# Below 2 % a network fits so seldom that nobody measures it.
UNLIKELY = 0.02
OF_LATENCY = ("latency ms", "latency interval", "latency is")
"""The columns that a table has for a device only."""
OPTIONAL = ("front", "memory MB", "latency is", "accuracy interval", "latency interval", "size MB")
"""The columns that a narrow table can do without, the first one first."""


@dataclass(frozen=True)
class ChoiceBudget(Record):
    """The limits of a choice, None for none; `top1` is the least one, a fraction."""

    latency_ns: float | None = None
    top1: float | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class NextMeasurement(Record):
    """A measurement that would decide between candidates whose intervals overlap.

    `what` is the figure, `model` and `recipe` are its candidate, `why` says what it would decide.
    """

    what: Literal["latency", "size", "accuracy"]
    model: str
    recipe: str
    why: str
    command: str


@dataclass(frozen=True)
class RankedCandidate(Record):
    """A candidate, and whether it is within the budget: "yes" with its whole intervals, "maybe".

    `contender` says that it may be the best one. `on_front` says that no other candidate is as
    accurate for less latency, or without a device for a smaller file, by the figures themselves.
    `over` is how far its figures are over the budget, a fraction; 0 if they are within it, null if
    a figure that is limited is not known.
    """

    candidate: Candidate
    fits: Fits
    contender: bool
    on_front: bool
    over: float | None


@dataclass(frozen=True)
class ChoiceGroup(Record):
    """The candidates whose accuracies can be compared: judged on the same images.

    `candidates` are sorted by accuracy, best first. `best` is the place of the one to take, null if
    none is within the budget with its whole intervals. `nearest` are the places of those that miss
    the budget by least, if none may be within it.
    """

    judged_on: str
    candidates: tuple[RankedCandidate, ...]
    best: int | None
    nearest: tuple[int, ...]
    measurements: tuple[NextMeasurement, ...]

    @property
    def possible(self) -> bool:
        """Whether a candidate may be within the budget."""
        return any(one.fits != "no" for one in self.candidates)

    def shown(self, most: int | None = None) -> tuple[int, ...]:
        """The places of those that matter to the choice, in their order; the first `most` of these.

        First the best and the nearest ones, then contenders that may be within the budget, then the
        other contenders, and last those on the front that are less accurate than the best.
        """

        def importance(place: int) -> int | None:
            one = self.candidates[place]
            if place == self.best or place in self.nearest:
                return 0
            if one.contender:
                return 1 if one.fits != "no" else 2
            return 3 if one.on_front and one.fits != "no" else None

        by_place = {
            p: rank for p in range(len(self.candidates)) if (rank := importance(p)) is not None
        }
        return tuple(sorted(sorted(by_place, key=lambda place: by_place[place])[:most]))


@dataclass(frozen=True)
class ChoiceResult(Record):
    """The answer of `choose`.

    Own files and trainings come first, published networks last. `has_answer` says whether a
    group has a candidate to take. `left_out` are networks that could not be judged. Without a
    device (`device` is "", `threads` null) no candidate has a latency.
    """

    device: str
    title: str
    threads: int | None
    budget: ChoiceBudget
    has_answer: bool
    groups: tuple[ChoiceGroup, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[NamedWarning, ...] = ()

    def tables(self, most: int | None = None) -> tuple[Table, ...]:
        """For each group the contenders and the front, or the nearest ones; `most` rows of each."""
        return tuple(self._table(group, most) for group in self.groups if group.candidates)

    def _table(self, group: ChoiceGroup, most: int | None) -> Table:
        headers = (
            *("network", "recipe", "accuracy %", "accuracy interval", "latency ms"),
            *("latency interval", "fits", "size MB", "memory MB", "latency is", "front"),
        )
        shown = [group.candidates[place] for place in group.shown(most)]
        best = None if group.best is None else group.candidates[group.best]
        rows = [_row(one, one is best) for one in shown]
        first = group.candidates[0].candidate
        metric, images = first.judged_by
        title = f"Accuracy is {metric} on {images}; {first.format}"
        # What follows a network's name are its weights.
        weights = {row[0].partition(" ")[2] for row in rows}
        if len(weights) == 1 and (own := weights.pop()):
            rows = [(row[0].partition(" ")[0], *row[1:]) for row in rows]
            title += f"; weights {own}"
        absent = set(OF_LATENCY if self.threads is None else ())
        if all(one.candidate.accuracy.low == one.candidate.accuracy.high for one in shown):
            absent.add("accuracy interval")
        kept = [n for n, name in enumerate(headers) if name not in absent]
        if any(headers[n].endswith("interval") for n in kept):
            title += "; 95 % intervals"
        if self.threads is not None:
            threads = units.several(self.threads, "thread")
            title += f"; latency on {self.device}, {threads}, batch 1"
        return Table(
            tuple(headers[n] for n in kept),
            tuple(tuple(row[n] for n in kept) for row in rows),
            title,
            OPTIONAL,
            ("network",),
        )


def _row(one: RankedCandidate, is_best: bool) -> tuple[str, ...]:
    c, latency = one.candidate, one.candidate.latency_ns
    a = c.accuracy
    return (
        units.one_line(c.model),
        c.recipe,
        f"{'≤' if c.loss_unknown else ''}{100 * a.value:.1f}",
        f"{100 * a.low:.1f}–{100 * a.high:.1f}" if a.low < a.high else "–",
        _number(latency, 1e6),
        "–" if latency is None else f"{latency.low / 1e6:.3g}–{latency.high / 1e6:.3g}",
        "best"
        if is_best
        else f"{100 * one.over:+.0f}%"
        if one.fits == "no" and one.over
        else one.fits,
        _number(c.size_bytes, 1e6),
        _number(c.memory_bytes, 1e6),
        "–" if latency is None else latency.kind,
        "*" if one.on_front else "",
    )


def _number(figure: ChoiceFigure | None, unit: float) -> str:
    """The figure in a unit; `~` marks an estimate."""
    if figure is None:
        return "–"
    return f"{'~' if figure.kind == 'estimated' else ''}{figure.value / unit:.3g}"


def choose(
    *,
    device: str | None = None,
    max_latency: float | None = None,
    min_top1: float | None = None,
    max_size: int | None = None,
    max_memory: int | None = None,
    arch: Names = (),
    recipe: Names = (),
    format: str = "tflite",  # noqa: A002 - the option's name
    threads: int | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    reporter: Reporter | None = None,
) -> ChoiceResult:
    """Chooses the most accurate network and recipe within a budget.

    Candidates are all published networks that are built here, the trainings in `runs/`, and the
    evaluated files of this folder's store. Accuracies are compared only if they were judged on the
    same images. A file of integers that nobody judged has the accuracy of its float network, and
    says so.

    Example:
        >>> answer = md.choose(device="pixel-3", max_latency=10.0, max_size=5_000_000)
        >>> [group.candidates[group.best].candidate.command for group in answer.groups]

    Args:
        device: a phone or board with a device card, `host`, adb:SERIAL or ssh:HOST; needed for
            latencies only.
        max_latency: the largest latency in milliseconds.
        min_top1: the least top-1 in percent; files that another metric judged are left out.
        max_size: the largest file in bytes.
        max_memory: the largest memory of weights and activations in bytes, without the runtime.
        arch: one card or several; the default is all.
        recipe: one recipe or several; the default is all that `export` writes without one.
        format: `tflite` or `onnx`.
        threads: those of the latency; the default has the most points of the device.
        runtime: that of the latency, as for `bench`.
        delegate: that of the latency, as for `bench`.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        The candidates by the images that they were judged on, the one to take, and what to measure
        to be sure.

    Raises:
        UsageError: an unknown device, card or recipe, a limit that is not above 0, or no limit; or
            something that is said of latencies without a device.
    """
    reporter = reporter or PythonReporter()
    budget = _budget(max_latency, min_top1, max_size, max_memory)
    if format not in WRITERS.names():
        raise UsageError(f"no format {format!r}", f"there are {', '.join(WRITERS.names())}")
    arguments.need_threads(threads)
    if not device:
        _refuse_latencies(max_latency, threads, runtime, delegate)
    wanted = CandidateFilter(
        arguments.several(arch),
        arguments.several(recipe),
        format,
        threads,
        runtime,
        delegate,
        top1_only=min_top1 is not None,
    )
    collected = Candidates(device or "", wanted, reporter)
    own = collected.exported()
    weights = {(c.weights_sha256, c.recipe) for c in own}
    everything = [*own, *collected.runs(weights), *collected.published()]
    groups: dict[str, list[Candidate]] = {}
    for candidate in everything:
        groups.setdefault(candidate.judged_on, []).append(candidate)
    limits = ChoiceLimits((budget.latency_ns, budget.size_bytes, budget.memory_bytes), budget.top1)
    ranked = tuple(
        _group(judged_on, candidates, limits, collected.device)
        for judged_on, candidates in groups.items()
    )
    warnings = tuple(_warnings(ranked))
    for warning in warnings:
        reporter.warn(warning)
    return ChoiceResult(
        device=collected.device,
        title=collected.title,
        threads=collected.threads,
        budget=budget,
        has_answer=any(group.best is not None for group in ranked),
        groups=ranked,
        left_out=collected.left_out,
        warnings=warnings,
    )


def _budget(
    max_latency: float | None, min_top1: float | None, max_size: int | None, max_memory: int | None
) -> ChoiceBudget:
    limits = {"latency": max_latency, "top-1": min_top1, "size": max_size, "memory": max_memory}
    for name, value in limits.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"a {name} of {value:g} is no limit", "give a number above 0")
    if all(value is None for value in limits.values()):
        raise UsageError("there is no budget", "--max-latency 10ms, --max-size 4MB, --min-top1 60")
    if min_top1 is not None and not 1 <= min_top1 <= 100:
        raise UsageError(f"a top-1 of {min_top1:g} % is not an accuracy", "say 65 for 65 %")
    return ChoiceBudget(
        None if max_latency is None else max_latency * 1e6,
        None if min_top1 is None else min_top1 / 100,
        max_size,
        max_memory,
    )


def _refuse_latencies(*given: object) -> None:
    """UsageError for an option of latencies, in the order below, where there is no device."""
    options = ("--max-latency", "--threads", "--runtime", "--delegate")
    for name, value in zip(options, given, strict=True):
        if value is not None:
            raise UsageError(
                f"{name} is about a latency, which needs a device",
                "--device pixel-3, or another that `mobiledeploy devices` lists",
            )


def _group(
    judged_on: str, candidates: Sequence[Candidate], limits: ChoiceLimits, device: str
) -> ChoiceGroup:
    candidates = sorted(
        candidates,
        key=lambda c: (
            -c.accuracy.value,
            math.inf if c.latency_ns is None else c.latency_ns.value,
            c.model,
            c.recipe,
        ),
    )
    options = [_option(candidate) for candidate in candidates]
    answers = [choice.fits(option, limits) for option in options]
    contenders = set(choice.contenders(options, limits))
    latency, size, _ = range(3)
    axis = latency if device else size
    known = [(i, cost) for i, o in enumerate(options) if (cost := o.costs[axis]) is not None]
    points = [(cost.value, options[i].accuracy.value) for i, cost in known]
    front = {known[n][0] for n in pareto.front(points)}
    ranked = tuple(
        RankedCandidate(
            candidate, answers[i], i in contenders, i in front, _over(options[i], limits)
        )
        for i, candidate in enumerate(candidates)
    )
    nearest = () if any(a != "no" for a in answers) else _nearest(options, limits)
    best = choice.best(options, limits)
    measurements = tuple(_measurements(ranked, options, limits, best, device))
    return ChoiceGroup(judged_on, ranked, best, nearest, measurements)


def _option(candidate: Candidate) -> ChoiceOption:
    costs = (candidate.latency_ns, candidate.size_bytes, candidate.memory_bytes)
    return ChoiceOption(
        candidate.accuracy.bounded,
        tuple(None if cost is None else cost.bounded for cost in costs),
        candidate.loss_unknown,
    )


def _over(option: ChoiceOption, limits: ChoiceLimits) -> float | None:
    over = choice.excess(option, limits)
    return None if math.isinf(over) else max(0.0, over)


def _nearest(options: Sequence[ChoiceOption], limits: ChoiceLimits) -> tuple[int, ...]:
    by_excess = sorted(range(len(options)), key=lambda i: choice.excess(options[i], limits))
    return tuple(i for i in by_excess if math.isfinite(choice.excess(options[i], limits)))[:NEAREST]


def _measurements(
    ranked: Sequence[RankedCandidate],
    options: Sequence[ChoiceOption],
    limits: ChoiceLimits,
    best: int | None,
    device: str,
) -> list[NextMeasurement]:
    """What decides between the best candidate and its neighbours, most first."""
    results = []
    limit = limits.costs[0]
    if limit is not None:
        chances = {
            i: choice.probability(cost, limit)
            for i, option in enumerate(options)
            if ranked[i].contender
            and (cost := option.costs[0]) is not None
            and (best is None or option.accuracy.value > options[best].accuracy.value)
            # Otherwise its latency decides nothing.
            and choice.fits(option, ChoiceLimits((limit, None, None))) == "maybe"
            and choice.fits(option, ChoiceLimits((None, *limits.costs[1:]), limits.accuracy))
            != "no"
        }
        likely = [i for i in sorted(chances, key=lambda i: -chances[i]) if chances[i] >= UNLIKELY]
        for index in likely[:MEASUREMENTS]:
            candidate = ranked[index].candidate
            results.append(
                NextMeasurement(
                    "latency",
                    candidate.model,
                    candidate.recipe,
                    f"it is within {units.duration(limit)} with a probability of "
                    f"{units.percent(chances[index], 0)}",
                    _timing(candidate, device),
                )
            )
    for index, one in enumerate(ranked):
        better = best is None or options[index].accuracy.value > options[best].accuracy.value
        rest = ChoiceLimits((limit, None, None), limits.accuracy)
        if one.fits == "maybe" and better and choice.fits(options[index], rest) == "yes":
            why = "its size is estimated, and close to the budget"
            make = one.candidate.random_command or one.candidate.command
            name, recipe = one.candidate.model, one.candidate.recipe
            results.insert(0, NextMeasurement("size", name, recipe, why, make))
            break
    if best is not None and ranked[best].candidate.loss_unknown:
        candidate = ranked[best].candidate
        lossless = [
            one.candidate for one in ranked if one.contender and not one.candidate.loss_unknown
        ]
        beside = (
            f"; {lossless[0].model} {lossless[0].recipe} has "
            f"{units.percent(lossless[0].accuracy.value)} without such a loss"
            if lossless
            else ""
        )
        results.insert(
            1,
            NextMeasurement(
                "accuracy",
                candidate.model,
                candidate.recipe,
                f"what its integers lose is not known{beside}",
                f"{candidate.command} && mobiledeploy evaluate",
            ),
        )
    return results[:MEASUREMENTS]


def _timing(candidate: Candidate, device: str) -> str:
    """The commands that time a candidate; random weights take as long as others."""
    bench = (
        f"--device {device}"
        if device == "host" or ":" in device
        else f"--device {device} --via adb"
    )
    if candidate.path:
        return f"mobiledeploy bench {shlex.quote(candidate.path)} {bench}"
    return f"{candidate.random_command or candidate.command} && mobiledeploy bench {bench}"


def _warnings(groups: Sequence[ChoiceGroup]) -> list[NamedWarning]:
    warnings = []
    for group in groups:
        shown = [one.candidate for one in group.candidates if one.contender]
        kinds = sorted({c.latency_ns.kind for c in shown if c.latency_ns is not None})
        if len(kinds) > 1:
            warnings.append(
                NamedWarning(
                    "several-kinds",
                    f"latencies of candidates on {group.judged_on} are {' and '.join(kinds)}",
                    "time the candidates to compare them",
                )
            )
    return warnings
