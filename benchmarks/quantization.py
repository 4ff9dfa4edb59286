"""Accuracy of int8, side by side with other tools, on published networks and photographs.

    python benchmarks/quantization.py [--real FOLDER] [--folds 5] [--network vww] [--no-qat]
        [--rival "NNCF accurate"] [--environments FOLDER] [--iterations 1000] [--out FILE.json]

The 500 images of a published network are dealt once into 5 disjoint folds. Each fold is judged by
files that were calibrated on the 100 images of the next one, so every image counts once; int8_qat
trains on the same 100. `--network v3` and `--network efficientnet` are a MobileNet v3 and an
EfficientNet that `_trained.py` trains once on the built-in images: they are calibrated on 100 of
them and judged on 1,020 others. All files end in logits, and all answers are judged in float64 by
the same function. Some tools leave the logits float, which saves them the rounding that an int8
output brings. So there are two columns of divergence: of the logits as they are, and after float
logits were rounded to 255 steps over the range of the float network's logits on the calibration
images.

Decided is the ratio of mean divergences, ours over theirs, with rounded logits: its 95 % interval
is the paired bootstrap over images. Images whose best class changes are compared by McNemar's exact
test; where a rival changes fewer than 30, no bar is stated on the count.

The rivals are NNCF's accurate quantization, AIMET and AMD Quark. Each has an environment of its
own, which `python benchmarks/_stock_tools.py` makes; versions and settings are in that file and in
the JSON. AdaRound takes minutes of CPU time a fold, even on the person detector (`--iterations`,
`--rival`). Peers that are not installed are left out, and named: `pip install ai-edge-quantizer`
brings one of them.

Beside int8_qat stands the quantization-aware training of tensorflow-model-optimization, on the
person detector: settings are in `_tfmot.py` and in the JSON. It has no bar.

Our files are those of a plain export, with int8 inputs and outputs, and are fed as their records
say. CPU time is that of all processes; for ours, of the whole export with its checks and both
formats. Latency is in units of the float TFLite's: medians of single inferences, the two files in
turns, on one thread of this host. What was judged is kept in build/benchmarks/quantization, so an
interrupted run goes on (`--anew` starts again). Prints tables and writes
build/benchmarks/quantization.json. Ends in 1 where a bar is missed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import _results
import _side_by_side
import _stock_tools
import _tfmot
import _trained
import click
import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mobiledeploy.analysis import accuracy, gate
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.plugins import RUNTIMES, dataset
from mobiledeploy.core.types import Preprocessing
from mobiledeploy.verbs.export import export

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
KEPT = Path("build/benchmarks/quantization")
FOLDS = 5
TIMED = 40
OURS = "int8_best.tflite"
OURS_TRAINED = "int8_qat.tflite"
RECIPES = ("float32", "int8_ptq", "int8_best", "int8_qat")
BARS = {"v1": 0.5, "vww": 0.67, "v3": 0.5, "efficientnet": 0.5}
"""For the upper limit of our divergence over that of a rival."""
TRAINED = ("vww",)
"""Networks that tfmot trains here: v1 at 224 takes too long, and tfmot refuses v3."""
COUNTED = 30
"""Changed answers of a rival, from which on a count has a bar."""
COUNT_BARS = {"v3": 0.5, "efficientnet": 0.5}
"""For our changed answers over those of a rival; 1 where there is none."""
STEPS = 255
DELEGATES = {"onnx": "none", "tflite": "xnnpack"}

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What one tool made of one network on one fold; lists have an item for each image."""

    network: str
    fold: int
    tool: str
    is_right: list[bool]
    is_changed: list[bool]
    divergence: list[float]
    divergence_rounded: list[float]
    signal: float
    noise: float
    size_bytes: int
    latency: float
    cpu_seconds: float


@dataclass(frozen=True)
class Row:
    """A tool and a network, over all folds. Divergences are in nats."""

    network: str
    tool: str
    images: int
    top1: float
    changed: int
    sqnr_db: float
    divergence: float
    divergence_rounded: float
    size_bytes: float
    latency: float
    cpu_seconds: float


