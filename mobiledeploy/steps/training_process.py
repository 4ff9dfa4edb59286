"""A training in a child process (`steps/child_process.py`), where TensorFlow runs.

One process per core decodes the images once, into a file of uint8 at the model's resolution.
Training maps this file into memory, so any number of images fits.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import inputs, leases, preprocessing, records, runs, units
from mobiledeploy.core.errors import BrokenImage, DeviceError, InputError, UsageError
from mobiledeploy.core.plugins import TASKS, dataset
from mobiledeploy.core.ports import Reporter, Samples
from mobiledeploy.core.types import (
    Annotation,
    DataRef,
    Epoch,
    ModelSpec,
    NamedWarning,
    Preprocessing,
    Run,
    Source,
    TrainingSettings,
    Weights,
)
from mobiledeploy.steps import child_process, evaluation_images, network_instructions
from mobiledeploy.steps.child_process import Speaker

WEIGHTS, LOG, TENSORBOARD, IMAGES = "weights.h5", "log.csv", "tensorboard", "images"

FEWEST_IMAGES = 10
"""Fewer images cannot train a network."""

CHUNK = 64
WORTH_A_POOL = 1_000
"""So many images are worth a pool of processes, which take a second to start."""

# After so many steps, moving averages no longer depend on their initial values.
FEW_STEPS = 500
FEW_PER_CLASS = 100
"""With fewer training images per class, the result depends more on them than on the network."""


@dataclass(frozen=True)
class TrainingRequest:
    """A training to run: `train` and `validation` are the images, `settings` the options.

    `init` is a Keras 2 HDF5 file. `folder` is the run's. A worker that is not the chief writes to
    its own folder `own` and only reads from `folder`. `earlier` is the record of an unfinished run
    to resume. `tools` are versions for the record.
    """

    spec: ModelSpec
    train: DataRef
    validation: DataRef
    settings: TrainingSettings
    init: str | None
    teacher: Source | None
    folder: str
    own: str
    earlier: Run | None
    tools: dict[str, str]
    warnings: tuple[NamedWarning, ...] = ()


@dataclass(frozen=True)
class PreparedImages:
    """Decoded images in a file: their `labels`, and the names of the skipped images.

    `read` are their numbers in the data; empty where a label is all that the task learns from.
    """

    labels: tuple[int, ...]
    skipped: tuple[str, ...]
    read: tuple[int, ...] = ()


class _Collector:
    """Passes everything on, and keeps the warnings for the record."""

    def __init__(self, reporter: Reporter, warnings: Sequence[NamedWarning]) -> None:
        self._reporter = reporter
        self.warnings = list(warnings)
        self.progress, self.say = reporter.progress, reporter.say

    def warn(self, warning: NamedWarning) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)
            self._reporter.warn(warning)


def fit(request: TrainingRequest, reporter: Reporter) -> Run:
    """Runs the request in this process; returns the finished run, which is saved in its folder.

    Raises:
        InputError: images or weights that cannot be trained with, see `training.loop`.
        UsageError: no space for the images.
    """
    own = Path(request.own)
    chief = request.own == request.folder
    collector = _Collector(reporter, request.warnings)
    with records.writing(own):
        (own / runs.STATE).mkdir(parents=True, exist_ok=True)
    parts = {
        ref.split: _prepare(ref, request.spec, own / IMAGES, collector)
        for ref in (request.train, request.validation)
    }
    (images, train), (held_pixels, held_set) = parts["train"], parts["held"]
    _check(request, train, held_set, collector)
    # Not earlier: processes that decode need neither TensorFlow nor its memory.
    collector.progress("loading TensorFlow", 0, 1)
    from mobiledeploy.training import loop

    collector.progress("loading TensorFlow", 1, 1)
    run = Run(
        spec=request.spec,
        data=request.validation,
        trained_on=request.train.identity,
        settings=request.settings,
        images=len(train.labels),
        validation_images=len(held_set.labels),
        history=request.earlier.history if request.earlier else (),
        best=0,
        top1=None,
        weights=WEIGHTS,
        dead_channels={},
        skipped=train.skipped + held_set.skipped,
        tools=request.tools,
        warnings=tuple(collector.warnings),
    )

    def commit(history: tuple[Epoch, ...]) -> None:
        nonlocal run
        best = runs.best(history, request.settings)
        run = dataclasses.replace(
            run,
            history=history,
            best=best.number,
            top1=best.top1,
            metrics=best.metrics,
            weights=loop.best_name(best.number),
            warnings=tuple(collector.warnings),
        )
        records.write_atomic(own / LOG, _log(history))
        records.write_atomic(own / runs.STATE / runs.RECORD, records.dumps(run))
        collector.say(_line(history, request))

    warning = _stretched_schedule(request)
    if warning:
        collector.warn(warning)
    task = loop.TrainingTask(
        request.spec,
        request.settings,
        loop.LabelledImages(
            images, np.array(train.labels, np.int64), _annotations(request.train, request, train)
        ),
        loop.LabelledImages(
            held_pixels,
            np.array(held_set.labels, np.int64),
            _annotations(request.validation, request, held_set),
        ),
        init=Path(request.init) if request.init else None,
        teacher=request.teacher,
        state=own / runs.STATE,
        resume=Path(request.folder) / runs.STATE,
        tensorboard=own / TENSORBOARD if chief else None,
        instructions=(
            None
            if request.settings.core is None
            else functools.partial(
                network_instructions.of,
                spec=request.spec,
                core=request.settings.core,
                reporter=collector,
            )
        ),
    )
    dead = loop.train(task, run.history, reporter=collector, commit=commit)
    compression, _ = request.settings.compression or ("", 0)
    if compression == "prune":
        collector.say("zeros among the weights shrink the download, not the latency")
    if compression == "prune_channels":
        count = units.several(sum(dead.values()), "depthwise channel")
        collector.say(f"{count} silenced: export leaves out what is zero")
    elif dead:
        collector.warn(_dead_channels(dead, _steps(run)))
    run = dataclasses.replace(run, dead_channels=dead, warnings=tuple(collector.warnings))
    return _finish(run, loop.best_file(task, run.history), own, chief)


def _finish(run: Run, weights_file: Path, folder: Path, chief: bool) -> Run:
    """Writes weights and record to their places, the record last."""
    best = runs.best(run.history, run.settings)
    content = inputs.read(weights_file, inputs.MODEL)
    weights = Weights(folder.name, records.sha256(content), pinned=False)
    run = dataclasses.replace(
        run,
        best=best.number,
        top1=best.top1,
        metrics=best.metrics,
        weights=WEIGHTS,
        spec=dataclasses.replace(run.spec, weights=weights),
    )
    if chief:
        records.write_atomic(folder / WEIGHTS, content)
        records.write_atomic(folder / runs.RECORD, records.dumps(run))
    shutil.rmtree(folder / IMAGES, ignore_errors=True)
    return run


def _check(
    request: TrainingRequest, train: PreparedImages, held_set: PreparedImages, reporter: Reporter
) -> None:
    """InputError for images that cannot train a network, a warning for too few images."""
    source, classes = request.train.source, request.train.labels
    if len(train.labels) < FEWEST_IMAGES or not held_set.labels:
        raise InputError(
            f"{source} has {len(train.labels)} readable images to train on and "
            f"{len(held_set.labels)} to judge by",
            f"at least {FEWEST_IMAGES} and 1 are needed",
        )
    if request.spec.task != "classification":
        return
    counts = np.bincount(train.labels, minlength=len(classes))
    there = [name for name, count in zip(classes, counts, strict=True) if count]
    if len(there) < 2:
        raise InputError(
            f"{source} has training images of one class only, {there[0]!r}",
            "add images of another class",
        )
    if len(there) < len(classes):
        empty = [name for name in classes if name not in there]
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        reporter.warn(
            NamedWarning(
                "empty-class",
                f"no training image shows {', '.join(empty[:5])}{more}",
                "the network will not name it: add images, or remove the class",
            )
        )
    if len(train.labels) < FEW_PER_CLASS * len(there):
        reporter.warn(
            NamedWarning(
                "few-training-images",
                f"there are {len(train.labels)} training images for {len(there)} classes",
                f"{FEW_PER_CLASS} or more per class are wanted; in a folder, put those to train on "
                "into train/<class> and those to judge by into validation/<class>",
            )
        )


def _stretched_schedule(request: TrainingRequest) -> NamedWarning | None:
    """A warning if a schedule that depends on the number of epochs is made longer midway."""
    earlier, settings = request.earlier, request.settings
    if not earlier or settings.schedule.decay_epochs or earlier.settings.epochs == settings.epochs:
        return None
    return NamedWarning(
        "stretched-schedule",
        f"epochs 1 to {len(earlier.history)} had the learning rates of {earlier.settings.epochs} "
        f"epochs, those that follow have the rates of {settings.epochs}",
        "for what so many epochs in one go come to, choose another --out",
    )


def _steps(run: Run) -> int:
    """The number of batches since the training began."""
    return run.settings.epochs * -(-run.images // run.settings.batch)


def _dead_channels(dead: dict[str, int], steps: int) -> NamedWarning:
    total = sum(dead.values())
    channels = [f"{count} in {name}" for name, count in dead.items()]
    more = f" and in {len(channels) - 5} more layers" if len(channels) > 5 else ""
    if steps < FEW_STEPS:
        advice = f"{steps} steps are too few to tell: train on"
    else:
        advice = (
            "they cost time and blur int8 scales: a narrower --alpha has room enough, or train "
            "again from other weights (--init) or with --schedule finetune"
        )
    return NamedWarning(
        "dead-channels",
        f"{total} depthwise channel{'' if total == 1 else 's'} with one answer to every image: "
        f"{', '.join(channels[:5])}{more}",
        advice,
    )


def _line(history: Sequence[Epoch], request: TrainingRequest) -> str:
    """How an epoch went. The line of a classifier fits a terminal of 80 columns."""
    last, epochs = history[-1], request.settings.epochs
    remaining_s = (epochs - last.number) * sum(e.seconds for e in history) / len(history)
    ends = f", {units.time_left(remaining_s)}" if last.number < epochs else ""
    accuracy = "" if last.accuracy is None else f"accuracy {last.accuracy:.3f}, "
    figures = [
        f"{metric.title} {last.figure(metric.name):.3f}"
        for metric in TASKS.load(request.spec.task).METRICS[: 1 if accuracy else None]
    ]
    return (
        f"epoch {last.number} of {epochs}: loss {last.loss:.3f}, {accuracy}"
        f"validation {', '.join(figures)}{ends}"
    )


def _log(history: Sequence[Epoch]) -> str:
    """One line per epoch under the names of `Epoch`.

    The file is rewritten, so no epoch is twice.
    """
    out = io.StringIO()
    rows = []
    for epoch in history:
        row = {name: value for name, value in vars(epoch).items() if value is not None}
        rows.append(row | dict(row.pop("metrics")))
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(out, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


# --- images -----------------------------------------------------------------------------


def geometry(spec: ModelSpec) -> Preprocessing:
    """The preprocessing of `spec` without its scaling: pixels keep their values."""
    pre = spec.preprocessing
    return Preprocessing((0.0, 255.0), channels=pre.channels, resize=pre.resize, crop=pre.crop)


def _prepare(
    ref: DataRef, spec: ModelSpec, folder: Path, reporter: Reporter
) -> tuple[NDArray[np.uint8], PreparedImages]:
    """The images of `ref` at the model's resolution; those of an earlier call if they exist."""
    shape = geometry(spec)
    depends = [ref.identity, list(spec.resolution), records.encode(shape)]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
    path, record = folder / f"{key}.npy", folder / f"{key}.json"
    if not (record.is_file() and path.is_file()):
        samples = _open(ref)
        _check_labels(samples, ref, spec)
        with records.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            prepared = _decode(ref, spec, shape, samples, path, reporter)
        records.write_atomic(record, records.dumps(prepared))
    prepared = records.loads(PreparedImages, inputs.read(record, inputs.RECORD), str(record))
    _say_skipped(prepared.skipped, ref, reporter)
    try:
        mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(
            f"the prepared images {path} are damaged", "remove them: they are made anew"
        ) from error
    return mapped[: len(prepared.labels)], prepared


