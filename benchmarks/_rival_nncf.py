"""Int8 by NNCF's accurate post-training quantization, run by the Python of its own environment.

    python _rival_nncf.py FLOAT.onnx CALIBRATION.npy INT8.onnx [min-max]

`min-max` takes the ranges of activations from the least and largest value of all images; by default
NNCF takes the means of those of each image.
"""

from __future__ import annotations

import sys

import nncf
import numpy as np
import onnx
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
from nncf.quantization.range_estimator import RangeEstimatorParametersSet


def main(source: str, calibration: str, target: str, ranges: str = "") -> None:
    model = onnx.load(source)
    (name,) = (value.name for value in model.graph.input)
    images = np.load(calibration)
    estimator: dict[str, object] = (
        {"activations_range_estimator_params": RangeEstimatorParametersSet.MINMAX}
        if ranges == "min-max"
        else {}
    )
    quantized = nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: {name: image[None]}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=False,
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE,
            disable_channel_alignment=False,
            **estimator,
        ),
    )
    onnx.save(quantized, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
