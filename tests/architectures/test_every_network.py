"""Every model card: built, converted in float and in int8, run on every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mobiledeploy.analysis import accuracy
from mobiledeploy.cli._frame import Terminal
from mobiledeploy.core import cards
from mobiledeploy.core.plugins import ARCHITECTURES, FORMATS, RECIPES, data_of_task
from mobiledeploy.core.types import DataRef, Source
from mobiledeploy.steps import answers, card_specs, conversion_process, runtimes

QUICK = ("mobilenet_v2", "mobilenet_v3_small", "shufflenet_v1", "squeezenet_1_1")
"""One card for each kind of operator: residual sums, hard swish with squeeze and excite, groups
with a shuffle, concatenations. The others are slow."""

CLASSES = 12

RESOLUTION = {"alexnet": 96, "xception": 96}
"""Cards for which 64 pixels are too few."""

IN_FLOAT = {
    ("alexnet", "int8_ptq", "onnx"): {"Exp", "Log"},
    ("googlenet", "int8_ptq", "onnx"): {"Exp", "Log"},
}
"""(card, recipe, format): the operators that it computes in float, between integers."""

FLOOR = {"float32": 60.0, "int8_ptq": 6.0}
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


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in cards.names()],
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
