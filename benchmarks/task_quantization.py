"""int8 of detectors, masks and embeddings beside stock tools, on the built-in images.

    python benchmarks/task_quantization.py [--task detection] [--images 1000]

200 images calibrate and those of the test split judge, which chose no epoch of the weights either.
All tools start from the same weights and get the same images. A loss is that of the task's first
metric against float, with a paired interval (`analysis/paired.py`): one-sided 95 % bounds. Prints a
table and writes build/benchmarks/task_quantization.json.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import _results
import _stock_tools
import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mobiledeploy.analysis import accuracy, paired
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import ARCHITECTURES, RUNTIMES, TASKS, dataset
from mobiledeploy.core.types import Annotation, Artifact, ModelOutput, Prediction
from mobiledeploy.steps.evaluation_images import as_seen
from mobiledeploy.steps.export_plan import ExportConfig, plan
from mobiledeploy.verbs.export import export

NETWORKS: dict[str, dict[str, object]] = {
    "detection": {"arch": "ssdlite_mobilenet_v1"},
    "segmentation": {"arch": "lraspp_mobilenet_v3_small"},
    "embedding": {"arch": "mobilenet_v1", "alpha": 0.5, "res": 96, "task": "embedding"},
}
RUNTIME = {".tflite": "litert", ".onnx": "onnxruntime"}
LAYOUT = {".tflite": "NHWC", ".onnx": "NCHW"}
CHUNK = 50
RECIPES = ("float32", "int8_ptq", "int8_best")
OWN = {f"{recipe}{suffix}" for recipe in RECIPES for suffix in RUNTIME}
JUDGING = "test"
"""The split that judges: 2,000 images."""


@dataclass(frozen=True)
class Result:
    """What one tool made of one network; `loss` and its bounds are fractions of the metric."""

    task: str
    network: str
    tool: str
    metric: str
    value: float
    loss: float
    loss_low: float
    loss_high: float
    agreement: float
    divergence: float
    size_bytes: int
    images: int


@click.command()
@click.option("--task", type=click.Choice(list(NETWORKS)), multiple=True, default=list(NETWORKS))
@click.option("--images", type=click.IntRange(min=50, max=2000), default=1000, show_default=True)
def main(task: tuple[str, ...], images: int) -> None:
    results = []
    for name in task:
        with tempfile.TemporaryDirectory() as folder:
            results += compared(name, Path(folder), images)
    content = {"results": [asdict(result) for result in results]}
    _results.write("task_quantization", content, show(results))


def compared(name: str, folder: Path, images: int) -> list[Result]:
    files = dict(made(name, folder))
    floats = artifacts.load(files["float32.tflite"])
    ends = accuracy.before_softmax(artifacts.signature(floats).outputs)
    inputs, annotations = judged(floats, ends, images)
    task = TASKS.load(name)
    answers = {}
    for tool, path in list(files.items()):
        try:
            answers[tool] = list(run(path, inputs, ends))
        except InputError as error:
            if path.name in OWN:
                raise
            # What a stock tool makes need not load.
            print(f"{tool}: {error.message}", file=sys.stderr)
            del files[tool]
    decoded = {
        tool: [
            named(task.decode(row, ends), f"{number:04}", annotation)
            for number, (row, annotation) in enumerate(zip(rows, annotations, strict=True))
        ]
        for tool, rows in answers.items()
    }
    reference = decoded["float32.tflite"]
    results = []
    for tool, path in files.items():
        loss = lost(name, reference, decoded[tool], annotations)
        divergences = [
            task.divergence(*(columns(rows[at : at + CHUNK]) for rows in pair), ends)
            for pair in [(answers["float32.tflite"], answers[tool])]
            for at in range(0, images, CHUNK)
        ]
        results.append(
            Result(
                name,
                floats.spec.name,
                tool,
                task.METRICS[0].title,
                task.metrics(decoded[tool], annotations)[task.METRICS[0].name],
                *loss,
                agreed(name, reference, decoded[tool]),
                float(np.mean(np.concatenate(divergences))),
                path.stat().st_size,
                images,
            )
        )
    return results


def made(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """(tool, file): ours first, then those of the stock tools from the same weights."""
    order = NETWORKS[name]
    done = export(
        **order,
        recipe=RECIPES,
        io="float",
        out=folder / "build",
        timed=False,
        reporter=Terminal(quiet=True),
    )
    ours = {Path(row.path).name: Path(row.path) for row in done.rows}
    assert set(ours) == OWN
    yield from ours.items()
    floats = artifacts.load(ours["float32.tflite"])
    calibration = prepared(floats, "calibration", 200)
    stock = folder / "stock.tflite"
    stock.write_bytes(converted(order, floats, calibration))
    yield "TFLiteConverter", stock
    quantized = folder / "ort.onnx"
    _stock_tools.onnxruntime_static(quantized, ours["float32.onnx"], calibration)
    yield "ORT quantize_static", quantized


def converted(order: dict[str, object], floats: Artifact, calibration: np.ndarray) -> bytes:
    """TFLiteConverter as its documentation shows it, from the Keras model."""
    source = plan(ExportConfig(**{k: v for k, v in order.items() if k != "task"}), Terminal(True))
    spec = source.source.spec
    embedding = floats.spec.task == "embedding"
    model = ARCHITECTURES.load(spec.architecture).build(
        **spec.arguments,
        resolution=spec.resolution,
        classes=None if embedding else spec.classes,
    )
    model.load_weights(source.source.weights, by_name=embedding)
    return _stock_tools.tflite_converter(model, spec.resolution, calibration)


def prepared(floats: Artifact, split: str, count: int) -> np.ndarray:
    """float32 [N, H, W, 3], as the model sees them."""
    samples = dataset(floats.data.source).open(
        floats.data.source, split, resolution=floats.spec.resolution, labels=floats.data.labels
    )
    pre = floats.spec.preprocessing
    return np.stack(
        [
            preprocessing.prepare(samples.image(index), pre, floats.spec.resolution)
            for index in range(count)
        ]
    )


def judged(
    floats: Artifact, ends: tuple[ModelOutput, ...], count: int
) -> tuple[np.ndarray, list[Annotation]]:
    """The images that judge, and what is true of them."""
    samples = dataset(floats.data.source).open(
        floats.data.source,
        JUDGING,
        resolution=floats.spec.resolution,
        labels=floats.data.labels,
    )
    size = ends[0].shape[:2] if floats.spec.task == "segmentation" else None
    crop = floats.spec.preprocessing.crop
    annotations = [as_seen(samples, index, crop, size) for index in range(count)]
    if TASKS.load(floats.spec.task).ANNOTATION == "label":
        annotations = [Annotation(samples.label(index)) for index in range(count)]
    return prepared(floats, JUDGING, count), annotations


def run(
    path: Path, inputs: np.ndarray, ends: tuple[ModelOutput, ...]
) -> Iterator[list[np.ndarray]]:
    """The real values of the outputs for each image, in the order of `ends`."""
    layout = LAYOUT[path.suffix]
    engine = RUNTIMES.load(RUNTIME[path.suffix]).open(path, threads=1, delegate="none")
    (source,) = engine.inputs
    for image in track(inputs, description=path.name, console=Console(stderr=True)):
        raw = engine.run([preprocessing.to_input(image, source, layout)])
        values = [
            preprocessing.from_output(one, tensor, layout)
            for one, tensor in zip(raw, engine.outputs, strict=True)
        ]
        # A converter may give the outputs in another order; their shapes differ.
        yield [next(v for v in values if v.shape == tuple(end.shape)) for end in ends]


def agreed(name: str, one: list[Prediction], other: list[Prediction]) -> float:
    pairs = zip(one, other, strict=True)
    return float(np.mean([TASKS.load(name).agrees(*pair) for pair in pairs]))


def columns(rows: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.stack(column) for column in zip(*rows, strict=True)]


def named(prediction: Prediction, sample: str, annotation: Annotation) -> Prediction:
    return replace(prediction, sample=sample, label=annotation.label)


def lost(
    name: str, before: list[Prediction], now: list[Prediction], annotations: list[Annotation]
) -> tuple[float, float, float]:
    """The loss of the first metric against float, and its one-sided 95 % bounds."""
    task = TASKS.load(name)
    if task.GATE == "corpus":
        corpora = [task.corpus(rows, annotations) for rows in (before, now)]
        loss = paired.corpus_bounds(*corpora, len(before), seed=0)
    else:
        loss = paired.mean_bounds(*(task.scores(rows, annotations) for rows in (before, now)))
    return loss.loss, loss.lower, loss.upper


def show(results: list[Result]) -> list[Table]:
    tables = []
    for name in dict.fromkeys(result.network for result in results):
        rows = [result for result in results if result.network == name]
        table = Table(
            "tool",
            rows[0].metric,
            "lost against float",
            "agrees with float",
            "divergence",
            "size",
            title=f"{name}: {rows[0].images} built-in images",
        )
        for row in rows:
            low, high = 100 * row.loss_low, 100 * row.loss_high
            table.add_row(
                row.tool,
                f"{100 * row.value:.2f} %",
                f"{100 * row.loss:+.2f} ({low:+.2f} to {high:+.2f}) points",
                f"{100 * row.agreement:.1f} %",
                f"{row.divergence:.3g}",
                f"{row.size_bytes / 1e3:.0f} kB",
            )
        Console(width=120).print(table)
        tables.append(table)
    return tables


if __name__ == "__main__":
    main()
