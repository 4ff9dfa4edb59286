"""Accuracy of int8, side by side with stock tools, on published networks and photographs.

    python benchmarks/quantization.py [--real FOLDER] [--splits 3] [--network vww] [--no-qat]

A hundred images calibrate, and int8_qat trains on the same; the other four hundred judge; each
split deals them anew. All files end in logits, so that every tool is judged by the same numbers.
Peers that are not installed are left out, and named: `pip install ai-edge-quantizer` brings one of
them.
Latency is the median of single inferences, the files in turns, on one thread of this host. Prints a
table and writes build/benchmarks/quantization.json.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import _results
import _stock_tools
import click
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mobiledeploy.analysis import accuracy
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.plugins import RUNTIMES, dataset
from mobiledeploy.core.types import Preprocessing
from mobiledeploy.verbs.export import export

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
CALIBRATION = 100
TIMED = 40

Answer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Result:
    """What one tool made of one network on one split."""

    network: str
    split: int
    tool: str
    top1: float
    disagreements: int
    images: int
    sqnr_db: float
    divergence: float
    size_bytes: int
    latency_ms: float
    seconds: float


@dataclass(frozen=True)
class Network:
    """A network with its images: how an export is asked for it, and how images are prepared."""

    name: str
    order: dict[str, object]
    preprocessing: Preprocessing
    resolution: tuple[int, int]


@click.command()
@click.option("--real", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--splits", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--network", type=click.Choice(["v1", "vww"]), multiple=True, default=["v1", "vww"])
@click.option("--qat/--no-qat", default=True, help="int8_qat takes minutes a split.")
def main(real: Path | None, splits: int, network: tuple[str, ...], qat: bool) -> None:
    if real is None and not REAL.is_dir():
        print("left out: there are no published networks and photographs here (--real FOLDER)")
        return
    real = real or REAL
    results = []
    for name in network:
        for split in track(range(splits), description=name, console=Console(stderr=True)):
            with tempfile.TemporaryDirectory() as folder:
                results += compared(*DEALT[name](real, split, Path(folder)), split, qat)
    content = {"results": [asdict(result) for result in results]}
    _results.write("quantization", content, show(results))


def dealt(count: int, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images that calibrate, and of those that judge."""
    order = np.random.default_rng(split).permutation(count)
    return np.sort(order[:CALIBRATION]), np.sort(order[CALIBRATION:])


def v1(real: Path, split: int, folder: Path) -> tuple[Network, Path]:
    """MobileNet v1 0.75 at 224 and photographs of ImageNet's classes."""
    paths = sorted((real / "imagenet" / "images").glob("*/*"))
    fitted, judged = dealt(len(paths), split)
    for kind, chosen in (("calibration", fitted), ("train", fitted), ("validation", judged)):
        for index in chosen:
            place = folder / "data" / kind / paths[index].parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths[index], place)
    lines = (real / "imagenet" / "labels.txt").read_text().splitlines()
    labels = tuple(line.split()[0] for line in lines)
    order = {
        "arch": "mobilenet_v1",
        "alpha": 0.75,
        "res": 224,
        "data": str(folder / "data"),
        "weights": str(real / "imagenet" / "mobilenet_7_5_224_tf.h5"),
        "labels": labels,
    }
    prepared = Preprocessing((-1.0, 1.0), crop=0.875, labels=labels)
    return Network("MobileNet v1 0.75, 224", order, prepared, (224, 224)), folder


