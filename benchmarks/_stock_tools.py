"""Stock int8 as its documentation shows it: TFLiteConverter and ONNX Runtime's quantize_static."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


def tflite_converter(model: Any, resolution: tuple[int, int], calibration: np.ndarray) -> bytes:
    """The int8 TFLite of a Keras model, its ends in float; `calibration` is [N, H, W, 3]."""
    import tensorflow as tf

    call = tf.function(lambda image: model(image, training=False)).get_concrete_function(
        tf.TensorSpec((1, *resolution, 3), tf.float32)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


def onnxruntime_static(path: Path, source: Path, calibration: np.ndarray) -> None:
    """Writes the int8 ONNX of a float one to `path`: per channel, in QDQ form."""
    quantize_static(
        source,
        path,
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )


class _Reader(CalibrationDataReader):
    """Images as ONNX Runtime's calibration asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self.feeds = ({"image": image.transpose(2, 0, 1)[None]} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next one, until there is none."""
        return next(self.feeds, None)
