"""Int8 by AIMET: CLE and AdaRound, run by the Python of its own environment.

python _rival_aimet.py FLOAT.onnx CALIBRATION.npy INT8.onnx ITERATIONS
"""

from __future__ import annotations

import sys

import aimet_onnx
import numpy as np
import onnx
from aimet_onnx.common.quantsim_config.config_utils import get_path_for_target_config
from aimet_onnx.cross_layer_equalization import equalize_model


def main(source: str, calibration: str, target: str, iterations: str) -> None:
    model = onnx.load(source)
    for number, node in enumerate(model.graph.node):
        # CLE finds layers by the names of their nodes; without them it does nothing, silently.
        node.name = node.name or f"node_{number}"
    (name,) = (value.name for value in model.graph.input)
    inputs = [{name: image[None]} for image in np.load(calibration)]
    equalize_model(model)
    simulated = aimet_onnx.QuantizationSimModel(
        model, config_file=get_path_for_target_config("default_config_per_channel")
    )
    aimet_onnx.apply_adaround(simulated, inputs, int(iterations))
    simulated.compute_encodings(inputs)
    onnx.save(simulated.to_onnx_qdq(prequantize_constants=True), target)


if __name__ == "__main__":
    main(*sys.argv[1:])
