"""The evaluation images of an artifact, and how their labels fit its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import preprocessing
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.samples import class_offset
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

_BINARY = 2


@dataclass(frozen=True)
class View:
    """The images for one artifact, and how their labels fit its classes.

    A label plus `offset` is a class of the model; `offset` is None if labels do not fit.
    """

    samples: Samples
    ref: DataRef
    preprocessing: Preprocessing
    offset: int | None
    warnings: tuple[NamedWarning, ...]

    def annotations(
        self, predictions: Sequence[Prediction], kind: str
    ) -> tuple[Annotation, ...] | None:
        """What is true of the predicted samples, in their order.

        None if the data has no annotations of this `kind`, a field of `Annotation`.
        """
        if not kind:
            return (Annotation(),) * len(predictions)
        if kind == "label":
            if self.offset is None or all(p.label < 0 for p in predictions):
                return None
            return tuple(Annotation(p.label) for p in predictions)
        places = {self.samples.id(index): index for index in range(len(self.samples))}
        annotations = tuple(self.samples.annotation(places[p.sample]) for p in predictions)
        return annotations if any(getattr(one, kind) for one in annotations) else None


class EvaluationImages:
    """Opens the data of artifacts, and only once if several use the same."""

    def __init__(self, source: str | None, overrides: Overrides) -> None:
        self._source = source
        self._overrides = overrides
        self._samples: dict[tuple[object, ...], Samples] = {}

    def of(self, artifact: Artifact) -> View:
        """The evaluation images of `artifact`; UsageError for images that say nothing about it."""
        pre = self._overrides.over(artifact.spec.preprocessing)
        assert pre is not None
        preprocessing.validate(pre)
        own = artifact.data
        source = self._source or own.source
        trained_on_demo = (own.source, own.split) == ("demo", "held")
        builtin = artifact.spec.card and (
            trained_on_demo or artifact.spec.weights.source in ("demo", "random")
        )
        if source == "demo" and not builtin:
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
        elif source == "demo":
            # The splits have no common images: this one has none for training or calibration.
            split = "validation"
        samples = self._open(source, split, artifact, labels)
        task_choice.require_classes(artifact.spec.task, samples)
        offset, label_warnings = _labels(len(samples.classes), artifact)
        warnings += label_warnings
        ref = DataRef(source, split, artifact.spec.resolution, labels, samples.identity)
        return View(samples, ref, pre, offset, tuple(warnings))

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
                    f"{source} is not as it was when {artifact.path} was exported: "
                    "some of its images may have calibrated it",
                    "export again, or give --data with other images",
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


def _labels(labels: int, artifact: Artifact) -> tuple[int | None, list[NamedWarning]]:
    """What is added to a label for the class of the model, and warnings about it.

    `labels` is the number of classes of the data, 0 for images without labels.
    """
    if not labels:
        return None, []
    if artifact.spec.task == "binary":
        return (0, []) if labels == _BINARY else (None, _misfit(labels, artifact, _BINARY))
    if artifact.spec.task != "classification":
        return 0, []
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
