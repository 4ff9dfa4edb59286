"""Accuracy at equal instructions: a network that lost channels in training, and a narrower one.

    python benchmarks/structured_pruning.py [--seeds 3] [--mult-adds 3M] [--out FILE.json]

The wide network is MobileNet v1 0.5, the narrow one MobileNet v1 0.25, both with their demo
weights. At a resolution that these weights have not seen, the wide one is trained first. Then

- `train --max-mult-adds` silences channels of the wide network, which is its teacher too;
- the narrow one trains with the same teacher and the same images, for as many epochs as the wide
  one's two trainings together.

Both become TFLite files, whose answers to images that took no part are judged here. Instructions
are those of one inference on an emulated core, as `mobiledeploy bench --device emulator` counts.
The interval of a difference draws seeds and images anew (paired bootstrap, 95 %). Wants `make
emulator`; without it, mult-adds alone are compared. Prints a table, and writes FILE.json after each
training.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import _results
import click
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mobiledeploy.cli._frame import Amount, Terminal
from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.plugins import dataset
from mobiledeploy.verbs.analyze import analyze
from mobiledeploy.verbs.bench import bench
from mobiledeploy.verbs.export import export
from mobiledeploy.verbs.train import train

WIDE, NARROW = 0.5, 0.25
RECIPES = ("float32", "int8_ptq")
DRAWS, SEED = 10_000, 0


@dataclass(frozen=True)
class Result:
    """A file. `instructions` is None without an emulated core; `right` is one digit an image."""

    way: str
    seed: int
    recipe: str
    mult_adds: int
    params: int
    size_bytes: int
    instructions: int | None
    top1: float
    right: str


@dataclass(frozen=True)
class Gain:
    """By how much top-1 of a pruned network exceeds the narrow one's: mean, 95 % interval."""

    way: str
    recipe: str
    gain: float
    interval: tuple[float, float]
    instructions_ratio: float | None
    mult_adds_ratio: float


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--mult-adds", type=Amount(), multiple=True, default=["3M", "2M"], show_default=True)
@click.option("--res", default=64, show_default=True)
@click.option("--images", type=click.IntRange(min=500), default=2_500, show_default=True)
@click.option("--first-epochs", default=3, show_default=True, help="Of the wide network alone.")
@click.option("--epochs", default=5, show_default=True, help="In which channels are silenced.")
@click.option("--core", default="cortex-a76", show_default=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/benchmarks/structured_pruning.json"),
    show_default=True,
)
def main(
    seeds: int,
    mult_adds: tuple[int, ...],
    res: int,
    images: int,
    first_epochs: int,
    epochs: int,
    core: str,
    out: Path,
) -> None:
    settings = {
        "res": res,
        "images": images,
        "epochs": [first_epochs, epochs],
        "core": core,
    }
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Its exports are no exports of this folder's.
        os.environ["MOBILEDEPLOY_STORE"] = str(folder / "store.db")
        data = drawn(folder / "train.npz", "train", images, res)
        test = drawn(folder / "test.npz", "test", None, res)
        common = {"res": res, "data": data, "crop": 1.0, "reporter": Terminal(quiet=True)}
        wide = train(
            alpha=WIDE, init="demo", epochs=first_epochs, out=folder / "wide", **common
        ).folder

        def judge(way: str, seed: int, run: str) -> None:
            results.extend(judged(way, seed, run, test, core))
            content = settings | {
                "results": [asdict(result) for result in results],
                "gains": [asdict(gain) for gain in compared(results)],
            }
            _results.write("structured_pruning", content, tables(results), out)

        judge("wide", 0, wide)
        for seed in range(seeds):
            own = train(
                alpha=NARROW,
                init="demo",
                teacher=wide,
                epochs=first_epochs + epochs,
                seed=seed,
                out=folder / f"narrow-{seed}",
                **common,
            )
            judge("narrow", seed, own.folder)
        for budget in mult_adds:
            for seed in range(seeds):
                own = train(
                    alpha=WIDE,
                    init=wide,
                    max_mult_adds=budget,
                    epochs=epochs,
                    seed=seed,
                    out=folder / f"pruned-{budget}-{seed}",
                    **common,
                )
                judge(f"pruned to {budget / 1e6:.4g} M", seed, own.folder)
    Console(width=120).print(*tables(results))


def drawn(path: Path, split: str, count: int | None, res: int) -> Path:
    """An .npz of the first images of a split of the demo data, or of all."""
    demo = dataset("demo").open("demo", split, resolution=(res, res), labels=())
    indices = range(count or len(demo))
    np.savez(
        path,
        images=np.stack([demo.image(index) for index in indices]),
        labels=[demo.label(index) for index in indices],
        classes=np.array(demo.classes),
    )
    return path


