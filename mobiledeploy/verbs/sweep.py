"""A grid of models, recipes and devices -> artifacts, accuracies, figures, and their fronts.

One job is one model with all its recipes, so that TensorFlow loads once. Jobs fan out; what they
made is written here, by one process, as each ends. Figures follow, each alone on its machine. What
stands already is not made again: a sweep that was killed is resumed by the same command.
"""

from __future__ import annotations

import base64
import functools
import itertools
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mobiledeploy.analysis import pareto
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import inputs, leases, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import DEVICES, EXECUTORS, RECIPES
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Answers, Artifact, Failed, Failure, Gain, Result
from mobiledeploy.steps import arguments, baseline, bench_figures, export_files, resolve, runtimes
from mobiledeploy.steps import sweep_job as jobs_
from mobiledeploy.steps.arguments import AnyPath, Names
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.sweep_job import JobResult, SweepJob
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import bench, export


@dataclass(frozen=True)
class SweepGrid(Record):
    """What is tried; None means the card's own. `devices` may be empty: nothing is timed then."""

    archs: tuple[str, ...]
    alphas: tuple[float, ...] | None = None
    groups: tuple[int, ...] | None = None
    resolutions: tuple[int, ...] | None = None
    recipes: tuple[str, ...] = ("float32", "int8_ptq")
    formats: tuple[str, ...] | None = None
    devices: tuple[str, ...] = ("host",)
    weights: str | None = None
    data: str | None = None
    out: Path = Path("build")


@dataclass(frozen=True)
class PlannedJob(Record):
    """A job: `state` is to do, standing, or impossible, for the reason in `why`."""

    what: str
    recipes: tuple[str, ...]
    state: str
    why: str = ""


@dataclass(frozen=True)
class ParetoFront(Record):
    """The artifacts that none beats in both cost and accuracy: of one kind of figure, a device.

    All were judged on the same `images`. Of one cost the most accurate comes first, and those
    that tie with it follow. `gains` are of each over the cheaper one before it, of those that
    follow over the one that they tie with; None for the first and where they cannot be compared.
    """

    kind: str
    device: str
    images: str
    results: tuple[Result, ...]
    gains: tuple[Gain | None, ...]


@dataclass(frozen=True)
class SweepResult(Record):
    """The answer of the command; `made` is the number of jobs of which there are files now."""

    jobs: tuple[PlannedJob, ...]
    made: int
    failed: tuple[Failed, ...]
    fronts: tuple[ParetoFront, ...]

    def tables(self) -> tuple[Table, ...]:
        """A table for each front; of a plan, its jobs."""
        fronts = tuple(map(_front_table, filter(lambda front: front.results, self.fronts)))
        return fronts or (self.plan(),)

    def plan(self) -> Table:
        """A row for each job."""
        return Table(
            ("model", "recipes", "state", "why"),
            tuple((p.what, ",".join(p.recipes), p.state, units.one_line(p.why)) for p in self.jobs),
        )


def _front_table(front: ParetoFront) -> Table:
    where = f"{front.kind} on {front.device}" if front.device else front.kind
    return Table(
        ("model", "recipe", "top-1", "gain in top-1", "cost"),
        tuple(
            (
                units.network(r.model, r.weights, r.weights_sha256),
                f"{r.recipe}.{r.format}",
                units.percent(r.top1),
                "–" if g is None else units.gain(g.value, g.low, g.high, g.tie),
                units.size(r.size_bytes or 0)
                if front.kind == "size"
                else f"{r.instructions:,}"
                if r.latency_ns is None
                else units.duration(r.latency_ns),
            )
            for r, g in zip(front.results, front.gains, strict=True)
        ),
        f"Front of accuracy on {front.images} and {where}, cheapest first",
    )


