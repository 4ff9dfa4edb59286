"""The baseline file: what was accepted, and whether a comparison with it means anything."""

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
    """One artifact that was accepted, and what it answered: an entry of a baseline.

    `model`, `recipe` and `format` are its key. `answers` is the best class of each of the `images`
    that could be read, in the order of the data: base64 of zlib of little-endian uint16. `samples`
    is the sha256 over their ids, `right` how many answers were right (None without labels). `isa`
    is the machine's instruction set. `seal` is the sha256 over the entry without it: an entry that
    was edited is refused. `io` is the `ends` of the artifact, None in entries of earlier versions.
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
    """(model, recipe, format): what stays the same from one version of a model to the next."""
    if isinstance(of, Accepted):
        return of.model, of.recipe, of.format
    return of.spec.name, of.recipe.name, of.format


def read(path: Path, update: str) -> Baseline:
    """The baseline in a file; `update` is the command that would write it.

    Raises:
        MissingError: it is not there.
        InputError: it is no baseline, truncated, or was edited.
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
    """Writes it, entries sorted by key, so that a change is a small one to review."""
    ordered = tuple(sorted(baseline.accepted, key=key))
    records.write_atomic(path, records.dumps(Baseline(ordered)) + "\n")


def seal(entry: Accepted) -> str:
    """sha256 over all of an entry but its own seal."""
    fields = records.encode(dataclasses.replace(entry, seal=""))
    if entry.io is None:
        # Of a version that had no such field.
        del fields["io"]
    # As the first version sealed it, or every baseline under version control would be refused.
    text = json.dumps({"schema_version": 1, "record": "Accepted"} | fields, separators=(",", ":"))
    return records.sha256(text.encode())


def entry(artifact: Artifact, evaluation: Evaluation) -> Accepted:
    """What is kept of an artifact that is accepted."""
    e = evaluation
    if artifact.spec.classes > _MOST_CLASSES:
        raise InputError(f"a baseline holds answers of {_MOST_CLASSES} classes at most")
    best = np.array([p.classes[0] for p in e.predictions], "<u2")
    model, recipe, format_ = key(artifact)
    made = Accepted(
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
    return dataclasses.replace(made, seal=seal(made))


def answered(evaluation: Evaluation) -> Answers:
    """Which images were named rightly, to be compared with other answers to the same."""
    return pareto.answers(evaluation, samples(evaluation))


def samples(evaluation: Evaluation) -> str:
    """sha256 over the ids of the images that could be read."""
    digest = hashlib.sha256()
    for prediction in evaluation.predictions:
        digest.update(prediction.sample.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def right(labels: Sequence[int], best: NDArray[np.generic]) -> int | None:
    """How many answers are right; None where there are no labels."""
    truth = np.asarray(labels)
    return int((best[truth >= 0] == truth[truth >= 0]).sum()) if (truth >= 0).any() else None


def answers(entry: Accepted) -> NDArray[np.int64]:
    """The best class of each image, int64 [images]; InputError where they cannot be."""
    if not 0 < entry.images <= _MOST_IMAGES:
        raise InputError(f"{' '.join(key(entry))} has {entry.images} images, which cannot be")
    try:
        packed = base64.b64decode(entry.answers, validate=True)
        # A few bytes can unpack to very many: no more is taken than there may be.
        unpacked = zlib.decompressobj().decompress(packed, 2 * entry.images + 2)
        best = np.frombuffer(unpacked, "<u2").astype(np.int64)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InputError(f"the answers of {' '.join(key(entry))} are damaged") from error
    if len(best) != entry.images or best.max() >= entry.classes:
        raise InputError(f"the answers of {' '.join(key(entry))} are not of its images and classes")
    return best


def differences(accepted: Accepted, artifact: Artifact, evaluation: Evaluation) -> list[str]:
    """What makes a comparison with an entry void, each in words: (now, then)."""
    e = evaluation
    found = []
    weights = artifact.spec.weights
    if weights.sha256 != accepted.weights_sha256:
        known, wanted = weights.sha256[:12], accepted.weights_sha256[:12] or "random ones"
        found.append(f"weights: {weights.source} {known}, not {wanted}")
    # The versions whose entries do not tell made no uint8.
    if artifact.ends != accepted.io and (accepted.io is not None or artifact.ends == "uint8"):
        found.append(f"io: {artifact.ends}, not {accepted.io or 'int8 or float'}")
    if artifact.spec.classes != accepted.classes:
        found.append(f"classes: {artifact.spec.classes}, not {accepted.classes}")
    for what, now, then in (
        ("labels of the data", e.data.labels, accepted.data.labels),
        ("labels of the model", e.preprocessing.labels, accepted.preprocessing.labels),
    ):
        if now != then:
            found.append(f"{what}: {_first_other(now, then)}")
    for field in dataclasses.fields(e.preprocessing):
        now, then = (
            getattr(e.preprocessing, field.name),
            getattr(accepted.preprocessing, field.name),
        )
        if field.name != "labels" and now != then:
            found.append(f"{field.name}: {_short(now)}, not {_short(then)}")
    if e.data.resolution != accepted.data.resolution:
        found.append(
            f"resolution: {_short(e.data.resolution)}, not {_short(accepted.data.resolution)}"
        )
    # The identity of data depends on the labels and, for drawn images, on the resolution.
    elif e.data.labels == accepted.data.labels and (
        (e.data.identity, e.data.split, samples(e), e.images)
        != (accepted.data.identity, accepted.data.split, accepted.samples, accepted.images)
    ):
        found.append(
            f"images: {e.images} of {e.data.source} ({e.data.split}, {e.data.identity[:12]}), "
            f"not {accepted.images} of {accepted.data.source} ({accepted.data.split}, "
            f"{accepted.data.identity[:12]})"
        )
    for name in ("runtime", "delegate"):
        now, then = getattr(e.target, name), getattr(accepted.target, name)
        if now != then:
            found.append(f"{name}: {now}, not {then}")
    if not found:
        truth = [p.label for p in e.predictions]
        if right(truth, answers(accepted)) != accepted.right:
            found.append("labels of the images: they are not those that the baseline was made by")
    return found


def _first_other(now: tuple[str, ...], then: tuple[str, ...]) -> str:
    if len(now) != len(then):
        return f"{len(now)} names, not {len(then)}"
    place = next(i for i, pair in enumerate(zip(now, then, strict=True)) if pair[0] != pair[1])
    others = sum(a != b for a, b in zip(now, then, strict=True)) - 1
    more = f", and {others} more" if others else ""
    return f"line {place + 1} is {now[place]!r}, not {then[place]!r}{more}"


def _short(value: object) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
