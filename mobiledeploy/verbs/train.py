"""Train the demo weights: MobileNet v1 on the built-in data.

`python -m mobiledeploy.verbs.train --alpha 0.5 --alpha 0.25` is what `make train-demo` runs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobiledeploy.datasets import shapes

RESOLUTIONS = (96, 128, 160, 192, 224)
"""Square resolutions in pixels for which one file of weights is trained and measured."""

EASY_RESOLUTION = 64
EASY_LEVELS = 4
"""The first phase: easy pictures, small. On the whole data a fresh network stays at chance for
thousands of batches; from easy pictures it gets a start within some hundreds."""

MAIN_MIX = {96: 0.8, 128: 0.2}
LAST_MIX = {96: 0.3, 128: 0.25, 160: 0.25, 192: 0.12, 224: 0.08}
"""Share of the batches per resolution, in the second and in the third phase."""

STEPS = 6_500
EASY_SHARE, LAST_SHARE = 0.22, 0.14
"""Batches of a training, and the shares of its first and its last phase."""

SETTLE_SHARE = 0.08
SETTLE_RATE = 5e-4
SETTLE_MIX = {96: 0.35, 128: 0.2, 160: 0.2, 192: 0.13, 224: 0.12}
"""Batches after the training (as a share of it), their learning rate and their resolutions.

Statistics differ from resolution to resolution, and batch normalisation keeps one moving average
for all. So the network is settled on it: trained on with the statistics that it will have."""

Pool = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Trained:
    """One file of weights and what it scores."""

    alpha: float
    path: Path
    sha256: str
    top1: dict[int, float]
    """Resolution in pixels -> share of the validation split that is named rightly."""


@dataclass(frozen=True)
class Pictures:
    """What the trainings share: the data set, drawn once."""

    easy: Pool
    train: dict[int, Pool]
    validation: dict[int, Pool]


def train(
    alphas: Sequence[float], *, out: Path, steps: int, workers: int, say: Callable[[str], None]
) -> Iterator[Trained]:
    """Train MobileNet v1 on the demo data, once per width multiplier.

    Writes `out`/mobilenet_v1_<alpha>.h5, first while the training goes on and then for good.

    Args:
        alphas: width multipliers.
        out: folder of the weights.
        steps: batches per training.
        workers: processes that draw pictures.
        say: takes lines about the progress.
    """
    say("drawing the training and the validation pictures")
    pictures = draw(workers)
    for alpha in alphas:
        path = out / f"mobilenet_v1_{alpha}.h5"
        yield _trained(alpha, path, steps, pictures, say)


def _trained(
    alpha: float, path: Path, steps: int, pictures: Pictures, say: Callable[[str], None]
) -> Trained:
    from mobiledeploy.architectures import mobilenet_v1
    from mobiledeploy.frameworks import training

    first, last = round(steps * EASY_SHARE), round(steps * LAST_SHARE)
    phases = [
        training.Phase(first, [(pictures.easy, 1.0)]),
        training.Phase(
            steps - first - last, [(pictures.train[r], share) for r, share in MAIN_MIX.items()]
        ),
        training.Phase(last, [(pictures.train[r], share) for r, share in LAST_MIX.items()]),
    ]
    classes = len(shapes.CLASSES)
    smallest = RESOLUTIONS[0]
    training.seed(training.Settings().seed)
    model = mobilenet_v1.build(alpha=alpha, resolution=(smallest, smallest), classes=classes)

    settling = training.Phase(
        round(steps * SETTLE_SHARE), [(pictures.train[r], share) for r, share in SETTLE_MIX.items()]
    )

    def progress(done: int, loss: float, accuracy: float) -> None:
        training.save_weights(model, path)
        say(f"alpha {alpha} step {done}/{steps} loss {loss:.3f} accuracy {accuracy:.3f}")

    def settled(done: int, loss: float, accuracy: float) -> None:
        training.save_weights(model, path)
        say(
            f"alpha {alpha} settling, step {done}/{settling.steps} loss {loss:.3f} "
            f"accuracy {accuracy:.3f}"
        )

    training.fit(model, phases, training.Settings(), on_progress=progress)
    frozen = training.Settings(peak_rate=SETTLE_RATE, frozen_statistics=True)
    training.fit(model, [settling], frozen, on_progress=settled)
    top1 = {}
    for resolution in RESOLUTIONS:
        sized = mobilenet_v1.build(
            alpha=alpha, resolution=(resolution, resolution), classes=classes
        )
        sized.load_weights(path, by_name=True)
        top1[resolution] = training.accuracy(sized, pictures.validation[resolution])
    return Trained(alpha, path, hashlib.sha256(path.read_bytes()).hexdigest(), top1)


def draw(workers: int) -> Pictures:
    """Draw the data set in `workers` processes, best before TensorFlow starts its threads."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        size = shapes.SPLITS["train"]
        easy = [index for index in range(size) if shapes.hardness(index) < EASY_LEVELS]
        # Every resolution may fill the memory that the whole split takes at the smallest one.
        counts = {r: size * RESOLUTIONS[0] ** 2 // r**2 for r in RESOLUTIONS}
        return Pictures(
            easy=_drawn(executor, "train", EASY_RESOLUTION, easy),
            train={r: _drawn(executor, "train", r, range(counts[r])) for r in RESOLUTIONS},
            validation={
                r: _drawn(executor, "validation", r, range(shapes.SPLITS["validation"]))
                for r in RESOLUTIONS
            },
        )


def contact_sheet(path: Path, *, resolution: int = 56) -> None:
    """Write a picture of the training split: a row per class, easy on the left, hard on the right.

    Colours keep their five highest bits, which halves the file.
    """
    samples = shapes.open("demo", "train", resolution=(resolution, resolution))
    classes = len(samples.classes)
    rows = [
        np.concatenate([samples.image(label + classes * k) for k in range(shapes.LEVELS)], axis=1)
        for label in range(classes)
    ]
    sheet = np.concatenate(rows) & np.uint8(0xF8) | np.uint8(0x04)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True)


