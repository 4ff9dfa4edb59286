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
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import Images
from mobiledeploy.core.types import InputOutput, QuantizedGraph, Recipe
from mobiledeploy.graphs import float16, matrices, ranges
from mobiledeploy.graphs import integers as maker
from mobiledeploy.graphs.graph import Graph

_LARGEST_OF_4 = 7
_NUMBERS = {
    (32, 32, None),
    (16, 32, None),
    (8, 32, None),
    (8, 8, "min-max"),
    (8, 16, "min-max"),
    (4, 8, "min-max"),
}
"""Bits of weights, bits of activations, and how ranges are found: all that there is."""


def start(
    floats: bytes, recipe: Recipe, io: InputOutput, images: Images, kept: Sequence[str] = ()
) -> QuantizedGraph:
    """A float TFLite's quantized graph; the ranges are the least and greatest values over `images`.

    `kept` names layers that stay float; see `tensors_of`.
    """
    refuse_unknown(recipe)
    graph = Graph(floats)
    names = [graph.name(index) for index in range(len(graph.subgraph.tensors))]
    if "" in names or len(set(names)) < len(names):
        graph.make_names_unique()
        floats = graph.packed()
    tensors = tensors_of(graph, kept)
    return QuantizedGraph(recipe, io, floats, ranges.measure(floats, images), kept=tensors)


def without_calibration(floats: bytes, recipe: Recipe) -> bytes:
    """A float TFLite by a recipe that needs no images; InputError for one that cannot be made."""
    refuse_unknown(recipe)
    if recipe.weight_bits == 16:
        return float16.halve(floats)
    if recipe.weight_bits == 8:
        return maker.dynamic(floats, granularity=_granularity(recipe))
    return floats


def refuse_unknown(recipe: Recipe) -> None:
    """InputError for a recipe that asks for what no TFLite file of ours is.

    Weights of 4 and 8 bits have symmetric scales, per tensor or per channel; wider ones are floats
    and have none. Passes are for integers throughout.
    """
    where = f"recipe {recipe.name}"
    if any(recipe.passes) and not recipe.full_integer:
        raise InputError(f"{where}: passes are for recipes of integers throughout")
    numbers = (recipe.weight_bits, recipe.activation_bits, recipe.calibration)
    if numbers not in _NUMBERS:
        raise InputError(
            f"{where}: weights of {numbers[0]} bits with activations of {numbers[1]} bits and "
            f"{numbers[2] or 'no'} calibration cannot be made"
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


def spanning(quantized_graph: QuantizedGraph, low: float, high: float) -> QuantizedGraph:
    """The graph with an input whose codes span `low` to `high`, whatever was calibrated."""
    if quantized_graph.integers is not None:
        return quantized_graph
    graph = Graph(quantized_graph.floats)
    (image,) = graph.inputs
    return dataclasses.replace(
        quantized_graph, ranges={**quantized_graph.ranges, graph.name(image): (low, high)}
    )


def tensors_of(graph: Graph, layers: Sequence[str]) -> tuple[str, ...]:
    """The tensors that the layers make, by their names: a file's, or the Keras layer's.

    TFLite joins the paths of all that an operator was fused of by ``;``. A name is one of a tensor,
    of such a path, or of a step in one. UsageError for a name that no layer has, and for one that
    all have.
    """
    made = [graph.name(int(index)) for op in graph.ops for index in op.outputs]
    words = {name: {name, *name.split(";"), *re.split("[;/]", name)} for name in made}
    found: list[str] = []
    for layer in layers:
        own = [name for name in made if layer in words[name]]
        if not own:
            known = sorted(set().union(*words.values()))
            near = difflib.get_close_matches(layer, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`analyze FILE` lists the layers"
            raise UsageError(f"the model has no layer named {layer!r}", hint)
        if len(own) == len(made):
            raise UsageError(f"{layer!r} is a part of every layer's name", "name one layer")
        found += own
    return tuple(dict.fromkeys(found))


def save(quantized_graph: QuantizedGraph) -> bytes:
    """The quantized graph as a file, for a training that goes on later."""
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
    """What `save` wrote; InputError where it did not."""
    try:
        with arrays.read_archive(
            io.BytesIO(content), "the unfinished training", inputs.MODEL
        ) as stored:
            pairs = zip(stored["names"].tolist(), stored["ranges"].tolist(), strict=True)
            return QuantizedGraph(
                recipe,
                ends,
                stored["floats"].tobytes(),
                {name: (low, high) for name, (low, high) in pairs},
                stored["integers"].tobytes(),
                int(stored["trained"]),
                tuple(stored["kept"].tolist()),
                {
                    name.removeprefix("latent/"): stored[name]
                    for name in stored.files
                    if name.startswith("latent/")
                },
            )
    except (InputError, ValueError, KeyError) as error:
        raise InputError("the unfinished training is damaged", "--force starts it anew") from error


def integers(quantized_graph: QuantizedGraph) -> bytes:
    """The integers, made of the floats and ranges where no pass has changed them yet."""
    if quantized_graph.integers is not None:
        return quantized_graph.integers
    recipe = quantized_graph.recipe
    made = maker.integers(
        quantized_graph.floats,
        quantized_graph.ranges,
        activation_bits=16 if recipe.activation_bits == 16 else 8,
        granularity=_granularity(recipe),
        # Ends of uint8 come last: see `finish`.
        float_ends=quantized_graph.io == "float",
        kept=quantized_graph.kept,
    )
    return _narrowed(made, Graph(quantized_graph.floats)) if recipe.weight_bits == 4 else made


def finish(quantized_graph: QuantizedGraph) -> bytes:
    """The finished file: as `integers`, with ends of uint8 where these are asked for.

    Codes of 4 bits are packed by twos, the lower one first.
    """
    if quantized_graph.recipe.weight_bits != 4 and quantized_graph.io != "uint8":
        return integers(quantized_graph)
    graph = Graph(integers(quantized_graph))
    if quantized_graph.io == "uint8":
        graph.unsign_ends()
    if quantized_graph.recipe.weight_bits != 4:
        return graph.packed()
    for layer in filter(matrices.narrow, matrices.weighted_ops(graph)):
        if graph.dtype(layer.weights) == np.int8:
            codes = graph.stored(layer.weights).reshape(-1)
            pairs = np.append(codes, np.zeros(codes.size % 2, np.int8)).reshape(-1, 2) & 0xF
            graph.put(layer.op, 1, pairs[:, 0] | pairs[:, 1] << 4)
            graph.subgraph.tensors[layer.weights].type = schema.TensorType.INT4
    return graph.packed()


def _narrowed(content: bytes, floats: Graph) -> bytes:
    """The file with the codes of `matrices.narrow` layers within 4 bits, each still in a byte."""
    graph = Graph(content)
    for ours, theirs in matrices.pairs(graph, floats):
        if not matrices.narrow(ours):
            continue
        weights = floats.stored(theirs.weights).astype(np.float64)
        axis = graph.axis(ours.weights)
        others = tuple(side for side in range(weights.ndim) if side != axis)
        scales = np.abs(weights).max(axis=others, keepdims=True) / _LARGEST_OF_4
        # A channel without weights may have any scale.
        maker.recode(ours, theirs, np.where(scales > 0, scales, 1.0).reshape(-1))
    return graph.packed()
