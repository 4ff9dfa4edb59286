"""Instructions of an inference on emulated ARM cores: our files beside those of stock tools.

    python benchmarks/arm_graphs.py [--network v1] [--core cortex-a76] [--real FOLDER]

The same networks through TFLiteConverter, ai-edge-quantizer, tf2onnx and ONNX Runtime's
quantize_static, from the same weights (random, and calibrated by drawn images: what is executed
depends on neither). Two published networks, whose weights and images are in --real, have filters
that no answer depends on: our TFLite files are without them, beside TFLiteConverter's. Every file
is counted as `mobiledeploy bench --device emulator` counts, int8 ends where the tool has them.
Wants `make emulator`; a peer that is not installed is left out, and named: `pip install --no-deps
tf2onnx` brings one of them, and the one that reads it. Prints a table and writes
build/benchmarks/arm_graphs.json. Ends in 1 where a bar is missed: counts are exact, so a bar allows
for nothing but the `EXPLAINED` instructions.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import _results
import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import artifacts, records
from mobiledeploy.core.plugins import ARCHITECTURES, DEVICES, FORMATS
from mobiledeploy.core.types import Artifact, ModelSpec, Target
from mobiledeploy.steps import count, timings
from mobiledeploy.verbs.export import export

# arch, alpha, res
NETWORKS = {
    "v1": ("mobilenet_v1", 0.5, 160),
    "v2": ("mobilenet_v2", 0.5, 160),
    "fd": ("fd_mobilenet", 0.5, 160),
    "v1-0.25-128": ("mobilenet_v1", 0.25, 128),
}
REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
# Ours over theirs: TFLite against the best of the tools, ONNX against ONNX Runtime's own.
BARS = {("tflite", "int8"): 1.00, ("tflite", "float"): 1.00, ("onnx", "int8"): 0.90}
# The output's name in the signature costs LiteRT something in each inference, and `scores`, which
# our files promise, up to 6 instructions more than the stock `output_0`. Renamed, v1's int8 file
# took on an A76 what the stock one takes.
EXPLAINED = {"tflite": 6, "onnx": 0}
CALIBRATION = 8


@dataclass(frozen=True)
class Row:
    """A file of one tool on one core."""

    network: str
    core: str
    format: str
    kind: str
    tool: str
    instructions: int
    bytes_loaded: int
    by_class: dict[str, int]
    host_difference: float


@dataclass(frozen=True)
class Ratio:
    """Our instructions over those of the best peer; `excess` is their difference."""

    network: str
    core: str
    format: str
    kind: str
    peer: str
    excess: int
    ratio: float
    bar: float | None
    met: bool


@dataclass(frozen=True)
class PublishedNetwork:
    """A network with the weights that others trained: paths in --real, and how it is exported.

    `bars` are those of its int8 TFLite on each core.
    """

    weights: str
    data: str
    options: dict[str, Any]
    bars: dict[str, float]


PUBLISHED = {
    "vww": PublishedNetwork(
        "vww/vww_96.h5",
        "vww/images.npz",
        {"input_range": (0, 1)},
        {"cortex-a76": 0.82, "cortex-a53": 0.68},
    ),
    "v1-0.75-224": PublishedNetwork(
        "imagenet/mobilenet_7_5_224_tf.h5",
        "imagenet/images",
        {"arch": "mobilenet_v1", "alpha": 0.75, "res": 224},
        {"cortex-a76": 0.93, "cortex-a53": 0.96},
    ),
}
NAMES = (*NETWORKS, *PUBLISHED)


@click.command()
@click.option("--network", type=click.Choice(NAMES), multiple=True, default=NAMES)
@click.option("--core", multiple=True, default=["cortex-a76", "cortex-a53"])
@click.option("--real", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(network: tuple[str, ...], core: tuple[str, ...], real: Path | None) -> None:
    real = real or REAL
    if not real.is_dir():
        Console(stderr=True).print("published networks are left out: none are here (--real FOLDER)")
        network = tuple(name for name in network if name in NETWORKS)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        # Its exports are no exports of this folder's.
        os.environ["MOBILEDEPLOY_STORE"] = str(Path(folder) / "store.db")
        for name in network:
            place = Path(folder) / name
            if name in NETWORKS:
                files = dict(made(*NETWORKS[name], place))
            else:
                files = dict(shrunk(PUBLISHED[name], real, place))
            for where in core:
                rows += counted(name, where, files)
    ratios = list(compared(rows))
    content = {
        "rows": [asdict(row) for row in rows],
        "ratios": [asdict(ratio) for ratio in ratios],
    }
    _results.write("arm_graphs", content, show(rows, ratios))
    sys.exit(0 if all(ratio.met for ratio in ratios) else 1)


def made(
    arch: str, alpha: float, res: int, folder: Path
) -> Iterator[tuple[tuple[str, str, str], Path]]:
    """(format, kind, tool) -> the file: ours, then the peers' from the same Keras model."""
    folder.mkdir(parents=True)
    done = export(
        arch=arch,
        alpha=alpha,
        res=res,
        weights="random",
        recipe=("float32", "int8_ptq"),
        out=folder / "build",
        reporter=Terminal(quiet=True),
    )
    ours = {Path(row.path).name: Path(row.path) for row in done.rows}
    for format_ in ("tflite", "onnx"):
        yield (format_, "float", "mobiledeploy"), ours[f"float32.{format_}"]
        yield (format_, "int8", "mobiledeploy"), ours[f"int8_ptq.{format_}"]
    artifact = artifacts.load(ours["float32.tflite"])
    yield from peers(artifact, ours["float32.tflite"], folder)


