"""The images that judge an artifact, and how their labels fit its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import preprocessing
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.samples import class_offset
from mobiledeploy.core.types import Artifact, DataRef, NamedWarning, Overrides, Preprocessing, Split


@dataclass(frozen=True)
class View:
    """The images for one artifact, and how their labels meet its classes.

    `offset` is what makes a label a class of the model, None where labels do not fit.
    """

    samples: Samples
    ref: DataRef
    preprocessing: Preprocessing
    offset: int | None
    warnings: tuple[NamedWarning, ...]


class EvaluationImages:
    """Opens the data for artifacts; once, where several take the same."""

    def __init__(self, source: str | None, overrides: Overrides) -> None:
        self._source = source
        self._overrides = overrides
        self._known: dict[tuple[object, ...], Samples] = {}

    def of(self, artifact: Artifact) -> View:
        """The images that judge `artifact`; UsageError for those that say nothing about it."""
        pre = self._overrides.over(artifact.spec.preprocessing)
        assert pre is not None
        preprocessing.validate(pre)
        own = artifact.data
        source = self._source or own.source
        trained = (own.source, own.split) == ("demo", "held")
        builtin = artifact.spec.card and (
            trained or artifact.spec.weights.source in ("demo", "random")
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
            # Its splits are apart from each other: what trains or calibrates is not in this one.
            split = "validation"
        samples = self._open(source, split, artifact, labels)
        offset = class_offset(len(samples.classes), artifact.spec.classes)
        warnings += _label_warnings(len(samples.classes), artifact, offset)
        ref = DataRef(source, split, artifact.spec.resolution, labels, samples.identity)
        return View(samples, ref, pre, offset, tuple(warnings))

    def _are_own(self, source: str, artifact: Artifact, warnings: list[NamedWarning]) -> bool:
        """Whether the images are those that the artifact was exported with."""
        own = artifact.data
        named_alike = same_place(source, own.source)
        try:
            found = self._open(source, own.split, artifact, own.labels).identity
        except InputError:
            if named_alike:
                raise
            return False
        if named_alike and found != own.identity:
            warnings.append(
                NamedWarning(
                    "changed-data",
                    f"{source} is not as it was when {artifact.path} was exported: "
                    "some of its images may have calibrated it",
                    "export again, or give --data with other images",
                )
            )
        return named_alike or found == own.identity

    def _open(
        self, source: str, split: Split, artifact: Artifact, labels: tuple[str, ...]
    ) -> Samples:
        key = (source, split, artifact.spec.resolution, labels)
        if key not in self._known:
            self._known[key] = dataset(source).open(
                source, split, resolution=artifact.spec.resolution, labels=labels
            )
        return self._known[key]


def same_place(one: str, other: str) -> bool:
    """Whether two `--data` name the same images, be it by two paths."""
    if one == other:
        return True
    first, second = Path(one), Path(other)
    return (
        first.exists()
        and second.exists()
        and first.samefile(second)
        # A folder called demo is ./demo: demo alone is the drawn images.
        and dataset(one) is dataset(other)
    )


def _label_warnings(labels: int, artifact: Artifact, offset: int | None) -> list[NamedWarning]:
    classes = artifact.spec.classes
    if offset is None:
        message = f"the data has {labels} classes, {artifact.path} has {classes}: no top-1 is given"
        return [
            NamedWarning("labels-do-not-fit", message, "--labels FILE with the model's classes")
        ]
    if offset:
        more = "model" if offset > 0 else "data"
        message = f"the {more} has one class more ({labels} labels, {classes} outputs)"
        advice = "it is taken for a background class before all others"
        return [NamedWarning("background-class", message, advice)]
    return []
