"""What a careful user would write by hand: one interpreter with one thread, in a loop.

    python benchmarks/_plain_evaluation.py ARTIFACT.tflite PICTURES

PICTURES is the `data` of an evaluation, a record in JSON: the images, their decoding and their
preprocessing are the same as there. Prints the seconds that the loop took.
"""

import sys
import time
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from mobiledeploy.core import artifacts, preprocessing, records
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import DataRef


def main(path: Path, data: DataRef) -> None:
    artifact = artifacts.load(path)
    spec = artifact.spec
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    first = interpreter.get_input_details()[0]["index"]
    last = interpreter.get_output_details()[0]["index"]
    samples = dataset(data.source).open(
        data.source, data.split, resolution=data.resolution, labels=data.labels
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
    main(Path(sys.argv[1]), records.loads(DataRef, sys.argv[2]))
