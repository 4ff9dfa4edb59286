"""Sparse constants, as TensorFlow's converter stores them, and as nobody should."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st
from tf_keras import layers

from mobiledeploy.core.errors import InputError
from mobiledeploy.formats import tflite
from mobiledeploy.graphs import execution, sparse
from mobiledeploy.graphs import graph as graph_module
from mobiledeploy.graphs.graph import Graph

SIZE = 16


@pytest.fixture(scope="module")
def network():
    """A network of which four of five weights are zero."""
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, 2, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1, activation="relu")(x))
    network = tf_keras.Model(image, layers.Dense(24)(x))
    dice = np.random.default_rng(0)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([np.where(dice.random(kernel.shape) < 0.8, 0, kernel), bias])
    return network


def converted(network, *optimizations, float16: bool = False) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = list(optimizations)
    if float16:
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


@pytest.fixture(
    scope="module",
    params=[False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["float32", "float16"],
)
def files(request, network) -> tuple[bytes, bytes]:
    """The network with all its zeros, and without them."""
    more = (tf.lite.Optimize.DEFAULT,) if request.param else ()
    plain = converted(network, *more, float16=request.param)
    return plain, converted(
        network, tf.lite.Optimize.EXPERIMENTAL_SPARSITY, *more, float16=request.param
    )


def stored_sparse(graph: Graph) -> list[int]:
    return [i for i, tensor in enumerate(graph.subgraph.tensors) if tensor.sparsity is not None]


def test_a_file_with_its_zeros_answers_the_same(files) -> None:
    _, content = files
    graph = Graph(content)
    assert len(stored_sparse(graph)) == 3
    images = np.random.default_rng(1).random((4, SIZE, SIZE, 3), np.float32)
    expected = execution.run(content, images)
    graph.fill_in_zeros()
    assert stored_sparse(graph) == []
    assert "DENSIFY" not in [graph.kind(op) for op in graph.ops]
    np.testing.assert_array_equal(execution.run(graph.pack(), images), expected)


def test_its_layers_are_those_of_the_file_with_zeros(files) -> None:
    plain, content = files
    layers_ = {
        layer.op: [tensor.constant for tensor in layer.inputs]
        for layer in tflite.inspect(content).layers
    }
    for layer in tflite.inspect(plain).layers:
        assert layers_[layer.op] == [tensor.constant for tensor in layer.inputs]
    assert tflite.sparsity(content) == pytest.approx(tflite.sparsity(plain))


def compressed(values: np.ndarray) -> schema.SparsityParametersT:
    """A matrix [rows, columns] whose columns are listed."""
    parameters, rows, columns = (
        schema.SparsityParametersT(),
        schema.DimensionMetadataT(),
        schema.DimensionMetadataT(),
    )
    rows.denseSize = len(values)
    columns.format = schema.DimensionType.SPARSE_CSR
    columns.arraySegments, columns.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
    counts = np.count_nonzero(values, axis=1)
    columns.arraySegments.values = np.concatenate([[0], np.cumsum(counts)])
    columns.arrayIndices.values = np.nonzero(values)[1]
    parameters.traversalOrder, parameters.dimMetadata = np.arange(2), [rows, columns]
    return parameters


MATRICES = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(-1, 2, (seed % 7 + 1, seed % 5 + 1))
)


@given(MATRICES)
def test_what_was_left_out_is_filled_in(matrix) -> None:
    stored = matrix[matrix != 0]
    np.testing.assert_array_equal(sparse.dense(compressed(matrix), matrix.shape, stored), matrix)


@given(
    MATRICES,
    st.sampled_from(["denseSize", "segments", "indices", "order", "blocks", "values", "levels"]),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8),
)
def test_what_does_not_fit_is_refused(matrix, field, numbers) -> None:
    parameters, stored = compressed(matrix), matrix[matrix != 0]
    rows, columns = parameters.dimMetadata
    if field == "denseSize":
        rows.denseSize = numbers[0] if numbers else -1
    elif field == "segments":
        columns.arraySegments.values = np.asarray(numbers, np.int64)
    elif field == "indices":
        columns.arrayIndices.values = np.asarray(numbers, np.int64)
    elif field == "order":
        parameters.traversalOrder = numbers
    elif field == "blocks":
        parameters.blockMap = [0, *numbers]
    elif field == "levels":
        parameters.dimMetadata = [rows]
    else:
        stored = stored[1:] if len(stored) else np.ones(1, stored.dtype)
    try:
        filled = sparse.dense(parameters, matrix.shape, stored)
    except ValueError:
        return
    # What was written by chance may fit; it is never more than there is.
    assert field in ("denseSize", "segments", "indices", "order")
    assert filled.shape == matrix.shape
    np.testing.assert_array_equal(np.sort(filled[filled != 0]), np.sort(stored))


def test_a_damaged_file_is_refused_in_a_line(files) -> None:
    graph = Graph(files[1])
    index = stored_sparse(graph)[0]
    graph.subgraph.tensors[index].sparsity.traversalOrder = [0]
    with pytest.raises(InputError, match="sparse constant .* is damaged: the order of traversal"):
        Graph(graph.pack()).constant(index)


def test_a_few_bytes_do_not_fill_the_memory(files, monkeypatch) -> None:
    def matrix(rows: int, columns: int) -> schema.SparsityParametersT:
        parameters = compressed(np.zeros((1, 1)))
        parameters.dimMetadata = [schema.DimensionMetadataT(), schema.DimensionMetadataT()]
        for level, size in zip(parameters.dimMetadata, (rows, columns), strict=True):
            level.denseSize = size
        return parameters

    tracemalloc.start()
    try:
        # All of it would have to be stored, and one value is.
        with pytest.raises(ValueError, match="values of another number"):
            sparse.dense(matrix(1 << 13, 1 << 13), (1 << 13, 1 << 13), np.ones(1))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    # One constant is within its limit, and many are not.
    monkeypatch.setattr(graph_module, "_MOST_SPARSE", 100)
    with pytest.raises(InputError, match="sparse constants of the TFLite file are too large"):
        Graph(files[1]).fill_in_zeros()


def test_a_sparse_tensor_without_values_is_refused(files) -> None:
    graph = Graph(files[1])
    graph.subgraph.tensors[stored_sparse(graph)[0]].buffer = 0
    with pytest.raises(InputError, match="the sparse tensor .* is no constant"):
        graph.fill_in_zeros()
