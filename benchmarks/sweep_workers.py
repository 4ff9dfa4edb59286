"""Jobs of a sweep by two workers, beside one worker that is held to one core.

    python benchmarks/sweep_workers.py [--rounds 3]

The jobs are evaluations: the artifact that `mobiledeploy export --alpha 0.5 --res 160` left, judged
on the built-in images by a worker of one core. Both ways run the same jobs in turn.
Writes build/benchmarks/sweep_workers.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _results
from rich.console import Console
from rich.table import Table

from mobiledeploy.core.plugins import EXECUTORS
from mobiledeploy.steps.sweep_job import share

ARTIFACT = Path("build/mobilenet_v1_0.5_160_demo/int8_best.tflite").resolve()
JOBS = 4


def judge(_: str, worker: int) -> str:
    cores = share(sorted(os.sched_getaffinity(0)), worker, 2)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "mobiledeploy", "evaluate", str(ARTIFACT), "--json"],
            check=True,
            capture_output=True,
            env=os.environ | {"MOBILEDEPLOY_STORE": str(Path(folder, "store.db"))},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    return ""


def seconds(workers: int) -> float:
    begun = time.perf_counter()
    for _ in EXECUTORS.load("local").run(judge, [""] * JOBS, workers=workers, address=""):
        pass
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two workers need two cores")
    pairs = [(seconds(1), seconds(2)) for _ in range(rounds)]
    ratios = [one / two for one, two in pairs]
    middle = statistics.median(ratios)
    table = Table(f"{JOBS} evaluations", "one worker", "two workers", "throughput")
    for number, ((one, two), ratio) in enumerate(zip(pairs, ratios, strict=True), 1):
        table.add_row(f"round {number}", f"{one:.2f} s", f"{two:.2f} s", f"{ratio:.2f} x")
    table.add_row("median (bar: at least 1.7 x)", "", "", f"{middle:.2f} x")
    Console().print(table)
    _results.write("sweep_workers", {"seconds": pairs, "median_ratio": middle}, [table])


if __name__ == "__main__":
    main()
