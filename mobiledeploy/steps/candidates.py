"""What `choose` chooses from: published networks, trainings of this folder, and its store.

Each figure of a candidate says what it is. Nothing is built, and TensorFlow is not needed.
"""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mobiledeploy.analysis import choice
from mobiledeploy.core import artifacts, cards, device_cards, metric_columns, runs, units
from mobiledeploy.core.device_cards import DeviceCard, Precision, Workload
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import DEVICES, RECIPE_ALIASES, RECIPES
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Artifact, Measured, Recipe, Result, Run
from mobiledeploy.steps import (
    bench_figures,
    bundle_commands,
    card_specs,
    defaults,
    estimate,
    network_counts,
    published,
    resolve,
)
from mobiledeploy.steps.estimate import FittedSeries, SeriesFit, TooWide
from mobiledeploy.steps.network_counts import NetworkCounts
from mobiledeploy.steps.published import Published
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store

FigureKind = Literal[
    "published", "judged", "estimated", "counted", "measured", "recorded", "file size"
]
IMAGENET = "ImageNet, published"
"""What published accuracies were judged on."""
SIZE_REACH = (0.97, 1.06)
"""The size of a file over its estimate; tests/steps/test_network_counts.py holds it."""


@dataclass(frozen=True)
class ChoiceFigure(Record):
    """A figure of a candidate, its 95 % interval, what kind it is, and where it comes from.

    A figure without an interval, such as a published one, has `low` and `high` equal to `value`.
    """

    value: float
    low: float
    high: float
    kind: FigureKind
    about: str

    @property
    def bounded(self) -> choice.Bounded:
        """The numbers alone."""
        return choice.Bounded(self.value, self.low, self.high)


@dataclass(frozen=True)
class Candidate(Record):
    """A network and a recipe that can be chosen.

    `artifact_sha256` and `path` are of its file, "" if it is not exported. `judged_on` are the
    images of its accuracy. `loss_unknown` says that the accuracy is that of the float network, and
    that nobody judged what the integers lose. `latency_ns`, `size_bytes` and `memory_bytes` are
    None if they are not known. `command` makes the file, `random_command` one of the same network
    with random weights, which is enough to time it ("" for a file that is there). `metric` is the
    title of what `accuracy` is.
    """

    model: str
    card: str
    recipe: str
    format: str
    artifact_sha256: str
    path: str
    judged_on: str
    accuracy: ChoiceFigure
    loss_unknown: bool
    latency_ns: ChoiceFigure | None
    size_bytes: ChoiceFigure | None
    memory_bytes: ChoiceFigure | None
    instructions: ChoiceFigure | None
    weights_sha256: str
    command: str
    random_command: str
    metric: str = metric_columns.TOP1.title

    @property
    def judged_by(self) -> tuple[str, str]:
        """The metric of the accuracy and its images, for people."""
        return self.metric, self.judged_on.removesuffix(f", {self.metric}")


@dataclass(frozen=True)
class LeftOut(Record):
    """Networks that could not be candidates, and the reason; `count` is how many there are."""

    what: str
    why: str
    count: int


@dataclass(frozen=True)
class CandidateFilter:
    """The candidates that are asked for; None and () stand for all, `recipes` for the usual ones.

    `threads`, `runtime` and `delegate` are those of latencies, None for those of the device.
    `top1_only` leaves out files that another metric judged.
    """

    archs: tuple[str, ...]
    recipes: tuple[str, ...]
    format: str
    threads: int | None
    runtime: str | None
    delegate: str | None
    top1_only: bool


