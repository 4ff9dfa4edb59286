"""Conversion time of the five files against a plain script that calls the same converters.

    python benchmarks/conversion.py [--runs 7]

Both build the model, load the demo weights, convert and write, each in a process of its own that
imports TensorFlow; ours also seals the files and answers for the golden samples. Calibration
images are drawn beforehand for the plain script and by ours itself. The plain script wants
tf2onnx: `pip install --no-deps tf2onnx`. Writes build/benchmarks/conversion.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from _side_by_side import compare, report

from mobiledeploy.analysis import stats
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import preprocessing
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import DataRef
from mobiledeploy.steps import conversion_process
from mobiledeploy.steps import export_plan as verb

PLAIN = Path(__file__).parent / "_plain_conversion.py"


@click.command()
@click.option("--runs", type=click.IntRange(min=stats.FEWEST), default=7, show_default=True)
@click.option("--alpha", default=0.5, show_default=True)
@click.option("--res", default=160, show_default=True)
def main(runs: int, alpha: float, res: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # int8_best does what no plain script does; its time is in benchmarks/quantization.py.
        order = verb.ExportConfig(
            alpha=alpha, res=res, out=folder, recipes=("float32", "float16", "int8_ptq")
        )
        plan = verb.plan(order, Terminal(quiet=True))
        samples = dataset("demo").open("demo", "calibration", resolution=(res, res), labels=())
        images = np.stack(
            [
                preprocessing.prepare(samples.image(i), plan.source.spec.preprocessing, (res, res))
                for i in range(len(samples))
            ]
        )
        np.save(folder / "calibration.npy", images)
        request = conversion_process.ConversionRequest(
            source=plan.source,
            jobs=plan.jobs,
            data=DataRef("demo", "validation", (res, res)),
            golden=(0, 1, 2, 3),
            io="int8",
            output="softmax",
            folder=name,
        )

        def ours() -> float:
            started = time.perf_counter()
            conversion_process.produce(request, folder / "log", Terminal(quiet=True))
            return time.perf_counter() - started

        def plain() -> float:
            argv = [
                str(alpha),
                str(res),
                str(plan.source.weights),
                str(folder / "calibration.npy"),
                name,
            ]
            started = time.perf_counter()
            subprocess.run([sys.executable, str(PLAIN), *argv], check=True, capture_output=True)
            return time.perf_counter() - started

        result = compare(
            f"v1 {alpha:g} at {res}, five files",
            ("mobiledeploy", ours),
            ("plain script", plain),
            bar=1.05,
            runs=runs,
        )
    report([result], Path("build/benchmarks/conversion.json"))


if __name__ == "__main__":
    main()
