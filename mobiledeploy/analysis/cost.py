"""The cost of a network, counted from its layers: mult-adds, parameters, memory, traffic.

Mult-adds are counted as the MobileNet papers do (Howard et al. 2017, section 3.1): convolutions,
depthwise convolutions and fully connected layers, one for each multiplication with a weight;
biases, normalisation, pooling and activations are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mobiledeploy.core.display import Record
from mobiledeploy.core.types import Layer, Tensor

FULLY_CONNECTED = "Fully Connected"

# Operators that the rule counts, by the names of TensorFlow, TFLite and ONNX.
_CHANNELS_FIRST = {"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"}
_TRANSPOSED = {"Conv2DBackpropInput", "TRANSPOSE_CONV", "ConvTranspose"}
_DEPTHWISE = {"DepthwiseConv2dNative", "DEPTHWISE_CONV_2D"}
_CONVOLUTIONS = {"Conv2D", "Conv3D", "CONV_2D", "CONV_3D"} | _CHANNELS_FIRST | _DEPTHWISE
_DENSE = {
    "BATCH_MATMUL",
    "BatchMatMulV2",
    "Einsum",
    "FULLY_CONNECTED",
    "Gemm",
    "MatMul",
    "MatMulInteger",
    "QGemm",
    "QLinearMatMul",
}
_MULTIPLYING = _CONVOLUTIONS | _TRANSPOSED | _DENSE
# Parts of the names of operators with a network inside, and of unknown ones.
_OPAQUE = (
    "CUSTOM",
    "Call",
    "GRU",
    "LSTM",
    "Loop",
    "RNN",
    "SVDF",
    "Scan",
    "UNKNOWN",
    "WHILE",
    "While",
)
# Operators whose result can take the place of their input, element by element.
_IN_PLACE = {
    "ADD",
    "Add",
    "AddV2",
    "BatchNormalization",
    "BiasAdd",
    "Clip",
    "ELU",
    "EXP",
    "Elu",
    "Exp",
    "FusedBatchNormV3",
    "HARD_SWISH",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LEAKY_RELU",
    "LOG",
    "LOGISTIC",
    "LeakyRelu",
    "Log",
    "MUL",
    "Mul",
    "Neg",
    "RELU",
    "RELU6",
    "RESHAPE",
    "RSQRT",
    "Relu",
    "Relu6",
    "Reshape",
    "Rsqrt",
    "SOFTMAX",
    "SQUEEZE",
    "SUB",
    "Sigmoid",
    "Softmax",
    "Squeeze",
    "Sub",
    "TANH",
    "Tanh",
}
_BITS = {
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int16": 16,
    "int32": 32,
    "int64": 64,
    "float64": 64,
    "int4": 4,
}


@dataclass(frozen=True)
class LayerCost(Record):
    """One row. `output` is the shape of what it computes, batch included.

    `bytes_moved` is the size of what it reads and writes, weights included, at the types of the
    network as it stands. In numbers, whatever their type: `activations` are what it reads and
    writes, `kernel` is its weights without biases. `pixels` is height times width of the output.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    params: int
    mult_adds: int
    bytes_moved: int
    activations: int
    kernel: int
    pixels: int

    @property
    def intensity(self) -> float:
        """Mult-adds per byte moved."""
        return self.mult_adds / self.bytes_moved if self.bytes_moved else 0.0


@dataclass(frozen=True)
class Share(Record):
    """The totals of the layers of one kind, as fractions of the whole from 0 to 1."""

    kind: str
    layers: int
    mult_adds: float
    params: float


@dataclass(frozen=True)
class Cost:
    """A network's cost for one image.

    `params` counts all weights, moving statistics included. `peak_activation_bytes` is the most
    that inputs and results take at one moment when layers run in the given order, each result is
    freed after its last reader, and element-wise operators write over an input that nobody else
    reads. `intensity` is mult-adds per byte over the layers that have mult-adds, since runtimes
    fuse the others into them. `uncounted` names operators that multiply, or may, and are not in
    `mult_adds`: those without weights, with a network inside, or of an unknown shape.
    """

    layers: tuple[LayerCost, ...]
    mult_adds: int
    params: int
    peak_activation_bytes: int
    intensity: float
    shares: tuple[Share, ...]
    uncounted: tuple[str, ...]


