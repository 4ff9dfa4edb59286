"""The evaluation images of an artifact, and how their labels fit its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobiledeploy.analysis import annotations as annotations_
from mobiledeploy.core import builtin_data, preprocessing, records
from mobiledeploy.core.artifacts import signature
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import TASKS, data_of_task, dataset
from mobiledeploy.core.ports import SILENT, Reporter, Samples
from mobiledeploy.core.samples import class_offset, labelled_classes
from mobiledeploy.core.types import (
    Annotation,
    Artifact,
    DataRef,
    NamedWarning,
    Prediction,
    Preprocessing,
    Split,
)
from mobiledeploy.steps import task_choice
from mobiledeploy.steps.arguments import Overrides
from mobiledeploy.steps.runner_pool import image_ranges

_BINARY = 2
_LIMIT_SEED = 20170417


@dataclass(frozen=True)
class View:
    """The samples for one artifact, its task, and how their labels fit its classes.

    A label plus `offset` is a class of the model; `offset` is None if labels do not fit. `classes`
    is how many classes the model's answers name, None where it does not say. `places` are the
    samples to take in their order, None for all.
    """

    samples: Samples
    ref: DataRef
    task: str
    preprocessing: Preprocessing
    offset: int | None
    warnings: tuple[NamedWarning, ...]
    classes: int | None
    places: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        """How many samples are taken."""
        return len(self.samples) if self.places is None else len(self.places)

    def ranges(self, workers: int) -> Iterator[tuple[int, int]]:
        """The samples as ranges for so many runners."""
        if self.places is None:
            return image_ranges(self.count, workers)
        return ((place, place + 1) for place in self.places)

    def annotations(
        self, predictions: Sequence[Prediction], kind: str
    ) -> tuple[Annotation, ...] | None:
        """What is true of the predicted samples, in their order.

        None if the data has no annotations of this `kind`, a field of `Annotation`.
        """
        if kind == "label":
            if self.offset is None or all(p.label < 0 for p in predictions):
                return None
            return tuple(Annotation(p.label) for p in predictions)
        places = {self.samples.id(index): index for index in range(len(self.samples))}
        annotations = tuple(self._as_seen(places[p.sample], p) for p in predictions)
        return annotations if any(getattr(one, kind) for one in annotations) else None

    def _as_seen(self, index: int, prediction: Prediction) -> Annotation:
        """The annotation of what the model sees of a sample, a mask at the size of its answer."""
        self._require_classes(self.samples.annotation(index), prediction)
        output = prediction.mask.size if prediction.mask else None
        return as_seen(self.samples, index, self.preprocessing.crop, output)

    def _require_classes(self, annotation: Annotation, prediction: Prediction) -> None:
        if self.classes is None:
            return
        if annotation.mask is not None and prediction.mask is not None:
            kind, hint = "mask", "give masks of the model's classes, from 0; 255 is not annotated"
            highest = max(annotation.mask.runs[::2], default=-1)
        elif annotation.boxes:
            kind, hint = "box", "give boxes of the model's classes, in the model's order"
            highest = max(annotation.labels, default=-1)
        else:
            return
        if highest >= self.classes:
            raise InputError(
                f"a {kind} of {prediction.sample} has the class {highest}, and the model has "
                f"{self.classes} classes, from 0",
                hint,
            )


def as_seen(
    samples: Samples, index: int, crop: float, output: tuple[int, int] | None
) -> Annotation:
    """The annotation of what a model with this `crop` sees of a sample, its mask at `output`."""
    annotation = samples.annotation(index)
    if not annotation.boxes and annotation.mask is None:
        return annotation
    if annotation.mask is not None:
        size = annotation.mask.size
    elif crop < 1:
        height, width = samples.image(index).shape[:2]
        size = (height, width)
    else:
        # Without a crop, fractions of the image are fractions of what the model sees.
        return annotation
    return annotations_.as_seen(annotation, size, crop, output)


class EvaluationImages:
    """Opens the data of artifacts, and only once if several use the same."""

    def __init__(
        self,
        source: str | None,
        overrides: Overrides,
        task: str = "",
        reporter: Reporter = SILENT,
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"{limit} images say nothing", "give a --limit of 1 or more")
        self._limit = limit
        self._source = source
        self._overrides = overrides
        self._task = task
        self._reporter = reporter
        self._views: dict[str, View] = {}
        self._samples: dict[tuple[object, ...], Samples] = {}

    def of(self, artifact: Artifact) -> View:
        """The evaluation images of `artifact`; UsageError for images that say nothing about it."""
        if artifact.sha256 not in self._views:
            self._views[artifact.sha256] = self._view(artifact)
        return self._views[artifact.sha256]

    def _view(self, artifact: Artifact) -> View:
        pre = preprocessing_of(artifact, self._overrides)
        own = artifact.data
        known = self._task or artifact.spec.task
        source = data_of_task(self._source or own.source, known)
        if not source:
            raise UsageError(
                f"{artifact.path} was made elsewhere, and no images are known for it",
                "give --data DIR or FILE.npz",
            )
        trained_on_demo = own.source in builtin_data.NAMES and own.split == "held"
        builtin = artifact.spec.card and (
            trained_on_demo or artifact.spec.weights.source in ("demo", "random")
        )
        if source in builtin_data.NAMES and not builtin:
            raise UsageError(
                "the demo images say nothing about a model that was not trained on them",
                "give --data DIR or FILE.npz",
            )
        warnings: list[NamedWarning] = []
        split: Split = "all"
        labels = pre.labels
        if self._are_own(source, artifact, warnings):
            split = own.split
            labels = self._overrides.labels or own.labels
        elif source in builtin_data.NAMES:
            # The splits have no common images: this one has none for training or calibration.
            split = "validation"
        samples = self._open(source, split, artifact, labels)
        task = task_choice.choose(
            signature(artifact),
            known,
            labelled_classes(samples),
            self._reporter,
        )
        task_choice.require_classes(task, samples)
        labelled = any(samples.label(index) >= 0 for index in range(len(samples)))
        offset, label_warnings = _labels(len(samples.classes) if labelled else 0, artifact, task)
        warnings += label_warnings
        unfit = task_choice.unfit_annotations(task, samples)
        warnings += [unfit] if unfit else []
        if artifact.calibration == samples.identity:
            message = "it was calibrated on these images: others say more"
            warnings.append(
                NamedWarning("calibration-images", message, "--data with others", artifact.path)
            )
        places = limited(len(samples), self._limit)
        identity = samples.identity if places is None else part(samples.identity, len(places))
        ref = DataRef(source, split, artifact.spec.resolution, labels, identity)
        classes = TASKS.load(task).classes(signature(artifact).outputs)
        return View(samples, ref, task, pre, offset, tuple(warnings), classes, places)

    def _are_own(self, source: str, artifact: Artifact, warnings: list[NamedWarning]) -> bool:
        """Whether the artifact was exported with these images."""
        own = artifact.data
        same_name = same_place(source, own.source)
        try:
            identity = self._open(source, own.split, artifact, own.labels).identity
        except InputError:
            if same_name:
                raise
            return False
        if same_name and identity != own.identity:
            warnings.append(
                NamedWarning(
                    "changed-data",
                    f"{source} is not as it was at the export: some of its images may have "
                    "calibrated the file",
                    "export again, or give --data with other images",
                    artifact.path,
                )
            )
        return same_name or identity == own.identity

    def _open(
        self, source: str, split: Split, artifact: Artifact, labels: tuple[str, ...]
    ) -> Samples:
        key = (source, split, artifact.spec.resolution, labels)
        if key not in self._samples:
            self._samples[key] = dataset(source).open(
                source, split, resolution=artifact.spec.resolution, labels=labels
            )
        return self._samples[key]


def limited(count: int, limit: int | None) -> tuple[int, ...] | None:
    """At most `limit` places of `count` samples, in their order; None for all.

    They are drawn once for all: data is often sorted by class, so the first samples would be of one
    class. A smaller limit draws some of those of a larger one.
    """
    if limit is None or limit >= count:
        return None
    order = np.random.Generator(np.random.PCG64(_LIMIT_SEED)).permutation(count)
    return tuple(int(place) for place in np.sort(order[:limit]))


def part(identity: str, count: int) -> str:
    """The identity of `count` samples that `limited` draws of those of an identity."""
    return records.sha256(f"{identity} {count}".encode())


def preprocessing_of(artifact: Artifact, overrides: Overrides) -> Preprocessing:
    """How the images of an artifact are prepared; UsageError if nobody says it."""
    image = signature(artifact).image
    if image is None:
        return artifact.spec.preprocessing
    own = image.preprocessing
    pre = overrides.over(own)
    if own and pre and overrides.input_range not in (None, own.input_range):
        # A file of integers may state its pixels themselves, with a mean and a deviation. Another
        # range replaces these too; the range of the float file says the same as the file.
        if overrides.mean is None and overrides.std is None and _on_pixels(own):
            pre = dataclasses.replace(pre, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        if preprocessing.on_codes(pre) == own:
            pre = own
    if pre is None:
        raise UsageError(
            f"what pixels were scaled to when {artifact.path} was trained is not in the file",
            "say --input-range 0,1 or -1,1 or 0,255",
        )
    pre = pre.for_channels(image.shape[-1])
    preprocessing.validate(pre)
    return pre


def _on_pixels(own: Preprocessing) -> bool:
    """Whether a preprocessing has the form of `preprocessing.on_codes`."""
    return own.input_range == (0.0, 255.0) and own.mean != (0.0, 0.0, 0.0)


def same_place(one: str, other: str) -> bool:
    """Whether two values of `--data` name the same images, also by two paths."""
    if one == other:
        return True
    first, second = Path(one), Path(other)
    return (
        first.exists()
        and second.exists()
        and first.samefile(second)
        # A folder called demo is written as ./demo, because demo means the built-in images.
        and dataset(one) is dataset(other)
    )


def _labels(labels: int, artifact: Artifact, task: str) -> tuple[int | None, list[NamedWarning]]:
    """What is added to a label for the class of the model, and warnings about it."""
    if task not in ("binary", "classification") or not labels:
        return (None if task == "classification" else 0), []
    if task == "binary":
        return (0, []) if labels == _BINARY else (None, _misfit(labels, artifact, _BINARY))
    offset = class_offset(labels, artifact.spec.classes)
    return offset, _label_warnings(labels, artifact, offset)


def _misfit(labels: int, artifact: Artifact, classes: int) -> list[NamedWarning]:
    message = f"the data has {labels} classes, {artifact.path} has {classes}: no top-1 is given"
    return [NamedWarning("labels-do-not-fit", message, "--labels FILE with the model's classes")]


def _label_warnings(labels: int, artifact: Artifact, offset: int | None) -> list[NamedWarning]:
    classes = artifact.spec.classes
    if offset is None:
        return _misfit(labels, artifact, classes)
    if offset:
        more = "model" if offset > 0 else "data"
        message = f"the {more} has one class more ({labels} labels, {classes} outputs)"
        advice = "it is taken for a background class before all others"
        return [NamedWarning("background-class", message, advice)]
    return []
