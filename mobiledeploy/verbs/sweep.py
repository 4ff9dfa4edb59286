"""A grid of models, recipes and devices -> artifacts, accuracies, figures, and their fronts.

One job is one model with all its recipes, so TensorFlow loads once per model. Jobs run in parallel,
and this process alone writes their files when a job ends. Timings follow, one at a time per
machine. Existing files are not made again, so the same command resumes a killed sweep.
"""

from __future__ import annotations

import base64
import functools
import itertools
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mobiledeploy.analysis import pareto
from mobiledeploy.core import artifacts as artifacts_
from mobiledeploy.core import inputs, leases, metric_columns, records, units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import DEVICES, EXECUTORS, FORMATS, RECIPES
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import Answers, Artifact, Failed, Failure, Gain, Result
from mobiledeploy.steps import (
    arguments,
    baseline,
    bench_figures,
    export_files,
    export_plan,
    resolve,
    runtimes,
)
from mobiledeploy.steps import sweep_job as jobs_
from mobiledeploy.steps.arguments import AnyPath, Names
from mobiledeploy.steps.export_plan import ExportPlan
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.steps.sweep_job import JobResult, SweepJob
from mobiledeploy.steps.sweep_limits import NO_LIMITS, DroppedCell, SweepLimits, SweepSieve
from mobiledeploy.store import database as store
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import bench, export


@dataclass(frozen=True)
class SweepGrid(Record):
    """The grid of a sweep; None means the card's own value. `devices` may be empty: no figures.

    `recipes` and `formats` are None for those of `export`.
    """

    archs: tuple[str, ...]
    alphas: tuple[float, ...] | None = None
    groups: tuple[int, ...] | None = None
    resolutions: tuple[int, ...] | None = None
    recipes: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    devices: tuple[str, ...] = ("host",)
    weights: str | None = None
    data: str | None = None
    out: Path = Path("build")


@dataclass(frozen=True)
class PlannedJob(Record):
    """A job: `state` is "to do", "standing" (its files exist), "dropped" or "impossible".

    `why` is the reason of the last two.
    """

    what: str
    recipes: tuple[str, ...]
    state: str
    why: str = ""


@dataclass(frozen=True)
class ParetoFront(Record):
    """The Pareto front of cost and accuracy, for one kind of figure and one device.

    All were evaluated on the same `images`, by the same metric. For each cost, the most accurate
    comes first, and those that tie with it follow. `gains` compares each with the cheaper one
    before it, or with the one that it ties with; None for the first and if they cannot be compared.
    """

    kind: str
    device: str
    images: str
    results: tuple[Result, ...]
    gains: tuple[Gain | None, ...]


