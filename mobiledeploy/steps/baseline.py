"""The baseline file: the accepted artifacts, and whether a comparison with them is valid."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import pareto
from mobiledeploy.core import inputs, preprocessing, records, units
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import TASKS
from mobiledeploy.core.ports import Samples
from mobiledeploy.core.types import (
    Annotation,
    Answers,
    Artifact,
    DataRef,
    Evaluation,
    Gain,
    Mask,
    Prediction,
    Preprocessing,
    Target,
)
from mobiledeploy.core.unrecorded import ARCHITECTURE
from mobiledeploy.steps import instruction_sets

Key = tuple[str, str, str]
_MOST_CLASSES = 1 << 16
_MOST_IMAGES = 100_000_000
_MOST_BYTES = 64 << 20
"""Of the answers of a task, unpacked. Parsed JSON takes up to 24 times the memory of its text."""
_DIGITS = 6
CLASSIFICATION = "classification"


@dataclass(frozen=True)
class Accepted:
    """One accepted artifact and its answers: an entry of a baseline.

    `model`, `recipe` and `format` are its key. `answers` is the best class of each of the `images`
    readable images, in the order of the data: base64 of zlib of little-endian uint16. `samples` is
    the sha256 of their ids, `right` the number of right answers (None without labels). `isa` is the
    machine's instruction set. `seal` is the sha256 of the entry without its seal: an edited entry
    is refused. `io` is the `ends` of the artifact, None in entries of earlier versions.
    `weights_sha256` is "" for random weights, and for files of other tools, whose weights nobody
    knows.

    `task` is None for a classifier. For other tasks `answers` is base64 of zlib of JSON: a list of
    Predictions without what is empty, numbers rounded to six digits. `metric` is their first
    metric (None without annotations).
    """

    model: str
    recipe: str
    format: str
    artifact_sha256: str
    weights_sha256: str
    classes: int
    data: DataRef
    preprocessing: Preprocessing
    target: Target
    runtime_version: str
    isa: str
    images: int
    samples: str
    right: int | None
    answers: str
    seal: str
    io: str | None = None
    task: str | None = None
    metric: float | None = None


@dataclass(frozen=True)
class Baseline:
    """The accepted artifacts of a project, in one file under version control."""

    accepted: tuple[Accepted, ...]


def key(of: Artifact | Accepted) -> Key:
    """(model, recipe, format), which is the same for all versions of a model."""
    if isinstance(of, Accepted):
        return of.model, of.recipe, of.format
    return of.spec.name, of.recipe.name, of.format


def read(path: Path, update: str) -> Baseline:
    """The baseline in a file; `update` is the command that would write it.

    Raises:
        MissingError: there is no such file.
        InputError: it is not a baseline, is truncated, or was edited.
    """
    try:
        text = inputs.read(path, inputs.RECORD)
    except inputs.Absent as error:
        raise MissingError(f"there is no baseline {path} yet", update) from error
    baseline = records.loads(Baseline, text, str(path))
    for entry in baseline.accepted:
        if entry.seal != seal(entry):
            raise InputError(
                f"{path} was edited: {' '.join(key(entry))} is not as it was written",
                f"take it back from version control, or remove it and run {update}",
            )
        if entry.task is None:
            answers(entry)
    keys = [key(entry) for entry in baseline.accepted]
    if len(set(keys)) < len(keys):
        raise InputError(f"{path} has two entries of one key", f"remove it and run {update}")
    return baseline


def write(path: Path, baseline: Baseline) -> None:
    """Writes it with its entries sorted by key, so that a diff of two versions is small."""
    ordered = tuple(sorted(baseline.accepted, key=key))
    text = records.dumps(Baseline(ordered)) + "\n"
    if len(text) > inputs.RECORD:
        raise InputError(
            f"the answers for {path} take {units.size(len(text))}, and a baseline has at most "
            f"{units.size(inputs.RECORD)}",
            "give fewer images, or a baseline of its own to each artifact",
        )
    records.write_atomic(path, text)


def seal(entry: Accepted) -> str:
    """sha256 of an entry without its seal."""
    fields = records.encode(dataclasses.replace(entry, seal=""))
    if entry.io is None:
        # Earlier versions had no such field.
        del fields["io"]
    if entry.task is None:
        del fields["task"], fields["metric"]
    # The form of the first version: otherwise every baseline under version control is refused.
    text = json.dumps({"schema_version": 1, "record": "Accepted"} | fields, separators=(",", ":"))
    return records.sha256(text.encode())


def weights(artifact: Artifact) -> str:
    """The sha256 of an artifact's weights; "" where nobody knows it."""
    return "" if of_another_tool(artifact) else artifact.spec.weights.sha256


