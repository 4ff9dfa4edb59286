"""The images of a report: those whose answer changed, and those that boxes and masks belong to."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from PIL import Image

from mobiledeploy.analysis import annotations as annotations_
from mobiledeploy.analysis import masks
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import Pixels, Samples
from mobiledeploy.core.preprocessing import crop_margins
from mobiledeploy.core.samples import class_name
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    DrawnAnswer,
    DrawnBox,
    Evaluation,
    Flip,
    Mask,
    Prediction,
)
from mobiledeploy.steps.evaluation_images import as_seen

FLIP_PIXELS = 96
DRAWN = 4
"""So many images with boxes or a mask are shown per artifact."""
DRAWN_PIXELS = 192
LEAST_SCORE = 0.5
"""Of a box that is drawn."""
MOST_BOXES = 10
BACKGROUND = "background"
# The colours of Okabe and Ito, which colour-blind people can tell apart.
_COLORS = ("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7")


def named(evaluation: Evaluation, artifact: Artifact, index: int) -> str:
    """The name of a class of an evaluation."""
    labels = evaluation.preprocessing.labels or evaluation.data.labels
    return "–" if index < 0 else class_name(labels, artifact.spec.classes, index)


class ReportImages:
    """The images of one report; each data set is opened once, for it may have to be read whole."""

    def __init__(self) -> None:
        self._opened: dict[DataRef, Samples | None] = {}

    def flips(
        self,
        evaluation: Evaluation,
        artifact: Artifact,
        changes: Sequence[tuple[str, int, int, int]],
    ) -> tuple[Flip, ...]:
        """The changes (sample, label, class before, class now) with their images."""
        samples = self._samples(evaluation.data) if changes else None
        places = _places(samples)
        rows = []
        for sample, *classes in changes:
            label, before, now = (named(evaluation, artifact, index) for index in classes)
            image = ""
            if samples is not None and sample in places:
                with suppress(DeployError, OSError):
                    image = _jpeg(samples.image(places[sample]), FLIP_PIXELS)
            rows.append(Flip(sample, label, before, now, image))
        return tuple(rows)

    def drawn(
        self,
        evaluation: Evaluation,
        artifact: Artifact,
        first: Sequence[str] = (),
        before: Mapping[str, Prediction] | None = None,
    ) -> tuple[DrawnAnswer, ...]:
        """Boxes or masks with what is annotated; () of another task, or where the data is gone.

        The samples of `first` come before the others, in their order. `before` holds the
        predictions of another artifact by sample, whose masks are drawn too.
        """
        if not any(p.boxes or p.mask for p in evaluation.predictions):
            return ()
        samples = self._samples(evaluation.data)
        if samples is None:
            return ()
        places = _places(samples)
        order = {sample: place for place, sample in enumerate(first[:DRAWN])}
        ordered = sorted(evaluation.predictions, key=lambda p: order.get(p.sample, DRAWN))
        answers: list[DrawnAnswer] = []
        for p in ordered[:DRAWN]:
            with suppress(DeployError, OSError, KeyError):
                other = (before or {}).get(p.sample)
                answers.append(_drawn(evaluation, artifact, samples, places[p.sample], p, other))
        return tuple(answers)

    def _samples(self, data: DataRef) -> Samples | None:
        """The images of an evaluation; None if they are gone, changed, or on another machine."""
        if data not in self._opened:
            self._opened[data] = _open(data)
        return self._opened[data]


def _open(data: DataRef) -> Samples | None:
    try:
        samples = dataset(data.source).open(
            data.source, data.split, resolution=data.resolution, labels=data.labels
        )
        return samples if samples.identity == data.identity else None
    except (DeployError, OSError):
        return None


def _drawn(
    evaluation: Evaluation,
    artifact: Artifact,
    samples: Samples,
    place: int,
    p: Prediction,
    before: Prediction | None,
) -> DrawnAnswer:
    crop = evaluation.preprocessing.crop
    pixels = samples.image(place)
    top, left = crop_margins((pixels.shape[0], pixels.shape[1]), crop)
    seen = pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left]
    annotation = as_seen(samples, place, crop, p.mask.size if p.mask else None)
    best = [
        DrawnBox(box, named(evaluation, artifact, index), score)
        for box, index, score in zip(p.boxes, p.classes, p.scores, strict=False)
        if score >= LEAST_SCORE
    ]
    truth = [
        DrawnBox(box, named(evaluation, artifact, index), None)
        for box, index in zip(annotation.boxes, annotation.labels, strict=False)
    ]
    other = before.mask if before else None
    names, images = _masks(evaluation, artifact, (p.mask, annotation.mask, other))
    return DrawnAnswer(
        p.sample,
        _jpeg(seen, DRAWN_PIXELS),
        (*best[:MOST_BOXES], *truth[:MOST_BOXES]),
        mask=images[0],
        true_mask=images[1],
        classes=names,
        before_mask=images[2],
        differing=masks.differing(p.mask, other) if p.mask and other else None,
    )


def _masks(
    evaluation: Evaluation, artifact: Artifact, of_one: Sequence[Mask | None]
) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """(name, colour) of each class in the masks of one image, and the masks as images."""
    tables = [masks.decode(m) if m else None for m in of_one]
    present = {int(c) for t in tables if t is not None for c in np.unique(t) if c >= 0}
    names = {c: named(evaluation, artifact, c) for c in sorted(present)}
    shown = [c for c, name in names.items() if name != BACKGROUND]
    colors = {c: _COLORS[place % len(_COLORS)] for place, c in enumerate(shown)}
    images = ["" if m is None else _png(m, colors) for m in of_one]
    return tuple((names[c], color) for c, color in colors.items()), images


def _png(mask: Mask, colors: dict[int, str]) -> str:
    """The mask as an image that is transparent where no colour is for the class."""
    table = masks.decode(mask)
    height, width = (max(1, min(side, DRAWN_PIXELS)) for side in mask.size)
    table = annotations_.resize_mask(table, (height, width))
    pixels = np.zeros((height, width, 4), np.uint8)
    for index, color in colors.items():
        pixels[table == index] = (*bytes.fromhex(color), 255)
    return _uri(Image.fromarray(pixels), "PNG")


def _places(samples: Samples | None) -> dict[str, int]:
    return {} if samples is None else {samples.id(i): i for i in range(len(samples))}


def _jpeg(pixels: Pixels, most: int) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((most, most))
    return _uri(image, "JPEG", quality=80)


def _uri(image: Image.Image, kind: str, **settings: int) -> str:
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
