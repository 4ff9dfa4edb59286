"""Writes each TFLite operator in ONNX, in floats and in integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array
from mobiledeploy.writers._onnx_graph import TO_NCHW, TO_NHWC, OnnxGraph, Order, default_order

# An image has few channels, and ONNX Runtime copies each window row by row, with one call for a few
# bytes. Two windows at once take half the calls but more multiplications, which is faster if there
# are few filters (docs/arm.md).
_IMAGE_CHANNELS, _FEW_FILTERS = 4, 16
_SAME = _REFLECT = 0
"""TFLite's numbers for these kinds of padding."""
_STEPS = 255
"""Between the lowest and the highest code of 8 bits."""
_MIN_NORM = 1e-6
"""The smallest divisor of TFLite's L2_NORMALIZATION."""


def write(w: OnnxGraph, op: Any) -> None:
    """Adds an operator to the graph; InputError if it cannot be written in ONNX here."""
    kind = w.graph.kind(op)
    writer = _WRITERS.get(kind)
    if writer is None:
        raise InputError(f"{kind} has no form in ONNX here", "--format tflite works")
    writer(w, op, [int(i) for i in op.inputs], [int(i) for i in op.outputs])


# Convolutions and products.


def _convolution(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    opt, depthwise = op.builtinOptions, w.graph.kind(op) == "DEPTHWISE_CONV_2D"
    image, around = w.without_pads(i[0])
    channels, order = w.shape(image)[3], (3, 0, 1, 2) if depthwise else TO_NCHW
    strides = (opt.strideH, opt.strideW)
    dilations = (opt.dilationHFactor, opt.dilationWFactor)
    shape = w.shape_in(i[1], order)
    filters, inner, window = shape[0], shape[1], shape[2:]
    sides = [side + sum(zeros) for side, zeros in zip(w.shape(image)[1:3], around, strict=True)]
    own = _pads(sides, window, strides, opt.padding, dilations) + around
    pads = own.T.ravel().tolist()
    values, activation = w.array(i[1]), w.graph.activation(op)
    if (
        values is not None
        and filters <= _FEW_FILTERS
        and inner == channels <= _IMAGE_CHANNELS
        and w.shape(o[0])[2] % 2 == 0
        and max(dilations) == 1 < max(window)
        and w.is_coded(image)
        and w.is_coded(o[0])
    ):
        _two_columns(w, image, i, o[0], values.transpose(order), strides, pads, activation)
        return
    kernel = w.read(i[1], order) if values is None else w.weights(i[1], values.transpose(order))
    inputs = [w.read(image, TO_NCHW), kernel, *(w.bias(b) for b in i[2:3] if b >= 0)]
    w.result(
        o[0],
        TO_NCHW,
        "Conv",
        inputs,
        activation,
        kernel_shape=list(window),
        strides=list(strides),
        pads=pads,
        dilations=list(dilations),
        group=channels // inner,
    )


def _two_columns(
    w: OnnxGraph,
    image: int,
    i: list[int],
    o: int,
    weights: Array,
    strides: tuple[int, int],
    pads: Sequence[int],
    activation: str,
) -> None:
    """A convolution over an image that computes two columns of its output at once.

    A row of the image with its channels side by side is a row of a single channel. A window that is
    wide enough for two columns holds each filter twice, the second one shifted by a stride.
    """
    name, scales = w.name(o), w.grid(image)
    (_, height, width, channels), (_, rows, columns, filters) = w.shape(image), w.shape(o)
    tall, wide, stride = weights.shape[2], weights.shape[3] * channels, strides[1] * channels
    row = weights.transpose(0, 2, 3, 1).reshape(filters, 1, tall, wide)
    room = ((0, 0), (0, 0), (0, 0))
    both = [np.pad(row, (*room, ends)) for ends in ((0, stride), (stride, 0))]
    sides = w.integers(f"{name}/rows", (1, 1, height, width * channels))
    codes = w.rearrange(image, "Transpose", [w.value(image, TO_NCHW)], f"{name}/nhwc", perm=TO_NHWC)
    codes = w.rearrange(image, "Reshape", [codes, sides], f"{name}/image_rows")
    value = w.node("DequantizeLinear", [codes, *scales], f"{name}/image_float")
    inputs = [value, w.weights(i[1], np.concatenate(both), times=2)]
    inputs += [w.bias(b, 2) for b in i[2:3] if b >= 0]
    top, left, bottom, right = pads
    value = w.node(
        "Conv",
        inputs,
        f"{name}/conv",
        kernel_shape=[tall, wide + stride],
        strides=[strides[0], 2 * stride],
        pads=[top, left * channels, bottom, right * channels],
    )
    codes = w.store(o, value, activation, f"{name}/pairs")
    codes = w.rearrange(o, "Transpose", [codes], f"{name}/pairs_nhwc", perm=TO_NHWC)
    sides = w.integers(f"{name}/sides", (1, rows, columns, filters))
    codes = w.rearrange(o, "Reshape", [codes, sides], f"{name}/columns")
    label = w.label(o, TO_NCHW)
    w.set_name(o, TO_NCHW, w.rearrange(o, "Transpose", [codes], label, perm=TO_NCHW))


def _pads(
    sides: Iterable[int],
    window: Iterable[int],
    strides: Iterable[int],
    padding: int,
    dilations: Iterable[int] = (1, 1),
) -> NDArray[np.int64]:
    """TFLite's SAME or VALID padding as numbers: [[top, bottom], [left, right]]."""
    around = np.zeros((2, 2), np.int64)
    if padding == _SAME:
        rows = zip(sides, window, strides, dilations, strict=True)
        for axis, (side, size, stride, dilation) in enumerate(rows):
            missing = max((-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side, 0)
            around[axis] = missing // 2, missing - missing // 2
    return around


def _transposed_convolution(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    opt, (_, weights, image, *bias) = op.builtinOptions, i
    values = w.settings(weights, "weights of a transposed convolution")
    strides, window = (opt.strideH, opt.strideW), values.shape[1:3]
    around, more = np.zeros((2, 2), np.int64), []
    sides = zip(w.shape(image)[1:3], w.shape(o[0])[1:3], window, strides, strict=True)
    for axis, (before, after, size, stride) in enumerate(sides):
        full_size = (before - 1) * stride + size
        excess = max(full_size - after, 0)
        around[axis] = excess // 2, excess - excess // 2
        more.append(max(after - full_size, 0))
    filters = w.weights(weights, values.transpose(3, 0, 1, 2), axis=1)
    inputs = [w.read(image, TO_NCHW), filters, *(w.bias(b) for b in bias if b >= 0)]
    w.result(
        o[0],
        TO_NCHW,
        "ConvTranspose",
        inputs,
        w.graph.activation(op),
        kernel_shape=list(window),
        strides=list(strides),
        pads=around.T.ravel().tolist(),
        output_padding=more,
    )


def _fully_connected(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """A 1x1 convolution over an image, otherwise a matrix product."""
    before, after, activation = w.shape(i[0]), w.shape(o[0]), w.graph.activation(op)
    values, bias, name = w.array(i[1]), [b for b in i[2:3] if b >= 0], w.name(o[0])
    keeps_rank = len(before) == len(after) and before[:-1] == after[:-1]
    if keeps_rank and len(before) == 4 and values is not None and w.order(i[0]) == TO_NCHW:
        inputs = [w.read(i[0], TO_NCHW), w.weights(i[1], values[:, :, None, None])]
        inputs += [w.bias(b) for b in bias]
        w.result(o[0], TO_NCHW, "Conv", inputs, activation, kernel_shape=[1, 1])
        return
    if keeps_rank and len(before) > 2 and not w.is_coded(o[0]) and not w.is_coded(i[1]):
        own = tuple(range(len(before)))
        matrix = w.read(i[1], (1, 0)) if values is None else w.weights(i[1], values.T)
        value = w.node("MatMul", [w.read(i[0], own), matrix], f"{name}/matmul") if bias else ""
        if bias:
            w.result(o[0], own, "Add", [value, w.bias(bias[0])], activation)
        else:
            w.result(o[0], own, "MatMul", [w.read(i[0], own), matrix], activation)
        return
    matrix = w.read(i[1], (0, 1)) if values is None else w.weights(i[1], values)
    width = w.shape(i[1])[1]
    rows = math.prod(before) // width
    inputs = [_as_rows(w, i[0], (rows, width), name), matrix, *(w.bias(b) for b in bias)]
    if len(after) == 2:
        w.result(o[0], (0, 1), "Gemm", inputs, activation, transB=1)
        return
    value = w.node("Gemm", inputs, f"{name}/gemm", transB=1)
    if w.is_coded(o[0]) or activation != "NONE":
        value = w.store(o[0], value, activation, f"{name}/rows")
    order = _order_with(after, [axis for axis, side in enumerate(after) if side > 1])
    label = w.label(o[0], order)
    sides = w.integers(f"{label}/shape", w.shape_in(o[0], order))
    w.set_name(o[0], order, w.rearrange(o[0], "Reshape", [value, sides], label))


def _as_rows(w: OnnxGraph, index: int, shape: tuple[int, int], name: str) -> str:
    """A tensor as a matrix of rows, in floats."""
    if w.shape(index) == shape:
        return w.read(index, (0, 1))
    orders: tuple[Order, Order] = (tuple(range(len(w.shape(index)))), (0, 1))
    if math.prod(w.shape(index)) == shape[1]:
        orders = _reshape_orders(w, index, shape)
    value = _reshape_value(w, index, shape, orders, f"{name}/read")
    if w.is_coded(index):
        value = w.node("DequantizeLinear", [value, *w.grid(index)], f"{name}/read_float")
    return value


def _product(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """BATCH_MATMUL; either side may be transposed."""
    opt, inputs = op.builtinOptions, []
    for index, is_transposed in zip(i, (opt.adjX, opt.adjY), strict=True):
        *outer, row, column = range(len(w.shape(index)))
        inputs.append(
            w.read(index, (*outer, column, row) if is_transposed else (*outer, row, column))
        )
    w.result(o[0], tuple(range(len(w.shape(o[0])))), "MatMul", inputs)


# Element by element.


def _shared_order(w: OnnxGraph, indices: Iterable[int], target: int) -> Order:
    """The order of the largest of several tensors, for an operator that reads them all."""
    rank = len(w.shape(target))
    computed_inputs = [i for i in indices if w.array(i) is None and len(w.shape(i)) == rank]
    if not computed_inputs:
        return default_order(rank)
    return w.order(max(computed_inputs, key=lambda index: math.prod(w.shape(index))))


def _of_two(kind: str) -> Callable[..., None]:
    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        order = _shared_order(w, i, o[0])
        inputs = [w.operand(index, order) for index in i]
        w.result(o[0], order, kind, inputs, w.graph.activation(op))

    return writer


def _of_one(kind: str, **attributes: Any) -> Callable[..., None]:
    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        order = w.order(i[0])
        w.result(o[0], order, kind, [w.read(i[0], order)], **attributes)

    return writer


def _steps(*kinds: str) -> Callable[..., None]:
    """Several operators in sequence."""

    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        order = w.order(i[0])
        value = w.read(i[0], order)
        for kind in kinds[:-1]:
            value = w.node(kind, [value], f"{w.name(o[0])}/{kind.lower()}")
        w.result(o[0], order, kinds[-1], [value])

    return writer


def _multiply(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """A product; with a sum after it, both per channel, a BatchNormalization."""
    after = w.readers.get(o[0], [])
    (image, scale) = sorted(i, key=lambda index: w.array(index) is not None)
    if len(after) == 1 and w.graph.kind(after[0]) == "ADD" and w.graph.activation(op) == "NONE":
        offset = [int(k) for k in after[0].inputs if k != o[0]]
        target = int(after[0].outputs[0])
        if (
            len(offset) == 1
            and o[0] not in w.graph.outputs
            and _by_channel(w, image, scale, offset[0])
        ):
            channels = w.shape(image)[3]
            sides = {"variance": np.ones(channels), "mean": np.zeros(channels)}
            mean, variance = (
                w.constant(f"{part}/{channels}", sides[part].astype(np.float32))
                for part in ("mean", "variance")
            )
            inputs = [w.read(image, TO_NCHW)]
            inputs += [
                w.weights(k, w.settings(k, "a scale").reshape(-1)) for k in (scale, offset[0])
            ]
            w.result(
                target,
                TO_NCHW,
                "BatchNormalization",
                [*inputs, mean, variance],
                w.graph.activation(after[0]),
                epsilon=0.0,
            )
            w.merged_ops.add(id(after[0]))
            return
    _of_two("Mul")(w, op, i, o)


def _by_channel(w: OnnxGraph, image: int, *constants: int) -> bool:
    """Whether a float image is combined with one constant per channel."""
    shape = w.shape(image)
    if len(shape) != 4 or w.array(image) is not None or w.order(image) != TO_NCHW:
        return False
    for index in constants:
        array = w.array(index)
        if array is None or array.dtype != np.float32 or array.size != shape[3] != 1:
            return False
        if array.shape[-1] != shape[3]:
            return False
    return not w.is_coded(image)


def _add(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """A sum.

    The patterns relu6(x + 3) / 6 and x * relu6(x + 3) / 6 become one ONNX operator each.
    """
    sixth = _reader(w, o[0], "MUL")
    image, three = sorted(i, key=lambda index: w.array(index) is not None)
    if w.graph.activation(op) == "RELU6" and _all(w, three, 3.0) and sixth is not None:
        factor = [int(k) for k in sixth.inputs if k != o[0]]
        if len(factor) == 1 and _all(w, factor[0], 1 / 6) and not w.is_coded(image):
            order, target = w.order(image), int(sixth.outputs[0])
            product = _reader(w, target, "MUL")
            w.merged_ops.add(id(sixth))
            kind, slope = "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}
            if product is not None and image in [int(k) for k in product.inputs]:
                w.merged_ops.add(id(product))
                kind, slope, target = "HardSwish", {}, int(product.outputs[0])
            w.result(target, order, kind, [w.read(image, order)], "NONE", **slope)
            return
    _of_two("Add")(w, op, i, o)


def _exponential(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """An exponential; log(exp(x) + 1) becomes a Softplus."""
    total = _reader(w, o[0], "ADD")
    logarithm = None if total is None else _reader(w, int(total.outputs[0]), "LOG")
    if logarithm is not None and not w.is_coded(i[0]):
        other = [int(k) for k in total.inputs if k != o[0]]
        if len(other) == 1 and _all(w, other[0], 1.0):
            w.merged_ops |= {id(total), id(logarithm)}
            order = w.order(i[0])
            w.result(int(logarithm.outputs[0]), order, "Softplus", [w.read(i[0], order)])
            return
    _of_one("Exp")(w, op, i, o)


def _reader(w: OnnxGraph, index: int, kind: str) -> Any:
    """The only reader of the tensor, if it is of that kind without a fused activation, or None."""
    after = w.readers.get(index, [])
    alone = len(after) == 1 and index not in w.graph.outputs
    fits = alone and w.graph.kind(after[0]) == kind and w.graph.activation(after[0]) == "NONE"
    return after[0] if fits else None


def _all(w: OnnxGraph, index: int, number: float) -> bool:
    """Whether the tensor is a float constant with this number everywhere."""
    array = w.array(index)
    return (
        array is not None
        and array.dtype == np.float32
        and bool(np.all(array == np.float32(number)))
    )


def _square(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    order = w.order(i[0])
    value = w.read(i[0], order)
    w.result(o[0], order, "Mul", [value, value])


def _squared_difference(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    order = _shared_order(w, i, o[0])
    inputs = [w.operand(index, order) for index in i]
    value = w.node("Sub", inputs, f"{w.name(o[0])}/sub")
    w.result(o[0], order, "Mul", [value, value])


def _not_equal(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    order = _shared_order(w, i, o[0])
    inputs = [w.operand(index, order) for index in i]
    w.result(o[0], order, "Not", [w.node("Equal", inputs, f"{w.name(o[0])}/equal")])


def _activation(name: str) -> Callable[..., None]:
    """A TFLite activation that is an operator of its own."""

    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        order = w.order(i[0])
        if name == "RELU":
            w.result(o[0], order, "Relu", [w.read(i[0], order)])
            return
        value = w.store(o[0], w.read(i[0], order), name, w.label(o[0], order))
        w.set_name(o[0], order, value)

    return writer


def _leaky(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    _of_one("LeakyRelu", alpha=op.builtinOptions.alpha)(w, op, i, o)


def _prelu(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    order = w.order(i[0])
    w.result(o[0], order, "PRelu", [w.read(i[0], order), w.operand(i[1], order)])


def _gelu(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """Written so that ONNX Runtime recognizes its own operator."""
    order, name = w.order(i[0]), w.name(o[0])
    x = w.read(i[0], order)

    def number(value: float) -> str:
        return w.constant(f"gelu/{value:.9g}", np.asarray(value, np.float32))

    if op.builtinOptions.approximate:
        cube = w.node("Pow", [x, number(3.0)], f"{name}/cube")
        cube = w.node("Mul", [cube, number(0.044715)], f"{name}/part")
        inner = w.node("Add", [x, cube], f"{name}/inner")
        inner = w.node("Mul", [inner, number(math.sqrt(2 / math.pi))], f"{name}/scaled")
        share = w.node("Tanh", [inner], f"{name}/tanh")
    else:
        inner = w.node("Div", [x, number(math.sqrt(2))], f"{name}/scaled")
        share = w.node("Erf", [inner], f"{name}/erf")
    share = w.node("Add", [share, number(1.0)], f"{name}/share")
    value = w.node("Mul", [x, share], f"{name}/product")
    w.result(o[0], order, "Mul", [value, number(0.5)])


def _hard_swish(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """In integers x * relu6(x + 3) / 6 is a sum and a product.

    The sum's codes saturate where relu6 does; read with a sixth of their scale they are the factor.
    """
    order, name = w.order(i[0]), w.name(o[0])
    if not w.is_coded(o[0]):
        w.result(o[0], order, "HardSwish", [w.read(i[0], order)])
        return
    zero = w.constant("hard_swish/zero_point", np.asarray(w.limits.min, w.code_type))
    sixth = w.constant("hard_swish/scale", np.asarray(1 / _STEPS, np.float32))
    six = w.constant("hard_swish/sum_scale", np.asarray(6 / _STEPS, np.float32))
    three = w.constant("hard_swish/three", np.asarray(w.limits.max, w.code_type))
    three_scale = w.constant("hard_swish/three_scale", np.asarray(3 / _STEPS, np.float32))
    offset = w.node("DequantizeLinear", [three, three_scale, zero], f"{name}/three")
    shifted_sum = w.node("Add", [w.read(i[0], order), offset], f"{name}/sum")
    factor = w.node("QuantizeLinear", [shifted_sum, six, zero], f"{name}/factor_codes")
    factor = w.node("DequantizeLinear", [factor, sixth, zero], f"{name}/factor")
    w.result(o[0], order, "Mul", [w.read(i[0], order), factor])


# Along an axis.


def _softmax(kind: str) -> Callable[..., None]:
    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        order, beta = w.order(i[0]), getattr(op.builtinOptions, "beta", 1.0)
        value = w.read(i[0], order)
        if beta != 1.0:
            factor = w.constant(f"{w.name(o[0])}/beta", np.asarray(beta, np.float32))
            value = w.node("Mul", [value, factor], f"{w.name(o[0])}/scaled")
        # The last axis is last in ONNX's numbering too if nothing was moved.
        place = order.index(len(order) - 1)
        w.result(o[0], order, kind, [value], axis=-1 if place == len(order) - 1 else place)

    return writer


def _l2_normalization(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    order, name = w.order(i[0]), w.name(o[0])
    value = w.read(i[0], order)
    axes = [order.index(len(order) - 1)]
    norm = w.node("ReduceL2", [value], f"{name}/norm", axes=axes, keepdims=1)
    least = w.constant("l2/least", np.asarray(_MIN_NORM, np.float32))
    norm = w.node("Max", [norm, least], f"{name}/divisor")
    w.result(o[0], order, "Div", [value, norm], w.graph.activation(op))


def _response_normalization(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """ONNX divides the sum by the number of its channels; TFLite does not."""
    opt, size = op.builtinOptions, 2 * op.builtinOptions.radius + 1
    w.result(
        o[0],
        TO_NCHW,
        "LRN",
        [w.read(i[0], TO_NCHW)],
        size=size,
        alpha=opt.alpha * size,
        beta=opt.beta,
        bias=opt.bias,
    )


def _pool(kind: str) -> Callable[..., None]:
    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        opt, more = op.builtinOptions, {}
        window, strides = (opt.filterHeight, opt.filterWidth), (opt.strideH, opt.strideW)
        image, around = i[0], _pads(w.shape(i[0])[1:3], window, strides, opt.padding)
        inner, zeros = w.without_pads(image)
        # A window of padding only has no mean and no maximum in ONNX.
        if inner != image and opt.padding != _SAME and (zeros.max(axis=1) < window).all():
            if kind == "MaxPool" and w.never_negative(inner):
                image, around = inner, zeros
            elif kind == "AveragePool" and not w.is_coded(inner):
                image, around, more = inner, zeros, {"count_include_pad": 1}
        w.result(
            o[0],
            TO_NCHW,
            kind,
            [w.read(image, TO_NCHW)],
            w.graph.activation(op),
            kernel_shape=list(window),
            strides=list(strides),
            pads=around.T.ravel().tolist(),
            **more,
        )

    return writer


def _reduce(kind: str) -> Callable[..., None]:
    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        shape, order, name = w.shape(i[0]), w.order(i[0]), w.name(o[0])
        axes = sorted({int(a) % len(shape) for a in w.settings(i[1], "axes").ravel()})
        rest = tuple(axis for axis in order if axis not in axes)
        keeps_dims = bool(op.builtinOptions.keepDims)
        target = order if keeps_dims else tuple(sorted(rest).index(axis) for axis in rest)
        inputs, value = [w.read(i[0], order)], w.label(o[0], target)
        if kind == "ReduceMean" and order == TO_NCHW and axes == [1, 2]:
            if keeps_dims:
                w.result(o[0], order, "GlobalAveragePool", inputs)
                return
            mean = w.node("GlobalAveragePool", inputs, f"{name}/mean")
            if w.is_coded(o[0]):
                mean = w.store(o[0], mean, "NONE", f"{name}/pooled")
            sides = w.integers(f"{value}/shape", w.shape_in(o[0], target))
            w.set_name(o[0], target, w.rearrange(o[0], "Reshape", [mean, sides], value))
            return
        places = sorted(order.index(axis) for axis in axes)
        # In this opset only the sum takes its axes as a tensor.
        if kind == "ReduceSum":
            inputs.append(w.integers(f"{value}/axes", places))
            w.result(o[0], target, kind, inputs, keepdims=int(keeps_dims))
        else:
            w.result(o[0], target, kind, inputs, axes=places, keepdims=int(keeps_dims))

    return writer


def _best(kind: str) -> Callable[..., None]:
    """ARG_MAX or ARG_MIN."""

    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        order, name = w.order(i[0]), w.name(o[0])
        axis = int(w.settings(i[1], "an axis").ravel()[0]) % len(order)
        value = w.node(
            kind,
            [w.read(i[0], order)],
            f"{name}/{kind.lower()}",
            axis=order.index(axis),
            keepdims=0,
        )
        rest = [a for a in order if a != axis]
        target = tuple(sorted(rest).index(a) for a in rest)
        _cast_to(w, o[0], target, value)

    return writer


def _concatenation(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """A concatenation of floats that only another concatenation reads is merged into that one."""
    parts = [part for index in i for part in w.parts.get(index, [index])]
    whole = _reader(w, o[0], "CONCATENATION")
    alike = whole is not None and whole.builtinOptions.axis == op.builtinOptions.axis
    once = whole is not None and list(whole.inputs).count(o[0]) == 1
    if alike and once and not w.is_coded(o[0]) and w.graph.activation(op) == "NONE":
        w.parts[o[0]] = parts
        return
    order = _shared_order(w, parts, o[0])
    axis = order.index(op.builtinOptions.axis % len(order))
    inputs = [w.read(part, order) for part in parts]
    w.result(o[0], order, "Concat", inputs, w.graph.activation(op), axis=axis)


# What moves numbers.


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The groups of neighbouring axes that a reshape maps to each other.

    Sides of one are left out.
    """
    left_axes, right_axes = (
        [a for a, side in enumerate(shape) if side > 1] for shape in (before, after)
    )
    pairs = []
    while left_axes and right_axes:
        own, other = [left_axes.pop(0)], [right_axes.pop(0)]
        while (n := math.prod(before[a] for a in own)) != (m := math.prod(after[a] for a in other)):
            short, rest = (own, left_axes) if n < m else (other, right_axes)
            if not rest:
                raise InputError(
                    "a RESHAPE of the TFLite file does not keep the number of elements"
                )
            short.append(rest.pop(0))
        pairs.append((own, other))
    return pairs


def _order_with(shape: Sequence[int], sequence: Sequence[int]) -> Order:
    """An order of all axes in which the axes longer than one have the order `sequence`."""
    rank, sequence = len(shape), list(sequence)
    for order in (default_order(rank), tuple(range(rank))):
        if [axis for axis in order if shape[axis] > 1] == sequence:
            return order
    return (*(axis for axis in range(rank) if axis not in sequence), *sequence)


def _reshape_orders(w: OnnxGraph, index: int, after: Sequence[int]) -> tuple[Order, Order]:
    """The order that a tensor needs for a reshape to `after`, and its order afterwards.

    The order is kept as far as axes that belong together are neighbours: an image whose channels
    are split stays channels-first. Codes are made channels-last, as ONNX Runtime does for its
    integer convolutions: the two transposes cancel.
    """
    before, order = w.shape(index), w.order(index)
    groups = _groups(before, after)
    number = {axis: n for n, (own, _) in enumerate(groups) for axis in own}
    present_axes = [axis for axis in order if axis in number]
    if w.is_coded(index) and present_axes != sorted(present_axes):
        order, present_axes = tuple(range(len(before))), sorted(present_axes)
    sequence = list(dict.fromkeys(number[axis] for axis in present_axes))
    needed_axes = [axis for n in sequence for axis in groups[n][0]]
    target = _order_with(after, [axis for n in sequence for axis in groups[n][1]])
    return (order if present_axes == needed_axes else _order_with(before, needed_axes)), target


def _reshape_value(
    w: OnnxGraph, index: int, after: Sequence[int], orders: tuple[Order, Order], label: str
) -> str:
    """A tensor's values in another shape; no node is added if the shape is the same."""
    order, target = orders
    sides, value = tuple(after[axis] for axis in target), w.value(index, order)
    if sides == w.shape_in(index, order):
        return value
    return w.rearrange(index, "Reshape", [value, w.integers(f"{label}/shape", sides)], label)


def _reshape(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: another shape, the same values."""
    array, after = w.array(i[0]), w.shape(o[0])
    if array is not None:
        w.set_constant(o[0], array.reshape(after))
        return
    w.same_grid(i[0], o[0])
    orders = _reshape_orders(w, i[0], after)
    w.set_name(o[0], orders[1], _reshape_value(w, i[0], after, orders, w.label(o[0], orders[1])))


def _transpose(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    permutation = [int(axis) for axis in w.settings(i[1], "a permutation").ravel()]
    array = w.array(i[0])
    if array is not None:
        w.set_constant(o[0], array.transpose(permutation))
    else:
        w.alias(i[0], o[0], permutation)


def _pad(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    widths = w.settings(i[1], "a width").astype(np.int64)
    filling = float(w.settings(i[2], "a filling").ravel()[0]) if len(i) > 2 else 0.0
    if len(i) > 2 and w.is_coded(i[2]):
        scale, zero = w.graph.scale(i[2])
        filling = (filling - zero) * float(scale[0])
    inside = len(widths) == 4 and not widths[[0, 3]].any()
    if filling == 0 and inside and o[0] not in w.graph.outputs:
        w.pad_later(i[0], o[0], widths)
    else:
        w.pad(i[0], o[0], widths, filling)


def _mirror_pad(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """Written as a Gather of rows, since this opset has only one of the two modes."""
    widths, order = w.settings(i[1], "a width").astype(np.int64), w.order(i[0])
    mode: Literal["reflect", "symmetric"] = "symmetric"
    if op.builtinOptions.mode == _REFLECT:
        mode = "reflect"
    axes = [axis for axis in range(len(widths)) if widths[axis].any()]
    value, label = w.value(i[0], order), w.label(o[0], order)
    for number, axis in enumerate(axes):
        before, after = (int(width) for width in widths[axis])
        rows = np.pad(np.arange(w.shape(i[0])[axis]), (before, after), mode)
        indices = w.integers(f"{label}/rows_{axis}", rows.tolist())
        name = label if number == len(axes) - 1 else f"{label}/along_{axis}"
        value = w.node("Gather", [value, indices], name, axis=order.index(axis))
    w.set_name(o[0], order, value)


def _slice(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    starts = [int(n) for n in w.settings(i[1], "a begin").ravel()]
    ends = [start + side for start, side in zip(starts, w.shape(o[0]), strict=True)]
    _cut_out(w, i[0], o[0], starts, ends, [1] * len(starts))


def _strided_slice(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    opt, shape = op.builtinOptions, w.shape(i[0])
    first_indices, end, strides = (
        [int(n) for n in w.settings(index, "a slice").ravel()] for index in i[1:4]
    )
    if opt.ellipsisMask or opt.newAxisMask or getattr(opt, "offset", False):
        raise InputError("a STRIDED_SLICE with new axes has no form in ONNX here")
    dropped_axes = {axis for axis in range(len(first_indices)) if opt.shrinkAxisMask >> axis & 1}
    starts, ends, steps = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, first in enumerate(first_indices):
        one = None if opt.beginMask >> axis & 1 else first
        other = None if opt.endMask >> axis & 1 else end[axis]
        part = slice(one, other, strides[axis])
        if axis in dropped_axes:
            part = slice(first, first + 1 or None, 1)
        starts[axis], stop, steps[axis] = part.indices(shape[axis])
        # The place before the first is not -1, which counts from the end.
        ends[axis] = stop if stop >= 0 else -shape[axis] - 1
    if not dropped_axes:
        _cut_out(w, i[0], o[0], starts, ends, steps)
        return
    w.same_grid(i[0], o[0])
    order = w.order(i[0])
    remaining_axes = [axis for axis in order if axis not in dropped_axes]
    target = tuple(sorted(remaining_axes).index(axis) for axis in remaining_axes)
    label = w.label(o[0], target)
    value = _slice_node(w, i[0], order, f"{label}/slice", starts, ends, steps)
    sides = w.integers(f"{label}/shape", w.shape_in(o[0], target))
    w.set_name(o[0], target, w.rearrange(o[0], "Reshape", [value, sides], label))


def _cut_out(
    w: OnnxGraph, source: int, target: int, starts: list[int], ends: list[int], steps: list[int]
) -> None:
    w.same_grid(source, target)
    order = w.order(source)
    value = _slice_node(w, source, order, w.label(target, order), starts, ends, steps)
    w.set_name(target, order, value)


def _slice_node(
    w: OnnxGraph,
    source: int,
    order: Order,
    label: str,
    starts: list[int],
    ends: list[int],
    steps: list[int],
) -> str:
    """A node that takes a part of a tensor, along the axes that it shortens or reverses."""
    shape = w.shape(source)
    rows = zip(starts, ends, steps, shape, strict=True)
    cut_axes = [axis for axis, row in enumerate(rows) if row[:3] != (0, row[3], 1)]
    value = w.value(source, order)
    if not cut_axes:
        return value
    inputs = [value]
    places = [order.index(axis) for axis in cut_axes]
    for name, values in (("starts", starts), ("ends", ends)):
        inputs.append(w.integers(f"{label}/{name}", (values[axis] for axis in cut_axes)))
    inputs.append(w.integers(f"{label}/axes", places))
    inputs.append(w.integers(f"{label}/steps", (steps[axis] for axis in cut_axes)))
    return w.node("Slice", inputs, label)


def _split(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    """SPLIT (axis, tensor) and SPLIT_V (tensor, sizes, axis)."""
    source, axis_ = (i[1], i[0]) if w.graph.kind(op) == "SPLIT" else (i[0], i[2])
    order = w.order(source)
    axis = int(w.settings(axis_, "an axis").ravel()[0]) % len(order)
    for index in o:
        w.same_grid(source, index)
    labels = [w.label(index, order) for index in o]
    sizes = w.integers(f"{labels[0]}/sizes", (w.shape(index)[axis] for index in o))
    parts = w.nodes("Split", [w.value(source, order), sizes], labels, axis=order.index(axis))
    for index, part in zip(o, parts, strict=True):
        w.set_name(index, order, part)


def _pack(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    rank, name = len(w.shape(o[0])), w.name(o[0])
    axis, order = op.builtinOptions.axis % rank, tuple(range(rank))
    sides = [1 if a == axis else side for a, side in enumerate(w.shape(o[0]))]
    shape, inputs = w.integers(f"{name}/part_shape", sides), []
    for number, index in enumerate(i):
        value = w.value(index, tuple(range(rank - 1)))
        value = w.rearrange(index, "Reshape", [value, shape], f"{name}/part_{number}")
        if w.is_coded(index):
            value = w.node("DequantizeLinear", [value, *w.grid(index)], f"{value}_float")
        inputs.append(value)
    w.result(o[0], order, "Concat", inputs, axis=axis)


def _unpack(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    rank, name = len(w.shape(i[0])), w.name(o[0])
    axis, order = op.builtinOptions.axis % rank, tuple(range(rank))
    value, after = w.value(i[0], order), tuple(range(rank - 1))
    for number, index in enumerate(o):
        w.same_grid(i[0], index)
        one = w.constant(f"{name}/index_{number}", np.asarray(number, np.int64))
        w.set_name(index, after, w.node("Gather", [value, one], w.label(index, after), axis=axis))


def _gather(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    rank, opt = len(w.shape(i[0])), op.builtinOptions
    if getattr(opt, "batchDims", 0):
        raise InputError("a GATHER by batches has no form in ONNX here")
    axis, order = opt.axis % rank, tuple(range(rank))
    target = tuple(range(len(w.shape(o[0]))))
    inputs = [w.value(i[0], order), w.value(i[1], tuple(range(len(w.shape(i[1])))))]
    w.move(i[0], o[0], target, "Gather", inputs, axis=axis)


def _gather_nd(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    values, indices = (w.value(k, tuple(range(len(w.shape(k))))) for k in i)
    indices = w.node("Cast", [indices], f"{w.name(o[0])}/indices", to=TensorProto.INT64)
    w.move(i[0], o[0], tuple(range(len(w.shape(o[0])))), "GatherND", [values, indices])


def _tile(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    repeats, order = w.settings(i[1], "how often a tensor is repeated").ravel(), w.order(i[0])
    name = w.integers(f"{w.label(o[0], order)}/repeats", (int(repeats[axis]) for axis in order))
    w.move(i[0], o[0], order, "Tile", [w.value(i[0], order), name])


def _broadcast_to(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    order = _shared_order(w, i[:1], o[0])
    sides = w.integers(f"{w.label(o[0], order)}/sides", w.shape_in(o[0], order))
    w.result(o[0], order, "Expand", [w.operand(i[0], order), sides])


def _reverse(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    shape = w.shape(i[0])
    axes = {int(axis) % len(shape) for axis in w.settings(i[1], "axes").ravel()}
    cuts = [(n - 1, -n - 1, -1) if a in axes else (0, n, 1) for a, n in enumerate(shape)]
    starts, ends, steps = (list(part) for part in zip(*cuts, strict=True))
    _cut_out(w, i[0], o[0], starts, ends, steps)


def _blocks(kind: str) -> Callable[..., None]:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH; ONNX numbers their channels in the same way."""

    def writer(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
        w.same_grid(i[0], o[0])
        label = w.label(o[0], TO_NCHW)
        value = w.rearrange(
            i[0], kind, [w.value(i[0], TO_NCHW)], label, blocksize=op.builtinOptions.blockSize
        )
        w.set_name(o[0], TO_NCHW, value)

    return writer


def _resize(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    opt, linear = op.builtinOptions, w.graph.kind(op) == "RESIZE_BILINEAR"
    if opt.alignCorners:
        grid = {"coordinate_transformation_mode": "align_corners"}
    else:
        half = opt.halfPixelCenters
        grid = {"coordinate_transformation_mode": "half_pixel" if half else "asymmetric"}
    if not linear:
        rounds_up = opt.alignCorners or opt.halfPixelCenters
        grid["nearest_mode"] = "round_prefer_ceil" if rounds_up else "floor"
    sizes = w.integers(f"{w.label(o[0], TO_NCHW)}/sizes", w.shape_in(o[0], TO_NCHW))
    inputs = [w.read(i[0], TO_NCHW), "", "", sizes]
    w.result(o[0], TO_NCHW, "Resize", inputs, mode="linear" if linear else "nearest", **grid)


# Types and constants.


def _requantize(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    order = w.order(i[0])
    label = w.label(o[0], order)
    w.set_name(o[0], order, w.store(o[0], w.read(i[0], order), "NONE", label))


def _dequantize(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    array = w.array(i[0])
    if array is not None:
        scales = w.graph.broadcast_scales(i[0])
        _, zero = w.graph.scale(i[0])
        w.set_constant(
            o[0], ((array.astype(np.float32) - zero) * scales.astype(np.float32)).astype(np.float32)
        )
        return
    order = w.order(i[0])
    inputs = [w.value(i[0], order), *w.grid(i[0])]
    w.set_name(o[0], order, w.node("DequantizeLinear", inputs, w.label(o[0], order)))


def _cast(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    array = w.array(i[0])
    if array is not None:
        w.set_constant(o[0], array.astype(w.graph.dtype(o[0])))
        return
    order = w.order(i[0])
    _cast_to(w, o[0], order, w.read(i[0], order))


def _cast_to(w: OnnxGraph, index: int, order: Order, value: str) -> None:
    """Converts the values to the tensor's type."""
    w.result(index, order, "Cast", [value], to=w.onnx_type(index))


def _shape_of(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    w.set_constant(o[0], np.asarray(w.shape(i[0]), w.graph.dtype(o[0])))


def _fill(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    w.set_constant(o[0], np.full(w.shape(o[0]), w.settings(i[1], "a filling").ravel()[0]))


def _zeros_like(w: OnnxGraph, op: Any, i: list[int], o: list[int]) -> None:
    w.set_constant(o[0], np.zeros(w.shape(o[0]), w.graph.dtype(o[0])))


_WRITERS: dict[str, Callable[..., None]] = {
    "ABS": _of_one("Abs"),
    "ADD": _add,
    "ADD_N": _of_two("Sum"),
    "ARG_MAX": _best("ArgMax"),
    "ARG_MIN": _best("ArgMin"),
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "BATCH_MATMUL": _product,
    "BROADCAST_TO": _broadcast_to,
    "CAST": _cast,
    "CEIL": _of_one("Ceil"),
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "COS": _of_one("Cos"),
    "DEPTHWISE_CONV_2D": _convolution,
    "DEPTH_TO_SPACE": _blocks("DepthToSpace"),
    "DEQUANTIZE": _dequantize,
    "DIV": _of_two("Div"),
    "ELU": _of_one("Elu"),
    "EQUAL": _of_two("Equal"),
    "EXP": _exponential,
    "EXPAND_DIMS": _reshape,
    "FILL": _fill,
    "FLOOR": _of_one("Floor"),
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "GELU": _gelu,
    "GREATER": _of_two("Greater"),
    "GREATER_EQUAL": _of_two("GreaterOrEqual"),
    "HARD_SWISH": _hard_swish,
    "L2_NORMALIZATION": _l2_normalization,
    "LEAKY_RELU": _leaky,
    "LESS": _of_two("Less"),
    "LESS_EQUAL": _of_two("LessOrEqual"),
    "LOCAL_RESPONSE_NORMALIZATION": _response_normalization,
    "LOG": _of_one("Log"),
    "LOGICAL_AND": _of_two("And"),
    "LOGICAL_NOT": _of_one("Not"),
    "LOGICAL_OR": _of_two("Or"),
    "LOGISTIC": _of_one("Sigmoid"),
    "LOG_SOFTMAX": _softmax("LogSoftmax"),
    "MAXIMUM": _of_two("Max"),
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _reduce("ReduceMean"),
    "MINIMUM": _of_two("Min"),
    "MIRROR_PAD": _mirror_pad,
    "MUL": _multiply,
    "NEG": _of_one("Neg"),
    "NOT_EQUAL": _not_equal,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "POW": _of_two("Pow"),
    "PRELU": _prelu,
    "QUANTIZE": _requantize,
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "REDUCE_PROD": _reduce("ReduceProd"),
    "RELU": _activation("RELU"),
    "RELU6": _activation("RELU6"),
    "RELU_0_TO_1": _activation("RELU_0_TO_1"),
    "RELU_N1_TO_1": _activation("RELU_N1_TO_1"),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "REVERSE_V2": _reverse,
    "ROUND": _of_one("Round"),
    "RSQRT": _steps("Sqrt", "Reciprocal"),
    "SELECT": _of_two("Where"),
    "SELECT_V2": _of_two("Where"),
    "SHAPE": _shape_of,
    "SIGN": _of_one("Sign"),
    "SIN": _of_one("Sin"),
    "SLICE": _slice,
    "SOFTMAX": _softmax("Softmax"),
    "SPACE_TO_DEPTH": _blocks("SpaceToDepth"),
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQRT": _of_one("Sqrt"),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _of_two("Sub"),
    "SUM": _reduce("ReduceSum"),
    "TANH": _of_one("Tanh"),
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transposed_convolution,
    "UNPACK": _unpack,
    "ZEROS_LIKE": _zeros_like,
}
