"""Integers of many networks: beside TensorFlow's quantizer, what stays in float, time and memory.

    python benchmarks/integers.py [MODEL...] [--only MobileNet] [--images 8] [--res 64]

Without MODEL: our networks and those of Keras Applications, untrained but for their BatchNorms, at
a small resolution. Each step of each network is a process of its own, whose CPU time and peak of
memory are told: the source ends in a float TFLite; that becomes int8 by our maker, given the ranges
over random images, and an int8 ONNX file; and TensorFlow's quantizer makes int8 of the same ranges.
Compared are scales and zero points and, where they are equal, codes of weights and biases: of the
tensors that operators read alike or, where the two files have other operators, of those with the
same name and shape. A bias is told apart: the two round its quotient in 64 and in 32 bits, so that
one of a million steps may differ by one. Writes build/benchmarks/integers.json. Ends in 1 where
more weights than the bar allows differ, or a code by more than one.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _results
import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mobiledeploy.steps import model_files

SMALLEST = {
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "NASNetLarge": 331,
    "NASNetMobile": 224,
    "Xception": 71,
}
OTHERS = 64
BAR = 1e-4


@click.command()
@click.argument("models", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--only", default="", help="Networks whose names hold this.")
@click.option("--images", default=8, show_default=True)
@click.option("--res", default=0, help="Of networks, and of models that take any; 0: a small one.")
@click.option("--step", hidden=True)
def main(models: tuple[Path, ...], only: str, images: int, res: int, step: str | None) -> None:
    if step:
        print(json.dumps(STEPS[step](*json.loads(sys.stdin.read()))), flush=True)
        os._exit(0)
    names = [str(path.resolve()) for path in models] or [n for n in networks() if only in n]
    rows = []
    for name in track(names, console=Console(stderr=True), description="networks"):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(name, folder, images, res))
        # What is there stays, also where the run is stopped: all networks take an hour or more.
        _results.write("integers", rows, [table(rows)])
    Console(width=220).print(table(rows))
    compared = [r for r in rows if "codes" in r]
    worst = max((r["codes_differ"] / max(r["codes"], 1) for r in compared), default=0)
    largest = max((r["largest_difference"] for r in compared), default=0)
    print(
        f"weights that differ from TensorFlow's, at worst: {worst:.2g} of a network's "
        f"(bar: {BAR:g}); largest difference of a weight or a bias: {largest} (bar: 1)"
    )
    sys.exit(worst > BAR or largest > 1)


def networks() -> list[str]:
    """Our networks by the names of their cards, and those of Keras Applications by their own."""
    import tf_keras

    from mobiledeploy.core import cards

    applications = inspect.getmembers(tf_keras.applications)
    theirs = [name for name, build in applications if callable(build) and name[0].isupper()]
    return [*cards.names(), *theirs]


def built(name: str, res: int) -> Any:
    """A network of `networks`, with fresh weights and 1,000 classes."""
    import tf_keras

    from mobiledeploy.core import cards
    from mobiledeploy.core.plugins import ARCHITECTURES
    from mobiledeploy.steps import card_specs

    if name not in cards.names():
        size = res or SMALLEST.get(name, OTHERS)
        build = getattr(tf_keras.applications, name)
        return build(weights=None, input_shape=(size, size, 3), classes=1000)
    card = cards.load(name)
    spec = card_specs.spec(card, res=res or max(OTHERS, card.resolution_limits[0]), classes=1000)
    shelf = ARCHITECTURES.load(spec.architecture)
    return shelf.build(resolution=spec.resolution, classes=spec.classes, **spec.arguments)


def row(name: str, folder: str, images: int, res: int) -> dict[str, Any]:
    found: dict[str, Any] = {"network": Path(name).name}
    for step in STEPS:
        child = subprocess.run(
            [sys.executable, __file__, "--step", step],
            input=json.dumps([name, folder, images, res]),
            capture_output=True,
            text=True,
        )
        if child.returncode:
            reason = child.stderr.strip().splitlines()[-1:] or [f"ended in {child.returncode}"]
            found[f"{step}_failed"] = reason[0]
            if step == "source":
                break
            continue
        found |= json.loads(child.stdout.splitlines()[-1])
    return found


def measured(step: str, started: float, more: dict[str, Any]) -> dict[str, Any]:
    # Not ru_maxrss, which a program inherits from the one that starts it.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return {f"{step}_seconds": time.process_time() - started, f"{step}_bytes": peak} | more


def source(name: str, folder: str, images: int, res: int) -> dict[str, Any]:
    """The float TFLite, by the source that an export uses."""
    import tf_keras

    from mobiledeploy.core.plugins import source_of
    from mobiledeploy.core.types import (
        Model,
        ModelInput,
        ModelSpec,
        NetworkInput,
        Preprocessing,
        Source,
        Weights,
    )
    from mobiledeploy.sources._tensorflow import TensorFlowModel

    if Path(name).exists():
        file = model_files.detect(Path(name))
        spec = ModelSpec(
            "x",
            None,
            file.framework,
            {},
            (0, 0),
            0,
            Preprocessing((0.0, 1.0)),
            Weights(file.path, file.sha256, pinned=False),
        )
        started = time.process_time()
        there = Source(spec, file=file, resolution=(res, res) if res else None)
        opened = source_of(there).open(there)
    else:
        tf_keras.utils.set_random_seed(0)
        network = built(name, res)
        size = network.input_shape[1:3]
        # Untrained, answers fade from layer to layer; normalised as in training they do not.
        for layer in network.layers:
            if isinstance(layer, tf_keras.layers.BatchNormalization):
                layer.momentum = 0.0
        network(np.random.default_rng(1).random((images, *size, 3), np.float32), training=True)
        started = time.process_time()
        image = NetworkInput(ModelInput("image", "image", (*size, 3)))
        opened = TensorFlowModel(Model("tf_keras", network, (image,)), ["scores"])
    content = opened.floats("model")
    Path(folder, "float.tflite").write_bytes(content)
    return measured("source", started, {"float_bytes": len(content)})


def ours(name: str, folder: str, images: int, res: int) -> dict[str, Any]:
    """Ranges, int8 TFLite, int8 ONNX; without TensorFlow."""
    from mobiledeploy.core.errors import DeployError
    from mobiledeploy.core.plugins import RECIPES, WRITERS
    from mobiledeploy.graphs import quantized
    from mobiledeploy.graphs.graph import Graph

    started = time.process_time()
    recipe = RECIPES.load("int8_ptq").RECIPE
    content = Path(folder, "float.tflite").read_bytes()
    graph = Graph(content)
    _, *sides = graph.shape(graph.inputs[0])
    samples = np.random.default_rng(0).random((images, *sides), np.float32)
    start = quantized.start(content, recipe, "int8", samples)
    made = quantized.integers(start)
    seconds = time.process_time() - started
    Path(folder, "floats").write_bytes(start.floats)
    Path(folder, "ranges").write_text(json.dumps(start.ranges))
    Path(folder, "ours.tflite").write_bytes(made)
    assert "tensorflow" not in sys.modules
    told = measured("ours", started, {"ours_seconds": seconds, "floats_left": in_float(made)})
    told["ours_seconds"] = seconds
    started = time.process_time()
    try:
        data = WRITERS.load("onnx").write(made)
        told["onnx"] = f"{len(data) / 1e6:.1f} MB, {time.process_time() - started:.1f} s"
    except DeployError as error:
        told["onnx"] = str(error)
    return told


def theirs(name: str, folder: str, images: int, res: int) -> dict[str, Any]:
    """TensorFlow's integers of the same ranges, compared."""
    from mobiledeploy.graphs.graph import Graph
    from tests.oracles import tensorflow_integers

    started = time.process_time()
    ranges = {k: tuple(v) for k, v in json.loads(Path(folder, "ranges").read_text()).items()}
    made = tensorflow_integers.integers(Path(folder, "floats").read_bytes(), ranges)
    told = measured("theirs", started, {"theirs_floats_left": in_float(made)})
    mine = Path(folder, "ours.tflite").read_bytes()
    try:
        pairs = tensorflow_integers.pairs(mine, made)
    except AssertionError:
        pairs = alike(Graph(mine), Graph(made))
        told["compared"] = "by name"
    one, other = Graph(mine), Graph(made)
    scales = 0
    codes, different = [0, 0], [0, 0]
    largest = 0
    for left, right in pairs:
        (own, zero), (its, its_zero) = one.scale(left), other.scale(right)
        same = own.shape == its.shape and np.array_equal(own.astype("f4"), its.astype("f4"))
        same = same and zero == its_zero
        scales += not same
        values, others = one.constant(left), other.constant(right)
        # Codes of other steps are other numbers.
        if same and values is not None and others is not None and own.size:
            apart = np.abs(values.astype(np.int64) - others)
            bias = values.dtype == np.int32
            codes[bias] += values.size
            different[bias] += int(np.count_nonzero(apart))
            largest = max(largest, int(apart.max()))
    return told | {
        "tensors": len(pairs),
        "scales_differ": scales,
        "codes_differ": different[0],
        "codes": codes[0],
        "biases_differ": different[1],
        "biases": codes[1],
        "largest_difference": largest,
    }


