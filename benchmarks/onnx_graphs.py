"""Time of our int8 ONNX files on this host, beside those of ONNX Runtime's quantize_static.

    python benchmarks/onnx_graphs.py [--network v1]

The files of benchmarks/arm_graphs.py: ours takes an int8 image, the peer's floats. One thread, in
turns, both as our Python runner drives them. Writes
build/benchmarks/onnx_graphs.json; ends in 1 where ours takes longer.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import _side_by_side
import click
import numpy as np
from arm_graphs import NETWORKS, made

from mobiledeploy.core.plugins import RUNTIMES

# The table is in seconds: those of so many inferences.
THOUSAND = 1000
INFERENCES = 20


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), multiple=True, default=list(NETWORKS))
@click.option("--runs", default=101, show_default=True, help="Pairs of runs.")
def main(network: tuple[str, ...], runs: int) -> None:
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        # Its exports are no exports of this folder's.
        os.environ["MOBILEDEPLOY_STORE"] = str(Path(folder) / "store.db")
        for name in network:
            files = dict(made(*NETWORKS[name], Path(folder) / name))
            ours, theirs = (
                timer(files["onnx", "int8", tool])
                for tool in ("mobiledeploy", "ORT quantize_static")
            )
            comparisons.append(
                _side_by_side.compare(
                    f"int8 ONNX of {name}",
                    ("mobiledeploy", ours),
                    ("quantize_static", theirs),
                    bar=1.0,
                    runs=runs,
                )
            )
    _side_by_side.report(comparisons, Path("build/benchmarks/onnx_graphs.json"))


def timer(path: Path) -> Callable[[], float]:
    """Seconds of a thousand inferences of zeros, by a few."""
    session = RUNTIMES.load("onnxruntime").open(path, threads=1, delegate="none")
    session.load(np.zeros(session.input.shape, session.input.dtype))

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(INFERENCES):
            session.invoke()
        return (time.perf_counter() - begin) / INFERENCES * THOUSAND

    run()
    return run


if __name__ == "__main__":
    main()
