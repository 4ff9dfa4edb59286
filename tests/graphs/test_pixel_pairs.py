"""The first convolution over pairs of pixels: the same integers, and only where it can be."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.graphs import pixel_pairs
from mobiledeploy.graphs.graph import Graph
from tests.lite import Lite, answers

RANDOM = np.random.default_rng(0)
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


def convolution(
    kernel=(3, 3), strides=(2, 2), padding=SAME, width=10, channels=3, dilation=1, first=None
):
    """A file of one int8 convolution, with `first` before it, and codes of an image for it."""
    net = Lite()
    shape = (1, 8, width, channels)
    source = image = net.input(
        shape, np.uint8 if first else np.int8, grid=(0.02, 131 if first else 3)
    )
    if first:
        source = net.tensor(shape, np.int8, grid=(0.02, 3))
        net.op(first, [image], source)
    weights = RANDOM.integers(-127, 128, (5, *kernel, channels), np.int8)
    sides = [
        -(-side // stride) if padding == SAME else (side - (size - 1) * dilation - 1) // stride + 1
        for side, size, stride in zip(shape[1:3], kernel, strides, strict=True)
    ]
    result = net.tensor((1, *sides, 5), np.int8, grid=(0.2, -7))
    filters = net.constant(weights, grid=(0.01, 0))
    bias = net.constant(RANDOM.integers(-900, 900, 5, np.int32), grid=(0.0002, 0))
    net.op(
        "CONV_2D",
        [source, filters, bias],
        result,
        options="Conv2DOptions",
        version=3,
        padding=padding,
        strideH=strides[0],
        strideW=strides[1],
        dilationHFactor=1,
        dilationWFactor=dilation,
    )
    low, high = (0, 256) if first else (-128, 128)
    return net.file(result), RANDOM.integers(low, high, shape).astype(
        np.uint8 if first else np.int8
    )


@pytest.mark.parametrize("padding", [SAME, VALID], ids=["same", "valid"])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (3, 4), (5, 5), (3, 7)])
@pytest.mark.parametrize("rows", [1, 2])
def test_the_codes_are_the_same(kernel, padding, rows):
    content, image = convolution(kernel, (rows, 2), padding)
    paired = pixel_pairs.paired(content)
    assert paired is not None
    graph = Graph(paired)
    assert [graph.kind(op) for op in graph.ops] == ["RESHAPE", "CONV_2D"]
    assert graph.shape(int(graph.ops[1].inputs[0])) == (1, 8, 5, 6)
    (before,), (after,) = answers(content, image), answers(paired, image)
    assert np.ptp(before.astype(int)) > 20
    np.testing.assert_array_equal(after, before)


def test_unsigned_codes_are_converted_first():
    content, image = convolution(first="QUANTIZE")
    paired = pixel_pairs.paired(content)
    assert paired is not None
    graph = Graph(paired)
    assert [graph.kind(op) for op in graph.ops] == ["QUANTIZE", "RESHAPE", "CONV_2D"]
    np.testing.assert_array_equal(answers(paired, image), answers(content, image))


@pytest.mark.parametrize(
    "other",
    [{"width": 9}, {"strides": (2, 1)}, {"strides": (2, 3)}, {"dilation": 2, "strides": (1, 1)}],
    ids=str,
)
def test_others_stay_as_they_are(other):
    assert pixel_pairs.paired(convolution(**other)[0]) is None


def test_what_is_no_convolution_stays():
    net = Lite()
    image = net.input((1, 4, 4, 3))
    assert pixel_pairs.paired(net.file(net.op("RELU", [image], (1, 4, 4, 3)))) is None
