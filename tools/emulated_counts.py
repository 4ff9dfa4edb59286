"""Count instructions of published networks: writes android_bench/devices/instructions.csv.

`python tools/emulated_counts.py` exports each network with random weights, as float32 and int8_ptq,
and counts one inference of both on emulated cores (`mobiledeploy doctor --emulator`), 1 thread.
The counts are the shape that XNNPACK gives to a latency where a card has few points
(docs/latency-model.md). It takes about half an hour.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mobiledeploy as md

OUT = Path(__file__).resolve().parent.parent / "android_bench" / "devices" / "instructions.csv"
COLUMNS = ("network", "precision", "core", "instructions", "runtime")
NETWORKS: tuple[tuple[str, float | None, int], ...] = (
    ("mobilenet_v1", 0.25, 128),
    ("mobilenet_v1", 0.5, 160),
    ("mobilenet_v1", 0.75, 224),
    ("mobilenet_v1", 1.0, 224),
    ("mobilenet_v2", 0.35, 96),
    ("mobilenet_v2", 0.5, 160),
    ("mobilenet_v2", 0.75, 128),
    ("mobilenet_v2", 1.0, 224),
    ("mobilenet_v3_large", 1.0, 224),
    ("mobilenet_v3_small", 1.0, 224),
    ("mobilenet_v4_conv_s", None, 224),
    ("fd_mobilenet", 0.5, 224),
    ("shufflenet_v1", 0.5, 224),
)
CORES = {"int8": ("cortex-a76", "cortex-a72"), "float32": ("cortex-a72",)}
RECIPES = {"int8": "int8_ptq", "float32": "float32"}


def rows(arch: str, alpha: float | None, res: int) -> Iterator[dict[str, str]]:
    """The rows of one network; works in the current folder."""
    done = md.export(
        arch=arch,
        alpha=alpha,
        res=res,
        weights="random",
        recipe=tuple(RECIPES.values()),
        format="tflite",
        timed=False,
        reporter=md.SILENT,
    )
    for precision, cores in CORES.items():
        path = done.path(RECIPES[precision])
        for core in cores:
            (count,) = md.bench(path, device=f"emulator:{core}", reporter=md.SILENT).measurements
            assert isinstance(count, md.Counted)
            yield {
                "network": Path(path).parent.name.removesuffix("_random"),
                "precision": precision,
                "core": core,
                "instructions": str(count.instructions),
                "runtime": f"{count.target.runtime} {count.runtime_version}",
            }


def main() -> None:
    """Counts all and writes the table, row by row."""
    with tempfile.TemporaryDirectory() as folder, OUT.open("w", newline="") as stream:
        os.chdir(folder)
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for network in NETWORKS:
            for row in rows(*network):
                writer.writerow(row)
                stream.flush()
                print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