def _decode(
    ref: DataRef,
    spec: ModelSpec,
    shape: Preprocessing,
    samples: Samples,
    path: Path,
    reporter: Reporter,
) -> PreparedImages:
    resolution = spec.resolution
    size = (len(samples), *resolution, 3)
    needed_bytes, free_bytes = int(np.prod(size)), shutil.disk_usage(path.parent).free
    if needed_bytes > free_bytes:
        raise UsageError(
            f"decoded images take {needed_bytes / 1e9:.1f} GB in {path.parent}, "
            f"{free_bytes / 1e9:.1f} GB are free",
            "free some space, or choose another --out or a smaller --res",
        )
    part = path.with_suffix(".part")
    npy: Any = np.lib.format  # not typed in every numpy that we run on
    mapped = npy.open_memmap(part, mode="w+", dtype=np.uint8, shape=size)
    labels: list[int] = []
    skipped: list[str] = []
    read: list[int] = []
    what = f"preparing {ref.split} images"
    for number, (indices, images, errors) in enumerate(_chunks(ref, samples, resolution, shape)):
        good = [index for index in indices if index not in errors]
        mapped[len(labels) : len(labels) + len(good)] = images
        labels += [samples.label(index) for index in good]
        read += good
        skipped += [errors[index] for index in indices if index in errors]
        reporter.progress(what, min((number + 1) * CHUNK, len(samples)), len(samples))
    mapped.flush()
    records.put(part, path)
    by_label = TASKS.load(spec.task).ANNOTATION == "label"
    return PreparedImages(tuple(labels), tuple(skipped), () if by_label else tuple(read))


