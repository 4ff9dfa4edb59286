"""Images per second of `mobiledeploy evaluate` against one single-thread interpreter in a loop.

    mobiledeploy export --alpha 0.5 --res 160
    python benchmarks/evaluation.py [ARTIFACT.tflite [DATA]]

Without an artifact: the int8 TFLite file that was exported last. Both ways decode, prepare and
judge the same images; both clocks start when the model is loaded. The ratio is of seconds: on 2
cores at most 1 / 1.7, that is 1.7 times the images per second. Writes
build/benchmarks/evaluation.json.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from _side_by_side import compare, report

from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import artifacts, leases, records
from mobiledeploy.steps import bench_figures
from mobiledeploy.verbs import evaluate

PLAIN = Path(__file__).with_name("_plain_evaluation.py")
BAR = 1 / 1.7


def main(artifact: Path, data: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOBILEDEPLOY_STORE"] = str(Path(folder) / "store.db")
        # Alone, so that no float sibling is evaluated with it.
        for path in (artifact, artifacts.record_path(artifact)):
            shutil.copy(path, folder)
        alone = Path(folder) / artifact.name

        # Which images these are, for the other way to take the same; it warms the caches too.
        (first,) = evaluate.evaluate(alone, data=data, reporter=Terminal(quiet=True)).evaluations

        def ours() -> float:
            done = evaluate.evaluate(alone, data=data, reporter=Terminal(quiet=True))
            (made,) = done.evaluations
            return made.images / made.images_per_second

        def theirs() -> float:
            argv = [sys.executable, str(PLAIN), str(alone), records.line(first.data)]
            done = subprocess.run(
                argv, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            return float(done.stdout)

        result = compare(
            f"evaluating {artifact.name} on {leases.cores()} cores",
            ("mobiledeploy evaluate", ours),
            ("one interpreter in a loop", theirs),
            bar=BAR,
        )
    report([result], Path("build/benchmarks/evaluation.json"))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments:
        arguments = [str(p) for p in bench_figures.last_export() if p.name == "int8_best.tflite"]
    main(Path(arguments[0]), arguments[1] if len(arguments) > 1 else None)