def cost(layers: Sequence[Layer]) -> Cost:
    """The cost of a network from its layers in execution order (TensorFlow, TFLite or ONNX).

    Sides of unknown length are 0, as in `Tensor`; of the first, the batch, one image is counted.
    """
    plain = unquantized(layers)
    counted_constants: set[str] = set()
    rows = tuple(_row(layer, counted_constants) for layer in plain)
    multiplying = [row for row in rows if row.mult_adds]
    bytes_moved = sum(row.bytes_moved for row in multiplying)
    mult_adds = sum(row.mult_adds for row in rows)
    return Cost(
        layers=rows,
        mult_adds=mult_adds,
        params=sum(row.params for row in rows),
        peak_activation_bytes=_peak(plain),
        intensity=mult_adds / bytes_moved if bytes_moved else 0.0,
        shares=_shares(rows),
        uncounted=tuple(sorted({x.op for x in plain if _is_uncounted(x)})),
    )


def unquantized(layers: Sequence[Layer]) -> list[Layer]:
    """The operators that compute, in QDQ form as they are run, for one image."""
    return _without_quantizers([_one_image(layer) for layer in layers])


def elements(shape: Iterable[int]) -> int:
    """The number of elements of this shape."""
    return math.prod(shape)


def size_bytes(tensor: Tensor) -> int:
    """The size of a tensor in bytes; unknown types count as 8 bits."""
    return math.ceil(elements(tensor.shape) * _BITS.get(tensor.dtype, 8) / 8)


def _row(layer: Layer, counted_constants: set[str]) -> LayerCost:
    params = [t for t in layer.inputs if _is_weight(t, layer) and t.name not in counted_constants]
    counted_constants.update(t.name for t in params)
    moving = [t for t in (*layer.inputs, *layer.outputs) if not t.constant]
    weights = [t for t in layer.inputs if _is_weight(t, layer)]
    kernel = _weights(layer)
    output = layer.outputs[0].shape if layer.outputs else ()
    return LayerCost(
        name=layer.name,
        kind=_kind(layer),
        output=output,
        params=sum(elements(t.shape) for t in params),
        mult_adds=_mult_adds(layer) or 0,
        bytes_moved=sum(map(size_bytes, (*moving, *weights))),
        activations=sum(elements(t.shape) for t in moving),
        kernel=0 if kernel is None else elements(kernel.shape),
        pixels=elements(output) // max(1, _channels(layer, layer.outputs[0])) if output else 0,
    )


def _is_weight(tensor: Tensor, layer: Layer) -> bool:
    """Whether a constant is a parameter, and not a shape, an axis, a bound or a factor."""
    if not tensor.constant or tensor.dtype in ("int64", "bool"):
        return False
    if tensor.dtype == "int32" and not tensor.scale and layer.op not in _MULTIPLYING:
        return False
    if _is_normalisation(layer):
        return False
    return layer.op in _MULTIPLYING or elements(tensor.shape) > 1


def _weights(layer: Layer) -> Tensor | None:
    """The kernel: the constant of two dimensions or more."""
    return next((t for t in layer.inputs if t.constant and len(t.shape) >= 2), None)


def _channels(layer: Layer, tensor: Tensor) -> int:
    """Channels of an activation: ONNX keeps them behind the batch, the others last."""
    return tensor.shape[1 if layer.op in _CHANNELS_FIRST and len(tensor.shape) > 1 else -1]


def _mult_adds(layer: Layer) -> int | None:
    """Each output needs weights / output channels of them, in groups or not.

    A transposed convolution spreads each input over weights / input channels outputs instead. Of an
    Einsum, each index stands in two of input, weights and output. None for what is not counted.
    """
    kernel = _weights(layer)
    moving = [t for t in layer.inputs if not t.constant]
    if layer.op not in _MULTIPLYING or kernel is None or not moving or _is_normalisation(layer):
        return None
    each = moving[-1] if layer.op in _TRANSPOSED else layer.outputs[0]
    if len(each.shape) < 2 or not all(each.shape):
        return None
    if layer.op == "Einsum":
        return math.isqrt(elements((*moving[0].shape, *kernel.shape, *each.shape)))
    return elements(each.shape) * elements(kernel.shape) // _channels(layer, each)


def _is_normalisation(layer: Layer) -> bool:
    """Whether it is AlexNet's and GoogLeNet's sum over channels, which no paper counts.

    It is a convolution by name of operator only (frameworks/response_normalization).
    """
    return layer.op in _CONVOLUTIONS and "response_normalization" in layer.name


def _is_uncounted(layer: Layer) -> bool:
    if _is_normalisation(layer):
        return False
    opaque = layer.op in ("IF", "If", "StatelessIf") or any(n in layer.op for n in _OPAQUE)
    return opaque or (layer.op in _MULTIPLYING and _mult_adds(layer) is None)


def _one_image(layer: Layer) -> Layer:
    """The layer with 1 for a batch of unknown size."""

    def one(tensor: Tensor) -> Tensor:
        is_open = tensor.shape[:1] == (0,) and not tensor.constant
        return replace(tensor, shape=(1, *tensor.shape[1:])) if is_open else tensor

    inputs, outputs = (tuple(map(one, tensors)) for tensors in (layer.inputs, layer.outputs))
    return replace(layer, inputs=inputs, outputs=outputs)


