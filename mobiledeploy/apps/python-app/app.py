"""Answers images by the model beside this file.

    python app.py photo.jpg ...                      a line of JSON for each image
    python app.py --inputs tensors.npz photo.jpg ... the model's inputs, an array for each image

The second form is for `mobiledeploy verify ARTIFACT --pipeline "python app.py --inputs"`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import decode
import numpy as np
import preprocess
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
USAGE = "usage: python app.py [--inputs FILE.npz] IMAGE..."


class App:
    """The model file and its contract, loaded once; `answer` is called for each image."""

    def __init__(self, folder: Path = HERE) -> None:
        self.folder = folder
        self.contract: dict[str, Any] = json.loads(
            folder.joinpath("contract.json").read_text("utf-8")
        )
        path = folder / self.contract["model"]
        self._run = _litert(path) if path.suffix == ".tflite" else _onnxruntime(path)

    def answer(self, image: NDArray[np.uint8]) -> dict[str, Any]:
        """The answer to an image [H, W, 3], RGB; with the names of its classes if there are any."""
        answer: dict[str, Any] = decode.decode(
            self.outputs(preprocess.prepare(image, self.contract)), self.contract
        )
        labels = self.contract["labels"]
        if labels and "classes" in answer:
            names = dict(enumerate(labels))
            answer["labels"] = [names.get(index, str(index)) for index in answer["classes"]]
        return answer

    def outputs(self, tensor: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The real values of each output for an input tensor, without the batch."""
        return [
            decode.real(raw, told, self.contract["layout"])
            for raw, told in zip(self._run(tensor), self.contract["outputs"], strict=True)
        ]


def _litert(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    places = [detail["index"] for detail in interpreter.get_output_details()]

    def run(tensor: NDArray[Any]) -> list[NDArray[Any]]:
        interpreter.set_tensor(place, tensor)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in places]

    return run


def _onnxruntime(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})


def main(arguments: list[str]) -> int:
    """Answers the images, or writes their input tensors; returns the exit code."""
    inputs = arguments[:1] == ["--inputs"]
    names = arguments[2:] if inputs else arguments
    if not names or names[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    model = App()
    if inputs:
        tensors = {
            Path(n).stem: preprocess.prepare(preprocess.read(Path(n)), model.contract)
            for n in names
        }
        np.savez(arguments[1], **tensors)
        return 0
    for name in names:
        print(json.dumps({"image": name} | model.answer(preprocess.read(Path(name)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
