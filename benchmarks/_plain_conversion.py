"""What a careful user would write by hand: the same converters, called plainly.

    python benchmarks/_plain_conversion.py ALPHA RESOLUTION WEIGHTS CALIBRATION.npy FOLDER

Makes the five files of the plain export and nothing else: no checks, no records. Wants tf2onnx,
which is no dependency: `pip install --no-deps tf2onnx`.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from tf_keras.applications import mobilenet


class Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.feeds = ({"image": image.transpose(2, 0, 1)[None]} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def main(alpha: float, size: int, weights: str, calibration: str, folder: Path) -> None:
    images = np.load(calibration)
    classes = 12
    model = mobilenet.MobileNet(
        input_shape=(size, size, 3), alpha=alpha, weights=None, classes=classes
    )
    model.load_weights(weights, by_name=True)
    signature = tf.TensorSpec((1, size, size, 3), tf.float32, name="image")
    function = tf.function(lambda image: model(image, training=False))
    concrete = function.get_concrete_function(signature)

    for name in ("float32", "float16", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
        if name != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if name == "int8":
            converter.representative_dataset = lambda: ([image[None]] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    translated, _ = tf2onnx.convert.from_keras(
        model, input_signature=[signature], inputs_as_nchw=["image"], opset=17
    )
    onnx.save(translated, folder / "float32.onnx")
    quantize_static(
        folder / "float32.onnx",
        folder / "int8.onnx",
        Reader(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    alpha_, size_, weights_, calibration_, folder_ = sys.argv[1:]
    main(float(alpha_), int(size_), weights_, calibration_, Path(folder_))