def _kind(layer: Layer) -> str:
    kernel = _weights(layer)
    if kernel is None or _mult_adds(layer) is None:
        return layer.op
    if layer.op in _DENSE:
        return FULLY_CONNECTED
    window = _window(layer, kernel)
    size = "x".join(map(str, window))
    if layer.op in _TRANSPOSED:
        return f"Transposed Conv {size}"
    output = layer.outputs[0]
    channels = _channels(layer, output)
    inputs = next((_channels(layer, t) for t in layer.inputs if not t.constant and t.shape), 0)
    each = elements(kernel.shape) // max(1, elements(window) * channels)
    if layer.op in _DEPTHWISE or (each == 1 and inputs > 1):
        return f"Conv DW {size}"
    if elements(output.shape) == channels and elements(window) == 1:
        # An image of one pixel: what other networks call fully connected.
        return FULLY_CONNECTED
    return f"Conv {size}{' grouped' if each < inputs else ''}"


def _window(layer: Layer, kernel: Tensor) -> tuple[int, ...]:
    """Height and width of a kernel (and depth), which stand where the format has them."""
    if layer.op in _CHANNELS_FIRST:
        return kernel.shape[2:]
    if layer.op.isupper() and len(kernel.shape) == 4:
        return kernel.shape[1:3]
    return kernel.shape[:-2]


def _shares(rows: Sequence[LayerCost]) -> tuple[Share, ...]:
    """The shares by kind, most mult-adds first.

    Kinds without mult-adds and parameters are left out.
    """
    mult_adds = sum(row.mult_adds for row in rows) or 1
    params = sum(row.params for row in rows) or 1
    kinds = dict.fromkeys(row.kind for row in rows if row.mult_adds or row.params)
    shares = []
    for kind in kinds:
        own = [row for row in rows if row.kind == kind]
        shares.append(
            Share(
                kind,
                len(own),
                sum(row.mult_adds for row in own) / mult_adds,
                sum(row.params for row in own) / params,
            )
        )
    return tuple(sorted(shares, key=lambda share: (-share.mult_adds, -share.params)))


def _without_quantizers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers of a QDQ file as they run: integers between the operators.

    An output of a DequantizeLinear is replaced by its input; a tensor that only a QuantizeLinear
    reads is replaced by its output.
    """
    reads = {x.outputs[0].name: x.inputs[0] for x in layers if x.op == "DequantizeLinear"}
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for tensor in layer.inputs:
            readers.setdefault(tensor.name, []).append(layer)
    writes = {
        x.inputs[0].name: x.outputs[0]
        for x in layers
        if x.op == "QuantizeLinear" and len(readers[x.inputs[0].name]) == 1
    }
    outputs = {t.name for x in layers for t in x.outputs}
    plain = []
    for layer in layers:
        if layer.op == "DequantizeLinear":
            continue
        if layer.op == "QuantizeLinear" and layer.inputs[0].name in outputs:
            continue
        if layer.inputs and all(t.constant for t in layer.inputs):
            continue
        plain.append(
            replace(
                layer,
                inputs=tuple(reads.get(t.name, t) for t in layer.inputs),
                outputs=tuple(writes.get(t.name, t) for t in layer.outputs),
            )
        )
    return plain


def _peak(layers: Sequence[Layer]) -> int:
    """The most bytes that activations take at one moment; see `Cost`."""
    outputs = {t.name for x in layers for t in x.outputs}
    last: dict[str, int] = {}
    tensors: dict[str, Tensor] = {}
    for step, layer in enumerate(layers):
        for tensor in (*layer.inputs, *layer.outputs):
            if not tensor.constant:
                last[tensor.name] = step
                tensors[tensor.name] = tensor
    live = {name for name in tensors if name not in outputs}
    peak = 0
    for step, layer in enumerate(layers):
        dying = [t for t in layer.inputs if t.name in live and last[t.name] == step]
        results = [t for t in layer.outputs if t.name not in live]
        bytes_needed = sum(size_bytes(tensors[name]) for name in live)
        bytes_needed += sum(size_bytes(t) for t in results)
        if layer.op in _IN_PLACE and results:
            bytes_needed -= max(
                (size_bytes(t) for t in dying if size_bytes(t) == size_bytes(results[0])), default=0
            )
        peak = max(peak, bytes_needed)
        live |= {t.name for t in results}
        live -= {t.name for t in dying}
        live -= {t.name for t in results if last[t.name] == step and step + 1 < len(layers)}
    return peak
