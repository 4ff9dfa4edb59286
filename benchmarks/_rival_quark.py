"""Int8 by AMD Quark: CLE and AdaRound, run by the Python of its own environment.

python _rival_quark.py FLOAT.onnx CALIBRATION.npy INT8.onnx ITERATIONS
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import AdaRoundConfig, CLEConfig, ModelQuantizer, QConfig, QLayerConfig
from quark.onnx.quantization.config.spec import CalibMethod, Int8Spec, QuantGranularity, UInt8Spec


class Reader(CalibrationDataReader):
    def __init__(self, name: str, images: np.ndarray) -> None:
        self.name, self.images = name, images
        self.rewind()

    def __len__(self) -> int:
        return len(self.images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)

    def rewind(self) -> None:
        self.feeds = ({self.name: image[None]} for image in self.images)

    reset_iter = rewind


def main(source: str, calibration: str, target: str, iterations: str) -> None:
    (name,) = (value.name for value in onnx.load(source).graph.input)
    settings = QConfig(
        QLayerConfig(
            activation=UInt8Spec(calibration_method=CalibMethod.MinMax),
            weight=Int8Spec(
                calibration_method=CalibMethod.MinMax, quant_granularity=QuantGranularity.Channel
            ),
        ),
        algo_config=[CLEConfig(), AdaRoundConfig(num_iterations=int(iterations))],
    )
    ModelQuantizer(settings).quantize_model(source, target, Reader(name, np.load(calibration)))


if __name__ == "__main__":
    main(*sys.argv[1:])
