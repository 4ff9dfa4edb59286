"""The baseline file: the accepted artifacts, and whether a comparison with them is valid."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import pareto
from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.core.types import Answers, Artifact, DataRef, Evaluation, Preprocessing, Target
from mobiledeploy.steps import golden

Key = tuple[str, str, str]
_MOST_CLASSES = 1 << 16
_MOST_IMAGES = 100_000_000


@dataclass(frozen=True)
class Accepted:
    """One accepted artifact and its answers: an entry of a baseline.

    `model`, `recipe` and `format` are its key. `answers` is the best class of each of the `images`
    readable images, in the order of the data: base64 of zlib of little-endian uint16. `samples` is
    the sha256 of their ids, `right` the number of right answers (None without labels). `isa` is the
    machine's instruction set. `seal` is the sha256 of the entry without its seal: an edited entry
    is refused. `io` is the `ends` of the artifact, None in entries of earlier versions.
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
        answers(entry)
    keys = [key(entry) for entry in baseline.accepted]
    if len(set(keys)) < len(keys):
        raise InputError(f"{path} has two entries of one key", f"remove it and run {update}")
    return baseline


def write(path: Path, baseline: Baseline) -> None:
    """Writes it with its entries sorted by key, so that a diff of two versions is small."""
    ordered = tuple(sorted(baseline.accepted, key=key))
    records.write_atomic(path, records.dumps(Baseline(ordered)) + "\n")


def seal(entry: Accepted) -> str:
    """sha256 of an entry without its seal."""
    fields = records.encode(dataclasses.replace(entry, seal=""))
    if entry.io is None:
        # Earlier versions had no such field.
        del fields["io"]
    # The form of the first version: otherwise every baseline under version control is refused.
    text = json.dumps({"schema_version": 1, "record": "Accepted"} | fields, separators=(",", ":"))
    return records.sha256(text.encode())


def entry(artifact: Artifact, evaluation: Evaluation) -> Accepted:
    """The entry for an artifact that is accepted."""
    e = evaluation
    if artifact.spec.classes > _MOST_CLASSES:
        raise InputError(f"a baseline holds answers of {_MOST_CLASSES} classes at most")
    best = np.array([p.classes[0] for p in e.predictions], "<u2")
    model, recipe, format_ = key(artifact)
    unsealed = Accepted(
        model=model,
        recipe=recipe,
        format=format_,
        artifact_sha256=artifact.sha256,
        weights_sha256=artifact.spec.weights.sha256,
        classes=artifact.spec.classes,
        data=e.data,
        preprocessing=e.preprocessing,
        target=e.target,
        runtime_version=e.runtime_version,
        isa=golden.isa(),
        images=e.images,
        samples=samples(e),
        right=right([p.label for p in e.predictions], best),
        answers=base64.b64encode(zlib.compress(best.tobytes(), 9)).decode(),
        seal="",
        io=artifact.ends,
    )
    return dataclasses.replace(unsealed, seal=seal(unsealed))


def image_answers(evaluation: Evaluation) -> Answers:
    """Which images have the right answer, for a comparison with other answers to them."""
    return pareto.answers(evaluation, samples(evaluation))


def samples(evaluation: Evaluation) -> str:
    """sha256 of the ids of the readable images."""
    digest = hashlib.sha256()
    for prediction in evaluation.predictions:
        digest.update(prediction.sample.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def right(labels: Sequence[int], best: NDArray[np.generic]) -> int | None:
    """The number of right answers; None without labels."""
    truth = np.asarray(labels)
    return int((best[truth >= 0] == truth[truth >= 0]).sum()) if (truth >= 0).any() else None


def answers(entry: Accepted) -> NDArray[np.int64]:
    """The best class of each image, int64 [images]; InputError for impossible answers."""
    if not 0 < entry.images <= _MOST_IMAGES:
        raise InputError(f"{' '.join(key(entry))} has {entry.images} images, which cannot be")
    try:
        compressed = base64.b64decode(entry.answers, validate=True)
        # A few bytes can unpack to very many: the limit is the size of valid answers.
        content = zlib.decompressobj().decompress(compressed, 2 * entry.images + 2)
        best = np.frombuffer(content, "<u2").astype(np.int64)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InputError(f"the answers of {' '.join(key(entry))} are damaged") from error
    if len(best) != entry.images or best.max() >= entry.classes:
        raise InputError(f"the answers of {' '.join(key(entry))} are not of its images and classes")
    return best


def differences(entry: Accepted, artifact: Artifact, evaluation: Evaluation) -> list[str]:
    """The differences that make a comparison with an entry void, each in words: now, then."""
    e = evaluation
    reasons = []
    weights = artifact.spec.weights
    if weights.sha256 != entry.weights_sha256:
        digest, expected = weights.sha256[:12], entry.weights_sha256[:12] or "random ones"
        reasons.append(f"weights: {weights.source} {digest}, not {expected}")
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
    for field in dataclasses.fields(e.preprocessing):
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
    if not reasons:
        truth = [p.label for p in e.predictions]
        if right(truth, answers(entry)) != entry.right:
            reasons.append("labels of the images: they are not those that the baseline was made by")
    return reasons


def _first_other(now: tuple[str, ...], then: tuple[str, ...]) -> str:
    if len(now) != len(then):
        return f"{len(now)} names, not {len(then)}"
    place = next(i for i, pair in enumerate(zip(now, then, strict=True)) if pair[0] != pair[1])
    others = sum(a != b for a, b in zip(now, then, strict=True)) - 1
    more = f", and {others} more" if others else ""
    return f"line {place + 1} is {now[place]!r}, not {then[place]!r}{more}"


def _short(value: object) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