def shrunk(
    network: PublishedNetwork, real: Path, folder: Path
) -> Iterator[tuple[tuple[str, str, str], Path]]:
    """As `made`, TFLite only, without the filters that no answer depends on."""
    import tf_keras

    from mobiledeploy.frameworks import tf_keras as framework

    folder.mkdir(parents=True)
    weights = real / network.weights
    whole = "arch" not in network.options
    done = export(
        weights if whole else None,
        weights=None if whole else weights,
        data=real / network.data,
        recipe=("float32", "int8_ptq"),
        format="tflite",
        out=folder / "build",
        timed=False,
        reporter=Terminal(quiet=True),
        **network.options,
    )
    yield ("tflite", "float", "mobiledeploy"), done.path("float32")
    yield ("tflite", "int8", "mobiledeploy"), done.path("int8_ptq")
    if whole:
        model = tf_keras.models.load_model(weights, compile=False)
    else:
        model = built(done.spec)
        framework.load_weights(model, weights)
    yield from stock(model, noise(done.spec), folder)


def built(spec: ModelSpec) -> Any:
    """The Keras model of a spec, with random weights."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    return ARCHITECTURES.load(spec.architecture).build(
        resolution=spec.resolution, classes=spec.classes, **spec.arguments
    )


def noise(spec: ModelSpec) -> np.ndarray:
    """Images to calibrate with, [N, H, W, 3]."""
    dice = np.random.default_rng(0)
    return dice.uniform(-1, 1, (CALIBRATION, *spec.resolution, 3)).astype(np.float32)


def traced(model: Any, size: Sequence[int]) -> tuple[Any, Any]:
    """The model as a function of one image, and what it takes."""
    import tensorflow as tf

    signature = tf.TensorSpec((1, *size, 3), tf.float32, name="image")
    call = tf.function(lambda image: model(image, training=False)).get_concrete_function(signature)
    return call, signature


def stock(
    model: Any, images: np.ndarray, folder: Path
) -> Iterator[tuple[tuple[str, str, str], Path]]:
    """TFLiteConverter's files."""
    import tensorflow as tf

    call, _ = traced(model, images.shape[1:3])
    for kind in ("float", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([call], model)
        if kind == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        path = folder / f"stock_{kind}.tflite"
        path.write_bytes(converter.convert())
        yield ("tflite", kind, "TFLiteConverter"), path


def peers(
    artifact: Artifact, floats: Path, folder: Path
) -> Iterator[tuple[tuple[str, str, str], Path]]:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model, images = built(artifact.spec), noise(artifact.spec)
    yield from stock(model, images, folder)
    if importlib.util.find_spec("ai_edge_quantizer"):
        from ai_edge_quantizer import quantizer, recipe

        peer = quantizer.Quantizer(str(floats), recipe.static_wi8_ai8())
        feeds = {"serving_default": [{"image": image[None]} for image in images]}
        path = folder / "aeq.tflite"
        path.write_bytes(peer.quantize(peer.calibrate(feeds)).quantized_model)
        yield ("tflite", "int8", "ai-edge-quantizer"), path
    else:
        Console(stderr=True).print("ai-edge-quantizer is not installed and left out")
    if not importlib.util.find_spec("tf2onnx"):
        Console(stderr=True).print("tf2onnx is not installed and left out, quantize_static with it")
        return
    import tf2onnx

    _, signature = traced(model, images.shape[1:3])
    translated, _ = tf2onnx.convert.from_keras(
        model, input_signature=[signature], inputs_as_nchw=["image"], opset=17
    )
    path = folder / "tf2onnx.onnx"
    onnx.save(translated, path)
    yield ("onnx", "float", "tf2onnx"), path
    feeds = iter([{"image": image.transpose(2, 0, 1)[None]} for image in images])
    reader = type("Reader", (), {"get_next": lambda self: next(feeds, None)})()
    quantized = folder / "ort.onnx"
    quantize_static(
        path,
        quantized,
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    yield ("onnx", "int8", "ORT quantize_static"), quantized


def counted(name: str, core: str, files: dict[tuple[str, str, str], Path]) -> Iterator[Row]:
    device = f"emulator:{core}"
    emulator = DEVICES.load("emulator")
    with emulator.open(device, exclusive=False, reporter=Terminal(quiet=True)) as session:
        ours = {k[:2]: artifacts.load(path) for k, path in files.items() if k[2] == "mobiledeploy"}
        title = f"{name} on {core}"
        for key, path in track(files.items(), description=title, console=Console(stderr=True)):
            artifact = ours[key[:2]]
            where = target(artifact, device)
            if key[2] != "mobiledeploy":
                artifact = of(path, artifact)
            found = count.count(session, path, artifact, where, reporter=Terminal(quiet=True))
            yield Row(
                name,
                core,
                *key,
                found.instructions,
                found.bytes_loaded,
                dict(found.by_class),
                found.host_difference,
            )


def target(artifact: Artifact, device: str) -> Target:
    return timings.target(artifact, device=device, runner="native")


def of(path: Path, like: Artifact) -> Artifact:
    """A peer's file as an artifact without golden images: the runner takes noise."""
    facts = FORMATS.load(like.format).inspect(path.read_bytes())
    golden = dataclasses.replace(like.golden, images=())
    return dataclasses.replace(
        like,
        path=path.name,
        sha256=records.sha256(path),
        inputs=facts.inputs,
        outputs=facts.outputs,
        golden=golden,
    )


def compared(rows: list[Row]) -> Iterator[Ratio]:
    for key in dict.fromkeys((r.network, r.core, r.format, r.kind) for r in rows):
        same = [r for r in rows if (r.network, r.core, r.format, r.kind) == key]
        own = next(r for r in same if r.tool == "mobiledeploy")
        best = min((r for r in same if r is not own), key=lambda r: r.instructions)
        excess, bar = own.instructions - best.instructions, bar_of(*key)
        ratio = own.instructions / best.instructions
        met = bar is None or own.instructions - EXPLAINED[own.format] <= bar * best.instructions
        yield Ratio(*key, best.tool, excess, ratio, bar, met)


def bar_of(network: str, core: str, format_: str, kind: str) -> float | None:
    if network in PUBLISHED and (format_, kind) == ("tflite", "int8"):
        return PUBLISHED[network].bars.get(core)
    return BARS.get((format_, kind))


def show(rows: list[Row], ratios: list[Ratio]) -> tuple[Table, Table]:
    counts = Table("network", "core", "file", "tool", "instructions", "loaded", "like the host")
    for r in rows:
        like = "equal" if r.host_difference == 0 else f"{r.host_difference:.2g}"
        counts.add_row(
            r.network,
            r.core,
            f"{r.kind} {r.format}",
            r.tool,
            f"{r.instructions:,}",
            f"{r.bytes_loaded / 1e6:.1f} MB",
            like,
        )
    over = Table("network", "core", "file", "best of the others", "more", "ours over it", "bar")
    for q in ratios:
        bar = "" if q.bar is None else f"<= {q.bar:.2f}: {'met' if q.met else 'MISSED'}"
        over.add_row(
            q.network,
            q.core,
            f"{q.kind} {q.format}",
            q.peer,
            f"{q.excess:+,}",
            f"{q.ratio:.6f}",
            bar,
        )
    Console(width=140).print(counts, over)
    return counts, over


if __name__ == "__main__":
    main()