def judged(way: str, seed: int, run: str, test: Path, core: str) -> list[Result]:
    """The files of a training."""
    quiet = Terminal(quiet=True)
    made = export(run, recipe=RECIPES, format="tflite", timed=False, out=run, reporter=quiet)
    results = []
    for recipe in RECIPES:
        path = made.path(recipe)
        right = correct(path, test)
        try:
            count = bench(path, device=f"emulator:{core}", reporter=quiet).measurements[0]
            instructions = count.instructions
        except DeployError as error:
            Console(stderr=True).print(f"no instructions: {error.message}")
            instructions = None
        cost = analyze(path)
        results.append(
            Result(
                way,
                seed,
                recipe,
                cost.mult_adds,
                cost.params,
                path.stat().st_size,
                instructions,
                float(right.mean()),
                "".join(map(str, right.astype(int))),
            )
        )
    return results


def correct(path: Path, test: Path) -> NDArray[np.bool_]:
    """[N]: whether a file's answer to each image is right."""
    artifact = artifacts.load(path)
    engine = Interpreter(str(path), num_threads=1)
    engine.allocate_tensors()
    (end,), (answer,) = engine.get_input_details(), engine.get_output_details()
    scale, zero = end["quantization"]
    with np.load(test) as stored:
        images, labels = stored["images"], stored["labels"]
    right = np.empty(len(labels), bool)
    for number, image in enumerate(images):
        pixels = preprocessing.prepare(image, artifact.spec.preprocessing, artifact.spec.resolution)
        if scale:
            pixels = np.clip(np.round(pixels / scale) + zero, -128, 127)
        engine.set_tensor(end["index"], pixels[None].astype(end["dtype"]))
        engine.invoke()
        right[number] = engine.get_tensor(answer["index"]).argmax() == labels[number]
    return right


def compared(results: Sequence[Result]) -> list[Gain]:
    """Each pruned network against the narrow one, over the seeds that both have."""
    gains = []
    dice = np.random.default_rng(SEED)
    for way in dict.fromkeys(r.way for r in results if r.way.startswith("pruned")):
        for recipe in RECIPES:
            ours, theirs = (
                {r.seed: r for r in results if (r.way, r.recipe) == (name, recipe)}
                for name in (way, "narrow")
            )
            both = sorted(ours.keys() & theirs.keys())
            if not both:
                continue
            # Rows are seeds, columns images.
            lead = np.array(
                [[int(a) - int(b) for a, b in pairs(ours[s].right, theirs[s].right)] for s in both]
            )
            means = np.empty(DRAWS)
            for draw in range(DRAWS):
                chosen = lead[dice.integers(len(lead), size=len(lead))].mean(axis=0)
                means[draw] = chosen[dice.integers(len(chosen), size=len(chosen))].mean()
            low, high = np.quantile(means, (0.025, 0.975))
            counts = [(ours[s].instructions, theirs[s].instructions) for s in both]
            gains.append(
                Gain(
                    way,
                    recipe,
                    float(lead.mean()),
                    (float(low), float(high)),
                    float(np.mean([a / b for a, b in counts if a and b]))
                    if all(counts[0])
                    else None,
                    float(np.mean([ours[s].mult_adds / theirs[s].mult_adds for s in both])),
                )
            )
    return gains


def pairs(one: str, other: str) -> zip[tuple[str, str]]:
    return zip(one, other, strict=True)


def tables(results: Sequence[Result]) -> tuple[Table, Table]:
    table = Table("network", "recipe", "mult-adds", "instructions", "top-1 of each seed", "mean")
    for way, recipe in dict.fromkeys((r.way, r.recipe) for r in results):
        own = [r for r in results if (r.way, r.recipe) == (way, recipe)]
        counts = [r.instructions for r in own if r.instructions is not None]
        table.add_row(
            way,
            recipe,
            f"{np.mean([r.mult_adds for r in own]) / 1e6:.3f} M",
            f"{np.mean(counts) / 1e6:.3f} M" if counts else "–",
            " ".join(f"{100 * r.top1:.1f}" for r in own),
            f"{100 * np.mean([r.top1 for r in own]):.2f} %",
        )
    beside = Table("beside narrow", "recipe", "points more, 95 %", "mult-adds", "instructions")
    for gain in compared(results):
        low, high = (100 * end for end in gain.interval)
        ratio = gain.instructions_ratio
        beside.add_row(
            gain.way,
            gain.recipe,
            f"{100 * gain.gain:+.2f} ({low:+.2f} to {high:+.2f})",
            f"{gain.mult_adds_ratio:.3f} x",
            "–" if ratio is None else f"{ratio:.3f} x",
        )
    return table, beside


if __name__ == "__main__":
    main()
