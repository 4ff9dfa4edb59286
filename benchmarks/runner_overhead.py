"""What the native runner adds to an inference, against a bare C loop over the same runtime.

    python benchmarks/runner_overhead.py [--artifact FILE ...]

Both call the same function of the runtime; the loop is benchmarks/_bare_loop.c, compiled by `cc`.
In turns, a process each, the median of 400 inferences; the bar is 1 % on the median of the paired
ratios itself, wherever its interval ends. Wants `make emulator`, which builds the runner. Writes
build/benchmarks/runner_overhead.json.
"""

from __future__ import annotations

import math
import platform
import statistics
import subprocess
import tempfile
from pathlib import Path

import _side_by_side
import click
import numpy as np

from mobiledeploy.core import artifacts, native, protocol
from mobiledeploy.core.package import shipped
from mobiledeploy.steps.bench_figures import last_export

RUNS = 400
# The table is in seconds: those of so many inferences at the median.
THOUSAND = 1000


@click.command()
@click.option("--artifact", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--runs", default=300, show_default=True, help="Pairs of processes.")
def main(artifact: tuple[Path, ...], runs: int) -> None:
    chosen = artifact or [p for p in last_export() if p.stem.startswith(("int8", "float32"))]
    machine, comparisons = platform.machine(), []
    with tempfile.TemporaryDirectory() as folder:
        loop = compiled(Path(folder))
        for path in chosen:
            runtime = "onnxruntime" if path.suffix == ".onnx" else "litert"
            library = str(native.library(machine, runtime))
            tensor = artifacts.load(path).inputs[0]
            size = math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
            # The loop leaves the input as it is allocated.
            zeros = Path(folder) / f"{path.name}.zeros"
            zeros.write_bytes(bytes(size))

            def bare(path: Path = path, runtime: str = runtime, library: str = library) -> float:
                argv = [str(loop), str(path), runtime, library, str(RUNS)]
                return THOUSAND * float(said(argv)[-1]) / 1e9

            def ours(
                path: Path = path,
                runtime: str = runtime,
                library: str = library,
                zeros: Path = zeros,
            ) -> float:
                argv = [
                    str(native.runner(machine)),
                    "bench",
                    "--model",
                    str(path),
                    "--runtime",
                    runtime,
                    "--threads",
                    "1",
                    "--library",
                    library,
                    "--sample",
                    str(zeros),
                    "--max-runs",
                    str(RUNS),
                ]
                events = map(protocol.parse, said(argv))
                times = [ns for e in events if isinstance(e, protocol.Timed) for ns in e.samples_ns]
                return THOUSAND * statistics.median_high(times) / 1e9

            comparisons.append(
                _side_by_side.compare(
                    path.name,
                    ("runner", ours),
                    ("bare loop", bare),
                    bar=1.01,
                    runs=runs,
                    median=True,
                )
            )
    _side_by_side.report(comparisons, Path("build/benchmarks/runner_overhead.json"))


def compiled(folder: Path) -> Path:
    """The bare loop; it shares the files that open an engine, and nothing else of the runner."""
    here, runner = Path(__file__).parent, shipped("android_bench") / "runner"
    program = folder / "bare_loop"
    subprocess.run(
        [
            "cc",
            "-std=gnu11",
            "-O2",
            "-I",
            runner,
            "-o",
            program,
            here / "_bare_loop.c",
            runner / "litert.c",
            runner / "onnxruntime.c",
            "-ldl",
        ],
        check=True,
    )
    return program


def said(argv: list[str]) -> list[str]:
    """The lines of a program whose standard input stays open."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        lines = list(process.stdout)
        if process.wait():
            raise SystemExit(f"{argv[0]} failed: {''.join(lines)}")
    return lines


if __name__ == "__main__":
    main()
