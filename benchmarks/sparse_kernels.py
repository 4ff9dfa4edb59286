"""What zeros among the weights do for latency: LiteRT's sparse kernels beside its dense ones.

    python benchmarks/sparse_kernels.py [--res 96] [--zeros 0.8] [--core cortex-a76]

MobileNet v1 0.5 in float32 with random weights, of which a share is zero in every 1x1 convolution,
as `train --prune` leaves them. `Optimize.EXPERIMENTAL_SPARSITY` of TFLiteConverter stores such
weights as sparse ones, for which LiteRT's XNNPACK delegate takes sparse kernels by itself: there is
no option for it. These kernels are for float32 and float16, for more than two thirds of zeros, and
for networks that are padded by one pixel on each side in every layer of stride 2. So the network is
built in two ways: padded SAME, as TensorFlow does and as all networks of this project are, and by
one pixel on each side. On an x86 core with AVX, XNNPACK takes its dense kernels always, so the
instructions of an emulated ARM core are counted. Wants `make emulator`. Prints a table, and writes
build/benchmarks/sparse_kernels.json.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import _results
import click
import numpy as np
from rich.console import Console
from rich.table import Table

from mobiledeploy.architectures import mobilenet_v1
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import artifacts
from mobiledeploy.core.plugins import DEVICES
from mobiledeploy.core.types import Counted
from mobiledeploy.steps import count, timings

ALPHA, CLASSES, SEED = 0.5, 1000, 0
PADDINGS = ("one pixel", "same")


@dataclass(frozen=True)
class Result:
    """A file: its share of zeros, whether its weights are stored as sparse ones, its kernels."""

    padding: str
    zeros: float
    sparse: bool
    bytes: int
    instructions: int
    kernels: tuple[str, ...]


@click.command()
@click.option("--res", default=96, show_default=True)
@click.option("--zeros", multiple=True, default=[0.6, 0.7, 0.8, 0.9], show_default=True)
@click.option("--core", default="cortex-a76", show_default=True)
def main(res: int, zeros: tuple[float, ...], core: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOBILEDEPLOY_STORE"] = str(Path(folder) / "store.db")
        results = list(counted(res, zeros, core, Path(folder)))
    content = {"res": res, "core": core, "results": [asdict(result) for result in results]}
    _results.write("sparse_kernels", content, [show(results, core)])


def counted(res: int, zeros: tuple[float, ...], core: str, folder: Path) -> Iterator[Result]:
    quiet = Terminal(quiet=True)
    plain, sparse = folder / "plain.tflite", folder / "sparse.tflite"
    with DEVICES.load("emulator").open(f"emulator:{core}", exclusive=False, reporter=quiet) as at:

        def instructions(path: Path) -> Counted:
            own = artifacts.load(path)
            target = timings.target(own, device=f"emulator:{core}", runner="native")
            return count.count(at, path, own, target, reporter=quiet)

        for padding in PADDINGS:
            # Padded SAME, no share of zeros brings the sparse kernels.
            for index, share in enumerate(zeros if padding != "same" else zeros[-1:]):
                network = built(res, share, symmetric=padding != "same")
                # Dense kernels do the same work whatever the weights are.
                for path in (sparse,) if index else (plain, sparse):
                    path.write_bytes(converted(network, res, sparse=path is sparse))
                    done = instructions(path)
                    yield Result(
                        padding,
                        share,
                        path is sparse,
                        path.stat().st_size,
                        done.instructions,
                        tuple(done.kernels),
                    )


def built(res: int, zeros: float, *, symmetric: bool) -> Any:
    """MobileNet v1 whose 1x1 convolutions have this share of zeros, spread at random."""
    import tf_keras
    from tf_keras import layers

    tf_keras.utils.set_random_seed(SEED)
    image = layers.Input((res, res, 3))

    def normalised(x: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization()(x))

    def padded(x: Any, stride: int) -> tuple[Any, str]:
        if stride == 1 or not symmetric:
            return x, "same"
        return layers.ZeroPadding2D(1)(x), "valid"

    stride, filters = mobilenet_v1.STEM
    x, padding = padded(image, stride)
    x = layers.Conv2D(int(filters * ALPHA), 3, stride, padding=padding, use_bias=False)(x)
    x = normalised(x)
    for stride, filters in mobilenet_v1.BLOCKS:
        x, padding = padded(x, stride)
        x = normalised(layers.DepthwiseConv2D(3, stride, padding=padding, use_bias=False)(x))
        x = normalised(layers.Conv2D(int(filters * ALPHA), 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    network = tf_keras.Model(image, layers.Dense(CLASSES)(x))
    dice = np.random.default_rng(SEED)
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1):
            kernel = layer.kernel.numpy()
            flat = kernel.reshape(-1)
            flat[dice.permutation(flat.size)[: round(zeros * flat.size)]] = 0
            layer.kernel.assign(kernel)
    return network


def converted(network: Any, res: int, *, sparse: bool) -> bytes:
    import tensorflow as tf

    call = tf.function(lambda image: network(image, training=False)).get_concrete_function(
        tf.TensorSpec((1, res, res, 3), tf.float32, name="image")
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call], network)
    if sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    return bytes(converter.convert())


def show(results: list[Result], core: str) -> Table:
    table = Table("padding", "weights", "zeros", "size", f"instructions on {core}", "of plain")
    for result in results:
        plain = next(r for r in results if r.padding == result.padding and not r.sparse)
        table.add_row(
            result.padding,
            "sparse" if result.sparse else "plain",
            f"{result.zeros:.0%}",
            f"{result.bytes / 1e6:.2f} MB",
            f"{result.instructions:,}",
            f"{result.instructions / plain.instructions:.3f}",
        )
    Console().print(table)
    return table


if __name__ == "__main__":
    main()