def of_another_tool(artifact: Artifact) -> bool:
    """Whether the file has no record, so that its weights have no name."""
    return artifact.spec.architecture == ARCHITECTURE


def entry(
    artifact: Artifact, evaluation: Evaluation, annotations: Sequence[Annotation] | None = None
) -> Accepted:
    """The entry for an artifact that is accepted; without annotations it has no metric.

    A classifier has its labels in the evaluation.
    """
    e = evaluation
    right_count = metric = task = None
    if e.task == CLASSIFICATION:
        if artifact.spec.classes > _MOST_CLASSES:
            raise InputError(f"a baseline holds answers of {_MOST_CLASSES} classes at most")
        best = np.array([p.classes[0] for p in e.predictions], "<u2")
        packed = _pack(best.tobytes())
        right_count = right([p.label for p in e.predictions], best)
    else:
        task = e.task
        kept = rounded(e.predictions)
        packed = _pack(_json(kept).encode())
        metric = deciding_metric(task, kept, annotations)
    model, recipe, format_ = key(artifact)
    unsealed = Accepted(
        model=model,
        recipe=recipe,
        format=format_,
        artifact_sha256=artifact.sha256,
        weights_sha256=weights(artifact),
        classes=artifact.spec.classes,
        data=e.data,
        preprocessing=e.preprocessing,
        target=e.target,
        runtime_version=e.runtime_version,
        isa=e.isa or instruction_sets.here(),
        images=e.images,
        samples=samples(e),
        right=right_count,
        answers=packed,
        seal="",
        io=artifact.ends,
        task=task,
        metric=metric,
    )
    return dataclasses.replace(unsealed, seal=seal(unsealed))


def narrowed(entry: Accepted, samples_: Samples, evaluation: Evaluation) -> Accepted:
    """The entry for the samples of `evaluation` only, which are a part of those of the entry.

    The entry as it is if it is not of `samples_`, the whole data, or lacks broken images: which of
    them its answers belong to is not known then.
    """
    ids = [samples_.id(place) for place in range(len(samples_))]
    if entry.data.identity != samples_.identity or entry.samples != _of_ids(ids):
        return entry
    places = {name: place for place, name in enumerate(ids)}
    kept = [places[p.sample] for p in evaluation.predictions]
    right_count, metric = None, None
    if entry.task is None:
        best = answers(entry)[kept].astype("<u2")
        packed = _pack(best.tobytes())
        if entry.right is not None:
            right_count = right([p.label for p in evaluation.predictions], best)
    else:
        rows = _rows(entry)
        if len(rows) != len(ids):
            raise _damaged(entry)
        chosen = [rows[place] for place in kept]
        packed = _pack(json.dumps(chosen, separators=(",", ":")).encode())
    return dataclasses.replace(
        entry,
        data=dataclasses.replace(entry.data, identity=evaluation.data.identity),
        images=len(kept),
        samples=samples(evaluation),
        right=right_count,
        answers=packed,
        metric=metric,
    )


def need_device(path: Path, entries: Iterable[Accepted], device: str) -> None:
    """UsageError if a baseline has answers of another device: one file is of one device."""
    other = next((e for e in entries if e.target.device != device), None)
    if other is not None:
        raise UsageError(
            f"{path} has the answers of {other.target.device} for {' '.join(key(other))}, and "
            f"those of {device} do not belong beside them",
            "give another --baseline for each device; a check on a device can use the host's",
        )


def image_answers(evaluation: Evaluation) -> Answers | None:
    """Which images have the right answer, for a comparison with other answers to them.

    None for other metrics than top-1.
    """
    return None if evaluation.top1 is None else pareto.answers(evaluation, samples(evaluation))


def gain(entry: Accepted, evaluation: Evaluation) -> Gain | None:
    """The gain in top-1 of an evaluation over the accepted answers, on the host's images.

    None for another task, other images, or answers of a device.
    """
    if entry.task is not None or entry.target.device != evaluation.target.device:
        return None
    now = image_answers(evaluation)
    if now is None or samples(evaluation) != entry.samples:
        return None
    labels = np.array([p.label for p in evaluation.predictions])
    bits = np.packbits(answers(entry) == labels).tobytes()
    before = Answers(
        entry.artifact_sha256, now.samples, entry.images, base64.b64encode(bits).decode()
    )
    return pareto.gain(now, before)


def samples(evaluation: Evaluation) -> str:
    """sha256 of the ids of the readable images."""
    return _of_ids([prediction.sample for prediction in evaluation.predictions])