def vww(real: Path, split: int, folder: Path) -> tuple[Network, Path]:
    """The person detector of MLPerf Tiny."""
    with np.load(real / "vww" / "images.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    order = np.concatenate(dealt(len(images), split))
    fitted, judged = order[:CALIBRATION], order[CALIBRATION:]
    parts = {"calibration": fitted, "train": fitted, "validation": judged}
    for kind, chosen in parts.items():
        for index in chosen:
            place = folder / "data" / kind / str(labels[index])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(place / f"{index:03}.png")
    asked = {
        "model": real / "vww" / "vww_96.h5",
        "data": str(folder / "data"),
        "input_range": (0.0, 1.0),
    }
    return Network("person detector, 96", asked, Preprocessing((0.0, 1.0)), (96, 96)), folder


DEALT = {"v1": v1, "vww": vww}


def images(network: Network, split: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, H, W, 3] and their labels."""
    source = network.order["data"]
    samples = dataset(source).open(
        source, split, resolution=network.resolution, labels=network.preprocessing.labels
    )
    images = [
        preprocessing.prepare(samples.image(i), network.preprocessing, network.resolution)
        for i in range(len(samples))
    ]
    return np.stack(images), np.array([samples.label(i) for i in range(len(samples))])


def compared(network: Network, folder: Path, split: int, qat: bool) -> list[Result]:
    calibration, _ = images(network, "calibration")
    fresh, labels = images(network, "validation")
    files = dict(made(network, folder, calibration, qat))
    engines = {tool: engine(path) for tool, (path, _) in files.items()}
    reference = np.stack([engines["float32.tflite"](image) for image in fresh])
    latency = timed(engines, fresh[0])
    results = []
    for tool, (path, seconds) in files.items():
        logits = np.stack([engines[tool](image) for image in fresh])
        best = logits.argmax(axis=1)
        result = Result(
            network.name,
            split,
            tool,
            float(np.mean(best == labels)),
            int(np.sum(best != reference.argmax(axis=1))),
            len(fresh),
            accuracy.sqnr_db(reference, logits),
            accuracy.divergence(reference, logits),
            path.stat().st_size,
            latency[tool],
            seconds,
        )
        results.append(result)
    return results


def made(
    network: Network, folder: Path, calibration: np.ndarray, qat: bool
) -> Iterator[tuple[str, tuple[Path, float]]]:
    """(tool, (file, seconds that it took)): ours first, then the peers from our float files."""
    ours = ("float32", "int8_ptq", "int8_best", *(["int8_qat"] if qat else []))
    done = export(
        **network.order,
        recipe=ours,
        io="float",
        output="logits",
        out=folder / "build",
        reporter=Terminal(quiet=True),
    )
    for row in done.rows:
        path = Path(row.path)
        yield path.name, (path, artifacts.load(path).convert_seconds)
    floats = Path(done.folder)
    yield timed_making("TFLiteConverter", folder / "stock.tflite", stock, network, calibration)
    if importlib.util.find_spec("ai_edge_quantizer"):
        yield timed_making(
            "ai-edge-quantizer", folder / "aeq.tflite", edge, floats / "float32.tflite", calibration
        )
    else:
        Console(stderr=True).print("ai-edge-quantizer is not installed and left out")
    yield timed_making(
        "ORT quantize_static",
        folder / "ort.onnx",
        _stock_tools.onnxruntime_static,
        floats / "float32.onnx",
        calibration,
    )


def timed_making(
    tool: str, path: Path, make: Callable[..., None], *given: object
) -> tuple[str, tuple[Path, float]]:
    started = time.perf_counter()
    make(path, *given)
    return tool, (path, time.perf_counter() - started)


def stock(path: Path, network: Network, calibration: np.ndarray) -> None:
    """TFLiteConverter as its documentation shows it, from the Keras model without its softmax."""
    import tf_keras

    order = network.order
    if "model" in order:
        whole = tf_keras.models.load_model(order["model"], compile=False)
    else:
        whole = tf_keras.applications.MobileNet(alpha=order["alpha"], weights=None)
        whole.load_weights(order["weights"])
    last = whole.layers[-1]
    if isinstance(last, tf_keras.layers.Dense):
        last.activation = tf_keras.activations.linear
        model = whole
    else:
        model = tf_keras.Model(whole.input, whole.layers[-2].output)
    path.write_bytes(_stock_tools.tflite_converter(model, network.resolution, calibration))


def edge(path: Path, source: Path, calibration: np.ndarray) -> None:
    """ai-edge-quantizer's static recipe of 8 bits."""
    from ai_edge_quantizer import quantizer, recipe

    peer = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    feeds = {"serving_default": [{"image": image[None]} for image in calibration]}
    found = peer.quantize(peer.calibrate(feeds))
    path.write_bytes(found.quantized_model)


def engine(path: Path) -> Answer:
    """image [H, W, 3] -> logits [classes], on one thread."""
    if path.suffix == ".onnx":
        session = RUNTIMES.load("onnxruntime").open(path, threads=1, delegate="none")
        return lambda image: session.run([image.transpose(2, 0, 1)[None]])[0].ravel()
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def answer(image: np.ndarray) -> np.ndarray:
        # ai-edge-quantizer's files take and give int8.
        scale, zero = source["quantization"]
        if scale:
            image = np.clip(np.round(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        logits = interpreter.get_tensor(target["index"]).ravel().astype(np.float32)
        scale, zero = target["quantization"]
        return (logits - zero) * np.float32(scale) if scale else logits

    return answer


def timed(engines: dict[str, Answer], image: np.ndarray) -> dict[str, float]:
    """Median milliseconds of an inference each, in turns."""
    samples: dict[str, list[float]] = {tool: [] for tool in engines}
    for _ in range(TIMED):
        for tool, answer in engines.items():
            started = time.perf_counter()
            answer(image)
            samples[tool].append(time.perf_counter() - started)
    return {tool: 1e3 * float(np.median(row)) for tool, row in samples.items()}


def show(results: list[Result]) -> list[Table]:
    tables = []
    for name in dict.fromkeys(result.network for result in results):
        rows = [result for result in results if result.network == name]
        splits = len({row.split for row in rows})
        table = Table(
            "tool",
            "top-1",
            "disagree with float",
            "SQNR",
            "divergence",
            "size",
            "latency",
            "conversion",
            title=f"{name}: means of {splits} splits, {rows[0].images} images each",
        )
        for tool in dict.fromkeys(row.tool for row in rows):
            own = [row for row in rows if row.tool == tool]

            def mean(field: str, own: list[Result] = own) -> float:
                return float(np.mean([getattr(row, field) for row in own]))

            each = ", ".join(str(row.disagreements) for row in own)
            table.add_row(
                tool,
                f"{100 * mean('top1'):.1f} %",
                f"{mean('disagreements'):.1f} ({each})",
                f"{mean('sqnr_db'):.1f} dB",
                f"{1e3 * mean('divergence'):.2f} mnats",
                f"{mean('size_bytes') / 1e3:.0f} kB",
                f"{mean('latency_ms'):.2f} ms",
                f"{mean('seconds'):.1f} s",
            )
        Console(width=140).print(table)
        tables.append(table)
    return tables


if __name__ == "__main__":
    main()
