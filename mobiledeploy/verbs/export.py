"""A model -> artifacts with their records, which are checked, evaluated and timed.

The order: a plan is checked before anything is written; a child process converts into a temporary
folder (`steps/conversion_process.py`); each file is opened again and compared with the float model;
then all are renamed into place, each record last. Evaluation and timing follow, and find complete
artifacts only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mobiledeploy.core import units
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeployError, UsageError
from mobiledeploy.core.plugins import APPS, RECIPE_ALIASES, TASKS
from mobiledeploy.core.ports import SILENT, Reporter
from mobiledeploy.core.types import (
    Artifact,
    BudgetChain,
    ChannelOrder,
    CoreChoice,
    Evaluation,
    Failed,
    InputOutput,
    Measured,
    Measurement,
    Metric,
    ModelSpec,
    NamedWarning,
    Output,
    Resize,
    ShrunkLayer,
)
from mobiledeploy.steps import (
    app_choice,
    arguments,
    conversion_process,
    evaluations,
    runtimes,
    shrunk_layers,
    target_core,
    timings,
)
from mobiledeploy.steps import within as budgets
from mobiledeploy.steps.arguments import AnyPath, Labels, Names, Triple
from mobiledeploy.steps.bench_figures import time_artifacts
from mobiledeploy.steps.export_files import earlier, make, refuse_irregular, refuse_readonly_store
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, plan
from mobiledeploy.steps.failures import Failures
from mobiledeploy.steps.file_checks import Collector
from mobiledeploy.steps.live_models import KerasModel, as_file
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import app as app_verb

# A short timing for the table; `bench` takes longer.
BENCH_SECONDS = 2.0
# Tasks whose divergence is one of probabilities.
_IN_NATS = ("binary", "classification", "multilabel", "segmentation")
# Weights that have a name; others are those of a file or of a training.
_NAMED_WEIGHTS = ("demo", "imagenet", "random")


@dataclass(frozen=True)
class ExportRow(Record):
    """One artifact of an export and its figures; None for figures that were not taken.

    `sqnr_db` and `divergence` (of its task; in nats for a classifier) compare its answers with
    those of the float32 file, over `compared` images; None for a float32 file. `metrics` are those
    of its task; `top1` is that of a classifier. `core_choice` are the forms that `core` decided
    between, None if there was one only.
    """

    path: str
    recipe: str
    format: str
    size_bytes: int
    gzip_bytes: int
    sparsity: float
    sha256: str
    sqnr_db: float | None
    divergence: float | None
    compared: int
    top1: float | None
    agreement: float | None
    images: int
    latency_ns: float | None
    latency_interval_ns: tuple[float, float] | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    core_choice: CoreChoice | None = None


@dataclass(frozen=True)
class ExportResult(Record):
    """The answer of `export`. `reused` says that the files of an earlier equal export were used.

    `failed` are files that were requested by name and could not be made; `rows` are the others.
    `shrunk_layers` are the layers that have fewer filters in the files than in the model; with
    `core`, those of the first file, since each file has its own.
    `within` is the chain of `--within`; `rows` are empty if none of its links passed. `apps` are
    those of `--app`, each of one of the files.
    """

    folder: str
    spec: ModelSpec
    reused: bool
    rows: tuple[ExportRow, ...]
    warnings: tuple[NamedWarning, ...]
    failed: tuple[Failed, ...] = ()
    shrunk_layers: tuple[ShrunkLayer, ...] = ()
    within: BudgetChain | None = None
    apps: tuple[app_verb.WrittenApp, ...] = ()

    def path(self, recipe: str, format: str = "tflite") -> Path:  # noqa: A002 - as of `export`
        """The file of a recipe and a format; UsageError if this export has none."""
        name = RECIPE_ALIASES.get(recipe, recipe)
        for row in self.rows:
            if (row.recipe, row.format) == (name, format):
                return Path(row.path)
        there = ", ".join(Path(row.path).name for row in self.rows)
        raise UsageError(f"{self.folder} has no {format} of {recipe}", f"there are {there}")

    def tables(self) -> tuple[Table, ...]:
        """A row for each file; then the layers that lost most filters, and the apps."""
        if not self.rows:
            return budgets.tables(self.within)
        source = self.spec.weights.source
        kind = f"{source} weights" if source in _NAMED_WEIGHTS else f"weights {source}"
        kind = kind if self.spec.card else "your model"
        count = max((row.images for row in self.rows), default=0)
        images = f"judged on {count} images" if count else "not judged"
        metric = TASKS.load(self.spec.task).METRICS[0]
        # What is compared with float alone has its SQNR in a column of its own.
        own = () if metric.unit == "dB" else (metric.title,)
        headers = ("file", "size", "gzip", "zeros", *own, "agrees with float", "SQNR")
        return (
            Table(
                (*headers, "divergence", "this host, 1 thread"),
                tuple(_cells(row, metric, self.spec.task) for row in self.rows),
                f"{self.folder}: {kind}, {images}",
                optional=("zeros", "gzip", "divergence", "SQNR"),
            ),
            *target_core.tables(
                {Path(row.path).name: row.core_choice for row in self.rows if row.core_choice}
            ),
            *budgets.tables(self.within),
            *shrunk_layers.tables(self.shrunk_layers),
            *(table for app in self.apps for table in app.tables()),
        )


def _cells(row: ExportRow, metric: Metric, task: str) -> tuple[str, ...]:
    nats = task in _IN_NATS
    return (
        Path(row.path).name,
        units.size(row.size_bytes),
        units.size(row.gzip_bytes),
        units.percent(row.sparsity),
        *(
            ()
            if metric.unit == "dB"
            else (units.metric(row.metrics.get(metric.name), metric.unit),)
        ),
        units.percent(row.agreement),
        "–" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB",
        "–"
        if row.divergence is None
        else f"{1e3 * row.divergence:.2f} mnats"
        if nats
        else f"{row.divergence:.3g}",
        "–" if row.latency_ns is None else units.duration(row.latency_ns),
    )


@dataclass(frozen=True)
class _Apps:
    """The languages of the apps to write, and whether they replace what was changed in them."""

    languages: tuple[str, ...]
    force: bool


def export(
    model: AnyPath | KerasModel | None = None,
    *,
    arch: str | None = None,
    alpha: float | None = None,
    groups: int | None = None,
    res: int | None = None,
    weights: AnyPath | None = None,
    data: AnyPath | None = None,
    recipe: Names | None = None,
    format: Names | None = None,  # noqa: A002 - the option's name
    io: InputOutput = "int8",
    output: Output = "model",
    within: float | str | None = None,
    max_disagreement: float | str | None = None,
    cost: budgets.Cost | None = None,
    keep_float: Names = (),
    no_shrink: bool = False,
    core: str | None = None,
    task: str | None = None,
    out: AnyPath = "build",
    app: Names = (),
    force: bool = False,
    custom_objects: AnyPath | None = None,
    unsafe: bool = False,
    input_range: tuple[float, float] | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    channels: ChannelOrder | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    labels: Labels | None = None,
    timed: bool = True,
    reporter: Reporter | None = None,
) -> ExportResult:
    """Converts a model, or a built-in architecture, to TFLite and ONNX files.

    Every file is opened again after conversion and compared with the float model, evaluated on
    images without calibration images, and timed for a moment. The same export again uses the
    existing files.

    Example:
        >>> md.export(alpha=0.5, res=160)
        >>> md.export("model.h5", data="photos", input_range=(0, 1), recipe="int8_best")
        >>> md.export(model, data="photos", input_range=(-1, 1))

    Args:
        model: a whole Keras model (.h5, .keras), a SavedModel folder, a float .tflite, a .pt2 of
            torch.export, a run folder of `train`, or a live model of Keras 2 (tf_keras) or Keras 3,
            whose files go to a folder of its `name`. Without it, `arch` is built.
        arch: a card of `models`; the default is mobilenet_v1.
        alpha: the width multiplier, above 0.
        groups: the groups of the pointwise convolutions (ShuffleNet).
        res: height and width of the input, in pixels.
        weights: `demo` (the default), `imagenet`, `random`, or a file.
        data: images for calibration and, others of them, for evaluation: `demo`, a folder with a
            folder of images per class, or an .npz.
        recipe: one or several, or `all`; the default are those that most users want.
        format: `tflite`, `onnx`, or both (the default).
        io: the type of a full-integer model's input and output; `uint8` is for TFLite only.
        output: the last part of a file: as in its model, a softmax, or the logits without a
            softmax; `pooled` are the features of the last global pooling, which are an embedding;
            `detections` are a detector's best boxes, by an operator of TFLite.
        within: the points of the task's first metric (or of its bound) that may be lost against the
            float model: 1 or `1pt`. The cheapest files that surely keep to it are written; `recipe`
            and `keep_float` are then chosen.
        max_disagreement: the same for percent of the answers that may change, without labels.
        cost: what cheap means: `instructions`, counted on an emulated core, or `bytes`; the default
            is instructions if an emulator is set up, else bytes.
        keep_float: layers that integer files compute in float.
        no_shrink: keeps the filters that no answer depends on, such as those without weights.
        core: the core that the files are for, such as `cortex-a72`: where a file has several forms
            that compute the same, that with the fewest instructions on this emulated core is made.
            This is `--for` on the command line.
        task: what the model answers: a name of `tasks/`. The default is what the card or the file
            says, or what the outputs leave no doubt of. For `embedding`, a model that does not end
            in a vector, such as a classifier with its softmax, is cut at its last global pooling.
        out: the folder for the model's folder.
        app: languages of the shelf `apps`, such as `python`: an app in each of them is written to
            `app_<language>` beside the files, as by `app`. It answers by the file of the fewest
            bits that it runs; among equal ones, by that which diverges least from float.
        force: makes all files again, even if nothing changed, and replaces what was changed in
            the folder of an app.
        custom_objects: your own Python file with the layers that a Keras file names; it is
            executed.
        unsafe: opens a model file even if it can run its own code.
        input_range: (low, high), the values for pixels 0 and 255. Your own model needs it unless
            its metadata has it. The card or the file has the defaults of this and the next six.
        mean: subtracted from each channel, after `input_range`.
        std: each channel is divided by it, after `mean`.
        channels: `rgb` or `bgr`.
        resize: `bilinear` or `bicubic`.
        crop: the central fraction of each side to keep, above 0 and at most 1.
        labels: class names in the model's order, or a file with one per line.
        timed: False leaves out the short timing.
        reporter: is told of progress and warnings; the default is a `PythonReporter`.

    Returns:
        A row for each file, none if `within` was not kept to; `failed` are files that were
        requested by name, and apps, that could not be made.

    Raises:
        UsageError: arguments that are impossible or do not go together, or a folder that cannot be
            written.
        MissingError: TensorFlow, weights or another asset is missing; `core` without an emulator.
        InputError: a model or an image that cannot be read or converted, or an export without any
            file.
        DeviceError: a runner died or hangs.
    """
    reporter = reporter or PythonReporter()
    limit = budgets.budget(within, max_disagreement, cost)
    apps = _Apps(arguments.several(app), force)
    for language in apps.languages:
        APPS.load(language)
    changes = arguments.overrides(input_range, mean, std, channels, resize, crop, labels)
    with as_file(model) as file:
        config = ExportConfig(
            model=file,
            arch=arch,
            alpha=alpha,
            groups=groups,
            res=res,
            weights=arguments.text(weights),
            data=arguments.text(data),
            recipes=None if recipe is None else arguments.several(recipe),
            formats=None if format is None else arguments.several(format),
            io=io,
            output=output,
            keep_float=arguments.several(keep_float),
            shrink=not no_shrink,
            core=core,
            task=task or "",
            custom_objects=arguments.path(custom_objects),
            overrides=changes,
            out=Path(out),
            force=force,
            unsafe=unsafe,
        )
        collector = Collector(reporter)
        if limit is None:
            return _export(config, timed, apps, collector)
        return _export_within(config, limit, timed, apps, collector)


def _export_within(
    config: ExportConfig,
    limit: budgets.LossBudget,
    timed: bool,
    apps: _Apps,
    collector: Collector,
) -> ExportResult:
    refuse_readonly_store()
    if apps.languages:
        # Its files are known only when it is done; those of float go to the same folder.
        like_it = replace(config, recipes=(budgets.FLOAT,), keep_float=())
        _require_apps(apps, plan(like_it, Collector(SILENT)), config)
    chosen, chain, artifact = budgets.choose(config, limit, collector)
    if chosen is None:
        return ExportResult(
            folder="",
            spec=artifact.spec,
            reused=False,
            rows=(),
            warnings=tuple(collector.warnings),
            within=chain,
        )
    result = _export(replace(chosen, force=False), timed, apps, collector)
    return replace(result, reused=False, within=chain)


def _require_apps(apps: _Apps, planned: ExportPlan, config: ExportConfig) -> None:
    task = planned.source.spec.task
    app_choice.require(apps.languages, planned.jobs, config.io, task, planned.folder, apps.force)


def _export(config: ExportConfig, timed: bool, apps: _Apps, collector: Collector) -> ExportResult:
    planned = plan(config, collector)
    refuse_irregular(planned)
    _require_apps(apps, planned, config)
    artifacts = None if config.force else earlier(planned)
    reused = artifacts is not None
    if artifacts is None:
        refuse_readonly_store()
        artifacts = make(planned, config, collector)
    for artifact in artifacts.values():
        for warning in artifact.warnings:
            if warning.name != conversion_process.HALF_NOT_SEEN or not evaluations.judged_in_half(
                artifact
            ):
                collector.warn(warning)
    with Store.open() as store:
        store.add_export(planned.key, artifacts)
    by_sha = evaluations.stored(artifacts, collector) if planned.evaluates else {}
    measurements = _measurements(artifacts, collector) if timed else {}
    written_apps = _write_apps(apps, planned, artifacts, collector)
    return ExportResult(
        folder=str(planned.folder),
        spec=next(iter(artifacts.values())).spec,
        reused=reused,
        rows=tuple(
            _row(path, a, by_sha.get(a.sha256), measurements.get(a.sha256))
            for path, a in artifacts.items()
        ),
        warnings=tuple(collector.warnings),
        failed=tuple(collector.failed),
        shrunk_layers=next(iter(artifacts.values())).shrunk_layers,
        apps=written_apps,
    )


def _write_apps(
    apps: _Apps,
    planned: ExportPlan,
    artifacts: Mapping[str, Artifact],
    collector: Collector,
) -> tuple[app_verb.WrittenApp, ...]:
    """An app in each language; one that cannot be written has failed."""
    written = []
    for language in apps.languages:
        try:
            path, reason = app_choice.choose(language, artifacts)
            collector.say(f"the app in {language} answers by {Path(path).name}, {reason}")
            out = app_choice.folder(planned.folder, language)
            written.append(
                app_verb.app(path, language=language, out=out, force=apps.force, reporter=collector)
            )
        except DeployError as error:
            what = f"the app in {language}"
            collector.failed.append(Failed(what, str(error), error.exit_code))
    return tuple(written)


# Times, from the store if it has them already.


def _measurements(artifacts: dict[str, Artifact], reporter: Reporter) -> dict[str, Measured]:
    with Store.open() as store:
        from_store = {
            a.sha256: store.measurement(a.sha256, target, runtimes.runtime_version(target.runtime))
            for a in artifacts.values()
            for target in (timings.target(a),)
        }
    absent = [Path(path) for path, a in artifacts.items() if from_store[a.sha256] is None]
    new: dict[Path, Measurement] = {}
    if absent:
        collector, failures = Collector(SILENT), Failures()
        collector.progress, collector.say = reporter.progress, reporter.say
        new = time_artifacts(absent, failures, seconds=BENCH_SECONDS, reporter=collector)
        failures.check()
        names = sorted({warning.name for warning in collector.warnings})
        if names:
            # One line for all files, because this is only a short timing.
            reporter.warn(
                NamedWarning(
                    "rough-times",
                    f"the times below are rough ({', '.join(names)})",
                    "mobiledeploy bench takes longer over them, and says more",
                )
            )
    all_ = (*from_store.values(), *new.values())
    return {m.artifact_sha256: m for m in all_ if isinstance(m, Measured)}


def _row(
    path: str, a: Artifact, evaluation: Evaluation | None, timing: Measured | None
) -> ExportRow:
    return ExportRow(
        path=path,
        recipe=a.recipe.name,
        format=a.format,
        size_bytes=a.size_bytes,
        gzip_bytes=a.gzip_bytes,
        sparsity=a.sparsity,
        sha256=a.sha256,
        sqnr_db=a.fidelity.sqnr_db if a.fidelity else None,
        divergence=a.fidelity.divergence if a.fidelity else None,
        compared=a.fidelity.images if a.fidelity else 0,
        top1=evaluation.top1 if evaluation else None,
        agreement=evaluation.agreement if evaluation else None,
        images=evaluation.images if evaluation else 0,
        latency_ns=timing.median_ns if timing else None,
        latency_interval_ns=timing.interval_ns if timing else None,
        metrics=evaluation.metrics if evaluation else {},
        core_choice=a.core_choice,
    )