@dataclass(frozen=True)
class SweepResult(Record):
    """The answer of `sweep`; `made` is the number of jobs with new files."""

    jobs: tuple[PlannedJob, ...]
    made: int
    failed: tuple[Failed, ...]
    fronts: tuple[ParetoFront, ...]
    dropped: tuple[DroppedCell, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """A table for each front, or the plan if there is none."""
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
    heading = metric_columns.header(front.results)
    rows = zip(front.results, front.gains, _costs(front), strict=True)
    return Table(
        ("model", "recipe", heading, f"gain in {heading}", "cost"),
        tuple(
            (
                units.network(r.model, r.weights, r.weights_sha256),
                f"{r.recipe}.{r.format}",
                metric_columns.cell(r, heading),
                "–" if g is None else units.gain(g.value, g.low, g.high, g.tie),
                cost,
            )
            for r, g, cost in rows
        ),
        f"Front of accuracy on {front.images} and {where}, cheapest first",
    )


def _costs(front: ParetoFront) -> tuple[str, ...]:
    """The costs of its results; times in one unit, to be read down the column."""
    if front.kind == "size":
        return tuple(units.size(r.size_bytes or 0) for r in front.results)
    times = [r.latency_ns for r in front.results if r.latency_ns is not None]
    if len(times) == len(front.results):
        return units.durations(times)
    return tuple(f"{r.instructions:,}" for r in front.results)


def plan(
    grid: SweepGrid, workers: int, limits: SweepLimits, reporter: Reporter = SILENT
) -> tuple[list[tuple[SweepJob, PlannedJob]], list[DroppedCell], SweepSieve]:
    """Plans every job of the grid: whether it is possible, and whether its files exist.

    Returns:
        The jobs, those of them that `limits` drop, and what decides about timings.

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
    # Jobs work in another folder, so names of files must be absolute.
    grid = replace(
        grid,
        data=_absolute(grid.data, ("demo",)),
        weights=_absolute(grid.weights, ("demo", "imagenet", "random")),
    )
    for recipe in grid.recipes or ():
        RECIPES.load(recipe)
    for device in grid.devices:
        if device.partition(":")[0] not in DEVICES.names() and resolve.stand_in(device) is None:
            resolve.resolve(device)
    planned_jobs = []
    plans: list[ExportPlan | None] = []
    cells = list(
        itertools.product(
            grid.archs, grid.alphas or (None,), grid.groups or (None,), grid.resolutions or (None,)
        )
    )
    for number, (arch, alpha, groups, res) in enumerate(cells):
        job = SweepJob(
            arch, alpha, groups, res, grid.recipes, grid.formats, grid.weights, grid.data, workers
        )
        state, planned = _state(job, grid.out)
        planned_jobs.append((job, state))
        plans.append(planned)
        reporter.progress("planning", number + 1, len(cells))
    if all(planned.state == "impossible" for _, planned in planned_jobs):
        raise UsageError(f"no cell of the grid is possible: {planned_jobs[0][1].why}")
    sieve = SweepSieve(limits, grid.devices, sum(len(p.jobs) for p in plans if p is not None))
    dropped = []
    for number, ((job, state), planned) in enumerate(zip(planned_jobs, plans, strict=True)):
        if planned is not None and state.state == "to do" and limits.drops:
            drop = sieve.network(job, planned)
            if drop is not None:
                dropped.append(drop)
                planned_jobs[number] = job, replace(state, state="dropped", why=drop.why)
    return planned_jobs, dropped, sieve


def sweep(
    *,
    arch: Names = "mobilenet_v1",
    alpha: float | Iterable[float] | None = None,
    groups: int | Iterable[int] | None = None,
    res: int | Iterable[int] | None = None,
    recipe: Names | None = None,
    format: Names | None = None,  # noqa: A002 - the option's name
    device: Names = "host",
    weights: AnyPath | None = None,
    data: AnyPath | None = None,
    out: AnyPath = "build",
    executor: str = "local",
    ray_address: str = "",
    jobs: int | None = None,
    max_latency: float | None = None,
    max_size: int | None = None,
    keep_front: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> SweepResult:
    """Exports, evaluates and times every model of a grid; finds the Pareto fronts.

    Existing files are not made again: the same call resumes an interrupted sweep.

    A network is dropped if all of its files are over a limit on all devices, and so is a timing.
    This is decided before the export and the timing, from the points of device cards, and only by
    whole intervals. `keep_front` also drops the timing of a file if another one is surely faster
    and more accurate. The fronts show what may be within the limits.

    Example:
        >>> done = md.sweep(alpha=(0.25, 0.5), res=(128, 160))
        >>> [(r.model, r.top1) for r in done.fronts[0].results]

    Args:
        arch: one card or several.
        alpha: one width multiplier or several; the default is the card's own.
        groups: groups of ShuffleNet's pointwise convolutions, one number or several; the default is
            the card's own.
        res: one resolution in pixels or several; the default is the card's own.
        recipe: the recipes for each model; the default is those of `export`.
        format: `tflite`, `onnx`, or both (the default).
        device: the devices for figures, as for `bench`; `()` for none.
        weights: `demo`, `imagenet` or `random`, as for `export`.
        data: images, as for `export`.
        out: the folder for the models' folders.
        executor: `local` or `ray`.
        ray_address: HOST:PORT of a cluster of Ray; without it, one is started.
        jobs: the number of jobs at once, with a share of the cores each; the default is one per two
            cores.
        max_latency: the largest latency in milliseconds, on each device by itself.
        max_size: the largest file in bytes.
        keep_front: does not time files that cannot come onto the front any more.
        dry_run: only plans the jobs.
        reporter: is told of progress, warnings and failures; the default is a `PythonReporter`.

    Returns:
        The jobs, the Pareto front of cost and accuracy for each kind of figure and device, and what
        was dropped.

    Raises:
        UsageError: the grid is empty or has an unknown recipe or device, or no cell is possible; a
            limit that is not above 0, or one of latency without a device.
        DeviceError: the cluster cannot be reached.
    """
    reporter = reporter or PythonReporter()
    grid = SweepGrid(
        arguments.several(arch),
        None if alpha is None else arguments.several(alpha),
        None if groups is None else arguments.several(groups),
        None if res is None else arguments.several(res),
        None if recipe is None else arguments.several(recipe),
        None if format is None else arguments.several(format),
        arguments.several(device),
        arguments.text(weights),
        arguments.text(data),
        Path(out),
    )
    limits = _limits(max_latency, max_size, keep_front, grid.devices)
    count = jobs or max(1, leases.cores() // 2)
    planned, dropped, sieve = plan(grid, count, limits, reporter)
    if dry_run:
        return SweepResult(tuple(p for _, p in planned), 0, (), (), tuple(dropped))
    runs = EXECUTORS.load(executor)
    todo = [job for job, p in planned if p.state == "to do"]
    failed: list[Failed] = []
    for _, p in planned:
        if p.state == "impossible":
            reporter.say(f"left out: {p.what}: {p.why}")
    for drop in dropped:
        sieve.keep(drop)
        reporter.say(f"dropped: {drop.what}: {drop.why}")
    for gap in sieve.gaps():
        reporter.say(gap)
    start, job_count = time.monotonic(), 0
    standing: dict[str, str] = {}
    reporter.progress("models", 0, len(todo))
    answers = runs.run(
        jobs_.work, [records.line(job) for job in todo], workers=count, address=ray_address
    )
    for count_done, (number, text) in enumerate(answers if todo else (), 1):
        artifacts, failures = _take(todo[number], text, grid.out)
        job_count += bool(artifacts)
        standing |= artifacts
        failed += failures
        for failure in failures:
            reporter.say(f"failed: {failure.what}: {failure.message}")
        remaining_s = (time.monotonic() - start) / count_done * (len(todo) - count_done)
        reporter.progress("models", count_done, len(todo))
        reporter.say(f"{count_done} of {len(todo)} models: {todo[number]}{_left(remaining_s)}")
    # A job without all of its files is not "standing", but the files that it made count.
    made = [job for job, p in planned if p.state not in ("impossible", "dropped")]
    standing |= _standing(made, grid.out)
    failures, untimed = _figures(standing, grid.devices, sieve, reporter)
    slow = {standing[drop.what] for drop in untimed if drop.by == "latency"}
    slow -= {standing[drop.what] for drop in untimed if drop.by == "front"}
    return SweepResult(
        tuple(p for _, p in planned),
        job_count,
        (*failed, *failures),
        fronts(set(standing.values()), limits, slow),
        (*dropped, *untimed),
    )


def _limits(
    max_latency: float | None, max_size: int | None, keep_front: bool, devices: Sequence[str]
) -> SweepLimits:
    for name, value in (("latency", max_latency), ("size", max_size)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"a {name} of {value:g} is no limit", "give a number above 0")
    for name, wanted in (("--max-latency", max_latency is not None), ("--keep-front", keep_front)):
        if wanted and not devices:
            raise UsageError(f"{name} needs a device", "--device host, or a phone's model")
    return SweepLimits(None if max_latency is None else max_latency * 1e6, max_size, keep_front)


def fronts(
    artifacts: set[str], limits: SweepLimits = NO_LIMITS, slow: Collection[str] = ()
) -> tuple[ParetoFront, ...]:
    """The fronts of these artifacts (by sha256) for each kind of figure, device and data set.

    They show what may be within the limits. That of size leaves out what is too slow on each device
    that tells, and the artifacts in `slow` unless a figure is within the limit.
    """
    with Store.open() as database:
        rows = [r for r in database.results(newest=True) if r.artifact_sha256 in artifacts]
        rows += [r for r in database.unmeasured() if r.artifact_sha256 in artifacts]
    too_slow = {r.artifact_sha256 for r in rows if limits.too_slow(r.latency_interval_ns)}
    rows = [
        r
        for r in rows
        if not limits.too_large(r.size_bytes) and not limits.too_slow(r.latency_interval_ns)
    ]
    within = {r.artifact_sha256 for r in rows if r.latency_interval_ns is not None}
    left_out = too_slow.union(slow) - within
    evaluated = [r for r in rows if r.value is not None]
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for r in evaluated:
        if r.kind:
            groups[r.kind, r.device, metric_columns.judged_on(r)].append(r)
    result = []
    for (kind, device, images), mine in sorted(groups.items()):
        costs = [float(r.latency_ns or r.instructions or 0) for r in mine]
        result.append(_front(kind, device, images, mine, costs))
    once = {r.artifact_sha256: r for r in evaluated if r.artifact_sha256 not in left_out}
    sizes: dict[str, list[Result]] = defaultdict(list)
    for r in sorted(once.values(), key=lambda r: r.artifact_sha256):
        sizes[metric_columns.judged_on(r)].append(r)
    for images, mine in sorted(sizes.items()):
        costs = [float(r.size_bytes or 0) for r in mine]
        result.append(_front("size", "", images, mine, costs))
    return tuple(result)


def _front(
    kind: str, device: str, images: str, results: Sequence[Result], costs: Sequence[float]
) -> ParetoFront:
    sign = 1 if metric_columns.of(results[0]).higher_is_better else -1
    points = [(cost, sign * (r.value or 0.0)) for cost, r in zip(costs, results, strict=True)]
    with Store.open() as database:

        @functools.cache
        def answers(index: int) -> Answers | None:
            evaluation = database.judgement(results[index].artifact_sha256)
            return None if evaluation is None else baseline.image_answers(evaluation)

        best = pareto.front(points, answers)
        gains = pareto.gains([answers(i) for i in best], [costs[i] for i in best])
    return ParetoFront(kind, device, images, tuple(results[i] for i in best), gains)


def _absolute(name: str | None, words: tuple[str, ...]) -> str | None:
    """The absolute path of a file; `words` stay as they are."""
    return name if name is None or name in words else str(Path(name).resolve())


def _plain(formats: Sequence[str]) -> tuple[str, ...]:
    """The recipes that `export` uses by default, the most precise first."""
    recipes = [module.RECIPE for _, module in RECIPES.each()]
    plain = [recipe for recipe in recipes if set(recipe.plain) & set(formats)]
    return tuple(recipe.name for recipe in sorted(plain, key=lambda recipe: -recipe.weight_bits))


def _state(job: SweepJob, out: Path) -> tuple[PlannedJob, ExportPlan | None]:
    """The state of a job, and its plan if it is possible."""
    recipes = job.recipes or _plain(job.formats or FORMATS.names())
    try:
        planned = export_plan.plan(job.config(out), SILENT)
        export_files.refuse_irregular(planned)
    except DeployError as error:
        return PlannedJob(str(job), recipes, "impossible", str(error)), None
    artifacts = export_files.earlier(planned)
    if artifacts is None or not _has_evaluations(artifacts):
        return PlannedJob(str(job), recipes, "to do"), planned
    return PlannedJob(str(job), recipes, "standing"), planned


def _has_evaluations(artifacts: dict[str, Artifact]) -> bool:
    if not store.path().exists():
        return False
    with Store.open() as database:
        return all(
            database.evaluation(
                a.sha256,
                a.data,
                a.spec.preprocessing,
                target,
                runtimes.runtime_version(target.runtime),
            )
            for a in artifacts.values()
            for target in (runtimes.target(a),)
        )


def _take(job: SweepJob, text: str, out: Path) -> tuple[dict[str, str], list[Failed]]:
    """Writes the files of a job's answer, records after their files.

    Returns:
        path -> sha256 of its artifacts, and its failures.
    """
    if '"record":"Failure"' in text[:80]:
        failure = records.loads(Failure, text, "a job's answer")
        message = f"{failure.message}; {failure.hint}" if failure.hint else failure.message
        with Store.open() as database:
            database.add_job("", str(job), "failed", message)
        return {}, [Failed(str(job), message, failure.exit_code)]
    result = records.loads(JobResult, text, "a job's answer")
    names = sorted(result.files, key=lambda name: name.endswith(".json"))
    # The folder may have another name here, because files of other images can exist here.
    folder = export_files.folder(job.config(out))
    with Store.open() as database:
        for name in names:
            path = _place(folder, name)
            if not all(p.resolve().is_relative_to(out.resolve()) for p in (out / name, path)):
                raise InputError(f"a job's answer names {name}, which is not below {out}")
            with records.writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            records.write_atomic(path, zlib.decompress(base64.b85decode(result.files[name])))
        database.load(store.read_stored(line, "a job's answer") for line in result.kept)
        paths = [_place(folder, name) for name in result.artifacts]
        artifacts = {str(path): artifacts_.load(path) for path in paths}
        database.add_export(result.key, artifacts)
        failed = [Failed(str(job), _message(one), one.exit_code) for one in result.failed]
        outcome = "failed" if failed else "done"
        database.add_job(result.key, str(job), outcome, "; ".join(one.message for one in failed))
    return {path: a.sha256 for path, a in artifacts.items()}, failed


def _message(failed: Failed) -> str:
    """The message of a failed file, with its name."""
    has_name = failed.what in failed.message
    return failed.message if has_name else f"{failed.what}: {failed.message}"


def _place(folder: Path, name: str) -> Path:
    """The path in `folder` for a file from the job's own folder of the same network."""
    return folder.joinpath(*Path(name).parts[1:])


def _standing(jobs: Sequence[SweepJob], out: Path) -> dict[str, str]:
    """path -> sha256 of the artifacts that the jobs have made so far."""
    result: dict[str, str] = {}
    for job in jobs:
        _, artifacts = export_files.standing(job.config(out))
        result |= {path: a.sha256 for path, a in (artifacts or {}).items()}
    return result


def _figures(
    standing: dict[str, str], devices: Sequence[str], sieve: SweepSieve, reporter: Reporter
) -> tuple[list[Failed], list[DroppedCell]]:
    """Takes the missing figures, one at a time, because a timing needs the machine for itself."""
    names = {device: _name(device) for device in devices}
    failed: list[Failed] = []
    dropped: list[DroppedCell] = []
    artifacts: dict[str, Artifact] = {}
    for path in standing:
        try:
            artifacts[path] = artifacts_.load(Path(path))
        except DeployError as error:
            failed.append(Failed(path, str(error), error.exit_code))
            reporter.say(f"failed: {path}: {error}")
    missing = [
        (path, device)
        for device in devices
        # Fast files come first, because they exclude others.
        for path in sorted(
            artifacts, key=lambda p: sieve.expected_ns(Path(p), artifacts[p], device)
        )
        if not _has_figure(path, names[device])
    ]
    start = time.monotonic()
    for number, (path, device) in enumerate(missing, 1):
        drop = sieve.timing(Path(path), artifacts[path], device, standing.values())
        if drop is not None:
            sieve.keep(drop)
            dropped.append(drop)
            reporter.progress("figures", number, len(missing))
            reporter.say(f"dropped: {path} on {device}: {drop.why}")
            continue
        try:
            _figure(Path(path), device, reporter)
        except DeployError as error:
            failed.append(Failed(f"{path} on {device}", str(error), error.exit_code))
            reporter.say(f"failed: {path} on {device}: {error}")
        remaining_s = (time.monotonic() - start) / number * (len(missing) - number)
        reporter.progress("figures", number, len(missing))
        reporter.say(f"{number} of {len(missing)} figures: {path} on {device}{_left(remaining_s)}")
    return failed, dropped


def _figure(path: Path, device: str, reporter: Reporter) -> None:
    card = resolve.stand_in(device)
    if card is None:
        bench.bench([path], device=device, reporter=reporter)
    else:
        # Only an estimate: an emulator is a device of the grid itself, and takes longer.
        bench_figures.estimate_figures([path], card, reporter=reporter)


def _name(device: str) -> str:
    """The name of a device in records: a card's name, or a phone's serial number."""
    card = resolve.stand_in(device)
    try:
        return resolve.resolve(device).name if card is None else card.name
    except DeployError:
        # Its figures will fail with the reason.
        return device


def _has_figure(path: str, device: str) -> bool:
    artifact = artifacts_.load(Path(path))
    version = runtimes.runtime_version(runtimes.default_runtime(artifact))
    with Store.open() as database:
        return any(
            not r.recorded and (device != "host" or r.runtime_version == version)
            for r in database.results({"artifact": artifact.sha256, "device": device})
        )


def _left(seconds: float) -> str:
    """How much longer it takes, with a semicolon before it; "" for less than a second."""
    if seconds < 1:
        return ""
    minutes = round(seconds / 60)
    words = f"{seconds:.0f} s" if seconds < 90 else f"{minutes // 60} h {minutes % 60:02} min"
    return f"; {words} left"


def _export(job: SweepJob) -> JobResult:
    """The export of a job, in the job's own process and folder."""
    out = Path("build")
    config = job.config(out)
    result = export.export(
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
        lines = tuple(store.dump())
    files = {
        str(path.relative_to(out)): base64.b85encode(
            zlib.compress(inputs.read(path, inputs.FINISHED), 1)
        ).decode()
        for path in sorted(out.glob("*/**/*"))
        if path.is_file()
    }
    paths = tuple(str(Path(row.path).relative_to(out)) for row in result.rows)
    return JobResult(key, files, paths, lines, result.failed)


if __name__ == "__main__":
    jobs_.serve(_export)
