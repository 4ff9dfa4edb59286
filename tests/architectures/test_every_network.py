"""Every model card: built, converted in float and in int8, run on every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tf_keras

from mobiledeploy.analysis import accuracy
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import cards
from mobiledeploy.core.plugins import ARCHITECTURES, FORMATS, RECIPES, data_of_task
from mobiledeploy.core.types import DataRef, Source
from mobiledeploy.steps import answers, card_specs, conversion_process, runtimes
from tests.variants import slow_but

QUICK = ("mobilenet_v1_shallow",)
"""A small card. The others are slow."""

CLASSES = 12

RESOLUTION = {"alexnet": 96, "xception": 96, "lraspp_mobilenet_v3_small": 32}
"""Cards for which 64 pixels are too few, or more than needed."""

IN_FLOAT: dict[tuple[str, str, str], set[str]] = {
    ("lraspp_mobilenet_v3_small", "int8_ptq", "onnx"): {"Resize"},
    ("lraspp_mobilenet_v3_large", "int8_ptq", "onnx"): {"Resize"},
    ("alexnet", "int8_ptq", "onnx"): {"Exp", "Log"},
    ("googlenet", "int8_ptq", "onnx"): {"Exp", "Log"},
}
"""(card, recipe, format): the operators that it computes in float, between integers."""

FLOOR = {"float32": 60.0, "float16": 40.0, "int8_ptq": 6.0}
"""Least SQNR in dB of how the logits differ from image to image: an answer that is the same for
all has 0. Random weights make int8 look worse than trained ones do."""

RUNS_NOT = {("alexnet", "int8_ptq", "tflite_runtime"), ("googlenet", "int8_ptq", "tflite_runtime")}
"""Its last release has no int8 LOG."""

GOLDEN = (0, 1, 2, 3)


def computed_in_float(path):
    """The operators with float inputs in ONNX Runtime's optimized graph on this machine.

    A Reshape moves its numbers only: that of an end, where signed codes are made unsigned.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(path.with_suffix(".optimized")).graph.node
    floats = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    inputs_ = {node.op_type for node in nodes if floats.intersection(node.input)}
    return inputs_ - {"QuantizeLinear", "Reshape"}


def test_every_card_is_of_an_architecture_and_every_architecture_has_a_card():
    assert {cards.load(name).architecture for name in cards.names()} == set(ARCHITECTURES.names())


CLASSIFIERS = {
    card.architecture: card
    for card in map(cards.load, cards.names())
    if card.task == "classification"
}


@pytest.mark.parametrize(
    "name",
    slow_but(CLASSIFIERS, "mobilenet_v3"),
)
def test_a_network_without_its_classifier_gives_what_that_reads(name):
    card = CLASSIFIERS[name]
    size = RESOLUTION.get(card.name, 32)
    arguments = dict(card.arguments) | ({} if card.default_alpha is None else {"alpha": 0.25})
    whole, features = (
        ARCHITECTURES.load(name).build(**arguments, resolution=(size, size), classes=classes)
        for classes in (7, None)
    )
    assert whole.output_shape == (None, 7)
    assert features.output_names == ["embedding"]
    weighted = [layer for layer in whole.layers if layer.weights]
    kept = {layer.name for layer in features.layers}
    for layer in features.layers:
        layer.set_weights(whole.get_layer(layer.name).get_weights() if layer.weights else [])
    left_out = [layer for layer in weighted if layer.name not in kept]
    # The head of MobileNet v4 is a convolution with its normalization, and a dense layer.
    assert left_out == weighted[-len(left_out) :]
    assert 1 <= len(left_out) <= 3
    image = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    read = np.asarray(tf_keras.Model(whole.input, left_out[0].input)(image))
    if read.ndim > 2:
        read = read.mean(axis=(1, 2))
    answer = np.asarray(features(image))
    assert answer.shape == (2, features.output_shape[1])
    np.testing.assert_allclose(answer, read, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    slow_but(cards.names(), *QUICK),
)
def test_a_network_is_built_converted_and_run(name, tmp_path, monkeypatch):
    card = cards.load(name)
    size = RESOLUTION.get(name, 64)
    alpha = None if card.default_alpha is None else 0.5
    spec = card_specs.spec(card, alpha=alpha, res=size, classes=CLASSES)
    data = DataRef(data_of_task("demo", card.task), "validation", (size, size))
    jobs = tuple((recipe, f) for f in ("tflite", "onnx") for recipe in FLOOR)
    request = conversion_process.ConversionRequest(
        source=Source(spec),
        jobs=jobs,
        data=data,
        golden=GOLDEN,
        io="int8",
        output="softmax" if card.task == "classification" else "model",
        folder=str(tmp_path),
    )
    files, finished_jobs = conversion_process.produce(
        request, tmp_path / "log", Terminal(quiet=True)
    )
    assert len(files) == len(jobs)
    reference = np.asarray(finished_jobs.reference, np.float32)
    for file in files:
        shelf = FORMATS.load(file.format)
        content = Path(file.path).read_bytes()
        facts = shelf.inspect(content)
        if RECIPES.load(file.recipe).RECIPE.full_integer:
            between = IN_FLOAT.get((name, file.recipe, file.format), set())
            assert set(shelf.float_layers(facts)) == between
            assert set(shelf.between_integers(facts)) == between
            if file.format == "onnx":
                assert computed_in_float(Path(file.path)) == between
        Path(file.path).write_bytes(answers.probe(content, facts))
        probe_content = shelf.inspect(Path(file.path).read_bytes())
        for runtime in runtimes.of_format(file.format):
            if (name, file.recipe, runtime) in RUNS_NOT:
                continue
            _, logits = answers.logits(
                Path(file.path),
                probe_content,
                finished_jobs.signature.inputs,
                data,
                GOLDEN,
                reporter=Terminal(quiet=True),
                runtime=runtime,
            )
            mean = reference.mean(axis=0)
            sqnr = accuracy.sqnr_db(reference - mean, logits - mean)
            assert sqnr >= FLOOR[file.recipe], (file.recipe, file.format, runtime)
