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
from mobiledeploy.core.plugins import (
    ARCHITECTURES,
    COMPRESSIONS,
    DATASETS,
    DEVICES,
    EXECUTORS,
    FORMATS,
    PASSES,
    RECIPES,
    REPORTS,
    RUNNERS,
    RUNTIMES,
    SOURCES,
    WRITERS,
    Shelf,
)
from mobiledeploy.datasets import folder, npz, shapes
from mobiledeploy.devices import adb, emulator, host, replay
from mobiledeploy.executors import local, ray
from mobiledeploy.formats import onnx as onnx_format
from mobiledeploy.formats import tflite as tflite_format
from mobiledeploy.passes import (
    adaround,
    equalize,
    global_pool,
    headroom,
    quiet_channels,
    ranges_mse,
    ranges_percentile,
)
from mobiledeploy.recipes import (
    dynamic_int8,
    float16,
    float32,
    int8_best,
    int8_ptq,
    int8_qat,
    int8x4_ptq,
    int16x8_ptq,
)
from mobiledeploy.reports import csv, github, html, json, junit, markdown, svg
from mobiledeploy.runners import benchmark_model, native, python
from mobiledeploy.runtimes import litert, onnxruntime, tflite_runtime
from mobiledeploy.sources import keras3, saved_model, tf_keras, tflite, torch
from mobiledeploy.writers import onnx as onnx_writer
from mobiledeploy.writers import tflite as tflite_writer

T = TypeVar("T")


class Held(Generic[T]):
    """Nothing at run time; mypy holds each module against the port of the shelf."""

    def __init__(self, shelf: Shelf[T]) -> None: ...

    def __call__(self, *modules: T) -> None: ...


Held(ARCHITECTURES)(
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
Held(PASSES)(
    adaround,
    equalize,
    global_pool,
    headroom,
    quiet_channels,
    ranges_mse,
    ranges_percentile,
)
Held(COMPRESSIONS)(cluster, prune)
Held(RECIPES)(
    dynamic_int8,
    float16,
    float32,
    int8_best,
    int8_ptq,
    int8_qat,
    int8x4_ptq,
    int16x8_ptq,
)
Held(WRITERS)(onnx_writer, tflite_writer)
Held(FORMATS)(onnx_format, tflite_format)
Held(SOURCES)(keras3, saved_model, tf_keras, tflite, torch)
Held(REPORTS)(csv, github, html, json, junit, markdown, svg)
Held(RUNTIMES)(litert, onnxruntime, tflite_runtime)
Held(RUNNERS)(benchmark_model, native, python)
Held(DEVICES)(adb, emulator, host, replay)
Held(EXECUTORS)(local, ray)
Held(DATASETS)(folder, npz, shapes)