def plan(
    grid: SweepGrid, workers: int, reporter: Reporter = SILENT
) -> list[tuple[SweepJob, PlannedJob]]:
    """Every job of the grid, and whether it is possible, and stands already.

    Raises:
        UsageError: the grid is empty or has an unknown recipe or device, or no cell is possible.
    """
    for name, values in (
        ("--arch", grid.archs),
        ("--recipe", grid.recipes),
        ("--alpha", grid.alphas),
        ("--groups", grid.groups),
        ("--res", grid.resolutions),
    ):
        if values is not None and not values:
            raise UsageError(f"the grid is empty: {name} names nothing")
    # Jobs work in another folder, and files are known by what their names say.
    grid = replace(
        grid,
        data=_placed(grid.data, ("demo",)),
        weights=_placed(grid.weights, ("demo", "imagenet", "random")),
    )
    for recipe in grid.recipes:
        RECIPES.load(recipe)
    for device in grid.devices:
        if device.partition(":")[0] not in DEVICES.names() and resolve.stand_in(device) is None:
            resolve.resolve(device)
    found = []
    cells = itertools.product(
        grid.archs, grid.alphas or (None,), grid.groups or (None,), grid.resolutions or (None,)
    )
    for number, (arch, alpha, groups, res) in enumerate(cells):
        job = SweepJob(
            arch, alpha, groups, res, grid.recipes, grid.formats, grid.weights, grid.data, workers
        )
        found.append((job, _state(job, grid.out)))
        reporter.progress("planning", number + 1, number + 2)
    if all(planned.state == "impossible" for _, planned in found):
        raise UsageError(f"no cell of the grid is possible: {found[0][1].why}")
    return found


