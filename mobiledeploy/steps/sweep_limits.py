"""What a sweep drops: networks before their export, and timings, that cannot come onto a front.

Only whole intervals drop anything. They are widened for all comparisons of the grid (Bonferroni),
so that with 95 % nothing is dropped wrongly. The accuracy of a network without files has no bound:
that more filters or more pixels never cost accuracy is no rule. So such a network is dropped by a
limit of latency or size alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import choice, pareto
from mobiledeploy.analysis.choice import Bounded
from mobiledeploy.core import records, units
from mobiledeploy.core.device_cards import Precision, Workload
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import DeployError, UsageError
from mobiledeploy.core.plugins import RECIPES, RUNTIMES
from mobiledeploy.core.types import Answers, Artifact, Result
from mobiledeploy.steps import baseline, candidates, estimate, network_counts, resolve, runtimes
from mobiledeploy.steps.estimate import FittedSeries, SeriesFit
from mobiledeploy.steps.export_plan import ExportPlan
from mobiledeploy.steps.sweep_job import SweepJob
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store

# A figure that nobody knows.
UNKNOWN = Bounded(0.0, 0.0, math.inf)
_ANY_ACCURACY = Bounded(0.5, 0.0, 1.0)
# The probability that something is dropped wrongly.
_LEVEL = 1 - choice.CONFIDENCE
_OUTCOME = "dropped"

Limited = Literal["latency", "size", "front"]


@dataclass(frozen=True)
class SweepLimits:
    """The limits of a sweep, None for none; with `keep_front`, dominated files are not timed."""

    latency_ns: float | None = None
    size_bytes: int | None = None
    keep_front: bool = False

    @property
    def drops(self) -> bool:
        """Whether anything may be dropped."""
        return self != NO_LIMITS

    @property
    def need_latency(self) -> bool:
        """Whether a latency may drop anything."""
        return self.keep_front or self.latency_ns is not None

    def too_large(self, size_bytes: int | None) -> bool:
        """Whether a file of this size is over the limit."""
        return self.size_bytes is not None and (size_bytes or 0) > self.size_bytes

    def too_slow(self, interval_ns: tuple[float, float] | None) -> bool:
        """Whether a whole interval is over the limit."""
        return bool(self.latency_ns and interval_ns and interval_ns[0] > self.latency_ns)


NO_LIMITS = SweepLimits()


@dataclass(frozen=True)
class DroppedCell(Record):
    """What a sweep does not make or time, and why.

    `what` is a network of the grid, with `device` "", or a file that is not timed on `device`. `by`
    is what excludes it: the limit of latency or of size, or "front" for a file that is surely
    faster and more accurate; `excluded_by` is the sha256 of that file.
    """

    what: str
    device: str
    by: Limited
    why: str
    excluded_by: str = ""


@dataclass(frozen=True)
class TimedFile:
    """A file with a timing: its latency and which images it classified correctly."""

    name: str
    sha256: str
    latency_ns: Bounded
    answers: Answers


class KnownLatency:
    """Latencies on a device of a sweep that are known before they are figures.

    Of an absent device these are the estimates that become its figures. On a device that is there
    an estimate stands for a timing only if its points have the same runtime, version, threads and
    delegate: those of a card of the user's own.
    """

    def __init__(self, device: str) -> None:
        self.card = resolve.stand_in(device)
        self.is_estimated = self.card is not None
        self.name = device if self.card is None else self.card.name
        self._models: dict[tuple[Precision, str, str], FittedSeries | None] = {}
        if self.card is None:
            try:
                place = resolve.resolve(device)
            except DeployError:
                # Its figures will fail with the reason.
                return
            self.name, self.card = place.name, resolve.card_of(place)

    def of_network(
        self, precision: Precision | None, work: Workload, format_: str, name: str
    ) -> Bounded:
        """The latency of a network and its interval; `UNKNOWN` if the points do not tell it."""
        if self.card is None or precision is None:
            return UNKNOWN
        try:
            model = self._model(precision, format_, work.family)
            latency_ns, interval_ns = model.latency(work, name)
        except DeployError:
            return UNKNOWN
        return Bounded(latency_ns, *interval_ns)

    def of_file(self, path: Path, artifact: Artifact) -> Bounded:
        """The latency of a file from its own layers; `UNKNOWN` if the points do not tell it."""
        try:
            precision, work = estimate.read(path, artifact.spec.card or artifact.spec.name)
        except DeployError:
            return UNKNOWN
        return self.of_network(precision, work, artifact.format, path.name)

    def _model(self, precision: Precision, format_: str, family: str) -> FittedSeries:
        key = precision, format_, family
        if key not in self._models:
            # A refusal is remembered as well.
            self._models[key] = None
            self._models[key] = estimate.fitted(self._series(precision, format_), family)
        model = self._models[key]
        if model is None:
            raise UsageError(f"{self.name} has no such points")
        return model

    def _series(self, precision: Precision, format_: str) -> SeriesFit:
        assert self.card is not None
        if self.is_estimated:
            return estimate.choose(self.card, precision, format_)
        for one in estimate.choices(self.card):
            s = one.series
            own = s.runtime, s.version, s.threads, s.delegate
            if one.enough and s.precision == precision and own == _timing(format_):
                return one
        raise UsageError(f"{self.card.name} has no points like a timing of {format_}")


def _timing(format_: str) -> tuple[str, str, int, str]:
    """The runtime, version, threads and delegate that a sweep times a format with."""
    runtime = runtimes.of_format(format_)[0]
    return runtime, runtimes.runtime_version(runtime), 1, RUNTIMES.load(runtime).DELEGATES[0]


class SweepSieve:
    """Decides what a sweep drops.

    What was dropped stays so when the sweep is resumed, while the limits, the grid and the devices'
    cards are the same, and the file that excludes it stands.

    Args:
        limits: of the sweep.
        devices: of the sweep.
        files: how many files its grid has.
    """

    def __init__(self, limits: SweepLimits, devices: Sequence[str], files: int) -> None:
        self._limits = limits
        self._devices = {device: KnownLatency(device) for device in devices if limits.drops}
        # Half of what may go wrong is for latencies, estimated and timed, half for pairs of files.
        self._intervals = 4 * max(1, files) * max(1, len(devices))
        self._pairs = max(1, files * (files - 1))
        self._counts = network_counts.load() if limits.drops else {}
        self._keys: dict[DroppedCell, str] = {}
        self._uncounted: set[str] = set()
        self._known_answers: dict[str, Answers | None] = {}

    def network(self, job: SweepJob, planned: ExportPlan) -> DroppedCell | None:
        """The drop of a network without files: each of them is over a limit on every device."""
        if self._limits.latency_ns is None and self._limits.size_bytes is None:
            return None
        # The number of workers is not of the grid.
        key = self._key(records.line(replace(job, workers=0)), planned.key, planned.jobs)
        earlier = self._earlier(key, str(job), "")
        return earlier or self._new(key, self._over_everywhere(job, planned))

    def timing(
        self, path: Path, artifact: Artifact, device: str, shas: Collection[str]
    ) -> DroppedCell | None:
        """The drop of a timing on a device; `shas` are the files of the grid.

        An estimate takes no time and is never dropped.
        """
        known = self._devices.get(device)
        if known is None or known.is_estimated:
            return None
        timed = self._timed(shas, known.name) if self._limits.keep_front else []
        key = self._key(artifact.sha256, device)
        earlier = self._earlier(key, str(path), known.name, {one.sha256 for one in timed})
        return earlier or self._new(key, self._excluded(path, artifact, known, timed))

    def expected_ns(self, path: Path, artifact: Artifact, device: str) -> float:
        """The latency that a timing will have, 0 if it is not known or none is taken."""
        known = self._devices.get(device)
        if known is None or known.is_estimated or not self._limits.keep_front:
            return 0.0
        return known.of_file(path, artifact).value

    def gaps(self) -> Iterator[str]:
        """What the sweep cannot drop, for people."""
        for known in self._devices.values():
            if known.is_estimated and self._limits.keep_front:
                yield (
                    f"{known.name} is estimated, which takes no time: --keep-front drops nothing "
                    "there"
                )
            if known.card is None and self._limits.need_latency:
                yield (
                    f"latencies on {known.name} are not known before they are measured; a card of "
                    f"mobiledeploy devices calibrate NAME --device {known.name} tells them"
                )
        if self._uncounted:
            yield (
                f"{units.several(len(self._uncounted), 'network')} cannot be judged before the "
                f"export: models/counts.csv does not have {sorted(self._uncounted)[0]}"
            )

    def keep(self, dropped: DroppedCell) -> None:
        """Stores a drop for when the sweep is resumed."""
        key = self._keys.pop(dropped, None)
        if key is not None:
            with Store.open() as database:
                where = f"{dropped.what} on {dropped.device}" if dropped.device else dropped.what
                outcome = f"{_OUTCOME} {dropped.by} {dropped.excluded_by}".strip()
                database.add_job(key, where, outcome, dropped.why)

    def _over_everywhere(self, job: SweepJob, planned: ExportPlan) -> DroppedCell | None:
        """The drop for the file that is over a limit by least; None if one may be within all."""
        spec = planned.source.spec
        counts = self._counts.get(spec.name)
        counts = None if counts is None else counts.with_classes(spec.classes)
        if counts is None:
            self._uncounted.add(spec.name)
            return None
        over: list[tuple[float, DroppedCell]] = []
        for name, format_ in planned.jobs:
            recipe = RECIPES.load(name).RECIPE
            about = float(counts.size_bytes(recipe))
            low, high = candidates.SIZE_REACH
            # The counts give the sizes of TFLite files alone.
            size = Bounded(about, about * low, about * high) if format_ == "tflite" else UNKNOWN
            latencies = {"": UNKNOWN}
            if self._limits.latency_ns is not None:
                precision = candidates.computed_in(recipe)
                latencies = {
                    known.name: known.of_network(precision, counts.work, format_, spec.name)
                    for known in self._devices.values()
                }
            for device, latency in latencies.items():
                one = self._over(str(job), f"{name}.{format_}", device, latency, size)
                if one is None:
                    return None
                over.append(one)
        nearest = min(over, key=lambda one: one[0], default=None)
        return None if nearest is None else replace(nearest[1], device="")

    def _timed(self, shas: Collection[str], device: str) -> list[TimedFile]:
        """Files with a timing like the sweep's, within the limit of size."""
        with Store.open() as database:
            rows = database.results({"device": device, "kind": "measured"}, newest=True)
        files = []
        for r in rows:
            is_own = r.artifact_sha256 in shas and _is_like_ours(r)
            if not is_own or self._limits.too_large(r.size_bytes):
                continue
            answers = self._answers(r.artifact_sha256)
            if answers is not None and r.latency_ns and r.latency_interval_ns:
                network = units.network(r.model, r.weights, r.weights_sha256)
                title = f"{network} {r.recipe}.{units.format_name(r.format, r.io)}"
                latency = Bounded(r.latency_ns, *r.latency_interval_ns)
                files.append(TimedFile(title, r.artifact_sha256, latency, answers))
        return files

    def _answers(self, sha256: str) -> Answers | None:
        if sha256 not in self._known_answers:
            with Store.open() as database:
                evaluation = database.judgement(sha256)
            answers = None if evaluation is None else baseline.image_answers(evaluation)
            self._known_answers[sha256] = answers
        return self._known_answers[sha256]

    def _excluded(
        self, path: Path, artifact: Artifact, known: KnownLatency, timed: Sequence[TimedFile]
    ) -> DroppedCell | None:
        latency = known.of_file(path, artifact) if self._limits.need_latency else UNKNOWN
        size = Bounded(*(float(artifact.size_bytes),) * 3)
        over = self._over(str(path), path.name, known.name, latency, size)
        if over is not None:
            return over[1]
        if not self._limits.keep_front or latency == UNKNOWN:
            return None
        return self._dominated(path, artifact, known.name, latency, timed)

    def _dominated(
        self,
        path: Path,
        artifact: Artifact,
        device: str,
        latency: Bounded,
        timed: Sequence[TimedFile],
    ) -> DroppedCell | None:
        own = self._answers(artifact.sha256)
        wide = self._widened(latency)
        for rival in timed:
            theirs = self._widened(rival.latency_ns)
            if own is None or theirs.high > wide.low:
                continue
            gain = pareto.gain(rival.answers, own, 1 - _LEVEL / self._pairs)
            if gain is not None and gain.low > 0:
                why = (
                    f"{rival.name} is faster, {units.duration(theirs.value)} instead of "
                    f"{units.duration(wide.low)} or more, and more accurate by "
                    f"{100 * gain.low:.1f} points of top-1 or more"
                )
                return DroppedCell(str(path), device, "front", why, rival.sha256)
        return None

    def _over(
        self, what: str, file: str, device: str, latency: Bounded, size: Bounded
    ) -> tuple[float, DroppedCell] | None:
        """By how much a file is surely over a limit, and its drop; None if it may be within all."""
        latency, size = self._widened(latency), self._widened(size)
        limit = self._limits.size_bytes
        if limit is not None and size.low > limit:
            words = [units.size(round(x)) for x in (size.value, size.low, size.high)]
            why = f"{file} has {_interval(words)}, over {units.size(limit)}"
            return size.low / limit, DroppedCell(what, device, "size", why)
        limit_ns = self._limits.latency_ns
        if limit_ns is not None and latency.low > limit_ns:
            words = [units.duration(x) for x in (latency.value, latency.low, latency.high)]
            why = f"{file} takes an estimated {_interval(words)} on {device}"
            why += f", over {units.duration(limit_ns)}"
            return latency.low / limit_ns, DroppedCell(what, device, "latency", why)
        return None

    def _widened(self, cost: Bounded) -> Bounded:
        option = choice.ChoiceOption(_ANY_ACCURACY, (cost,))
        (wide,) = choice.widened(option, self._intervals).costs
        assert wide is not None
        return wide

    def _key(self, *cell: object) -> str:
        """Of a cell of this grid, with all that decides whether it is dropped."""
        cards = [one.card and records.line(one.card) for one in self._devices.values()]
        facts = [cell, [*self._devices], cards, records.line(self._limits), self._intervals]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _earlier(
        self, key: str, what: str, device: str, timed: Collection[str] = ()
    ) -> DroppedCell | None:
        """The drop of an earlier sweep, unless the file that excluded it has no timing now."""
        if not store.path().exists():
            return None
        with Store.open() as database:
            outcome, why = database.job(key) or ("", "")
        word, by, excluded_by = (*outcome.split(" "), "", "")[:3]
        if word != _OUTCOME or (excluded_by and excluded_by not in timed):
            return None
        limited: Limited = "latency" if by == "latency" else "size" if by == "size" else "front"
        return DroppedCell(what, device, limited, why, excluded_by)

    def _new(self, key: str, dropped: DroppedCell | None) -> DroppedCell | None:
        if dropped is not None:
            self._keys[dropped] = key
        return dropped


def _interval(words: Sequence[str]) -> str:
    value, low, high = words
    return value if low == high else f"{value} ({low} to {high})"


def _is_like_ours(r: Result) -> bool:
    """Whether a timing is one that the sweep would make."""
    runtime, version, threads, delegate = _timing(r.format)
    return (
        not r.recorded
        and (r.runtime, r.threads, r.delegate) == (runtime, threads, delegate)
        and (r.device != "host" or r.runtime_version == version)
    )
