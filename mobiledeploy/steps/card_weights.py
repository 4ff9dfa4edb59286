"""Finds the weights of a card: shipped, downloaded, random, or a file."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import assets, builtin_data, inputs, records
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.core.plugins import data_of_task, dataset
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import NamedWarning, Preprocessing, Weights
from mobiledeploy.steps.card_specs import RANDOM
from mobiledeploy.steps.model_files import detect

WEIGHTS_URL = "MOBILEDEPLOY_WEIGHTS_URL"


@dataclass(frozen=True)
class ResolvedWeights:
    """Weights on this machine: a Keras 2 HDF5 file, or None for random ones.

    `classes` is the number of their classes, `labels` the names of these if known, and
    `preprocessing` that of their training, by the card.
    """

    path: Path | None
    weights: Weights
    classes: int
    labels: tuple[str, ...]
    preprocessing: Preprocessing


def weights(
    card: ModelCard,
    source: str,
    alpha: float | None,
    resolution: int,
    reporter: Reporter,
    *,
    unsafe: bool = False,
) -> ResolvedWeights:
    """Finds the weights `source` for this width and resolution, on this machine.

    Args:
        card: the model.
        source: demo, imagenet, random, or the name of a Keras 2 HDF5 file.
        alpha: width multiplier, None for a card without one.
        resolution: in pixels. Weights fit any, but imagenet has files trained at several.
        reporter: is told of a download, and of a file without a published hash.
        unsafe: see `detect`.

    Raises:
        MissingError: there are no such weights for this alpha, or they cannot be downloaded.
        InputError: the file is not the one of the card, or not a file of weights.
    """
    if source == "demo":
        return _demo(card, alpha)
    if source == "imagenet":
        return _imagenet(card, alpha, resolution, reporter)
    if source == "random":
        return _random(card)
    return _file(card, Path(source), unsafe)


def _demo(card: ModelCard, alpha: float | None) -> ResolvedWeights:
    demo = card.weights.demo
    if demo is None:
        raise MissingError(
            f"there are no demo weights for {card.name}", _other_weights(card, alpha)
        )
    files = [file for file in demo.files if _same(file.alpha, alpha)]
    if not files:
        raise MissingError(
            f"there are no demo weights for {card.name}{_at(alpha)}; "
            f"{_alphas([file.alpha for file in demo.files])}",
            _other_weights(card, alpha),
        )
    path = Path(card.folder) / "weights" / files[0].file
    if not path.is_file():
        raise MissingError(f"the demo weights {path} are not there", "make train-demo")
    if records.sha256(path) != files[0].sha256:
        raise InputError(
            f"the demo weights {path} are not those of the card: the sha256 differs",
            "install again, or make train-demo and update the card",
        )
    return ResolvedWeights(
        path,
        Weights("demo", files[0].sha256, pinned=True),
        len(demo.classes),
        demo.classes,
        dataclasses.replace(card.preprocessing, crop=demo.crop),
    )


def _imagenet(
    card: ModelCard, alpha: float | None, resolution: int, reporter: Reporter
) -> ResolvedWeights:
    source = card.weights.imagenet
    if source is None:
        raise MissingError(
            f"there are no imagenet weights for {card.name}", "pass --weights random or a file"
        )
    files = [file for file in source.files if _same(file.alpha, alpha)]
    if not files:
        raise MissingError(
            f"there are no imagenet weights for {card.name}{_at(alpha)}; "
            f"{_alphas([file.alpha for file in source.files])}",
            "pass one of these as --alpha, or --weights random or a file",
        )
    trained_at = resolution if resolution in files[0].resolutions else max(files[0].resolutions)
    name = files[0].file.replace("{resolution}", str(trained_at))
    base = os.environ.get(WEIGHTS_URL) or source.base_url
    url = f"{base.rstrip('/')}/{name}"
    destination = assets.cache_dir() / "weights" / name
    download = assets.fetch(
        url,
        destination,
        None,
        check=lambda path: _check_weights(path, url, files[0].md5),
        progress=lambda count, total: reporter.progress(
            f"download {name}", count, total or count + 1
        ),
        hint=f"place the file at {destination}, or set {WEIGHTS_URL} to an address that serves it",
    )
    if not files[0].md5:
        reporter.warn(
            NamedWarning(
                "unpinned-weights",
                f"{name} is unpinned: its publisher gives no hash, so only its size and the shapes "
                f"of its layers are checked (sha256 {download.sha256[:12]}…)",
            )
        )
    return ResolvedWeights(
        download.path,
        Weights("imagenet", download.sha256, download.pinned or bool(files[0].md5)),
        source.classes,
        (),
        card.preprocessing,
    )


def _check_weights(path: Path, url: str, md5: str) -> None:
    """InputError unless the file holds Keras 2 weights and has the `md5` of its publisher, if any.

    Keras publishes md5 sums only. They detect an accident, not an attack.
    """
    if md5:
        with inputs.open_file(path) as stream:
            digest = hashlib.file_digest(
                stream, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
        if digest != md5:
            raise InputError(
                f"{url} serves another file than the card's: its md5 is {digest}, not {md5}",
                f"check your network's proxy, or {WEIGHTS_URL}",
            )
    try:
        file = detect(path)
    except InputError:
        file = None
    if file is None or file.content != "weights" or file.framework != "tf_keras":
        raise InputError(
            f"{url} serves something else than Keras 2 weights",
            f"check your network's proxy, or {WEIGHTS_URL}",
        )


def _random(card: ModelCard) -> ResolvedWeights:
    """Random weights for the classes of the built-in images, on which they are tried."""
    source = data_of_task(builtin_data.DEMO, card.task)
    classes = dataset(source).open(source, "validation", resolution=(32, 32), labels=()).classes
    return ResolvedWeights(
        None,
        RANDOM,
        len(classes),
        classes,
        dataclasses.replace(card.preprocessing, crop=1.0),
    )


def _file(card: ModelCard, path: Path, unsafe: bool) -> ResolvedWeights:
    file = detect(path, unsafe=unsafe)
    if file.content == "model":
        raise InputError(
            f"{path} is a whole model, not weights", f"mobiledeploy export {path} takes it as it is"
        )
    if file.framework != "tf_keras" or file.classes is None:
        raise InputError(
            f"{path} holds Keras 3 weights, which are not stored by layer name",
            "save the whole model as .keras and export that",
        )
    if card.task == "detection":
        raise InputError(
            f"{path} does not say how many classes its boxes have",
            "give the folder of its training: mobiledeploy export RUN",
        )
    if file.classes < 2:
        raise InputError(f"{path} ends in {file.classes} output; two classes or more are needed")
    return ResolvedWeights(
        path,
        Weights(path.name, file.sha256, pinned=False),
        file.classes,
        (),
        card.preprocessing,
    )


def _at(alpha: float | None) -> str:
    return "" if alpha is None else f" at alpha {alpha:g}"


def _alphas(alphas: Sequence[float | None]) -> str:
    values = sorted(a for a in alphas if a is not None)
    return f"alpha {', '.join(f'{a:g}' for a in values)} can be had" if values else "none"


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other)


def _other_weights(card: ModelCard, alpha: float | None) -> str:
    imagenet = card.weights.imagenet
    has = imagenet and any(_same(file.alpha, alpha) for file in imagenet.files)
    return f"pass {'--weights imagenet, ' if has else ''}--weights random, or a file of your own"
