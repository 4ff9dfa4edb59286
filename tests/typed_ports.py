"""Every plugin as its port: mypy, in `make lint`, fails where a module and its Protocol part.

tests/test_house.py sees to it that none is left out.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from mobiledeploy.architectures import (
    alexnet,
    fd_mobilenet,
    googlenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    mobilenet_v4,
    shufflenet_v1,
    squeezenet,
    vgg16,
    xception,
)
from mobiledeploy.compressions import cluster, prune
from mobiledeploy.converters import onnx as onnx_converter
from mobiledeploy.converters import tflite as tflite_converter
from mobiledeploy.core.plugins import (
    ARCHITECTURES,
    COMPRESSIONS,
    CONVERTERS,
    DATASETS,
    DEVICES,
    FORMATS,
    FRAMEWORKS,
    LOADERS,
    PASSES,
    RECIPES,
    RUNNERS,
    RUNTIMES,
    Shelf,
)
from mobiledeploy.datasets import folder, npz, shapes
from mobiledeploy.devices import adb, emulator, host, replay
from mobiledeploy.formats import keras as keras_loader
from mobiledeploy.formats import onnx as onnx_format
from mobiledeploy.formats import saved_model as saved_model_loader
from mobiledeploy.formats import tflite as tflite_format
from mobiledeploy.frameworks import keras3, saved_model, tf_keras
from mobiledeploy.passes import (
    adaround,
    equalize,
    global_pool,
    headroom,
    ranges_mse,
    ranges_percentile,
)
from mobiledeploy.recipes import dynamic_int8, float16, float32, int8_best, int8_ptq
from mobiledeploy.runners import benchmark_model, native, python
from mobiledeploy.runtimes import litert, onnxruntime, tflite_runtime

T = TypeVar("T")


class Held(Generic[T]):
    """Nothing at run time; mypy holds each module against the port of the shelf."""

    def __init__(self, shelf: Shelf[T]) -> None: ...

    def __call__(self, *modules: T) -> None: ...


Held(ARCHITECTURES)(
    alexnet, fd_mobilenet, googlenet, mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4,
    shufflenet_v1, squeezenet, vgg16, xception,
)  # fmt: skip
Held(PASSES)(adaround, equalize, global_pool, headroom, ranges_mse, ranges_percentile)
Held(COMPRESSIONS)(cluster, prune)
Held(RECIPES)(dynamic_int8, float16, float32, int8_best, int8_ptq)
Held(CONVERTERS)(onnx_converter, tflite_converter)
Held(FORMATS)(onnx_format, tflite_format)
Held(LOADERS)(keras_loader, saved_model_loader)
Held(FRAMEWORKS)(keras3, saved_model, tf_keras)
Held(RUNTIMES)(litert, onnxruntime, tflite_runtime)
Held(RUNNERS)(benchmark_model, native, python)
Held(DEVICES)(adb, emulator, host, replay)
Held(DATASETS)(folder, npz, shapes)