def _annotations(
    ref: DataRef, request: TrainingRequest, prepared: PreparedImages
) -> tuple[Annotation, ...]:
    """What is true of the prepared images, as the model sees them; masks at its resolution."""
    samples, spec = _open(ref), request.spec
    crop = spec.preprocessing.crop
    return tuple(
        evaluation_images.as_seen(samples, index, crop, spec.resolution) for index in prepared.read
    )


Chunk = tuple[range, NDArray[np.uint8], dict[int, str]]
"""Indices, the readable images, and the errors of the others."""


def _chunks(
    ref: DataRef, samples: Samples, resolution: tuple[int, int], shape: Preprocessing
) -> Iterator[Chunk]:
    count = len(samples)
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ExitStack() as stack:
        if count < WORTH_A_POOL:
            yield from (_chunk(samples, chunk, resolution, shape) for chunk in chunks)
            return
        pool = stack.enter_context(
            ProcessPoolExecutor(
                leases.cores(), mp_context=get_context("spawn"), initializer=_end_with_parent
            )
        )
        work = functools.partial(_chunk_of, ref, resolution, shape)
        try:
            yield from pool.map(work, chunks)
        except BrokenProcessPool as error:
            raise DeviceError(
                "a process that reads images was killed (out of memory?)",
                "close other programs and try again",
            ) from error


