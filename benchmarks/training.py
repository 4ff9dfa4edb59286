"""Training time of an epoch against Keras's `fit` on arrays that lie in memory.

    python benchmarks/training.py [--runs 7]

Ours reads decoded images from a mapped file, augments them, adds weight decay to the loss and
keeps a checkpoint; the plain script is given float pixels and does none of that. Both train the
same architecture on the same images by RMSprop, each in a process of its own, and answer with the
median seconds of their epochs but the first: start, tracing and judging are in neither. The ratio
is of seconds: 1 / 0.9 is 0.9 times the images per second. Writes build/benchmarks/training.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from _side_by_side import compare, report
from PIL import Image

from mobiledeploy.analysis import stats
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core.plugins import dataset
from mobiledeploy.verbs import train

PLAIN = Path(__file__).with_name("_plain_training.py")
BAR = 1 / 0.9
EPOCHS = 4
JUDGED = 48


@click.command()
@click.option("--runs", type=click.IntRange(min=stats.FEWEST), default=7, show_default=True)
@click.option("--alpha", default=0.5, show_default=True)
@click.option("--res", default=96, show_default=True)
@click.option("--images", type=click.IntRange(min=100), default=2_000, show_default=True)
def main(runs: int, alpha: float, res: int, images: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder_of_images = _drawn(folder / "images", images, res)
        opened = dataset(folder_of_images).open(
            folder_of_images, "train", resolution=(res, res), labels=()
        )
        np.savez(
            folder / "train.npz",
            images=np.stack([opened.image(i) for i in range(len(opened))]),
            labels=[opened.label(i) for i in range(len(opened))],
        )
        turns = iter(range(runs))

        def ours() -> float:
            done = train.train(
                alpha=alpha,
                res=res,
                data=folder_of_images,
                epochs=EPOCHS,
                out=folder / f"run{next(turns)}",
                reporter=Terminal(quiet=True),
            )
            return float(np.median([epoch.seconds for epoch in done.run.history[1:]]))

        def plain() -> float:
            argv = [str(alpha), str(res), str(folder / "train.npz"), str(EPOCHS)]
            done = subprocess.run(
                [sys.executable, str(PLAIN), *argv],
                check=True,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            return float(done.stdout)

        result = compare(
            f"an epoch of v1 {alpha:g} at {res}, {len(opened)} images",
            ("mobiledeploy train", ours),
            ("fit on arrays in memory", plain),
            bar=BAR,
            runs=runs,
        )
    report([result], Path("build/benchmarks/training.json"))


def _drawn(folder: Path, count: int, res: int) -> str:
    """A folder of the first of the demo images, few of them to judge by."""
    for split, number in (("train", count), ("validation", JUDGED)):
        demo = dataset("demo").open("demo", split, resolution=(res, res), labels=())
        for index in range(number):
            path = folder / split / demo.classes[demo.label(index)] / f"{index:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(demo.image(index)).save(path)
    return str(folder)


if __name__ == "__main__":
    main()