def _of_ids(ids: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in ids:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def right(labels: Sequence[int], best: NDArray[np.generic]) -> int | None:
    """The number of right answers; None without labels."""
    truth = np.asarray(labels)
    return int((best[truth >= 0] == truth[truth >= 0]).sum()) if (truth >= 0).any() else None


def deciding_metric(
    task: str, predictions: Sequence[Prediction], annotations: Sequence[Annotation] | None
) -> float | None:
    """The task's first metric; None without annotations, or where they do not give it."""
    if annotations is None:
        return None
    shelf = TASKS.load(task)
    return shelf.metrics(predictions, annotations).get(shelf.METRICS[0].name)


def answers(entry: Accepted) -> NDArray[np.int64]:
    """The best class of each image, int64 [images]; InputError for impossible answers."""
    if not 0 < entry.images <= _MOST_IMAGES:
        raise InputError(f"{' '.join(key(entry))} has {entry.images} images, which cannot be")
    content = _unpack(entry, 2 * entry.images + 2)
    try:
        best = np.frombuffer(content, "<u2").astype(np.int64)
    except ValueError as error:
        raise _damaged(entry) from error
    if len(best) != entry.images or best.max() >= entry.classes:
        raise InputError(f"the answers of {' '.join(key(entry))} are not of its images and classes")
    return best


def rounded(predictions: Sequence[Prediction]) -> tuple[Prediction, ...]:
    """Answers as a baseline keeps them: their numbers have six digits, and they have no labels."""
    return tuple(
        dataclasses.replace(
            p,
            label=-1,
            scores=tuple(map(_round, p.scores)),
            boxes=tuple(
                (_round(left), _round(top), _round(right), _round(bottom))
                for left, top, right, bottom in p.boxes
            ),
            values=tuple(map(_round, p.values)),
        )
        for p in predictions
    )


def predictions(entry: Accepted, evaluation: Evaluation) -> tuple[Prediction, ...]:
    """The accepted answers of a task to the images of `evaluation`, in their order.

    Raises:
        InputError: impossible answers, or not such as those of the evaluation.
    """
    rows = _rows(entry)
    where = f"the answers of {' '.join(key(entry))}"
    count = len(evaluation.predictions)
    if not len(rows) == entry.images == count:
        raise InputError(f"{where} are not of its images and classes")
    kept = []
    boxes = TASKS.load(evaluation.task).ANNOTATION == "boxes"
    for row, now in zip(rows, evaluation.predictions, strict=True):
        if not isinstance(row, dict):
            raise _damaged(entry)
        one = records.decode(Prediction, row | {"sample": now.sample}, where)
        if not _sound(one) or not (boxes or _alike(one, now, max(2, entry.classes))):
            raise InputError(f"{where} are not of its images and classes")
        kept.append(one)
    return tuple(kept)


def _rows(entry: Accepted) -> list[Any]:
    """The answers of a task as JSON; InputError for anything but a list."""
    content = _unpack(entry, _MOST_BYTES)
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(entry) from error
    if not isinstance(rows, list):
        raise InputError(f"the answers of {' '.join(key(entry))} are not of its images and classes")
    return rows


def _round(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def _json(kept: Sequence[Prediction]) -> str:
    """Predictions without names, labels and what is empty.

    InputError for numbers that are not finite, and for more than a baseline can hold.
    """
    if not all(map(_finite, kept)):
        raise InputError("an answer that is no finite number cannot be accepted")
    rows = [
        {
            name: value
            for name, value in records.encode(p).items()
            if value and name not in ("sample", "label")
        }
        for p in kept
    ]
    text = json.dumps(rows, separators=(",", ":"))
    if len(text) > _MOST_BYTES:
        raise InputError(
            f"the answers to {units.several(len(kept), 'image')} take {units.size(len(text))}, and "
            f"a baseline holds {units.size(_MOST_BYTES)}",
            "give fewer images",
        )
    return text


def _finite(p: Prediction) -> bool:
    return all(map(math.isfinite, (*p.scores, *p.values, *(x for box in p.boxes for x in box))))


def _sound(p: Prediction) -> bool:
    """Whether the fields of a prediction can be those of an answer."""
    upright = all(left <= right and top <= bottom for left, top, right, bottom in p.boxes)
    return (
        _finite(p)
        and p.label == -1
        and upright
        and len(p.classes) == len(p.scores)
        and len(p.boxes) in (0, len(p.classes))
        and min(p.classes, default=0) >= 0
        and (p.mask is None or _fills(p.mask))
    )


def _alike(one: Prediction, now: Prediction, classes: int) -> bool:
    """Whether two answers without boxes are of one form, and the first has no more classes."""
    sides = [
        (len(p.classes), len(p.boxes), len(p.values), p.mask and p.mask.size) for p in (one, now)
    ]
    largest = max((*one.classes, *(one.mask.runs[::2] if one.mask else ())), default=0)
    return sides[0] == sides[1] and largest < classes


def _fills(mask: Mask) -> bool:
    lengths = mask.runs[1::2]
    whole = len(mask.runs) % 2 == 0 and min(*mask.size, *mask.runs) >= 0
    return whole and sum(lengths) == mask.size[0] * mask.size[1]


def _pack(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _unpack(entry: Accepted, most: int) -> bytes:
    """The content of `answers`, of which at most so many bytes are read."""
    try:
        compressed = base64.b64decode(entry.answers, validate=True)
        # A few bytes can unpack to very many: the limit is the size of valid answers.
        return zlib.decompressobj().decompress(compressed, most)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise _damaged(entry) from error


def _damaged(entry: Accepted) -> InputError:
    return InputError(f"the answers of {' '.join(key(entry))} are damaged")


def differences(
    entry: Accepted,
    artifact: Artifact,
    evaluation: Evaluation,
    annotations: Sequence[Annotation] | None = None,
) -> list[str]:
    """The differences that make a comparison with an entry void, each in words: now, then."""
    e = evaluation
    if e.task != (entry.task or CLASSIFICATION):
        return [f"task: {e.task}, not {entry.task or CLASSIFICATION}"]
    reasons = []
    if weights(artifact) != entry.weights_sha256:
        digest, expected = weights(artifact)[:12], entry.weights_sha256[:12] or "random ones"
        source = artifact.spec.weights.source
        reasons.append(f"weights: {source} {digest or 'of another tool'}, not {expected}")
    # Versions that did not write this field made no uint8 files.
    if artifact.ends != entry.io and (entry.io is not None or artifact.ends == "uint8"):
        reasons.append(f"io: {artifact.ends}, not {entry.io or 'int8 or float'}")
    if artifact.spec.classes != entry.classes:
        reasons.append(f"classes: {artifact.spec.classes}, not {entry.classes}")
    for what, now, then in (
        ("labels of the data", e.data.labels, entry.data.labels),
        ("labels of the model", e.preprocessing.labels, entry.preprocessing.labels),
    ):
        if now != then:
            reasons.append(f"{what}: {_first_other(now, then)}")
    unlabelled = (dataclasses.replace(one.preprocessing, labels=()) for one in (e, entry))
    # A newer file may state the same pixels by the codes of its input.
    fields = () if preprocessing.alike(*unlabelled) else dataclasses.fields(e.preprocessing)
    for field in fields:
        now, then = (
            getattr(e.preprocessing, field.name),
            getattr(entry.preprocessing, field.name),
        )
        if field.name != "labels" and now != then:
            reasons.append(f"{field.name}: {_short(now)}, not {_short(then)}")
    if e.data.resolution != entry.data.resolution:
        reasons.append(
            f"resolution: {_short(e.data.resolution)}, not {_short(entry.data.resolution)}"
        )
    # The identity of data depends on the labels and, for drawn images, on the resolution.
    elif e.data.labels == entry.data.labels and (
        (e.data.identity, e.data.split, samples(e), e.images)
        != (entry.data.identity, entry.data.split, entry.samples, entry.images)
    ):
        reasons.append(
            f"images: {e.images} of {e.data.source} ({e.data.split}, {e.data.identity[:12]}), "
            f"not {entry.images} of {entry.data.source} ({entry.data.split}, "
            f"{entry.data.identity[:12]})"
        )
    for name in ("runtime", "delegate"):
        now, then = getattr(e.target, name), getattr(entry.target, name)
        if now != then:
            reasons.append(f"{name}: {now}, not {then}")
    if not reasons and not _same_truth(entry, e, annotations):
        what = "labels" if entry.task is None else "annotations"
        reasons.append(f"{what} of the images: they are not those that the baseline was made by")
    return reasons


def _same_truth(
    entry: Accepted, evaluation: Evaluation, annotations: Sequence[Annotation] | None
) -> bool:
    """Whether the accepted answers are as good as they were."""
    if entry.task is None:
        truth = [p.label for p in evaluation.predictions]
        return right(truth, answers(entry)) == entry.right
    if annotations is None or entry.metric is None:
        # One of the two was made without labels, which is told elsewhere.
        return True
    metric = deciding_metric(entry.task, predictions(entry, evaluation), annotations)
    return metric is not None and math.isclose(metric, entry.metric, rel_tol=1e-6)


def _first_other(now: tuple[str, ...], then: tuple[str, ...]) -> str:
    if len(now) != len(then):
        return f"{len(now)} names, not {len(then)}"
    place = next(i for i, pair in enumerate(zip(now, then, strict=True)) if pair[0] != pair[1])
    others = sum(a != b for a, b in zip(now, then, strict=True)) - 1
    more = f", and {others} more" if others else ""
    return f"line {place + 1} is {now[place]!r}, not {then[place]!r}{more}"


def _short(value: object) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