def _end_with_parent() -> None:
    """Ends this process with its parent; without this, it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _chunk_of(
    ref: DataRef, resolution: tuple[int, int], shape: Preprocessing, chunk: range
) -> Chunk:
    return _chunk(_open(ref), chunk, resolution, shape)


def _chunk(
    samples: Samples, chunk: range, resolution: tuple[int, int], shape: Preprocessing
) -> Chunk:
    images, errors = [], {}
    for index in chunk:
        try:
            image = samples.image(index)
        except BrokenImage as error:
            errors[index] = error.message
            continue
        images.append(preprocessing.prepare(image, shape, resolution).astype(np.uint8))
    stacked = np.stack(images) if images else np.empty((0, *resolution, 3), np.uint8)
    return chunk, stacked, errors


@functools.lru_cache(maxsize=1)
def _open(ref: DataRef) -> Samples:
    return dataset(ref.source).open(
        ref.source, ref.split, resolution=ref.resolution, labels=ref.labels
    )


def _check_labels(samples: Samples, ref: DataRef, spec: ModelSpec) -> None:
    if TASKS.load(spec.task).ANNOTATION != "label":
        return
    without = sum(samples.label(index) < 0 for index in range(len(samples)))
    if without:
        raise InputError(
            f"{without} of {len(samples)} images of {ref.source} have no label",
            "training needs the class of every image",
        )


def _say_skipped(skipped: Sequence[str], ref: DataRef, reporter: Reporter) -> None:
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        reporter.warn(
            NamedWarning(
                "broken-image",
                f"{len(skipped)} images of {ref.source} ({ref.split}) are skipped: "
                f"{'; '.join(skipped[:3])}{more}",
            )
        )


def _work(request: TrainingRequest, speak: Speaker) -> None:
    speak.event(fit(request, speak))


if __name__ == "__main__":
    child_process.serve(TrainingRequest, _work, what="the training")
