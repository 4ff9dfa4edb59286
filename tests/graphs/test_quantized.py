"""Quantized graphs: integers of every width, layers that stay float, and an unfinished training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS, RECIPES
from mobiledeploy.graphs import execution, matrices, quantized
from mobiledeploy.graphs.graph import Graph
from tests.passes.conftest import INT8, floats, images, quantized_graph, sqnr

SHELF = FORMATS.load("tflite")


def quantized_graph_of(recipe, network="relu6", float_layers=()):
    return quantized.start(
        floats(network), RECIPES.load(recipe).RECIPE, "int8", images(), float_layers
    )


def test_a_layer_that_is_kept_float_computes_in_float_and_no_other_does():
    graph = Graph(floats("relu6"))
    name = matrices.weighted_ops(graph)[1].name
    (word,) = {part.split("/")[-2] for part in name.split(";") if part.endswith("/depthwise")}
    start = quantized_graph_of("int8_ptq", float_layers=[word])
    assert start.kept == (name,)
    facts = SHELF.inspect(quantized.integers(start))
    assert SHELF.float_layers(facts) == ("DEPTHWISE_CONV_2D",)
    assert next(layer.name for layer in facts.layers if layer.op == "DEPTHWISE_CONV_2D") == name


def test_integers_around_kept_layers_answer_as_before():
    fresh = images(24, seed=1)
    reference = execution.logits(floats("various"), fresh)
    names = [layer.name for layer in matrices.weighted_ops(Graph(floats("various")))]
    content = quantized.integers(quantized_graph_of("int8_ptq", "various", names[1:2]))
    assert sqnr(reference, execution.logits(content, fresh)) > 25


def test_an_unknown_layer_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError) as excinfo:
        quantized_graph_of("int8_ptq", float_layers=["depthwise_conv2"])
    assert "no layer named 'depthwise_conv2'" in excinfo.value.message
    assert excinfo.value.hint.startswith("did you mean depthwise_conv2d")


def test_a_part_of_all_names_is_refused():
    graph = Graph(floats("relu6"))
    common_words = set.intersection(
        *({*graph.name(int(op.outputs[0])).replace(";", "/").split("/")} for op in graph.ops)
    )
    for word in common_words:
        with pytest.raises(UsageError, match="part of every layer's name"):
            quantized_graph_of("int8_ptq", float_layers=[word])


def test_sixteen_bits_have_their_zero_in_the_middle_and_wide_biases():
    graph = Graph(quantized.integers(quantized_graph_of("int16x8_ptq")))
    sixteen = [i for i in range(len(graph.subgraph.tensors)) if graph.dtype(i) == np.int16]
    assert {graph.scale(i)[1] for i in sixteen} == {0}
    assert {graph.dtype(x.bias) for x in matrices.weighted_ops(graph) if x.bias >= 0} == {np.int64}
    assert graph.dtype(int(graph.inputs[0])) == np.int16


def test_sixteen_bits_answer_nearer_than_eight():
    fresh = images(24, seed=1)
    reference = execution.logits(floats("relu"), fresh)
    eight, sixteen = (
        sqnr(
            reference,
            execution.logits(quantized.integers(quantized_graph_of(recipe, "relu")), fresh),
        )
        for recipe in ("int8_ptq", "int16x8_ptq")
    )
    assert sixteen > eight + 3


def test_four_bits_are_packed_in_pairs_and_answer_as_unpacked():
    from ai_edge_litert.interpreter import Interpreter

    start = quantized_graph_of("int8x4_ptq")
    file, plain = quantized.finish(start), quantized.integers(start)
    dtypes = {t.dtype for layer in SHELF.inspect(file).layers for t in layer.inputs if t.constant}
    assert "int4" in dtypes
    assert SHELF.float_layers(SHELF.inspect(file)) == ()
    assert SHELF.sparsity(file) == pytest.approx(SHELF.sparsity(plain), abs=1e-3)
    rows = []
    for content in (file, plain):
        engine = Interpreter(model_content=content)
        engine.allocate_tensors()
        (source,), (target,) = engine.get_input_details(), engine.get_output_details()
        scale, zero = source["quantization"]
        codes = np.clip(np.round(images()[0] / scale) + zero, -128, 127).astype(np.int8)
        engine.set_tensor(source["index"], codes[None])
        engine.invoke()
        rows.append(engine.get_tensor(target["index"]).astype(int))
    assert np.abs(rows[0] - rows[1]).max() <= 1


def test_the_first_and_the_depthwise_layers_keep_eight_bits():
    graph = Graph(quantized.integers(quantized_graph_of("int8x4_ptq")))
    largest = {
        layer.number: int(np.abs(graph.constant_values(layer.weights).astype(int)).max())
        for layer in matrices.weighted_ops(graph)
    }
    kinds = {layer.number: layer.kind for layer in matrices.weighted_ops(graph)}
    first = min(largest)
    for number, code in largest.items():
        narrow = kinds[number] == "CONV_2D" and number != first
        assert code == (7 if narrow else 127)


def test_a_saved_graph_is_restored():
    start = quantized_graph("relu")
    back = quantized.restore(quantized.save(start), INT8, "int8")
    assert back.floats == start.floats
    assert dict(back.ranges) == dict(start.ranges)
    assert back.integers == quantized.integers(start)
    assert (back.trained, back.kept) == (0, ())


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all" * 20])
def test_other_content_is_not_restored(content):
    with pytest.raises(InputError, match="unfinished training is damaged"):
        quantized.restore(content, INT8, "int8")


def test_a_truncated_save_is_refused():
    content = quantized.save(quantized_graph("relu"))
    with pytest.raises(InputError, match="unfinished training is damaged"):
        quantized.restore(content[: len(content) // 2], INT8, "int8")


@pytest.mark.parametrize("recipe", ["int8_ptq", "int8x4_ptq"])
def test_ends_of_uint8_are_128_above_those_of_int8(recipe):
    from ai_edge_litert.interpreter import Interpreter

    quantized_graph = quantized_graph_of(recipe)
    codes = {}
    for io in ("int8", "uint8"):
        data = quantized.finish(dataclasses.replace(quantized_graph, io=io))
        interpreter = Interpreter(model_content=data)
        runner = interpreter.get_signature_runner()
        (source,), (target,) = runner.get_input_details().values(), interpreter.get_output_details()
        assert source["dtype"] == target["dtype"] == np.dtype(io).type
        shift = {"int8": 0, "uint8": 128}[io]
        inputs_ = np.random.default_rng(0).integers(-128, 128, source["shape"]) + shift
        (answer,) = runner(**{next(iter(runner.get_input_details())): inputs_.astype(io)}).values()
        codes[io] = answer.astype(int) - shift
        facts = SHELF.inspect(data)
        assert facts.inputs[0].zero_point[0] - shift == -1
        assert SHELF.float_layers(facts) == ()
    np.testing.assert_array_equal(codes["int8"], codes["uint8"])


def test_codes_cover_the_given_range():
    wide = quantized.spanning(quantized_graph_of("int8_ptq"), [(-2.0, 2.0)])
    (image,) = SHELF.inspect(quantized.integers(wide)).inputs
    assert image.scale[0] == pytest.approx(4 / 255)