def sweep(
    *,
    arch: Names = "mobilenet_v1",
    alpha: float | Iterable[float] | None = None,
    groups: int | Iterable[int] | None = None,
    res: int | Iterable[int] | None = None,
    recipe: Names = ("float32", "int8_ptq"),
    format: Names | None = None,  # noqa: A002 - the option's name
    device: Names = "host",
    weights: AnyPath | None = None,
    data: AnyPath | None = None,
    out: AnyPath = "build",
    executor: str = "local",
    ray_address: str = "",
    jobs: int | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> SweepResult:
    """Exports, judges and times every model of a grid; finds what none beats.

    What stands is not made again: the same call goes on with a sweep that was interrupted.

    Example:
        >>> done = md.sweep(alpha=(0.25, 0.5), res=(128, 160))
        >>> [(r.model, r.top1) for r in done.fronts[0].results]

    Args:
        arch: one card or several.
        alpha: one width multiplier or several; by default the card's own.
        groups: groups of ShuffleNet's pointwise convolutions, one number or several; by default
            the card's own.
        res: one resolution in pixels or several; by default the card's own.
        recipe: what to make of each model.
        format: `tflite`, `onnx`, or both, which is the default.
        device: where figures are taken, as for `bench`; `()` for none.
        weights: `demo`, `imagenet` or `random`, as for `export`.
        data: images, as for `export`.
        out: the folder that the models' folders are made in.
        executor: where jobs run: `local` or `ray`.
        ray_address: HOST:PORT of a cluster of Ray; by default one is started.
        jobs: how many at once; each has its share of the cores. By default one for two cores.
        dry_run: plans the jobs, and does nothing.
        reporter: hears of progress, warnings and what failed; by default a `PythonReporter`.

    Returns:
        The jobs, and for each kind of figure and device the artifacts that none beats in both cost
        and accuracy.

    Raises:
        UsageError: the grid is empty or has an unknown recipe or device, or no cell is possible.
        DeviceError: the cluster cannot be reached.
    """
    reporter = reporter or PythonReporter()
    grid = SweepGrid(
        arguments.several(arch),
        None if alpha is None else arguments.several(alpha),
        None if groups is None else arguments.several(groups),
        None if res is None else arguments.several(res),
        arguments.several(recipe),
        None if format is None else arguments.several(format),
        arguments.several(device),
        arguments.text(weights),
        arguments.text(data),
        Path(out),
    )
    count = jobs or max(1, leases.cores() // 2)
    planned = plan(grid, count, reporter)
    if dry_run:
        return SweepResult(tuple(p for _, p in planned), 0, (), ())
    runs = EXECUTORS.load(executor)
    todo = [job for job, p in planned if p.state == "to do"]
    failed: list[Failed] = []
    for _, p in planned:
        if p.state == "impossible":
            reporter.say(f"left out: {p.what}: {p.why}")
    begun, made = time.monotonic(), 0
    standing: dict[str, str] = {}
    answers = runs.run(
        jobs_.work, [records.line(job) for job in todo], workers=count, address=ray_address
    )
    for done, (number, text) in enumerate(answers if todo else (), 1):
        artifacts, failures = _take(todo[number], text, grid.out)
        made += bool(artifacts)
        standing |= artifacts
        failed += failures
        for failure in failures:
            reporter.say(f"failed: {failure.what}: {failure.message}")
        left = (time.monotonic() - begun) / done * (len(todo) - done)
        reporter.progress("models", done, len(todo))
        reporter.say(f"{done} of {len(todo)} models: {todo[number]}; {_words(left)} left")
    # A job that could not make all of its files does not stand; those that it made count.
    standing |= _standing([job for job, p in planned if p.state != "impossible"], grid.out)
    failed += _figures(standing, grid.devices, reporter)
    return SweepResult(
        tuple(p for _, p in planned), made, tuple(failed), fronts(set(standing.values()))
    )


def fronts(artifacts: set[str]) -> tuple[ParetoFront, ...]:
    """The fronts of these artifacts (by sha256): for each kind of figure, device and data set."""
    with Store.open() as kept:
        rows = [r for r in kept.results(newest=True) if r.artifact_sha256 in artifacts]
        rows += [r for r in kept.unmeasured() if r.artifact_sha256 in artifacts]
    judged = [r for r in rows if r.top1 is not None]
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for r in judged:
        if r.kind:
            groups[r.kind, r.device, _images(r)].append(r)
    found = []
    for (kind, device, images), mine in sorted(groups.items()):
        costs = [float(r.latency_ns or r.instructions or 0) for r in mine]
        found.append(_front(kind, device, images, mine, costs))
    once = {r.artifact_sha256: r for r in judged}
    sizes: dict[str, list[Result]] = defaultdict(list)
    for r in sorted(once.values(), key=lambda r: r.artifact_sha256):
        sizes[_images(r)].append(r)
    for images, mine in sorted(sizes.items()):
        costs = [float(r.size_bytes or 0) for r in mine]
        found.append(_front("size", "", images, mine, costs))
    return tuple(found)


def _front(
    kind: str, device: str, images: str, results: Sequence[Result], costs: Sequence[float]
) -> ParetoFront:
    points = [(cost, r.top1 or 0.0) for cost, r in zip(costs, results, strict=True)]
    with Store.open() as kept:

        @functools.cache
        def answers(index: int) -> Answers | None:
            judged = kept.judgement(results[index].artifact_sha256)
            return None if judged is None else baseline.image_answers(judged)

        best = pareto.front(points, answers)
        gains = pareto.gains([answers(i) for i in best], [costs[i] for i in best])
    return ParetoFront(kind, device, images, tuple(results[i] for i in best), gains)


def _images(r: Result) -> str:
    return units.images(r.data_source, r.data_split, r.data_identity)


def _placed(name: str | None, words: tuple[str, ...]) -> str | None:
    """A file's name that means the same in every folder; words stay what they are."""
    return name if name is None or name in words else str(Path(name).resolve())


def _state(job: SweepJob, out: Path) -> PlannedJob:
    try:
        _, found = export_files.standing(job.config(out))
    except DeployError as error:
        return PlannedJob(str(job), job.recipes, "impossible", str(error))
    if found is None or not _judged(found):
        return PlannedJob(str(job), job.recipes, "to do")
    return PlannedJob(str(job), job.recipes, "standing")


def _judged(found: dict[str, Artifact]) -> bool:
    if not store.path().exists():
        return False
    with Store.open() as kept:
        return all(
            kept.evaluation(
                a.sha256,
                a.data,
                a.spec.preprocessing,
                target,
                runtimes.runtime_version(target.runtime),
            )
            for a in found.values()
            for target in (runtimes.target(a),)
        )


def _take(job: SweepJob, text: str, out: Path) -> tuple[dict[str, str], list[Failed]]:
    """Writes what a job gave back, records after their files.

    Returns:
        path -> sha256 of its artifacts, and what failed of it.
    """
    if '"record":"Failure"' in text[:80]:
        failure = records.loads(Failure, text, "a job's answer")
        said = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
        with Store.open() as kept:
            kept.add_job("", str(job), "failed", said)
        return {}, [Failed(str(job), said, failure.exit_code)]
    made = records.loads(JobResult, text, "a job's answer")
    ordered = sorted(made.files, key=lambda name: name.endswith(".json"))
    # Aside there was nothing that its files must keep apart from, and here may be.
    folder = export_files.folder(job.config(out))
    with Store.open() as kept:
        for name in ordered:
            path = _place(folder, name)
            if not all(p.resolve().is_relative_to(out.resolve()) for p in (out / name, path)):
                raise InputError(f"a job's answer names {name}, which is not below {out}")
            with records.writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            records.write_atomic(path, zlib.decompress(base64.b85decode(made.files[name])))
        kept.load(store.read_kept(line, "a job's answer") for line in made.kept)
        paths = [_place(folder, name) for name in made.artifacts]
        artifacts = {str(path): artifacts_.load(path) for path in paths}
        kept.add_export(made.key, artifacts)
        failed = [Failed(str(job), _said(one), one.exit_code) for one in made.failed]
        outcome = "failed" if failed else "done"
        kept.add_job(made.key, str(job), outcome, "; ".join(one.message for one in failed))
    return {path: a.sha256 for path, a in artifacts.items()}, failed


def _said(failed: Failed) -> str:
    """What is said of a file that failed, with its name."""
    named = failed.what in failed.message
    return failed.message if named else f"{failed.what}: {failed.message}"


def _place(folder: Path, name: str) -> Path:
    """Where in `folder` a file goes that lies in the folder of the same network aside."""
    return folder.joinpath(*Path(name).parts[1:])


def _standing(jobs: Sequence[SweepJob], out: Path) -> dict[str, str]:
    """path -> sha256 of the artifacts that the jobs have made by now."""
    found: dict[str, str] = {}
    for job in jobs:
        _, artifacts = export_files.standing(job.config(out))
        found |= {path: a.sha256 for path, a in (artifacts or {}).items()}
    return found


def _figures(standing: dict[str, str], devices: Sequence[str], reporter: Reporter) -> list[Failed]:
    """Takes the figures that are missing, one at a time, for a timing has its machine alone."""
    names = {device: _name(device) for device in devices}
    missing = [
        (path, device) for device in devices for path in standing if not _known(path, names[device])
    ]
    failed = []
    begun = time.monotonic()
    for done, (path, device) in enumerate(missing, 1):
        try:
            card = resolve.stand_in(device)
            if card is None:
                bench.bench([Path(path)], device=device, reporter=reporter)
            else:
                # Its figure alone: an emulator is a device of the grid itself, and takes longer.
                bench_figures.estimate_figures([Path(path)], card, reporter=reporter)
        except DeployError as error:
            failed.append(Failed(f"{path} on {device}", str(error), error.exit_code))
            reporter.say(f"failed: {path} on {device}: {error}")
        left = (time.monotonic() - begun) / done * (len(missing) - done)
        reporter.progress("figures", done, len(missing))
        reporter.say(f"{done} of {len(missing)} figures: {path} on {device}; {_words(left)} left")
    return failed


def _name(device: str) -> str:
    """As what records bear it: a card's name, or a phone's serial number."""
    card = resolve.stand_in(device)
    try:
        return resolve.resolve(device).name if card is None else card.name
    except DeployError:
        # Its figures will fail, and say why.
        return device


def _known(path: str, device: str) -> bool:
    artifact = artifacts_.load(Path(path))
    version = runtimes.runtime_version(runtimes.default_runtime(artifact))
    with Store.open() as kept:
        return any(
            not r.recorded and (device != "host" or r.runtime_version == version)
            for r in kept.results({"artifact": artifact.sha256, "device": device})
        )


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _export(job: SweepJob) -> JobResult:
    """A job's export, in the process and the folder of the job alone."""
    out = Path("build")
    config = job.config(out)
    done = export.export(
        arch=job.arch,
        alpha=job.alpha,
        groups=job.groups,
        res=job.res,
        weights=job.weights,
        data=job.data,
        recipe=job.recipes,
        format=job.formats,
        out=out,
        timed=False,
        reporter=SILENT,
    )
    key, _ = export_files.standing(config)
    with Store.open() as store:
        kept = tuple(store.dump())
    files = {
        str(path.relative_to(out)): base64.b85encode(
            zlib.compress(inputs.read(path, inputs.FINISHED), 1)
        ).decode()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
    paths = tuple(str(Path(row.path).relative_to(out)) for row in done.rows)
    return JobResult(key, files, paths, kept, done.failed)


if __name__ == "__main__":
    jobs_.serve(_export)