def _drawn(
    executor: ProcessPoolExecutor, split: str, resolution: int, indices: Sequence[int]
) -> Pool:
    """The given samples of a split."""
    chunk = 250
    parts = [indices[start : start + chunk] for start in range(0, len(indices), chunk)]
    images = np.empty((len(indices), resolution, resolution, 3), dtype=np.uint8)
    tasks = [(split, resolution, part) for part in parts]
    for number, drawn in enumerate(executor.map(_draw, tasks)):
        images[number * chunk : number * chunk + len(drawn)] = drawn
    samples = shapes.open("demo", split, resolution=(resolution, resolution))
    return images, np.array([samples.label(index) for index in indices], dtype=np.int64)


def _draw(task: tuple[str, int, Sequence[int]]) -> NDArray[np.uint8]:
    split, resolution, indices = task
    samples = shapes.open("demo", split, resolution=(resolution, resolution))
    return np.stack([samples.image(index) for index in indices])


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mobiledeploy.verbs.train", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--alpha", type=float, action="append", default=[], help="width multiplier; repeatable"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="batches per training")
    parser.add_argument("--out", type=Path, default=Path("models/weights"), help="folder")
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="PATH",
        help="write a picture of the data, one row per class",
    )
    options = parser.parse_args(arguments)
    if options.contact_sheet:
        contact_sheet(options.contact_sheet)
    if not options.alpha:
        return
    for result in train(
        options.alpha,
        out=options.out,
        steps=options.steps,
        workers=os.cpu_count() or 1,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    ):
        scores = ", ".join(f'"{resolution}" = {top1}' for resolution, top1 in result.top1.items())
        print("[[weights.demo.files]]")
        print(f"alpha = {result.alpha}")
        print(f'file = "{result.path.name}"')
        print(f'sha256 = "{result.sha256}"')
        print(f"top1 = {{ {scores} }}", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
