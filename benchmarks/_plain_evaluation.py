"""What a careful user would write by hand: one interpreter with one thread, in a loop.

    python benchmarks/_plain_evaluation.py ARTIFACT.tflite [DATA]

The pictures, their decoding and their preprocessing are the same as in `mobiledeploy evaluate`.
Prints the seconds that the loop took.
"""

import sys
import time
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.plugins import dataset


def main(path: Path, source: str) -> None:
    artifact = artifacts.load(path)
    spec, data = artifact.spec, artifact.data
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    first = interpreter.get_input_details()[0]["index"]
    last = interpreter.get_output_details()[0]["index"]
    split = "all" if source else data.split
    samples = dataset(source or data.source).open(
        source or data.source, split, resolution=spec.resolution, labels=data.labels
    )
    right = 0
    began = time.perf_counter()
    for index in range(len(samples)):
        x = preprocessing.prepare(samples.image(index), spec.preprocessing, spec.resolution)
        tensor = preprocessing.to_input(x, artifact.inputs[0], artifact.layout)
        interpreter.set_tensor(first, tensor)
        interpreter.invoke()
        right += int(interpreter.get_tensor(last)[0].argmax() == samples.label(index))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "".join(sys.argv[2:]))
