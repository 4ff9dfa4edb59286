"""Float ONNX compared with its float TFLite, operator by operator."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mobiledeploy.core.errors import InputError
from mobiledeploy.formats import onnx as shelf
from mobiledeploy.writers import _onnx_operators
from mobiledeploy.writers import onnx as converter
from tests.lite import Lite, answers

NHWC = (1, 6, 5, 4)


def uniform(*shape, low=-1.0, high=1.0):
    return np.random.default_rng(len(shape)).uniform(low, high, shape).astype(np.float32)


def convert(content):
    return converter.write(content)


def nodes(data):
    return Counter(node.op_type for node in onnx.load_model_from_string(data).graph.node)


def run(data, *values):
    """The answers of ONNX Runtime, in TFLite's order of axes, for images in TFLite's order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feeds = {
        entry.name: value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
        for entry, value in zip(session.get_inputs(), values, strict=True)
    }
    return [y.transpose(0, 2, 3, 1) if y.ndim == 4 else y for y in session.run(None, feeds)]


def assert_equal(content, *values):
    """Checks that both give equal answers; returns the ONNX file."""
    data = convert(content)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    for ours, theirs in zip(run(data, *values), answers(content, *values), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        largest = float(np.abs(theirs.astype(np.float64)).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1.2e-5 * max(largest, 1e-6))
    return data


# --- one of each operator --------------------------------------------------------------------


def one(kind, options=None, low=-4.0, shape=NHWC, after=None, **settings):
    """An operator of one tensor."""

    def build(b):
        x = b.input(shape)
        return b.op(kind, [x], after or shape, options=options, **settings)

    return build, [uniform(*shape, low=low, high=4)]


def two(kind, options=None, other=NHWC, constant=False, low=-2.0, **settings):
    def build(b):
        x = b.input(NHWC)
        y = b.constant(uniform(*other, low=low)) if constant else b.input(other)
        after = np.broadcast_shapes(NHWC, other)
        return b.op(kind, [x, y], after, options=options, **settings)

    values = [uniform(*NHWC, low=low, high=2)]
    return build, values if constant else [*values, uniform(*other, low=low)[..., ::-1].copy()]


def steered(kind, constant, after, options=None, shape=NHWC, first=False, **settings):
    """An operator with a constant of integers."""

    def build(b):
        x, c = b.input(shape), b.constant(constant, np.int32)
        return b.op(kind, [c, x] if first else [x, c], after, options=options, **settings)

    return build, [uniform(*shape)]


def convolution(
    kernel=(3, 3), filters=6, stride=1, dilation=1, padding=0, activation=0, groups=1, shape=NHWC
):
    def build(b):
        x = b.input(shape)
        w = b.constant(uniform(filters, *kernel, shape[3] // groups))
        after = [
            -(-(side - (size - 1) * dilation * padding) // stride)
            for side, size in zip(shape[1:3], kernel, strict=True)
        ]
        return b.op(
            "CONV_2D",
            [x, w, b.constant(uniform(filters))],
            (1, *after, filters),
            options="Conv2DOptions",
            padding=padding,
            strideH=stride,
            strideW=stride,
            dilationHFactor=dilation,
            dilationWFactor=dilation,
            fusedActivationFunction=activation,
        )

    return build, [uniform(*shape)]


def depthwise(times=1, stride=2):
    def build(b):
        x, w = b.input(NHWC), b.constant(uniform(1, 3, 3, 4 * times))
        return b.op(
            "DEPTHWISE_CONV_2D",
            [x, w, b.constant(uniform(4 * times))],
            (1, -(-6 // stride), -(-5 // stride), 4 * times),
            options="DepthwiseConv2DOptions",
            strideH=stride,
            strideW=stride,
            depthMultiplier=times,
            fusedActivationFunction=3,
        )

    return build, [uniform(*NHWC)]


def transposed_convolution(padding, size, stride, after):
    def build(b):
        x, w = b.input(NHWC), b.constant(uniform(3, size, size, 4))
        sides = b.constant((1, *after, 3), np.int32)
        return b.op(
            "TRANSPOSE_CONV",
            [sides, w, x],
            (1, *after, 3),
            options="TransposeConvOptions",
            padding=padding,
            strideH=stride,
            strideW=stride,
        )

    return build, [uniform(*NHWC)]


def dense(before, after, kept=False, bias=True, activation=0):
    def build(b):
        x, w = b.input(before), b.constant(uniform(after[-1], before[-1]))
        inputs = [x, w, b.constant(uniform(after[-1])) if bias else -1]
        return b.op(
            "FULLY_CONNECTED",
            inputs,
            after,
            options="FullyConnectedOptions",
            keepNumDims=kept,
            fusedActivationFunction=activation,
        )

    return build, [uniform(*before)]


def pool(kind, padding, size=3, stride=2):
    sides = [-(-(side - (size - 1) * padding) // stride) for side in NHWC[1:3]]
    return one(
        kind,
        "Pool2DOptions",
        after=(1, *sides, 4),
        padding=padding,
        filterHeight=size,
        filterWidth=size,
        strideH=stride,
        strideW=stride,
    )


def reduction(kind, axes, kept):
    after = [1 if a in axes else side for a, side in enumerate(NHWC) if kept or a not in axes]
    return steered(kind, axes, after, "ReducerOptions", keepDims=kept)


def pad(kind="PAD", widths=((0, 0), (1, 2), (0, 1), (0, 0)), filling=None, **settings):
    after = [side + sum(width) for side, width in zip(NHWC, widths, strict=True)]

    def build(b):
        inputs = [b.input(NHWC), b.constant(widths, np.int32)]
        if filling is not None:
            inputs.append(b.constant(filling, np.float32))
        return b.op(kind, inputs, after, **settings)

    return build, [uniform(*NHWC)]


def resize(kind, corners, half, after=(9, 8)):
    return steered(
        kind,
        after,
        (1, *after, 4),
        f"{kind.title().replace('_', '')}Options",
        alignCorners=corners,
        halfPixelCenters=half,
        version=3,
    )


def strided(begin, end, strides, after, **masks):
    def build(b):
        rows = [b.constant(row, np.int32) for row in (begin, end, strides)]
        return b.op(
            "STRIDED_SLICE", [b.input(NHWC), *rows], after, options="StridedSliceOptions", **masks
        )

    return build, [uniform(*NHWC)]


def concatenation(axis, *shapes):
    def build(b):
        after = [sum(s[axis] for s in shapes) if a == axis else n for a, n in enumerate(shapes[0])]
        inputs = [b.input(shape) for shape in shapes]
        return b.op("CONCATENATION", inputs, after, options="ConcatenationOptions", axis=axis)

    return build, [uniform(*shape) for shape in shapes]


def slope(shape):
    def build(b):
        return b.op("PRELU", [b.input(NHWC), b.constant(uniform(*shape))], NHWC)

    return build, [uniform(*NHWC)]


def slice_of(begin, size):
    def build(b):
        rows = [b.constant(row, np.int32) for row in (begin, size)]
        return b.op("SLICE", [b.input(NHWC), *rows], size, options="SliceOptions")

    return build, [uniform(*NHWC)]


def split(axis=3, number=2):
    def build(b):
        after = [side // number if a == axis else side for a, side in enumerate(NHWC)]
        inputs = [b.constant(axis, np.int32), b.input(NHWC)]
        parts = b.op("SPLIT", inputs, *[after] * number, options="SplitOptions", numSplits=number)
        return b.op("SUB", parts, after, options="SubOptions")

    return build, [uniform(*NHWC)]


def split_by(sizes=(1, 3)):
    def build(b):
        x = b.input(NHWC)
        rest = [b.constant(sizes, np.int32), b.constant(3, np.int32)]
        parts = b.op(
            "SPLIT_V",
            [x, *rest],
            *[(1, 6, 5, n) for n in sizes],
            options="SplitVOptions",
            numSplits=len(sizes),
        )
        return b.op("MUL", parts, (1, 6, 5, 3), options="MulOptions")

    return build, [uniform(*NHWC)]


def pack(axis=1):
    def build(b):
        inputs = [b.input((1, 4, 3)), b.input((1, 4, 3))]
        after = np.insert((1, 4, 3), axis, 2).tolist()
        return b.op("PACK", inputs, after, options="PackOptions", axis=axis, valuesCount=2)

    return build, [uniform(1, 4, 3), uniform(1, 4, 3)[:, ::-1].copy()]


def unpack(axis=3):
    def build(b):
        after = [side for a, side in enumerate(NHWC) if a != axis]
        number = NHWC[axis]
        parts = b.op(
            "UNPACK",
            [b.input(NHWC)],
            *[after] * number,
            options="UnpackOptions",
            axis=axis,
            num=number,
        )
        return b.op("SUB", parts[:2], after, options="SubOptions")

    return build, [uniform(*NHWC)]


def product(turned):
    def build(b):
        x = b.input((1, 3, 5))
        y = b.input((1, 4, 5) if turned else (1, 5, 4))
        return b.op("BATCH_MATMUL", [x, y], (1, 3, 4), options="BatchMatMulOptions", adjY=turned)

    return build, [uniform(1, 3, 5), uniform(1, *((4, 5) if turned else (5, 4)))]


def select_of(kind, select="SELECT"):
    """Selects one of two numbers by comparing them."""

    def build(b):
        x, y = b.input(NHWC), b.input(NHWC)
        more = b.op(kind, [x, y], b.tensor(NHWC, bool))
        return b.op(select, [more, x, y], NHWC)

    # Half of them are equal.
    values = uniform(*NHWC)
    return build, [values, np.where(values > 0, values, values[:, ::-1])]


def logical(kind, of_two=True):
    def build(b):
        x, zero = b.input(NHWC), b.constant(0, np.float32)
        one_, other = (
            b.op(which, [x, b.constant(bound, np.float32)], b.tensor(NHWC, bool))
            for which, bound in (("GREATER", 0.3), ("LESS", 0.6))
        )
        both = b.op(kind, [one_, other] if of_two else [one_], b.tensor(NHWC, bool))
        return b.op("SELECT_V2", [both, x, zero], NHWC)

    return build, [uniform(*NHWC)]


def best(kind):
    def build(b):
        x, axis = b.input(NHWC), b.constant(3, np.int32)
        after = b.tensor((1, 6, 5), np.int32)
        return b.op(
            kind, [x, axis], after, options=f"{kind.title().replace('_', '')}Options", outputType=2
        )

    return build, [uniform(*NHWC)]


def of_constants(kind):
    """An operator whose result TFLite knows without an image."""

    def build(b):
        x = b.input(NHWC)
        if kind == "SHAPE":
            shape = b.op("SHAPE", [x], b.tensor((4,), np.int32), options="ShapeOptions", outType=2)
            return b.op("CAST", [shape], (4,), options="CastOptions")
        inputs = [x]
        if kind == "FILL":
            inputs = [b.constant(NHWC, np.int32), b.constant(0.5, np.float32)]
        return b.op("ADD", [x, b.op(kind, inputs, NHWC)], NHWC, options="AddOptions")

    return build, [uniform(*NHWC)]


def summed():
    def build(b):
        return b.op("ADD_N", [b.input(NHWC) for _ in range(3)], NHWC, options="AddNOptions")

    return build, [uniform(*NHWC)] * 3


def gather():
    def build(b):
        indices = b.constant([[0, 1], [0, 5]], np.int32)
        return b.op("GATHER_ND", [b.input(NHWC), indices], (2, 5, 4), options="GatherNdOptions")

    return build, [uniform(*NHWC)]


def whole():
    """A cast to integers and back."""

    def build(b):
        codes = b.op("CAST", [b.input(NHWC)], b.tensor(NHWC, np.int32), options="CastOptions")
        return b.op("CAST", [codes], NHWC, options="CastOptions")

    return build, [10 * uniform(*NHWC)]


CASES = {
    "ABS": one("ABS"),
    "ADD": two("ADD", "AddOptions"),
    "ADD a channel": two("ADD", "AddOptions", other=(4,), constant=True, fusedActivationFunction=1),
    "ADD fewer axes": two("ADD", "AddOptions", other=(5, 4)),
    "ADD one number": two("ADD", "AddOptions", other=(1,), constant=True),
    "ADD_N": summed(),
    "ARG_MAX": best("ARG_MAX"),
    "ARG_MIN": best("ARG_MIN"),
    "AVERAGE_POOL_2D same": pool("AVERAGE_POOL_2D", 0),
    "AVERAGE_POOL_2D valid": pool("AVERAGE_POOL_2D", 1),
    "BATCH_MATMUL": product(turned=False),
    "BATCH_MATMUL turned": product(turned=True),
    "BROADCAST_TO": steered("BROADCAST_TO", (1, 6, 5, 4), NHWC, shape=(1, 1, 5, 1), version=2),
    "CAST": whole(),
    "CEIL": one("CEIL"),
    "CONCATENATION channels": concatenation(3, NHWC, (1, 6, 5, 2)),
    "CONCATENATION rows": concatenation(1, NHWC, (1, 2, 5, 4)),
    "CONV_2D": convolution(),
    "CONV_2D dilated": convolution(dilation=2),
    "CONV_2D groups": convolution(groups=2),
    "CONV_2D relu6": convolution(stride=2, activation=3),
    "CONV_2D up to 1": convolution(kernel=(1, 1), activation=2),
    "CONV_2D valid": convolution(kernel=(3, 2), padding=1, activation=1),
    "COS": one("COS"),
    "DEPTHWISE_CONV_2D": depthwise(),
    "DEPTHWISE_CONV_2D twice": depthwise(times=2, stride=1),
    "DEPTH_TO_SPACE": one(
        "DEPTH_TO_SPACE", "DepthToSpaceOptions", after=(1, 12, 10, 1), blockSize=2
    ),
    "DIV": two("DIV", "DivOptions", low=0.5),
    "ELU": one("ELU"),
    "EQUAL": select_of("EQUAL"),
    "EXP": one("EXP"),
    "EXPAND_DIMS": steered("EXPAND_DIMS", 1, (1, 1, 4, 3), shape=(1, 4, 3)),
    "FILL": of_constants("FILL"),
    "FLOOR": one("FLOOR"),
    "FULLY_CONNECTED": dense((1, 4), (1, 3), activation=1),
    "FULLY_CONNECTED image": dense(NHWC, (1, 6, 5, 3), kept=True, bias=False),
    "FULLY_CONNECTED of an image": dense((1, 1, 1, 4), (1, 3)),
    "FULLY_CONNECTED of rows": dense((1, 6, 4), (6, 3)),
    "FULLY_CONNECTED tokens": dense((1, 6, 4), (1, 6, 3), kept=True, activation=1),
    "GATHER": steered("GATHER", (2, 0), (1, 6, 5, 2), "GatherOptions", axis=3),
    "GATHER_ND": gather(),
    "GELU": one("GELU", "GeluOptions", approximate=False),
    "GELU by tanh": one("GELU", "GeluOptions", approximate=True),
    "GREATER": select_of("GREATER", "SELECT_V2"),
    "GREATER_EQUAL": select_of("GREATER_EQUAL"),
    "HARD_SWISH": one("HARD_SWISH"),
    "L2_NORMALIZATION": one("L2_NORMALIZATION", "L2NormOptions"),
    "LEAKY_RELU": one("LEAKY_RELU", "LeakyReluOptions", alpha=0.2),
    "LESS": select_of("LESS"),
    "LESS_EQUAL": select_of("LESS_EQUAL"),
    "LOCAL_RESPONSE_NORMALIZATION": one(
        "LOCAL_RESPONSE_NORMALIZATION",
        "LocalResponseNormalizationOptions",
        radius=1,
        bias=1.5,
        alpha=0.3,
        beta=0.7,
    ),
    "LOG": one("LOG", low=0.5),
    "LOGICAL_AND": logical("LOGICAL_AND"),
    "LOGICAL_NOT": logical("LOGICAL_NOT", of_two=False),
    "LOGICAL_OR": logical("LOGICAL_OR"),
    "LOGISTIC": one("LOGISTIC"),
    "LOG_SOFTMAX": one("LOG_SOFTMAX"),
    "MAXIMUM": two("MAXIMUM", "MaximumMinimumOptions"),
    "MAX_POOL_2D same": pool("MAX_POOL_2D", 0),
    "MAX_POOL_2D valid": pool("MAX_POOL_2D", 1, size=2),
    "MEAN": reduction("MEAN", (1, 2), kept=True),
    "MEAN of channels": reduction("MEAN", (3,), kept=True),
    "MEAN of rows": reduction("MEAN", (1,), kept=False),
    "MEAN without axes": reduction("MEAN", (1, 2), kept=False),
    "MINIMUM": two("MINIMUM", "MaximumMinimumOptions", other=(1,), constant=True),
    "MIRROR_PAD reflect": pad("MIRROR_PAD", options="MirrorPadOptions", mode=0),
    "MIRROR_PAD symmetric": pad("MIRROR_PAD", options="MirrorPadOptions", mode=1),
    "MUL": two("MUL", "MulOptions", other=(1, 1, 1, 4)),
    "NEG": one("NEG"),
    "NOT_EQUAL": select_of("NOT_EQUAL"),
    "PACK": pack(),
    "PAD": pad(),
    "PAD channels": pad(widths=((0, 0), (0, 0), (0, 0), (1, 1))),
    "PADV2": pad("PADV2", filling=0.5),
    "POW": two("POW", other=(1,), constant=True, low=0.5),
    "PRELU": slope((1, 1, 4)),
    "PRELU everywhere": slope((6, 5, 4)),
    "REDUCE_MAX": reduction("REDUCE_MAX", (1, 2), kept=True),
    "REDUCE_MIN": reduction("REDUCE_MIN", (1, 2), kept=False),
    "REDUCE_PROD": reduction("REDUCE_PROD", (3,), kept=True),
    "RELU": one("RELU"),
    "RELU6": one("RELU6"),
    "RELU_0_TO_1": one("RELU_0_TO_1"),
    "RELU_N1_TO_1": one("RELU_N1_TO_1"),
    "RESHAPE": steered("RESHAPE", (1, 120), (1, 120)),
    "RESHAPE to an image": steered("RESHAPE", (1, 2, 5, 12), (1, 2, 5, 12)),
    "RESIZE_BILINEAR": resize("RESIZE_BILINEAR", corners=False, half=False),
    "RESIZE_BILINEAR corners": resize("RESIZE_BILINEAR", corners=True, half=False),
    "RESIZE_BILINEAR half": resize("RESIZE_BILINEAR", corners=False, half=True),
    "RESIZE_BILINEAR smaller": resize("RESIZE_BILINEAR", corners=False, half=True, after=(3, 4)),
    "RESIZE_NEAREST_NEIGHBOR": resize("RESIZE_NEAREST_NEIGHBOR", corners=False, half=False),
    "RESIZE_NEAREST_NEIGHBOR corners": resize("RESIZE_NEAREST_NEIGHBOR", corners=True, half=False),
    "RESIZE_NEAREST_NEIGHBOR half": resize("RESIZE_NEAREST_NEIGHBOR", corners=False, half=True),
    "REVERSE_V2": steered("REVERSE_V2", (3,), NHWC),
    "ROUND": one("ROUND"),
    "RSQRT": one("RSQRT", low=0.5),
    "SELECT": select_of("GREATER"),
    "SELECT_V2": select_of("LESS", "SELECT_V2"),
    "SHAPE": of_constants("SHAPE"),
    "SIGN": one("SIGN"),
    "SIN": one("SIN"),
    "SLICE": slice_of((0, 1, 0, 2), (1, 4, 5, 2)),
    "SOFTMAX": one("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "SOFTMAX of a row": one("SOFTMAX", "SoftmaxOptions", shape=(1, 7), beta=0.5),
    "SPACE_TO_DEPTH": one(
        "SPACE_TO_DEPTH",
        "SpaceToDepthOptions",
        shape=(1, 6, 4, 3),
        after=(1, 3, 2, 12),
        blockSize=2,
    ),
    "SPLIT": split(),
    "SPLIT_V": split_by(),
    "SQRT": one("SQRT", low=0.5),
    "SQUARE": one("SQUARE"),
    "SQUARED_DIFFERENCE": two("SQUARED_DIFFERENCE", other=(1, 1, 1, 4)),
    "SQUEEZE": one(
        "SQUEEZE", "SqueezeOptions", shape=(1, 1, 1, 4), after=(1, 4), squeezeDims=[1, 2]
    ),
    "STRIDED_SLICE": strided((0, 1, 0, 0), (1, 6, 5, 4), (1, 2, 1, 1), (1, 3, 5, 4)),
    "STRIDED_SLICE backwards": strided(
        (0, 0, 0, 3), (1, 6, 5, 0), (1, 1, 1, -1), (1, 6, 5, 4), endMask=8
    ),
    "STRIDED_SLICE masks": strided(
        (0, 2, 1, 0), (0, 0, -1, 0), (1, 1, 1, 1), (1, 4, 3, 4), beginMask=9, endMask=11
    ),
    "STRIDED_SLICE one row": strided(
        (0, -1, 0, 0),
        (0, 0, 0, 0),
        (1, 1, 1, 1),
        (1, 5, 4),
        beginMask=13,
        endMask=13,
        shrinkAxisMask=2,
    ),
    "SUB": two("SUB", "SubOptions", other=(1, 6, 1, 1), constant=True),
    "SUM": reduction("SUM", (1, 2), kept=True),
    "TANH": one("TANH"),
    "TILE": steered("TILE", (1, 2, 1, 3), (1, 12, 5, 12)),
    "TRANSPOSE": steered("TRANSPOSE", (0, 2, 1, 3), (1, 5, 6, 4)),
    "TRANSPOSE_CONV same": transposed_convolution(0, 3, 2, (12, 10)),
    "TRANSPOSE_CONV small windows": transposed_convolution(0, 1, 2, (12, 10)),
    "TRANSPOSE_CONV valid": transposed_convolution(1, 2, 2, (12, 10)),
    "UNPACK": unpack(),
    "ZEROS_LIKE": of_constants("ZEROS_LIKE"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_answers_as_in_tflite(name):
    build, values = CASES[name]
    builder = Lite()
    assert_equal(builder.file(build(builder)), *values)


def test_every_supported_operator_is_tested():
    """QUANTIZE and DEQUANTIZE are only for integers: see test_qdq.py."""
    tested = {name.split()[0] for name in CASES}
    assert tested == set(_onnx_operators._WRITERS) - {"QUANTIZE", "DEQUANTIZE"}


# --- how it is written -----------------------------------------------------------------------


def simple(b, x, filters=4, w=None, activation=0):
    """A 1x1 convolution."""
    shape = b.shape(x)
    w = b.constant(uniform(filters, 1, 1, shape[3])) if w is None else w
    return b.op(
        "CONV_2D",
        [x, w, b.constant(uniform(filters))],
        (*shape[:3], filters),
        options="Conv2DOptions",
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
        fusedActivationFunction=activation,
    )


def by(b, kind, x, number, activation=0):
    """A sum or a product with a constant."""
    options = f"{kind.title()}Options"
    inputs = [x, b.constant(number, np.float32)]
    return b.op(kind, inputs, b.shape(x), options=options, fusedActivationFunction=activation)


def reshape_op(b, x, after):
    return b.op("RESHAPE", [x, b.constant(after, np.int32)], after)


def permuted(b, x, order):
    after = [b.shape(x)[axis] for axis in order]
    return b.op("TRANSPOSE", [x, b.constant(order, np.int32)], after)


def pad_op(b, x, widths):
    after = [side + sum(width) for side, width in zip(b.shape(x), widths, strict=True)]
    return b.op("PAD", [x, b.constant(widths, np.int32)], after)


AROUND = ((0, 0), (1, 2), (0, 1), (0, 0))


def test_zeros_around_an_image_are_those_of_every_convolution_that_reads_it():
    b = Lite()
    x = pad_op(b, pad_op(b, b.input(NHWC), AROUND), AROUND)
    content = b.file(simple(b, x), simple(b, x))
    assert nodes(assert_equal(content, uniform(*NHWC))) == {"Conv": 2}


def test_zeros_that_other_operators_read_are_written():
    b = Lite()
    x = pad_op(b, b.input(NHWC), AROUND)
    y = b.op("EXP", [x], b.shape(x))
    content = b.file(simple(b, x), y)
    assert nodes(assert_equal(content, uniform(*NHWC))) == {"Conv": 1, "Pad": 1, "Exp": 1}


def test_zeros_in_an_output_are_written():
    b = Lite()
    x = pad_op(b, b.input(NHWC), AROUND)
    content = b.file(simple(b, x), x)
    assert nodes(assert_equal(content, uniform(*NHWC))) == {"Conv": 1, "Pad": 1}


@pytest.mark.parametrize(
    ("kind", "activation", "node_count"),
    [
        ("MAX_POOL_2D", 0, {"Conv": 1, "Pad": 1, "MaxPool": 1}),
        ("MAX_POOL_2D", 1, {"Conv": 1, "Relu": 1, "MaxPool": 1}),
        ("AVERAGE_POOL_2D", 0, {"Conv": 1, "AveragePool": 1}),
    ],
)
def test_zeros_that_a_pool_reads_count_as_in_tflite(kind, activation, node_count):
    """ONNX Runtime merges a Pad of zeros into any MaxPool, whose padding is minus infinity."""
    b = Lite()
    x = pad_op(b, simple(b, b.input(NHWC), activation=activation), AROUND)
    pool_output = b.op(
        kind,
        [x],
        (1, 4, 2, 4),
        options="Pool2DOptions",
        padding=1,
        filterHeight=3,
        filterWidth=3,
        strideH=2,
        strideW=2,
    )
    values = -np.abs(uniform(*NHWC))
    assert nodes(assert_equal(b.file(pool_output), values)) == node_count


def test_a_channel_shuffle_is_one_transpose():
    b = Lite()
    x = simple(b, b.input(NHWC), filters=6)
    x = permuted(b, reshape_op(b, x, (1, 6, 5, 2, 3)), (0, 1, 2, 4, 3))
    content = b.file(simple(b, reshape_op(b, x, (1, 6, 5, 6))))
    data = assert_equal(content, uniform(*NHWC))
    assert nodes(data) == {"Conv": 2, "Reshape": 2, "Transpose": 1}


@pytest.mark.parametrize("swish", [False, True])
def test_a_hard_activation_is_one_node(swish):
    b = Lite()
    x = simple(b, b.input(NHWC))
    y = by(b, "MUL", by(b, "ADD", x, [3.0] * 4, activation=3), 1 / 6)
    if swish:
        y = b.op("MUL", [y, x], NHWC, options="MulOptions")
    data = assert_equal(b.file(y), 5 * uniform(*NHWC))
    assert nodes(data) == {"Conv": 1, "HardSwish" if swish else "HardSigmoid": 1}


@pytest.mark.parametrize(("three", "sixth"), [(2.9, 1 / 6), (3.0, 1 / 5)])
def test_a_similar_pattern_is_not_a_hard_activation(three, sixth):
    b = Lite()
    x = by(b, "ADD", simple(b, b.input(NHWC)), three, activation=3)
    data = assert_equal(b.file(by(b, "MUL", x, sixth)), 5 * uniform(*NHWC))
    assert nodes(data) == {"Conv": 1, "Add": 1, "Clip": 1, "Mul": 1}


@pytest.mark.parametrize(
    ("one_", "kinds"), [(1.0, {"Softplus": 1}), (2.0, {"Exp": 1, "Add": 1, "Log": 1})]
)
def test_the_logarithm_of_an_exponential_and_one_is_a_softplus(one_, kinds):
    b = Lite()
    x = by(b, "ADD", b.op("EXP", [b.input(NHWC)], NHWC), one_)
    assert nodes(assert_equal(b.file(b.op("LOG", [x], NHWC)), 5 * uniform(*NHWC))) == kinds


@pytest.mark.parametrize(("axis", "number"), [(3, 1), (1, 2)])
def test_a_concatenation_in_another_along_the_same_axis_is_one(axis, number):
    b = Lite()
    x, y = b.input(NHWC), b.input(NHWC)
    inner = [side * 2 if a == axis else side for a, side in enumerate(NHWC)]
    z = b.op("CONCATENATION", [x, y], inner, options="ConcatenationOptions", axis=axis)
    ends = [b.op("EXP", [v], b.shape(v)) for v in (b.input(inner), b.input(inner))]
    outer = [*inner[:3], inner[3] * 3]
    whole = b.op(
        "CONCATENATION", [ends[0], z, ends[1]], outer, options="ConcatenationOptions", axis=3
    )
    values = [uniform(*NHWC), uniform(*NHWC), uniform(*inner), uniform(*inner)]
    assert nodes(assert_equal(b.file(whole), *values)) == {"Exp": 2, "Concat": number}


def test_a_factor_and_a_sum_by_channel_are_one_normalization():
    b = Lite()
    x = by(b, "MUL", b.input(NHWC), uniform(4))
    x = by(b, "ADD", x, uniform(1, 1, 1, 4), activation=1)
    data = assert_equal(b.file(x), uniform(*NHWC))
    assert nodes(data) == {"BatchNormalization": 1, "Relu": 1}


def test_a_factor_that_is_an_output_stays():
    b = Lite()
    x = by(b, "MUL", b.input(NHWC), uniform(4))
    data = assert_equal(b.file(x, by(b, "ADD", x, uniform(4))), uniform(*NHWC))
    assert nodes(data) == {"Mul": 1, "Add": 1}


def test_a_layer_that_is_used_twice_has_its_weights_once():
    b = Lite()
    w = b.constant(uniform(4, 1, 1, 4), name="shared")
    x = simple(b, b.input(NHWC), w=w)
    data = assert_equal(b.file(simple(b, x, w=w)), uniform(*NHWC))
    names = [t.name for t in onnx.load_model_from_string(data).graph.initializer]
    assert names.count("shared") == 1
    assert len(names) == 3


def test_weights_that_two_operators_read_in_different_orders_are_written_twice():
    b = Lite()
    w = b.constant(uniform(4, 4), name="shared")
    x = b.op(
        "FULLY_CONNECTED",
        [b.input((1, 6, 4)), w, -1],
        (1, 6, 4),
        options="FullyConnectedOptions",
        keepNumDims=True,
    )
    x = b.op("MEAN", [x, b.constant([1], np.int32)], (1, 4), options="ReducerOptions")
    y = b.op("FULLY_CONNECTED", [x, w, -1], (1, 4), options="FullyConnectedOptions")
    assert_equal(b.file(b.op("ADD", [y, w], (4, 4), options="AddOptions")), uniform(1, 6, 4))


def test_channels_first_images_stay_channels_first():
    b = Lite()
    x = permuted(b, b.input((1, 4, 6, 5)), (0, 2, 3, 1))
    content = b.file(simple(b, x))
    data, values = convert(content), uniform(1, 4, 6, 5)
    assert nodes(data) == {"Conv": 1}
    (ours,) = run(data, values.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(ours, answers(content, values)[0], atol=1e-6)


def test_several_inputs_and_outputs_keep_their_order_and_names():
    b = Lite()
    x, facts = b.input(NHWC, name="image"), b.input((1, 4), name="facts")
    y = b.op("ADD", [x, reshape_op(b, facts, (1, 1, 1, 4))], NHWC, options="AddOptions")
    pool_output = b.op(
        "MEAN",
        [y, b.constant([1, 2], np.int32)],
        b.tensor((1, 4), name="mean"),
        options="ReducerOptions",
    )
    content = b.file(pool_output, facts, y)
    data = assert_equal(content, uniform(*NHWC), uniform(1, 4))
    facts = shelf.inspect(data)
    assert [tensor.name for tensor in facts.inputs] == ["image", "facts"]
    assert facts.outputs[0].name == "mean"


@pytest.mark.parametrize("name", ["", "again", "image", "scores", "t5;t6"])
def test_empty_used_and_reserved_names_are_made_unique(name):
    b = Lite()
    x = b.input((1, 4), name="x")
    for _ in range(3):
        x = b.op("EXP", [x], b.tensor((1, 4), name=name))
    content = b.file(b.op("NEG", [x], b.tensor((1, 4), name="end")))
    file = shelf.seal(assert_equal(content, uniform(1, 4)), ["image"], ["scores"])
    graph = onnx.load_model_from_string(file).graph
    outputs = [n for node in graph.node for n in node.output]
    assert len({*outputs, "image"}) == len(outputs) + 1
    assert len({node.name for node in graph.node}) == len(outputs)
    assert outputs[-1] == "scores"


def test_very_many_tensors_of_one_name_take_no_time():
    b = Lite()
    x = b.input((1, 4), name="x")
    for _ in range(3000):
        x = b.op("NEG", [x], b.tensor((1, 4), name="same"))
    content = b.file(x)
    start = time.perf_counter()
    data = convert(content)
    assert time.perf_counter() - start < 5
    assert len({n.name for n in onnx.load_model_from_string(data).graph.node}) == 3000


def test_names_that_the_writer_would_give_itself_are_made_unique():
    b = Lite()
    x = b.input((1, 6, 5, 4), name="x")
    values = uniform(4, 1, 1, 4)
    x = simple(b, x, w=b.constant(values, name="y/conv"), activation=1)
    y = b.op("SQUARED_DIFFERENCE", [x, by(b, "ADD", x, 1)], b.tensor(NHWC, name="y"))
    y = b.op("NEG", [y], b.tensor(NHWC, name="y/sub"))
    y = reshape_op(b, y, (1, 120))
    z = b.op(
        "FULLY_CONNECTED",
        [y, b.constant(uniform(3, 120), name="t9/shape"), -1],
        b.tensor((1, 3), name="y/shape"),
        options="FullyConnectedOptions",
    )
    assert_equal(b.file(z), uniform(*NHWC))


def test_an_output_of_an_operator_without_a_node_is_written():
    b = Lite()
    x = b.op("EXP", [b.input(NHWC)], NHWC)
    transpose_output = permuted(b, x, (0, 2, 1, 3))
    content = b.file(
        transpose_output, permuted(b, transpose_output, (0, 2, 1, 3)), reshape_op(b, x, NHWC)
    )
    assert_equal(content, uniform(*NHWC))


@st.composite
def shapes(draw):
    """A shape, an order of its axes, and another shape of as many elements."""
    primes = draw(st.lists(st.sampled_from((2, 3)), min_size=1, max_size=4))

    def shape():
        sides = [1] * draw(st.integers(1, 5))
        for prime in primes:
            sides[draw(st.integers(0, len(sides) - 1))] *= prime
        return tuple(sides)

    first = shape()
    return first, tuple(draw(st.permutations(range(len(first))))), shape()


@given(shapes(), shapes())
def test_transposed_and_reshaped_values_are_in_the_right_place(one_, other):
    shape, order, middle = one_
    b = Lite()
    x = b.op("NEG", [b.input(shape)], shape)
    x = reshape_op(b, permuted(b, x, order), middle)
    if np.prod(other[0]) == np.prod(middle):
        x = reshape_op(b, x, other[0])
        x = reshape_op(b, permuted(b, x, other[1]), other[2])
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert_equal(b.file(b.op("NEG", [x], b.shape(x))), values)


@given(
    side=st.integers(1, 9),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 1),
)
def test_any_window_is_at_tflites_place(side, size, stride, dilation, padding):
    assume(not padding or side > (size - 1) * dilation)
    # No kernel of TFLite has both.
    assume(min(stride, dilation) == 1)
    shape = (1, side, 5, 2)
    build, values = convolution((size, 1), 3, stride, dilation, padding, shape=shape)
    b = Lite()
    assert_equal(b.file(build(b)), *values)


# --- what is refused, and what holds of every file -------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("CUMSUM", "CumsumOptions", "CUMSUM has no form in ONNX here"),
        ("CONV_2D", "Conv2DOptions", "the fused activation SIGN_BIT has no form in ONNX"),
    ],
)
def test_an_unsupported_operator_is_named(kind, options, message):
    b = Lite()
    if kind == "CONV_2D":
        content = b.file(simple(b, b.input(NHWC), activation=5))
    else:
        inputs = [b.input(NHWC), b.constant(1, np.int32)]
        content = b.file(b.op(kind, inputs, NHWC, options=options))
    with pytest.raises(InputError, match=message):
        convert(content)


def test_settings_that_are_computed_are_refused():
    b = Lite()
    content = b.file(b.op("TRANSPOSE", [b.input(NHWC), b.input((4,), np.int32)], (1, 5, 6, 4)))
    with pytest.raises(InputError, match="a permutation that is computed"):
        convert(content)


def test_a_tensor_that_nothing_makes_is_named():
    b = Lite()
    b.input(NHWC)
    content = b.file(b.op("EXP", [b.tensor(NHWC, name="nowhere")], NHWC))
    with pytest.raises(InputError, match="the tensor nowhere of the TFLite file is never made"):
        convert(content)


def test_a_model_that_onnx_refuses_is_one_line():
    b = Lite()
    content = b.file(b.op("EXP", [b.input((1, 4), bool)], b.tensor((1, 4), np.int64)))
    with pytest.raises(InputError) as excinfo:
        convert(content)
    assert "\n" not in str(excinfo.value)


def test_weights_are_copied_only_into_the_file():
    b = Lite()
    w = b.constant(np.ones((512, 3, 3, 1024), np.float32))
    x = b.op(
        "CONV_2D",
        [b.input((1, 1, 1, 1024)), w, -1],
        (1, 1, 1, 512),
        options="Conv2DOptions",
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )
    content = b.file(x)
    convert(content)
    tracemalloc.start()
    data = convert(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) > 512 * 9 * 1024 * 4
    # The file, and one constant that is transposed.
    assert peak < 2.2 * len(data)


def test_the_same_file_gives_the_same_bytes_and_no_tensorflow(tmp_path):
    path = tmp_path / "x.tflite"
    build, _ = CASES["CONV_2D relu6"]
    b = Lite()
    path.write_bytes(b.file(build(b)))
    code = (
        "import hashlib, sys; from pathlib import Path\n"
        "from mobiledeploy.writers import onnx\n"
        f"data = onnx.write(Path({str(path)!r}).read_bytes())\n"
        "print(hashlib.sha256(data).hexdigest(), *({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 1
