"""Artifacts as an export leaves them, of models that a test has made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tf_keras
from PIL import Image

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.plugins import FORMATS, PASSES, RECIPES
from mobiledeploy.core.types import (
    Artifact,
    DataRef,
    Golden,
    Model,
    ModelSpec,
    Output,
    Preprocessing,
    QuantizedGraph,
    Recipe,
    RecipeAlternative,
    Weights,
)
from mobiledeploy.graphs import quantized
from tests.conftest import press, press_floats
from tests.passes.conftest import images

layers = tf_keras.layers

PLAIN = Preprocessing((-1.0, 1.0))
INT8 = RECIPES.load("int8_ptq").RECIPE
SIZE = (24, 24)
BLOCKS = 4
BEST = ("quiet_channels", "global_pool", "equalize", "headroom", "adaround")


def network():
    """A stem and four depthwise separable blocks, every layer with a name."""
    tf_keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    image = layers.Input((*SIZE, 3))

    def normalised(x, name):
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x)

    x = normalised(
        layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name="stem")(image), "stem"
    )
    for n in range(BLOCKS):
        depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"dw{n}")
        x = normalised(depthwise(x), f"dw{n}")
        x = normalised(layers.Conv2D(16, 1, use_bias=False, name=f"pw{n}")(x), f"pw{n}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = tf_keras.Model(image, layers.Dense(8, activation="softmax", name="preds")(x))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, random.uniform(0, 0.5, beta.shape), mean, variance])
    image_files = images()
    # Statistics as training would have left them.
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            seen = tf_keras.Model(model.input, layer.input).predict(image_files, verbose=0)
            gamma, beta, _, _ = layer.get_weights()
            axes = (0, 1, 2)
            layer.set_weights([gamma, beta, seen.mean(axis=axes), seen.var(axis=axes)])
    return model


def write(
    folder: Path,
    name: str,
    content: bytes,
    recipe: Recipe,
    golden: Golden,
    tried: tuple[RecipeAlternative, ...] = (),
) -> Path:
    """A file and its record, as an export leaves them."""
    path = folder / name
    shelf = FORMATS.load(path.suffix[1:])
    content = shelf.seal(content, ["image"], ["scores"])
    facts = shelf.inspect(content)
    path.write_bytes(content)
    sides = facts.inputs[0].shape[1:]
    size = sides[1:] if facts.layout == "NCHW" else sides[:2]
    classes = facts.outputs[0].shape[-1]
    spec = ModelSpec(
        "small", None, "tf_keras", {}, size, classes, PLAIN, Weights("small.h5", "", pinned=False)
    )
    artifact = Artifact(
        path=name,
        sha256=records.sha256(content),
        size_bytes=len(content),
        gzip_bytes=1,
        sparsity=0.0,
        format=facts.format,
        spec=spec,
        recipe=recipe,
        output="softmax",
        io="int8",
        layout=facts.layout,
        inputs=facts.inputs,
        outputs=facts.outputs,
        logits=facts.logits,
        golden=golden,
        sqnr_db=30.0,
        data=DataRef("elsewhere", "validation", size),
        calibration="",
        calibration_images=24,
        key="",
        convert_seconds=1.0,
        tools={},
        tried=tried,
    )
    records.write_atomic(artifacts.record_path(path), records.dumps(artifact))
    return path


def image_files(folder: Path, shown: np.ndarray, classes: int) -> Golden:
    """Images in -1 to 1 as golden ones."""
    (folder / "golden").mkdir(parents=True)
    names = []
    for image in shown:
        pixels = np.rint((image + 1) / 2 * 255).astype(np.uint8)
        place = folder / "golden" / "new.png"
        Image.fromarray(pixels).save(place)
        place = place.rename(place.with_stem(records.sha256(place)[:16]))
        names.append(f"golden/{place.name}")
    return Golden(tuple(names), tuple(names), ((0.0,) * classes,) * len(names), "")


def plain_files(
    folder: Path,
    model: Model,
    seen: np.ndarray,
    golden: np.ndarray,
    *,
    output: Output = "softmax",
) -> tuple[bytes, Golden, QuantizedGraph]:
    """A folder with float32.tflite and int8_ptq.tflite, whose records say that both classify.

    `seen` calibrates. The float file, the golden samples, and the graph of int8_ptq.
    """
    floats = press(model, "float32", "tflite", seen, output=output)
    classes = FORMATS.load("tflite").inspect(floats).outputs[0].shape[-1]
    samples = image_files(folder, golden, classes)
    write(folder, "float32.tflite", floats, RECIPES.load("float32").RECIPE, samples)
    quantized_graph = quantized.start(floats, INT8, "int8", seen)
    write(folder, "int8_ptq.tflite", quantized.integers(quantized_graph), INT8, samples)
    return floats, samples, quantized_graph


def made(
    folder: Path, model: Model, seen: np.ndarray, golden: np.ndarray, *, onnx: bool = False
) -> Path:
    """Those of `plain_files`, int8 per tensor, and int8_best by all its passes.

    int8_ptq as ONNX too, on request.
    """
    floats, samples, quantized_graph = plain_files(folder, model, seen, golden)
    if onnx:
        content = press_floats(floats, "int8_ptq", "onnx", seen)
        write(folder, "int8_ptq.onnx", content, INT8, samples)
    coarse = dataclasses.replace(INT8, granularity="per-tensor")
    whole = quantized.integers(dataclasses.replace(quantized_graph, recipe=coarse))
    write(folder, "per_tensor.tflite", whole, coarse, samples)
    for name in BEST:
        quantized_graph = PASSES.load(name).apply(quantized_graph, seen)
    best = RECIPES.load("int8_best").RECIPE
    tried = (RecipeAlternative(BEST, 0.1, 1.0, 20.0, 1.0, 8),)
    write(folder, "int8_best.tflite", quantized.integers(quantized_graph), best, samples, tried)
    return folder
