"""Where a card's weights come from: shipped, downloaded, random, or a file."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import assets, inputs, records
from mobiledeploy.core.cards import ModelCard
from mobiledeploy.core.errors import InputError, MissingError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import NamedWarning, Preprocessing, Weights
from mobiledeploy.steps.card_specs import DEMO, RANDOM
from mobiledeploy.steps.model_files import detect

WEIGHTS_URL = "MOBILEDEPLOY_WEIGHTS_URL"


@dataclass(frozen=True)
class ResolvedWeights:
    """Weights that are here: a Keras 2 HDF5 file, or None for random ones.

    `classes` is the number of classes that they end in, `labels` their names where known, and
    `preprocessing` what the card says that they were trained with.
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
    """The weights that `source` means for this width and resolution, on this machine.

    Args:
        card: the model.
        source: demo, imagenet, random, or the name of a Keras 2 HDF5 file.
        alpha: width multiplier, None for a card without one.
        resolution: in pixels; weights fit any, but imagenet has files trained at several.
        reporter: is told of a download, and of a file whose hash nobody publishes.
        unsafe: see `detect`.

    Raises:
        MissingError: there are no such weights for this alpha, or they cannot be downloaded.
        InputError: the file is not what it should be.
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
    found = [file for file in demo.files if _same(file.alpha, alpha)]
    if not found:
        raise MissingError(
            f"there are no demo weights for {card.name}{_at(alpha)}; "
            f"{_alphas([file.alpha for file in demo.files])}",
            _other_weights(card, alpha),
        )
    path = Path(card.folder) / "weights" / found[0].file
    if not path.is_file():
        raise MissingError(f"the demo weights {path} are not there", "make train-demo")
    if records.sha256(path) != found[0].sha256:
        raise InputError(
            f"the demo weights {path} are not those of the card: the sha256 differs",
            "install again, or make train-demo and update the card",
        )
    return ResolvedWeights(
        path,
        Weights("demo", found[0].sha256, pinned=True),
        len(demo.classes),
        demo.classes,
        dataclasses.replace(card.preprocessing, crop=demo.crop),
    )


def _imagenet(
    card: ModelCard, alpha: float | None, resolution: int, reporter: Reporter
) -> ResolvedWeights:
    published = card.weights.imagenet
    if published is None:
        raise MissingError(
            f"there are no imagenet weights for {card.name}", "pass --weights random or a file"
        )
    found = [file for file in published.files if _same(file.alpha, alpha)]
    if not found:
        raise MissingError(
            f"there are no imagenet weights for {card.name}{_at(alpha)}; "
            f"{_alphas([file.alpha for file in published.files])}",
            "pass one of these as --alpha, or --weights random or a file",
        )
    trained_at = resolution if resolution in found[0].resolutions else max(found[0].resolutions)
    name = found[0].file.replace("{resolution}", str(trained_at))
    base = os.environ.get(WEIGHTS_URL) or published.base_url
    url = f"{base.rstrip('/')}/{name}"
    destination = assets.cache_dir() / "weights" / name
    fetched = assets.fetch(
        url,
        destination,
        None,
        check=lambda path: _check_weights(path, url, found[0].md5),
        progress=lambda done, total: reporter.progress(f"download {name}", done, total or done + 1),
        hint=f"place the file at {destination}, or set {WEIGHTS_URL} to an address that serves it",
    )
    if not found[0].md5:
        reporter.warn(
            NamedWarning(
                "unpinned-weights",
                f"{name} is unpinned: its publisher gives no hash, so only its size and the shapes "
                f"of its layers are checked (sha256 {fetched.sha256[:12]}…)",
            )
        )
    return ResolvedWeights(
        fetched.path,
        Weights("imagenet", fetched.sha256, fetched.pinned or bool(found[0].md5)),
        published.classes,
        (),
        card.preprocessing,
    )


def _check_weights(path: Path, url: str, md5: str) -> None:
    """InputError unless the file is Keras 2 weights, and has its publisher's `md5` if there is one.

    Keras publishes md5 sums only. They keep an accident out, not a forger.
    """
    if md5:
        with inputs.open_file(path) as stream:
            served = hashlib.file_digest(
                stream, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
        if served != md5:
            raise InputError(
                f"{url} serves another file than the card's: its md5 is {served}, not {md5}",
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
    """As many classes as the built-in images have, which such weights are tried on."""
    classes = dataset(DEMO).open(DEMO, "validation", resolution=(32, 32), labels=()).classes
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
    known = sorted(a for a in alphas if a is not None)
    return f"alpha {', '.join(f'{a:g}' for a in known)} can be had" if known else "none"


def _same(published: float | None, asked: float | None) -> bool:
    if published is None or asked is None:
        return published is asked
    return math.isclose(published, asked)


def _other_weights(card: ModelCard, alpha: float | None) -> str:
    imagenet = card.weights.imagenet
    has = imagenet and any(_same(file.alpha, alpha) for file in imagenet.files)
    return f"pass {'--weights imagenet, ' if has else ''}--weights random, or a file of your own"