@dataclass(frozen=True)
class Against:
    """`ours` beside a rival, on the images that both have answered.

    `ratio`, `low` and `high` are of the mean divergences with rounded logits. `only_ours` are the
    images whose best class only our file changes; `mcnemar_p` is of these and of `only_theirs`.
    """

    network: str
    ours: str
    rival: str
    images: int
    ratio: float
    low: float
    high: float
    bar: float | None
    met: bool | None
    changed_ours: int
    changed_theirs: int
    only_ours: int
    only_theirs: int
    mcnemar_p: float


@dataclass(frozen=True)
class Network:
    """A network with its images: how an export is asked for it, and how images are prepared."""

    order: dict[str, object]
    preprocessing: Preprocessing
    resolution: tuple[int, int]


@click.command()
@click.option("--real", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--folds", type=click.IntRange(1, FOLDS), default=FOLDS, show_default=True)
@click.option(
    "--network",
    type=click.Choice(list(BARS)),
    multiple=True,
    default=["v1", "vww"],
)
@click.option("--qat/--no-qat", default=True, help="int8_qat and tfmot take minutes a fold.")
@click.option(
    "--rival",
    type=click.Choice([*_stock_tools.RIVALS, *_tfmot.TRAININGS]),
    multiple=True,
    default=[*_stock_tools.RIVALS, *_tfmot.TRAININGS],
)
@click.option(
    "--environments",
    type=click.Path(file_okay=False, path_type=Path),
    default=_stock_tools.ENVIRONMENTS,
    show_default=True,
)
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Of AdaRound, for each layer.",
)
@click.option("--anew", is_flag=True, help="Judges again what an earlier run has judged.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path))
def main(
    real: Path | None,
    folds: int,
    network: tuple[str, ...],
    qat: bool,
    rival: tuple[str, ...],
    environments: Path,
    iterations: int,
    anew: bool,
    out: Path | None,
) -> None:
    if real is None and not REAL.is_dir() and not set(network) <= set(_trained.STEPS):
        print("left out: there are no published networks and photographs here (--real FOLDER)")
        return
    if anew:
        shutil.rmtree(KEPT, ignore_errors=True)
    tools = Tools(qat, rival, environments, iterations)
    for name in network:
        count = 1 if name in _trained.STEPS else folds
        for fold in track(range(count), description=name, console=Console(stderr=True)):
            with tempfile.TemporaryDirectory() as folder:
                judge(name, fold, real or REAL, Path(folder), tools)
    judged = [Judged(**json.loads(path.read_text())) for path in sorted(KEPT.glob("*.json"))]
    names = list(dict.fromkeys(one.network for one in judged))
    rows = [row(of(judged, name, tool)) for name in names for tool in tools_of(judged, name)]
    comparisons = [
        against(
            of(judged, name, OURS_TRAINED if tool in _tfmot.TRAININGS else OURS),
            of(judged, name, tool),
            BARS[name],
        )
        for name in names
        for tool in tools_of(judged, name)
        if not tool.startswith(RECIPES)
    ]
    others = {
        tool: told
        for tool, told in versions(environments, iterations).items()
        if any(one.tool == tool for one in rows)
    }
    content = {
        "tools": others,
        "rows": [asdict(one) for one in rows],
        "comparisons": [asdict(one) for one in comparisons],
    }
    _results.write("quantization", content, show(others, rows, comparisons), out)
    sys.exit(0 if all(one.met is not False for one in comparisons) else 1)


def dealt(count: int, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the images that calibrate, and of those that judge: one fold each."""
    folds = np.array_split(np.random.default_rng(0).permutation(count), FOLDS)
    return np.sort(folds[(fold + 1) % FOLDS]), np.sort(folds[fold])


def v1(real: Path, fold: int, folder: Path) -> tuple[Network, Path]:
    """MobileNet v1 0.75 at 224 and photographs of ImageNet's classes."""
    paths = sorted((real / "imagenet" / "images").glob("*/*"))
    fitted, judged = dealt(len(paths), fold)
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
    return Network(order, prepared, (224, 224)), folder


def vww(real: Path, fold: int, folder: Path) -> tuple[Network, Path]:
    """The person detector of MLPerf Tiny."""
    with np.load(real / "vww" / "images.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    fitted, judged = dealt(len(images), fold)
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
    return Network(asked, Preprocessing((0.0, 1.0)), (96, 96)), folder


def trained(name: str, folder: Path) -> tuple[Network, Path]:
    """A network that is trained on the built-in images (`_trained.py`)."""
    for kind, split in (("calibration", "calibration"), ("validation", "test")):
        pixels, labels = _trained.images(split)
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            place = folder / "data" / kind / f"{label:02}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number:04}.png")
    order = {
        "model": _trained.network(name),
        "data": str(folder / "data"),
        "input_range": _trained.RANGES[name],
    }
    return Network(order, Preprocessing(_trained.RANGES[name]), _trained.RESOLUTION), folder


DEALT = {"v1": v1, "vww": vww}
TITLES = {
    "v1": "MobileNet v1 0.75, 224",
    "vww": "person detector, 96",
    "v3": "MobileNet v3 small 0.5, 64",
    "efficientnet": "EfficientNet B0, 64",
}


def images(network: Network, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels [N, H, W, 3] and their labels."""
    source = network.order["data"]
    samples = dataset(source).open(
        source, split, resolution=network.resolution, labels=network.preprocessing.labels
    )
    images = [
        preprocessing.resized(samples.image(i), network.preprocessing, network.resolution)
        for i in range(len(samples))
    ]
    return np.stack(images), np.array([samples.label(i) for i in range(len(samples))])


@dataclass(frozen=True)
class Tools:
    """Which tools are asked for; see the command's options."""

    qat: bool
    rivals: tuple[str, ...]
    environments: Path
    iterations: int


def judge(name: str, fold: int, source: Path, folder: Path, tools: Tools) -> None:
    """Makes and judges the files of a fold that are not judged yet, and keeps what was judged."""
    KEPT.mkdir(parents=True, exist_ok=True)
    if name in _trained.STEPS:
        network, folder = trained(name, folder)
    else:
        network, folder = DEALT[name](source, fold, folder)
    calibration, classes = images(network, "calibration")
    fresh, labels = images(network, "validation")

    def kept(tool: str) -> Path:
        return KEPT / f"{name}-{fold}-{tool.replace(' ', '-')}.json"

    floats, seconds = ours(network, folder, "float32")
    float_answer = engine(floats["float32.tflite"], network)
    reference = np.stack([float_answer(image) for image in fresh])
    low, high = logits_range(np.stack([float_answer(image) for image in calibration]))
    calibration = real(calibration, network)

    def is_judged(tool: str) -> bool:
        return kept(tool).exists()

    made = [makers(network, folder, floats, calibration, tools, is_judged)]
    if name in TRAINED and tools.qat:
        made.append(trainers(network, folder, calibration, classes, tools, is_judged))
    for make in itertools.chain(*made):
        files, seconds = make()
        for tool, path in files.items():
            answer = engine(path, network)
            logits = np.stack([answer(image) for image in fresh])
            rounded = logits if ends_in_integers(path) else to_codes(logits, low, high)
            best = logits.argmax(axis=1)
            one = Judged(
                name,
                fold,
                tool,
                [bool(right) for right in best == labels],
                [bool(change) for change in best != reference.argmax(axis=1)],
                accuracy.divergences(reference, logits).tolist(),
                accuracy.divergences(reference, rounded).tolist(),
                float(np.sum(reference.astype(np.float64) ** 2)),
                float(np.sum((reference.astype(np.float64) - logits) ** 2)),
                path.stat().st_size,
                latency(answer, float_answer, fresh[0]),
                seconds,
            )
            kept(tool).write_text(json.dumps(asdict(one)))


Made = tuple[dict[str, Path], float]


def makers(
    network: Network,
    folder: Path,
    floats: dict[str, Path],
    calibration: NDArray[np.float32],
    tools: Tools,
    is_judged: Callable[[str], bool],
) -> Iterator[Callable[[], Made]]:
    """One for each tool that is asked for and not judged yet; peers start from our float files."""
    if not is_judged("float32.tflite"):
        yield lambda: (floats, 0.0)
    for recipe in RECIPES[1 : None if tools.qat else -1]:
        if not is_judged(f"{recipe}.onnx"):
            yield lambda recipe=recipe: ours(network, folder, recipe)
    source = floats["float32.onnx"]
    peers: dict[str, tuple[str, Callable[[Path], None]]] = {
        "TFLiteConverter": ("tflite", lambda path: stock(path, network, calibration)),
        "ORT quantize_static": (
            "onnx",
            lambda path: _stock_tools.onnxruntime_static(path, source, calibration),
        ),
    }
    if importlib.util.find_spec("ai_edge_quantizer"):
        peers["ai-edge-quantizer"] = (
            "tflite",
            lambda path: edge(path, floats["float32.tflite"], calibration),
        )
    else:
        Console(stderr=True).print("ai-edge-quantizer is not installed and left out")
    for tool in tools.rivals:
        rival = _stock_tools.RIVALS.get(tool)
        if rival is None:
            continue
        if not rival.is_here(tools.environments):
            Console(stderr=True).print(
                f"{tool} is left out: `python benchmarks/_stock_tools.py` makes its environment"
            )
            continue
        peers[tool] = (
            "onnx",
            lambda path, rival=rival: rival.quantize(
                path, source, calibration, tools.environments, tools.iterations
            ),
        )
    for tool, (suffix, make) in peers.items():
        if not is_judged(tool):
            yield lambda tool=tool, suffix=suffix, make=make: theirs(
                tool, folder / f"{tool.replace(' ', '-')}.{suffix}", make
            )


def trainers(
    network: Network,
    folder: Path,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    tools: Tools,
    is_judged: Callable[[str], bool],
) -> Iterator[Callable[[], Made]]:
    """As `makers`, for tools that train; the training split has the calibration images."""
    for tool, training in _tfmot.TRAININGS.items():
        if tool in tools.rivals and not is_judged(tool):

            def make(path: Path, training: _tfmot.Training = training) -> None:
                path.write_bytes(_tfmot.quantize(keras_model(network), images, labels, training))

            yield lambda tool=tool, make=make: theirs(
                tool, folder / f"{tool.replace(' ', '-')}.tflite", make
            )


def ours(network: Network, folder: Path, recipe: str) -> Made:
    """The files of an export with this recipe, by name, and its CPU time."""
    started = cpu_time()
    done = export(
        **network.order,
        recipe=(recipe,),
        output="logits",
        timed=False,
        out=folder / "build",
        reporter=Terminal(quiet=True),
    )
    return {Path(row.path).name: Path(row.path) for row in done.rows}, cpu_time() - started


def theirs(tool: str, path: Path, make: Callable[[Path], None]) -> Made:
    """The file of another tool, and its CPU time."""
    started = cpu_time()
    make(path)
    return {tool: path}, cpu_time() - started


def cpu_time() -> float:
    """Seconds of this process and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def logits_range(logits: NDArray[np.float32]) -> tuple[float, float]:
    """The range of an int8 output that holds all of these, and zero."""
    return min(float(logits.min()), 0.0), max(float(logits.max()), 0.0)


def to_codes(logits: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Logits as an int8 output of this range would give them, in real values."""
    step = (high - low) / STEPS
    zero = np.round(-low / step)
    codes = np.clip(np.round(logits / step) + zero, 0, STEPS)
    return ((codes - zero) * step).astype(np.float32)


def ends_in_integers(path: Path) -> bool:
    """Whether the logits of a file are integers, or were until its last operator."""
    if path.suffix == ".onnx":
        graph = onnx.load(path).graph
        (target,) = graph.output
        is_float = target.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        return not is_float or any(
            node.op_type == "DequantizeLinear" and target.name in node.output for node in graph.node
        )
    interpreter = Interpreter(str(path), num_threads=1)
    details = interpreter._get_ops_details()
    kinds = {index: op["op_name"] for op in details for index in op["outputs"]}
    (target,) = interpreter.get_output_details()
    return bool(target["dtype"] == np.int8 or kinds[target["index"]] == "DEQUANTIZE")


def stock(path: Path, network: Network, calibration: np.ndarray) -> None:
    """TFLiteConverter as its documentation shows it, from the Keras model without its softmax."""
    model = keras_model(network)
    path.write_bytes(_stock_tools.tflite_converter(model, network.resolution, calibration))


def keras_model(network: Network) -> Any:
    """The float network in Keras 2, without its softmax."""
    import tf_keras

    # Registers the layers of MobileNet v3, by which its file names them.
    importlib.import_module("mobiledeploy.frameworks.hard_activations")

    order = network.order
    if "model" in order:
        whole = tf_keras.models.load_model(order["model"], compile=False)
    else:
        whole = tf_keras.applications.MobileNet(alpha=order["alpha"], weights=None)
        whole.load_weights(order["weights"])
    last = whole.layers[-1]
    if isinstance(last, tf_keras.layers.Dense):
        last.activation = tf_keras.activations.linear
        return whole
    return tf_keras.Model(whole.input, whole.layers[-2].output)


def edge(path: Path, source: Path, calibration: np.ndarray) -> None:
    """ai-edge-quantizer's static recipe of 8 bits."""
    from ai_edge_quantizer import quantizer, recipe

    peer = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    feeds = {"serving_default": [{"image": image[None]} for image in calibration]}
    found = peer.quantize(peer.calibrate(feeds))
    path.write_bytes(found.quantized_model)


def engine(path: Path, network: Network) -> Answer:
    """pixels [H, W, 3] -> logits [classes], on one thread.

    Our files are fed as their records say, others with the network's preprocessing.
    """
    if Path(f"{path}.json").exists():
        return own_engine(path)
    if path.suffix == ".onnx":
        session = RUNTIMES.load("onnxruntime").open(path, threads=1, delegate="none")
        return lambda pixels: session.run([real(pixels, network).transpose(2, 0, 1)[None]])[
            0
        ].ravel()
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def answer(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        # ai-edge-quantizer's files take and give int8.
        image = real(pixels, network)
        scale, zero = source["quantization"]
        if scale:
            image = np.clip(np.round(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        logits = interpreter.get_tensor(target["index"]).ravel().astype(np.float32)
        scale, zero = target["quantization"]
        return (logits - zero) * np.float32(scale) if scale else logits

    return answer


def own_engine(path: Path) -> Answer:
    """As `engine`, for a file with a record."""
    artifact = artifacts.load(path)
    (end,), (source,), (target,) = artifact.signature.inputs, artifact.inputs, artifact.outputs
    runtime = {"onnx": "onnxruntime", "tflite": "litert"}[artifact.format]
    opened = RUNTIMES.load(runtime).open(path, threads=1, delegate=DELEGATES[artifact.format])

    def answer(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = preprocessing.real_values(pixels, end.preprocessing)
        (logits,) = opened.run([preprocessing.to_input(values, source, artifact.layout)])
        return preprocessing.from_output(logits, target).ravel()

    return answer


def real(pixels: NDArray[np.uint8], network: Network) -> NDArray[np.float32]:
    """Pixels [..., H, W, 3] as the float network takes them."""
    return preprocessing.real_values(pixels, network.preprocessing)


def latency(answer: Answer, other: Answer, pixels: NDArray[np.uint8]) -> float:
    """Median time of an inference over that of `other`, in turns."""
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED):
        for times, one in zip(samples, (answer, other), strict=True):
            started = time.perf_counter()
            one(pixels)
            times.append(time.perf_counter() - started)
    return float(np.median(samples[0]) / np.median(samples[1]))


def tools_of(judged: Sequence[Judged], network: str) -> list[str]:
    """Ours first, in the order of their recipes, then the peers."""
    tools = {one.tool for one in judged if one.network == network}
    ranks = [f"{recipe}.{format}" for recipe in RECIPES for format in ("tflite", "onnx")]
    ranks += ["TFLiteConverter", "ai-edge-quantizer", "ORT quantize_static"]
    ranks += [*_stock_tools.RIVALS, *_tfmot.TRAININGS]
    return sorted(tools, key=ranks.index)


def of(judged: Sequence[Judged], network: str, tool: str) -> list[Judged]:
    """A tool's folds, in order."""
    own = [one for one in judged if (one.network, one.tool) == (network, tool)]
    return sorted(own, key=lambda one: one.fold)


def joined(folds: Sequence[Judged], field: str) -> Doubles:
    """A figure of each image of all folds."""
    return np.concatenate([np.asarray(getattr(one, field), np.float64) for one in folds])


def row(folds: Sequence[Judged]) -> Row:
    """A tool over its folds: sums over images, means over folds of what a file has."""
    right = joined(folds, "is_right")
    return Row(
        folds[0].network,
        folds[0].tool,
        len(right),
        float(right.mean()),
        int(joined(folds, "is_changed").sum()),
        accuracy.decibels(sum(one.signal for one in folds), sum(one.noise for one in folds)),
        float(joined(folds, "divergence").mean()),
        float(joined(folds, "divergence_rounded").mean()),
        float(np.mean([one.size_bytes for one in folds])),
        float(np.median([one.latency for one in folds])),
        float(np.mean([one.cpu_seconds for one in folds])),
    )


def against(own: Sequence[Judged], rival: Sequence[Judged], bar: float) -> Against:
    """Both on the folds that both have; only the rivals of `_stock_tools` have a bar."""
    both = {one.fold for one in own} & {one.fold for one in rival}
    own, rival = ([one for one in side if one.fold in both] for side in (own, rival))
    ratio, low, high = _side_by_side.mean_ratio(
        joined(own, "divergence_rounded"), joined(rival, "divergence_rounded")
    )
    ours, theirs = (joined(side, "is_changed").astype(bool) for side in (own, rival))
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = gate.mcnemar(only_ours, only_theirs)
    is_bar = rival[0].tool in _stock_tools.RIVALS
    enough = theirs.sum() >= COUNTED
    most = COUNT_BARS.get(rival[0].network, 1.0) * theirs.sum()
    met = high < bar and not (enough and ours.sum() > most)
    return Against(
        rival[0].network,
        own[0].tool,
        rival[0].tool,
        len(ours),
        ratio,
        low,
        high,
        bar if is_bar else None,
        met if is_bar else None,
        int(ours.sum()),
        int(theirs.sum()),
        only_ours,
        only_theirs,
        p,
    )


def versions(environments: Path, iterations: int) -> dict[str, dict[str, str]]:
    """Version and settings of each tool that is there."""
    found = {
        "TFLiteConverter": ("tensorflow", "int8 with float ends"),
        "ORT quantize_static": ("onnxruntime", "QDQ, per channel, int8"),
        "ai-edge-quantizer": ("ai-edge-quantizer", "static_wi8_ai8"),
    }
    told = {
        tool: {"version": importlib.metadata.version(package), "settings": settings}
        for tool, (package, settings) in found.items()
        if importlib.util.find_spec(package.replace("-", "_"))
    }
    version = importlib.metadata.version(_tfmot.PACKAGE)
    for tool, training in _tfmot.TRAININGS.items():
        told[tool] = {"version": version, "settings": training.settings}
    for tool, rival in _stock_tools.RIVALS.items():
        if rival.is_here(environments):
            python = rival.python(environments)
            code = f"import importlib.metadata as m; print(m.version({rival.package!r}))"
            done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
            settings = rival.settings.format(iterations=iterations)
            told[tool] = {"version": done.stdout.strip(), "settings": settings}
    return told


def show(
    others: Mapping[str, Mapping[str, str]], rows: Sequence[Row], comparisons: Sequence[Against]
) -> list[Table]:
    """Prints and returns the tables; `others` are the versions and settings of other tools."""
    table = Table("tool", "version", "settings", title="other tools")
    for tool, told in others.items():
        table.add_row(tool, told["version"], told["settings"])
    tables = [table]
    for name in dict.fromkeys(row.network for row in rows):
        table = Table(
            "tool",
            "images",
            "top-1",
            "changed",
            "SQNR",
            "divergence",
            "logits rounded",
            "size",
            "latency",
            "CPU time",
            title=TITLES[name],
        )
        for row in rows:
            if row.network == name:
                table.add_row(
                    row.tool,
                    str(row.images),
                    f"{100 * row.top1:.1f} %",
                    str(row.changed),
                    f"{row.sqnr_db:.1f} dB",
                    f"{1e3 * row.divergence:.2f} mnats",
                    f"{1e3 * row.divergence_rounded:.2f}",
                    f"{row.size_bytes / 1e3:.0f} kB",
                    f"{row.latency:.2f}",
                    f"{row.cpu_seconds:.0f} s",
                )
        tables.append(table)
        table = Table(
            "ours",
            "against",
            "images",
            "divergence, ours over theirs (95 %)",
            "bar",
            "changed by us, by them",
            "only by us, by them",
            "McNemar p",
        )
        for one in comparisons:
            if one.network == name:
                bar = "" if one.bar is None else f"< {one.bar:g}: {'met' if one.met else 'MISSED'}"
                table.add_row(
                    one.ours,
                    one.rival,
                    str(one.images),
                    f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})",
                    bar,
                    f"{one.changed_ours}, {one.changed_theirs}",
                    f"{one.only_ours}, {one.only_theirs}",
                    f"{one.mcnemar_p:.2g}",
                )
        tables.append(table)
    Console(width=140).print(*tables)
    return tables


if __name__ == "__main__":
    main()
