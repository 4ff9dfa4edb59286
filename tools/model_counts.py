"""Count the networks of the published accuracies: writes models/counts.csv.

`python tools/model_counts.py` builds each network of `models/tables` that has a top-1 and a model
card, with random weights and 1000 classes, converts it to float32 TFLite as `mobiledeploy export`
does, and counts the file. So `choose` needs no TensorFlow. Networks whose conversion takes over
10 GB are counted as TensorFlow traces them. It takes about ten minutes.
"""

from __future__ import annotations

import csv
from pathlib import Path

from mobiledeploy.core import cards
from mobiledeploy.core.plugins import FORMATS, source_of
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Layer, ModelSpec, Source
from mobiledeploy.steps import card_specs, network_counts, published, tracing_process
from mobiledeploy.steps.network_counts import NetworkCounts

OUT = Path(__file__).resolve().parent.parent / "models" / network_counts.FILE

TRACED = ("alexnet", "vgg16")


def networks() -> list[ModelSpec]:
    """The networks of all published grids with a top-1, each once, sorted by name."""
    specs = {
        spec.name: spec
        for row in published.grids()
        if row.card and row.top1 is not None
        for spec in [
            card_specs.spec(
                cards.load(row.card),
                alpha=row.alpha,
                groups=row.groups,
                res=row.resolution,
                classes=network_counts.CLASSES,
            )
        ]
    }
    return [specs[name] for name in sorted(specs)]


def count(spec: ModelSpec) -> NetworkCounts:
    """The counts of one network."""
    return network_counts.count(_layers(Source(spec)), spec)


def _layers(source: Source) -> tuple[Layer, ...]:
    if source.spec.card in TRACED:
        (traced,) = tracing_process.trace([source], SILENT)
        return traced.layers
    data = source_of(source).open(source).floats("model")
    return FORMATS.load("tflite").inspect(data).layers


def main() -> None:
    """Counts all and writes the table, row by row."""
    with OUT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, network_counts.COLUMNS, lineterminator="\n")
        writer.writeheader()
        for spec in networks():
            writer.writerow(network_counts.row(count(spec)))
            stream.flush()
            print(spec.name, flush=True)


if __name__ == "__main__":
    main()
