"""Figures of every kind, and the artifact that they are of, as tests of the store keep them."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

from mobiledeploy.core import device_cards, records
from mobiledeploy.core.device_cards import DeviceCard, Point, Reference, Series, Workload
from mobiledeploy.core.types import (
    Artifact,
    ColdFigure,
    ColdStart,
    Counted,
    DataRef,
    Estimated,
    Evaluation,
    Fit,
    Golden,
    InputOutput,
    LayerCount,
    Measured,
    ModelSpec,
    Prediction,
    Preprocessing,
    Recipe,
    Target,
    Tensor,
    Weights,
)
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps import estimate, runtimes
from mobiledeploy.steps.baseline import Baseline
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import calibrate
from tests import warm

SHA = "a" * 64
HOST = Target("host", "python", "litert", 1, "xnnpack")
CORE = Target("emulator:cortex-a76", "native", "litert", 1, "xnnpack")
CARD = Target("snapdragon-835", "card", "litert", 1, "xnnpack")
# Nanoseconds of one unit of the terms of a latency.
_NS = {"dense": 0.02, "activations": 0.8, "kernels": 0.5}
TENSOR = Tensor("image", (1, 8, 8, 3), "float32")


def artifact(
    sha: str = SHA, name: str = "net", recipe: str = "float32", weights: str = "", of: str = "m.h5"
) -> Artifact:
    """`weights` is the sha256 of those in the file `of`."""
    return Artifact(
        f"{recipe}.tflite",
        sha,
        1000,
        900,
        0.0,
        "tflite",
        ModelSpec(
            name,
            None,
            "tf_keras",
            {},
            (8, 8),
            2,
            Preprocessing((0.0, 1.0)),
            Weights(of, weights, pinned=False),
        ),
        Recipe(recipe, "", 32, 32, ("tflite",)),
        "softmax",
        "float",
        "NHWC",
        (TENSOR,),
        (TENSOR,),
        "scores",
        Golden((), (), (), ""),
        90.0,
        DataRef("demo", "validation", (8, 8)),
        "",
        0,
        "key",
        1.0,
        {},
    )


def integers(sha: str = SHA, io: InputOutput = "int8", **change: Any) -> Artifact:
    """An artifact of a recipe of integers."""
    recipe = Recipe("int8_ptq", "", 8, 8, ("tflite",), calibration="min-max")
    return dataclasses.replace(artifact(sha), recipe=recipe, io=io, **change)


def measured(sha: str = SHA, ns: int = 1000, spread: int = 1, **change: Any) -> Measured:
    samples = tuple(ns + spread * (i % 21 - 10) for i in range(63))
    made = Measured(
        sha, HOST, "2", samples, (), float(ns), (ns - 1.0, ns + 1.0), 1, 1, 1, {"cpu": "c"}, {}
    )
    return dataclasses.replace(made, **change)


def counted(sha: str = SHA, instructions: int = 100_000, **change: Any) -> Counted:
    made = Counted(
        sha,
        CORE,
        "2",
        "cortex-a76",
        instructions,
        {"sdot": instructions},
        8,
        4,
        (),
        (),
        0.0,
        {"qemu": "8"},
    )
    return dataclasses.replace(made, **change)


def by_layer(**instructions: int) -> tuple[LayerCount, ...]:
    """Layers by name; the operator is what stands before the underscore."""
    return tuple(LayerCount(n, n.partition("_")[0], x, "f32") for n, x in instructions.items())


def estimated(sha: str = SHA, ns: float = 5e6, **change: Any) -> Estimated:
    fit = Fit("s", "litert", 2024, "", {"fixed": 1.0}, 9, (), "points", 0.1, (), "int8", False)
    return dataclasses.replace(Estimated(sha, CARD, ns, (ns / 2, ns * 2), fit), **change)


def cold_start(sha: str = SHA, ns: int = 1000, peak: int = 5000, **change: Any) -> ColdStart:
    """Ten processes, of a runtime that loads and prepares in one step."""

    def figure(name: str, middle: int) -> ColdFigure:
        samples = tuple(middle + (7 * i) % 10 - 5 for i in range(10))
        return ColdFigure(name, samples, middle - 0.5, (middle - 4.0, middle + 3.0))

    names = ("library_ns", "prepare_ns", "first_inference_ns", "first_answer_ns")
    figures = (*(figure(name, ns) for name in names), figure("peak_rss_bytes", peak))
    made = ColdStart(sha, HOST, "2", figures, 1000, None, {"cpu": "c"}, {})
    return dataclasses.replace(made, **change)


def evaluation(sha: str = SHA, top1: float = 0.5) -> Evaluation:
    return Evaluation(
        sha,
        DataRef("demo", "validation", (8, 8), (), "id"),
        Preprocessing((-1.0, 1.0)),
        HOST,
        "2",
        1,
        top1,
        None,
        None,
        10.0,
        (),
        (Prediction("a", 1, (1, 0), (0.9, 0.1)),),
    )


def keep(*kept: object) -> None:
    """Puts records into the store of the current folder."""
    with Store.open() as store:
        for one in kept:
            if isinstance(one, Artifact):
                store.add_artifact(one)
            elif isinstance(one, Evaluation):
                store.add_evaluation(one)
            elif isinstance(one, ColdStart):
                store.add_cold_start(one)
            else:
                assert isinstance(one, Measured | Counted | Estimated)
                store.add_measurement(one)


def command(*argv: object, code: int = 0) -> str:
    """What mobiledeploy prints and ends with `code`: its answer, or its error."""
    done = subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code in (0, 1, 3) else done.stderr


def resealed(path: Path, to: Path, **change: object) -> None:
    """A baseline with something else in all of its entries, as if it had been written so."""
    known = records.loads(Baseline, path.read_bytes())
    entries = [dataclasses.replace(entry, **change) for entry in known.accepted]
    sealed = [dataclasses.replace(entry, seal=baselines.seal(entry)) for entry in entries]
    to.write_text(records.dumps(Baseline(tuple(sealed))))


def of_another_file(baseline: Path) -> None:
    """Has `baseline` speak of another file: the very one that was accepted passes at once."""
    resealed(baseline, baseline, artifact_sha256="0" * 64)


def write_card(
    path: Path,
    device: str = "host",
    threads: int = 1,
    version: str | None = None,
    slower: float = 1.0,
) -> None:
    """The card `mine` of a device, of float networks like that of the file."""
    work = estimate.read(path, "mobilenet_v1")[1]
    networks, points = {}, []
    for index in range(10):
        amounts = {
            field.name: max(1, int(getattr(work, field.name) * (0.5 + 0.15 * index)))
            for field in dataclasses.fields(Workload)[1:]
        }
        networks[f"n{index}"] = Workload(work.family, **amounts)
        ns = round(
            sum(cost * amounts[name] for name, cost in _NS.items()) * (1 + index % 3 / 20) * slower
        )
        points.append(Point(f"n{index}", ns, "measured"))
    version = runtimes.runtime_version("litert") if version is None else version
    series = Series(
        "litert", "float32", threads, tuple(points), version=version, delegate="xnnpack"
    )
    sources = {"measured": Reference("measured")}
    card = DeviceCard(
        "mine", "Mine", "", (), sources, (series,), networks=networks, devices=(device,)
    )
    folder = device_cards.user_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.toml").write_text(calibrate.toml(card))
