"""Count the networks of the published latencies: writes android_bench/devices/networks.csv.

`python tools/device_networks.py` builds each network with random weights, converts it to float32
TFLite as `mobiledeploy export` does, and counts what is in the file, as a finished file is counted
before its latency is estimated. VGG-16, whose conversion takes over 10 GB, is counted as TensorFlow
traces it, which makes no difference for a network without hard-swish. It takes some minutes.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from mobiledeploy.analysis import latency_model
from mobiledeploy.core import cards
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.plugins import FORMATS, source_of
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Layer, Source
from mobiledeploy.steps import card_specs, tracing_process

OUT = Path(__file__).resolve().parent.parent / "android_bench" / "devices" / "networks.csv"

CLASSES = 1000
TRACED = ("vgg16",)
V1_GRID = (
    (0.25, 160),
    (0.25, 224),
    (0.5, 128),
    (0.5, 192),
    (0.75, 160),
    (0.75, 224),
    (1.0, 128),
    (1.0, 192),
    (1.0, 224),
)
V2_GRID = (
    (1.3, 224),
    (1.0, 224),
    (1.0, 192),
    (1.0, 128),
    (0.75, 224),
    (0.75, 160),
    (0.75, 96),
    (0.5, 192),
    (0.5, 128),
    (0.35, 224),
    (0.35, 160),
    (0.35, 96),
)
NETWORKS: tuple[tuple[str, float | None, int], ...] = (
    *(("mobilenet_v1", alpha, res) for alpha, res in V1_GRID),
    *(("mobilenet_v2", alpha, res) for alpha, res in V2_GRID),
    ("mobilenet_v3_large", 1.0, 224),
    ("mobilenet_v3_small", 1.0, 224),
    ("mobilenet_v4_conv_s", None, 224),
    ("shufflenet_v1", 0.5, 224),
    ("shufflenet_v1", 1.0, 224),
    ("shufflenet_v1", 2.0, 224),
    ("squeezenet_1_1", None, 224),
    ("squeezenet_1_0", None, 224),
    ("googlenet", None, 224),
    ("alexnet", None, 224),
    ("vgg16", None, 224),
)


def count(card: str, alpha: float | None, res: int) -> tuple[str, Workload]:
    """A network's name, and what one inference of it has to do."""
    spec = card_specs.spec(cards.load(card), alpha=alpha, res=res, classes=CLASSES)
    if card in TRACED:
        (traced,) = tracing_process.trace([Source(spec)], SILENT)
        layers = traced.layers
    else:
        layers = _converted(Source(spec))
    return spec.name, latency_model.workload(layers, family=card)


def _converted(source: Source) -> tuple[Layer, ...]:
    data = source_of(source).open(source).floats("model")
    return FORMATS.load("tflite").inspect(data).layers


def main() -> None:
    """Counts all and writes the table, row by row."""
    names = [field.name for field in dataclasses.fields(Workload)]
    with OUT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["network", *names], lineterminator="\n")
        writer.writeheader()
        for network in NETWORKS:
            name, workload = count(*network)
            writer.writerow({"network": name} | dataclasses.asdict(workload))
            stream.flush()
            print(name, flush=True)


if __name__ == "__main__":
    main()
