"""Post-training quantization on the flatbuffer: a float TFLite, its ranges, its integers."""

from __future__ import annotations

import dataclasses
import difflib
import io
import re
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.core import arrays, inputs
from mobiledeploy.core.batches import Images
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import InputOutput, QuantizedGraph, Recipe
from mobiledeploy.graphs import float16, matrices, postprocess, ranges
from mobiledeploy.graphs import integers as maker
from mobiledeploy.graphs.graph import Graph

_LARGEST_OF_4 = 7
_NUMBERS = {
    (32, 32, None),
    (16, 32, None),
    (16, 16, None),
    (8, 32, None),
    (8, 8, "min-max"),
    (8, 16, "min-max"),
    (4, 8, "min-max"),
}
"""The supported combinations: bits of weights, bits of activations, and the calibration."""


def start(
    floats: bytes,
    recipe: Recipe,
    io: InputOutput,
    images: Images,
    float_layers: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> QuantizedGraph:
    """A float TFLite's quantized graph; the ranges are the smallest and largest values on `images`.

    `float_layers` names layers that stay float; see `tensors_of`. So does an operator that chooses
    boxes: classes have no grid.
    """
    refuse_unknown(recipe)
    graph = Graph(floats)
    _refuse_loops(graph)
    names = [graph.name(index) for index in range(len(graph.subgraph.tensors))]
    if "" in names or len(set(names)) < len(names):
        graph.make_names_unique()
        floats = graph.pack()
    tensors = tensors_of(graph, float_layers, output_names)
    kept = (*tensors, *postprocess.chosen(graph))
    plain = QuantizedGraph(recipe, io, floats, {}, kept=kept)
    return dataclasses.replace(plain, ranges=ranges.extents(ranges.channels_of(plain, images)))


def _refuse_loops(graph: Graph) -> None:
    """InputError for operators with graphs of their own, whose tensors have no ranges."""
    if any(graph.kind(op) in ("IF", "WHILE") for op in graph.ops):
        raise InputError(
            "the model has a loop or a branch, and integers cannot be computed in it",
            "--recipe float32,float16 --format tflite keeps it; a recurrent layer of Keras has "
            "none if its number of steps is fixed and at most 64",
        )


def without_calibration(floats: bytes, recipe: Recipe) -> bytes:
    """Applies a recipe without calibration to a float TFLite.

    InputError for an unsupported recipe.
    """
    refuse_unknown(recipe)
    if recipe.weight_bits == 16:
        return float16.halve(floats, arithmetic=recipe.activation_bits == 16)
    if recipe.weight_bits == 8:
        return maker.dynamic(floats, granularity=_granularity(recipe))
    return floats


def refuse_unknown(recipe: Recipe) -> None:
    """InputError for a recipe that is not supported.

    4-bit and 8-bit weights have symmetric scales, per tensor or per channel; wider weights are
    floats and have none. Passes are for full-integer recipes only.
    """
    where = f"recipe {recipe.name}"
    if any(recipe.passes) and not recipe.full_integer:
        raise InputError(f"{where}: passes are for full-integer recipes")
    numbers = (recipe.weight_bits, recipe.activation_bits, recipe.calibration)
    if numbers not in _NUMBERS:
        raise InputError(
            f"{where}: weights of {numbers[0]} bits with activations of {numbers[1]} bits and "
            f"{numbers[2] or 'no'} calibration are not supported"
        )
    integers = recipe.weight_bits <= 8
    scales = ("per-tensor", "per-channel") if integers else ("none",)
    if recipe.granularity not in scales:
        raise InputError(f"{where}: granularity is {recipe.granularity}, not {' or '.join(scales)}")
    symmetry = "symmetric" if integers else "none"
    if recipe.symmetry != symmetry:
        raise InputError(f"{where}: symmetry is {recipe.symmetry}, not {symmetry}")


def _granularity(recipe: Recipe) -> maker.Granularity:
    return "per-tensor" if recipe.granularity == "per-tensor" else "per-channel"


def spanning(
    quantized_graph: QuantizedGraph, extents: Sequence[tuple[float, float] | None]
) -> QuantizedGraph:
    """The graph with input codes that cover these extents, whatever the calibration gave.

    There is an extent for each input; None leaves the one of the calibration.
    """
    if quantized_graph.integers is not None:
        return quantized_graph
    graph = Graph(quantized_graph.floats)
    own = {
        graph.name(index): extent
        for index, extent in zip(graph.inputs, extents, strict=True)
        if extent is not None
    }
    return dataclasses.replace(quantized_graph, ranges={**quantized_graph.ranges, **own})


def tensors_of(
    graph: Graph, layers: Sequence[str], output_names: Sequence[str] = ()
) -> tuple[str, ...]:
    """The output tensors of the layers with these names: names of the file, or of Keras layers.

    TFLite joins the paths of all operators that were fused into one by ``;``. A name is that of a
    tensor, of such a path, or of a part of one. `output_names` are those of the model for its
    outputs in order; TFLite has names of its own for the last layers. UsageError for a name that no
    layer has, and for one that all have.
    """
    outputs = [graph.name(int(index)) for op in graph.ops for index in op.outputs]
    words = {name: {name, *name.split(";"), *re.split("[;/]", name)} for name in outputs}
    for index, own_name in zip(graph.outputs, output_names, strict=False):
        words.setdefault(graph.name(index), set()).add(own_name)
    tensors: list[str] = []
    for layer in layers:
        own = [name for name in outputs if layer in words[name]]
        if not own:
            all_words = sorted(set().union(*words.values()))
            matches = difflib.get_close_matches(layer, all_words, n=1)
            hint = f"did you mean {matches[0]}?" if matches else "`analyze FILE` lists the layers"
            raise UsageError(f"the model has no layer named {layer!r}", hint)
        if len(own) == len(outputs):
            raise UsageError(f"{layer!r} is part of every layer's name", "name one layer")
        tensors += own
    return tuple(dict.fromkeys(tensors))


def float_outputs(quantized_graph: QuantizedGraph) -> tuple[int, ...]:
    """The places of the outputs that stay float by name, whatever `io` says of the others."""
    graph = Graph(quantized_graph.floats)
    return tuple(
        place
        for place, index in enumerate(graph.outputs)
        if graph.name(int(index)) in quantized_graph.kept
    )


def save(quantized_graph: QuantizedGraph) -> bytes:
    """The quantized graph as a file, for a training that is resumed later."""
    stream = io.BytesIO()
    names = list(quantized_graph.ranges)
    np.savez(
        stream,
        floats=np.frombuffer(quantized_graph.floats, np.uint8),
        integers=np.frombuffer(integers(quantized_graph), np.uint8),
        names=np.array(names, np.str_),
        ranges=np.array([quantized_graph.ranges[name] for name in names], np.float64).reshape(
            -1, 2
        ),
        trained=np.int64(quantized_graph.trained),
        **{f"latent/{name}": values for name, values in quantized_graph.latent.items()},
        kept=np.array(quantized_graph.kept, np.str_),
    )
    return stream.getvalue()


def restore(content: bytes, recipe: Recipe, ends: InputOutput) -> QuantizedGraph:
    """The graph that `save` wrote; InputError for any other content."""
    try:
        with arrays.read_archive(
            io.BytesIO(content), "the unfinished training", inputs.MODEL
        ) as archive:
            pairs = zip(archive["names"].tolist(), archive["ranges"].tolist(), strict=True)
            return QuantizedGraph(
                recipe,
                ends,
                archive["floats"].tobytes(),
                {name: (low, high) for name, (low, high) in pairs},
                archive["integers"].tobytes(),
                int(archive["trained"]),
                tuple(archive["kept"].tolist()),
                {
                    name.removeprefix("latent/"): archive[name]
                    for name in archive.files
                    if name.startswith("latent/")
                },
            )
    except (InputError, ValueError, KeyError) as error:
        raise InputError("the unfinished training is damaged", "--force starts it again") from error


def integers(quantized_graph: QuantizedGraph) -> bytes:
    """The integers; made from the floats and ranges if no pass has made them yet."""
    if quantized_graph.integers is not None:
        return quantized_graph.integers
    recipe = quantized_graph.recipe
    content = maker.integers(
        quantized_graph.floats,
        quantized_graph.ranges,
        activation_bits=16 if recipe.activation_bits == 16 else 8,
        granularity=_granularity(recipe),
        # uint8 inputs and outputs come last: see `finish`.
        float_ends=quantized_graph.io == "float",
        float_tensors=quantized_graph.kept,
    )
    return (
        _narrow_weights(content, Graph(quantized_graph.floats))
        if recipe.weight_bits == 4
        else content
    )


def finish(quantized_graph: QuantizedGraph) -> bytes:
    """The finished file: as `integers`, with uint8 inputs and outputs if requested.

    Codes of 4 bits are packed in pairs, the lower one first.
    """
    if quantized_graph.recipe.weight_bits != 4 and quantized_graph.io != "uint8":
        return integers(quantized_graph)
    graph = Graph(integers(quantized_graph))
    if quantized_graph.io == "uint8":
        graph.unsign_ends()
    if quantized_graph.recipe.weight_bits != 4:
        return graph.pack()
    for layer in filter(matrices.narrow, matrices.weighted_ops(graph)):
        if graph.dtype(layer.weights) == np.int8:
            codes = graph.constant_values(layer.weights).reshape(-1)
            pairs = np.append(codes, np.zeros(codes.size % 2, np.int8)).reshape(-1, 2) & 0xF
            graph.replace_constant(layer.op, 1, pairs[:, 0] | pairs[:, 1] << 4)
            graph.subgraph.tensors[layer.weights].type = schema.TensorType.INT4
    return graph.pack()


def _narrow_weights(content: bytes, floats: Graph) -> bytes:
    """The file with 4-bit codes in the `matrices.narrow` layers, each still in a byte."""
    graph = Graph(content)
    for ours, theirs in matrices.pairs(graph, floats):
        if not matrices.narrow(ours):
            continue
        weights = floats.constant_values(theirs.weights).astype(np.float64)
        axis = graph.axis(ours.weights)
        others = tuple(side for side in range(weights.ndim) if side != axis)
        scales = np.abs(weights).max(axis=others, keepdims=True) / _LARGEST_OF_4
        # A channel of zero weights may have any scale.
        maker.recode(ours, theirs, np.where(scales > 0, scales, 1.0).reshape(-1))
    return graph.pack()