def alike(one: Any, other: Any) -> list[tuple[int, int]]:
    """Quantized tensors with the same name, shape and type, as (index, index)."""

    def named(graph: Any) -> dict[Any, int]:
        indices = range(len(graph.subgraph.tensors))
        return {
            (graph.name(i), graph.shape(i), graph.type_name(i)): i
            for i in indices
            if graph.scale(i)[0].size
        }

    first, second = named(one), named(other)
    return [(index, second[key]) for key, index in first.items() if key in second]


def in_float(content: bytes) -> str:
    from mobiledeploy.core.plugins import FORMATS

    shelf = FORMATS.load("tflite")
    return ", ".join(sorted(set(shelf.float_layers(shelf.inspect(content)))))


STEPS = {"source": source, "ours": ours, "theirs": theirs}


COLUMNS = (
    "network",
    "float",
    "source",
    "integers",
    "TensorFlow's",
    "scales off",
    "weights off",
    "biases off",
    "in float",
    "in float, TensorFlow's",
    "int8 ONNX",
)


def table(rows: list[dict[str, Any]]) -> Table:
    result = Table(*COLUMNS, title="int8 of a float TFLite")
    for r in rows:
        result.add_row(*cells(r))
    return result


def cells(r: dict[str, Any]) -> list[str]:
    by_name = " by name" if r.get("compared") else ""
    return [
        r["network"],
        f"{r['float_bytes'] / 1e6:.1f} MB" if "float_bytes" in r else "",
        *(cell(r, step) for step in STEPS),
        f"{r['scales_differ']} of {r['tensors']}{by_name}" if "codes" in r else "",
        f"{r['codes_differ']} of {r['codes']:,}" if "codes" in r else "",
        f"{r['biases_differ']} of {r['biases']:,}" if "codes" in r else "",
        r.get("floats_left", ""),
        r.get("theirs_floats_left", ""),
        r.get("onnx", ""),
    ]


def cell(r: dict[str, Any], step: str) -> str:
    if f"{step}_failed" in r:
        return str(r[f"{step}_failed"])[:80]
    if f"{step}_seconds" not in r:
        return ""
    return f"{r[f'{step}_seconds']:.1f} s, {r[f'{step}_bytes'] / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