class Candidates:
    """Collects candidates for a device; `left_out` says what is missing, and why.

    Args:
        device: a device card's name or its beginning, or host, adb:SERIAL or ssh:HOST; "" for
            candidates without latencies.
        wanted: which candidates.
        reporter: is told of progress.

    Raises:
        UsageError: there is no such device, recipe or card, or the device gives no times.
    """

    def __init__(self, device: str, wanted: CandidateFilter, reporter: Reporter) -> None:
        self._wanted = wanted
        self._reporter = reporter
        self._left_out: Counter[tuple[str, str]] = Counter()
        plugin = device.partition(":")[0]
        self._card: DeviceCard | None = None
        self.device, self.title = device, device
        self.threads: int | None = None
        self._series: dict[Precision, SeriesFit | DeployError] = {}
        self._fitted: dict[tuple[Precision, bool], FittedSeries] = {}
        self._works: dict[tuple[object, ...], Workload] = {}
        if plugin in DEVICES.names():
            if DEVICES.load(plugin).KIND != "measured":
                raise UsageError(
                    f"{device} gives no latency to choose by",
                    "take a phone's model, host, adb:SERIAL, or ssh:HOST",
                )
            self.threads = wanted.threads or 1
        elif device:
            card = device_cards.matching(device) or device_cards.load(device)
            self._card = card
            self.device, self.title = card.name, card.title
            # The usual threads are those of most points.
            self.threads = wanted.threads or _threads(card, wanted)
        available = cards.names()
        for arch in wanted.archs:
            if arch not in available:
                cards.load(arch)
        names = [RECIPE_ALIASES.get(name, name) for name in wanted.recipes]
        self._recipes = [RECIPES.load(name).RECIPE for name in names] or [
            module.RECIPE for _, module in RECIPES.each() if wanted.format in module.RECIPE.plain
        ]
        self._counts = network_counts.load()
        self._load = functools.cache(cards.load)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What could not be a candidate, most first."""
        return tuple(
            LeftOut(what, why, count) for (what, why), count in self._left_out.most_common()
        )

    # Published networks, which anybody can train.

    def published(self) -> Iterator[Candidate]:
        """Each published network by each recipe, with the highest top-1 of its float file."""
        best: dict[str, Published] = {}
        for row in published.grids():
            if not (row.card and row.top1 and row.variant == "float" and self._has_arch(row.card)):
                continue
            spec = card_specs.spec(
                self._load(row.card),
                alpha=row.alpha,
                groups=row.groups,
                res=row.resolution,
                classes=network_counts.CLASSES,
            )
            if spec.name not in best or row.top1 > (best[spec.name].top1 or 0):
                best[spec.name] = row
        for name, row in best.items():
            counts = self._counts.get(name)
            if counts is None:
                self._left_out[name, "its layers are not counted in models/counts.csv"] += 1
                continue
            top1 = row.top1 or 0.0
            accuracy = ChoiceFigure(top1, top1, top1, "published", row.source)
            random = f"mobiledeploy export {published.network_options(row)} --weights random"
            for recipe in self._recipes:
                yield from self._of_counts(
                    name,
                    row.card,
                    counts,
                    recipe,
                    accuracy,
                    IMAGENET,
                    published.command(row, self._load(row.card)),
                    random,
                )

    def runs(self, exported: Collection[tuple[str, str]]) -> Iterator[Candidate]:
        """The trainings in `runs`, by each recipe that is not among `exported`.

        `exported` are (sha256 of the weights, recipe).
        """
        for path in sorted(Path(defaults.RUNS).glob(f"*/{runs.RECORD}")):
            try:
                run = runs.read(path)
            except InputError as error:
                self._left_out[str(path), error.message] += 1
                continue
            if run.top1 is None or run.spec.card is None or not self._has_arch(run.spec.card):
                continue
            counts = self._counts.get(run.spec.name)
            counts = None if counts is None else counts.with_classes(run.spec.classes)
            if counts is None:
                why = f"its layers are not counted here; mobiledeploy export {path.parent}"
                self._left_out[str(path.parent), why] += 1
                continue
            name = units.network(run.spec.name, path.parent.name, run.spec.weights.sha256)
            for recipe in self._recipes:
                if (run.spec.weights.sha256, recipe.name) not in exported:
                    yield from self._of_counts(
                        name,
                        run.spec.card,
                        counts,
                        recipe,
                        _of_run(run),
                        units.images(run.data.source, run.data.split, run.data.identity),
                        f"mobiledeploy export {shlex.quote(str(path.parent))}",
                        f"mobiledeploy export {shlex.quote(str(path.parent))}",
                        run.spec.weights.sha256,
                    )

    def _of_counts(
        self,
        name: str,
        card: str,
        counts: NetworkCounts,
        recipe: Recipe,
        accuracy: ChoiceFigure,
        judged_on: str,
        command: str,
        random: str,
        weights_sha256: str = "",
    ) -> Iterator[Candidate]:
        """The candidate of a network that has no file; none if the recipe has no such format."""
        if self._wanted.format not in recipe.formats:
            self._left_out[recipe.name, f"it writes no {self._wanted.format}"] += 1
            return
        size = counts.size_bytes(recipe)
        memory = counts.memory_bytes(recipe)
        low, high = SIZE_REACH
        yield Candidate(
            model=name,
            card=card,
            recipe=recipe.name,
            format=self._wanted.format,
            artifact_sha256="",
            path="",
            judged_on=judged_on,
            accuracy=accuracy,
            loss_unknown=recipe.weight_bits < 16,
            latency_ns=self._estimate(name, counts, recipe),
            size_bytes=ChoiceFigure(
                size, size * low, size * high, "estimated", "counted parameters"
            ),
            memory_bytes=ChoiceFigure(
                memory, memory, memory, "estimated", "weights and activations, without the runtime"
            ),
            instructions=None,
            weights_sha256=weights_sha256,
            command=_with_recipe(command, recipe.name, self._wanted.format),
            random_command=_with_recipe(random, recipe.name, self._wanted.format),
        )

    def _estimate(self, name: str, counts: NetworkCounts, recipe: Recipe) -> ChoiceFigure | None:
        if not self.device:
            return None
        if self._card is None:
            why = f"{self.device} has no card to estimate from; only timed files have a latency"
            self._left_out["networks without a file", why] += 1
            return None
        precision = computed_in(recipe)
        if precision is None:
            why = "points are of float32 or int8 throughout; its latency can only be measured"
            self._left_out[recipe.name, why] += 1
            return None
        try:
            series = self._of_series(precision, counts.work.family)
            latency_ns, interval_ns = series.latency(counts.work, name)
        except TooWide:
            why = f"the points of {self.device} say too little about them; {estimate.CALIBRATE}"
            self._left_out[f"{precision} networks", why] += 1
            return None
        except DeployError as error:
            self._left_out[f"{precision} networks", error.message] += 1
            return None
        about = f"card {self.device}, {series.choice.what}"
        return ChoiceFigure(latency_ns, *interval_ns, "estimated", about)

    def _of_series(self, precision: Precision, family: str) -> FittedSeries:
        """The card's model for a family; a refusal is remembered as well."""
        assert self._card is not None
        if precision not in self._series:
            try:
                self._series[precision] = estimate.choose(
                    self._card,
                    precision,
                    self._wanted.format,
                    runtime=self._wanted.runtime,
                    threads=self.threads,
                    delegate=self._wanted.delegate,
                )
            except DeployError as error:
                self._series[precision] = error
        series = self._series[precision]
        if isinstance(series, DeployError):
            raise series
        # The errors depend on the family by this alone.
        key = precision, family in series.families
        if key not in self._fitted:
            self._fitted[key] = estimate.fitted(series, family)
        return self._fitted[key]

    # Files of this folder's store.

    def exported(self) -> list[Candidate]:
        """The evaluated files of the store, each with its newest latency on the device."""
        if not store.path().exists():
            return []
        with Store.open() as database:
            rows = [*database.results(newest=True), *database.unmeasured()]
            places = database.places()
            artifacts_ = database.artifacts()
            measured_here = {r.id for r in rows if r.id and self._is_here(database, r)}
        files = _files(places)
        by_artifact: dict[str, list[Result]] = {}
        for row in rows:
            by_artifact.setdefault(row.artifact_sha256, []).append(row)
        results = []
        for number, (sha256, own) in enumerate(by_artifact.items()):
            self._reporter.progress("candidates", number, len(by_artifact))
            artifact = artifacts_.get(sha256)
            if artifact is None or not self._wants(artifact):
                continue
            name = units.network(own[0].model, own[0].weights, own[0].weights_sha256)
            if own[0].value is None:
                self._left_out[name, "it was not evaluated"] += 1
                continue
            metric = metric_columns.of(own[0])
            if not metric.higher_is_better:
                self._left_out[name, "of its metric, less is better"] += 1
                continue
            if self._wanted.top1_only and metric != metric_columns.TOP1:
                self._left_out[name, f"its metric is {metric.title}, not top-1"] += 1
                continue
            results.append(self._of_artifact(artifact, own, files.get(sha256, ""), measured_here))
        self._reporter.progress("candidates", len(by_artifact), len(by_artifact))
        return results

    def _of_artifact(
        self, artifact: Artifact, rows: Sequence[Result], path: str, measured_here: Collection[int]
    ) -> Candidate:
        row = rows[0]
        name = units.network(row.model, row.weights, row.weights_sha256)
        size = float(artifact.size_bytes)
        counted = next((r for r in rows if r.kind == "counted" and r.instructions), None)
        return Candidate(
            model=name,
            card=artifact.spec.card or "",
            recipe=artifact.recipe.name,
            format=artifact.format,
            artifact_sha256=artifact.sha256,
            path=path,
            judged_on=metric_columns.judged_on(row),
            accuracy=_judged(row),
            loss_unknown=False,
            latency_ns=self._latency(artifact, rows, path, measured_here),
            size_bytes=ChoiceFigure(size, size, size, "file size", "its file"),
            memory_bytes=self._memory(artifact),
            instructions=None
            if counted is None
            else ChoiceFigure(
                *(float(counted.instructions or 0),) * 3,
                "counted",
                f"{counted.device}, {counted.runtime} {counted.runtime_version}",
            ),
            weights_sha256=artifact.spec.weights.sha256,
            command=_export_command(artifact),
            random_command="",
            metric=metric_columns.of(row).title,
        )

    def _latency(
        self, artifact: Artifact, rows: Sequence[Result], path: str, measured_here: Collection[int]
    ) -> ChoiceFigure | None:
        """A timing, else an estimate of the store, else one that is made now."""
        if not self.device:
            return None
        here = [r for r in rows if r.id in measured_here] or [
            r for r in rows if r.kind == "estimated" and r.device == self.device and self._fits(r)
        ]
        if (
            not here
            and path
            and self._card is not None
            and self._may_estimate(artifact, rows, path)
        ):
            with suppress(DeployError):
                bench_figures.estimate_figures(
                    [Path(path)],
                    self._card,
                    threads=self.threads,
                    runtime=self._wanted.runtime,
                    delegate=self._wanted.delegate,
                    reporter=self._reporter,
                )
                with Store.open() as database:
                    where = {"artifact": artifact.sha256, "kind": "estimated"}
                    here = [
                        r
                        for r in database.results({**where, "device": self.device}, newest=True)
                        if self._fits(r)
                    ]
        if not here or not here[0].latency_ns:
            what = f"{artifact.recipe.name}.{artifact.format}"
            self._left_out[what, f"no latency of it on {self.device}, with these threads"] += 1
            return None
        newest = here[0]
        low, high = newest.latency_interval_ns or (newest.latency_ns,) * 2
        kind: FigureKind = "recorded" if newest.recorded else "measured"
        return ChoiceFigure(
            newest.latency_ns or 0.0,
            low or 0.0,
            high or 0.0,
            "estimated" if newest.kind == "estimated" else kind,
            f"{newest.device}, {newest.runtime} {newest.runtime_version}".strip(),
        )

    def _may_estimate(self, artifact: Artifact, rows: Sequence[Result], path: str) -> bool:
        """Whether an estimate may succeed: each one reads all cards again, also to be refused.

        The files of a network are the same work in all recipes, so one of them is read.
        """
        precision = computed_in(artifact.recipe)
        if precision is None:
            return False
        if any(r.kind == "counted" for r in rows):
            # What was counted makes it narrower.
            return True
        try:
            family = artifact.spec.card or artifact.spec.name
            series = self._of_series(precision, family)
            network = artifact.spec.name, artifact.spec.weights.sha256, artifact.output
            key = *network, artifact.shrunk_layers
            if key not in self._works:
                self._works[key] = estimate.read(Path(path), family)[1]
            series.latency(self._works[key], path)
        except DeployError:
            return False
        return True

    def _fits(self, r: Result) -> bool:
        delegates = (self._wanted.delegate,) if self._wanted.delegate else estimate.ON_CPU
        return (
            r.threads == self.threads
            and self._wanted.runtime in (None, r.runtime)
            and r.delegate in delegates
        )

    def _is_here(self, database: Store, r: Result) -> bool:
        """Whether a figure is a timing on this device: by its name, or by the phone's own model."""
        if r.kind != "measured" or not self._fits(r):
            return False
        if r.device == self.device:
            return True
        if self._card is None or r.id is None or not resolve.is_remote(r.device):
            return False
        figure = database.measurement_by_id(r.id)
        assert isinstance(figure, Measured)
        return figure.facts_before.get("model") in self._card.models

    def _memory(self, artifact: Artifact) -> ChoiceFigure | None:
        counts = self._counts.get(artifact.spec.name)
        if counts is None:
            return None
        bits = 8 if artifact.recipe.activation_bits == 8 else 32
        need = float(artifact.size_bytes + counts.peak_activations * bits // 8)
        return ChoiceFigure(
            need, need, need, "estimated", "its file and activations, without the runtime"
        )

    def _wants(self, artifact: Artifact) -> bool:
        names = [RECIPE_ALIASES.get(name, name) for name in self._wanted.recipes]
        return (
            artifact.format == self._wanted.format
            and (not names or artifact.recipe.name in names)
            and self._has_arch(artifact.spec.card or artifact.spec.name)
        )

    def _has_arch(self, card: str) -> bool:
        return not self._wanted.archs or card in self._wanted.archs


def _threads(card: DeviceCard, wanted: CandidateFilter) -> int:
    """The threads of the most points of a card that fit; the fewest of equals."""
    points: Counter[int] = Counter()
    for series in card.series:
        delegates = (wanted.delegate,) if wanted.delegate else estimate.ON_CPU
        if series.delegate in delegates and wanted.runtime in (None, series.runtime):
            points[series.threads] += len(series.points)
    return min(points, key=lambda threads: (-points[threads], threads), default=1)


def computed_in(recipe: Recipe) -> Precision | None:
    """The precision that a file of this recipe computes in throughout, None for a mixture."""
    if recipe.weight_bits == recipe.activation_bits == 8:
        return "int8"
    return "float32" if recipe.weight_bits >= 16 and recipe.activation_bits == 32 else None


def _of_run(run: Run) -> ChoiceFigure:
    top1 = run.top1 or 0.0
    low, high = choice.share_interval(top1, max(1, run.validation_images))
    about = f"{run.validation_images} validation images"
    return ChoiceFigure(top1, low, high, "judged", about)


def _judged(row: Result) -> ChoiceFigure:
    value = row.value or 0.0
    is_share = metric_columns.of(row) == metric_columns.TOP1
    low, high = choice.share_interval(value, row.images) if is_share else (value, value)
    return ChoiceFigure(value, low, high, "judged", f"{row.images} images")


def _files(places: Sequence[str]) -> dict[str, str]:
    """sha256 -> path of the exported files that still exist."""
    by_sha256: dict[str, str] = {}
    for place in places:
        with suppress(DeployError):
            if Path(place).is_file():
                by_sha256.setdefault(artifacts.load(Path(place)).sha256, place)
    return by_sha256


def _with_recipe(command: str, recipe: str, format_: str) -> str:
    """The export of a network by a recipe; a training comes before it where nothing is trained."""
    options = f"--recipe {recipe} --format {format_}"
    if command.startswith("mobiledeploy train "):
        return f"{command} --out RUN && mobiledeploy export RUN {options}"
    return f"{command} {options}"


def _export_command(artifact: Artifact) -> str:
    """The export that makes an artifact again."""
    made = artifact.arguments
    # A file or a folder of `train`: the name of its weights alone would find neither.
    if made is not None and made.model is not None:
        one = replace(made, recipes=(artifact.recipe.name,), formats=(artifact.format,))
        return bundle_commands.line(replace(artifact, arguments=one))
    spec, options = artifact.spec, [f"--recipe {artifact.recipe.name}"]
    options.append(f"--format {artifact.format}")
    if spec.card is None:
        return " ".join(("mobiledeploy export", shlex.quote(spec.weights.source), *options))
    network = [f"--arch {spec.card}"]
    network += [
        f"--{name} {spec.arguments[name]:g}"
        for name in ("alpha", "groups")
        if name in spec.arguments
    ]
    network.append(f"--res {spec.resolution[0]}")
    if spec.weights.source:
        network.append(f"--weights {shlex.quote(spec.weights.source)}")
    if artifact.data.source:
        network.append(f"--data {shlex.quote(artifact.data.source)}")
    return " ".join(("mobiledeploy export", *network, *options))
