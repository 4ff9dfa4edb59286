"""Small networks built by hand, layer by layer: no converter decides what is in them."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import AnchorLevel, Anchors, ModelOutput, Signature
from mobiledeploy.graphs import postprocess
from tests.lite import Lite

SIDE = 10
ACTIVATIONS = {
    name: getattr(schema.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6")
}
PADDING = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}


class Network:
    """A TFLite in the making, each of its layers with random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.lite = Lite()
        self.random = np.random.default_rng(seed)
        self.image = self.lite.input((1, SIDE, SIDE, 3), name="image")

    def weights(self, *shape: int) -> np.ndarray:
        """As large as keeps the size of what is read."""
        inputs = shape[1:] if shape[0] > 1 else shape[:-1]
        values = self.random.normal(0, np.sqrt(2 / np.prod(inputs)), shape)
        return values.astype(np.float32)

    def bias(self, filters: int) -> np.ndarray:
        return self.random.uniform(-0.1, 0.3, filters).astype(np.float32)

    def conv(self, x, filters, *, kernel=1, stride=1, padding="SAME", activation="RELU6", **more):
        """`more` may hold `weights`, `bias` and `name`."""
        _, high, wide, channels = self.lite.shape(x)
        weights = more.get("weights")
        if weights is None:
            weights = self.weights(filters, kernel, kernel, channels)
        bias = more.get("bias")
        bias = self.bias(filters) if bias is None else bias
        high, wide = (_side(side, kernel, stride, padding) for side in (high, wide))
        target = self.lite.tensor((1, high, wide, filters), name=more.get("name"))
        return self.lite.op(
            "CONV_2D",
            [x, self.lite.constant(weights), self.lite.constant(np.asarray(bias, np.float32))],
            target,
            options="Conv2DOptions",
            padding=PADDING[padding],
            strideH=stride,
            strideW=stride,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=ACTIVATIONS[activation],
        )

    def depthwise(
        self, x, *, kernel=3, stride=1, padding="SAME", activation="RELU6", times=1, **more
    ):
        _, high, wide, channels = self.lite.shape(x)
        filters = channels * times
        weights = more.get("weights")
        if weights is None:
            weights = self.weights(1, kernel, kernel, filters)
        bias = more.get("bias")
        bias = self.bias(filters) if bias is None else bias
        high, wide = (_side(side, kernel, stride, padding) for side in (high, wide))
        return self.lite.op(
            "DEPTHWISE_CONV_2D",
            [x, self.lite.constant(weights), self.lite.constant(np.asarray(bias, np.float32))],
            (1, high, wide, filters),
            options="DepthwiseConv2DOptions",
            padding=PADDING[padding],
            strideH=stride,
            strideW=stride,
            depthMultiplier=times,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=ACTIVATIONS[activation],
        )

    def single(self, kind, x):
        options = {"HARD_SWISH": "HardSwishOptions"}.get(kind)
        return self.lite.op(kind, [x], self.lite.shape(x), options=options)

    def pair(self, kind, x, y, activation="NONE"):
        if kind in ("MAXIMUM", "MINIMUM"):
            options = "MaximumMinimumOptions"
            return self.lite.op(kind, [x, y], self.lite.shape(x), options=options)
        return self.lite.op(
            kind,
            [x, y],
            self.lite.shape(x),
            options=f"{kind.capitalize()}Options",
            fusedActivationFunction=ACTIVATIONS[activation],
        )

    def leaky(self, x, slope=0.2):
        shape = self.lite.shape(x)
        return self.lite.op("LEAKY_RELU", [x], shape, options="LeakyReluOptions", alpha=slope)

    def padded(self, x):
        """With zeros around the image."""
        _, high, wide, channels = self.lite.shape(x)
        widths = self.lite.constant([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
        shape = (1, high + 2, wide + 2, channels)
        return self.lite.op("PAD", [x, widths], shape, options="PadOptions")

    def pooled(self, x, kind="MAX_POOL_2D"):
        """Over windows of 3 by 3, of which some reach over the border."""
        return self.lite.op(
            kind,
            [x],
            self.lite.shape(x),
            options="Pool2DOptions",
            padding=PADDING["SAME"],
            strideH=1,
            strideW=1,
            filterHeight=3,
            filterWidth=3,
        )

    def below(self, *tensors):
        """One under the other."""
        _, _, wide, channels = self.lite.shape(tensors[0])
        high = sum(self.lite.shape(x)[1] for x in tensors)
        shape = (1, high, wide, channels)
        return self.lite.op("CONCATENATION", tensors, shape, options="ConcatenationOptions", axis=1)

    def prelu(self, x):
        slopes = self.random.uniform(-0.5, 1, (1, 1, self.lite.shape(x)[-1])).astype(np.float32)
        return self.lite.op("PRELU", [x, self.lite.constant(slopes)], self.lite.shape(x))

    def concatenation(self, *tensors):
        shape = self.lite.shape(tensors[0])
        channels = sum(self.lite.shape(x)[-1] for x in tensors)
        return self.lite.op(
            "CONCATENATION",
            tensors,
            (*shape[:-1], channels),
            options="ConcatenationOptions",
            axis=3,
        )

    def mean(self, x):
        axes = self.lite.constant([1, 2], np.int32)
        shape = (1, 1, 1, self.lite.shape(x)[-1])
        return self.lite.op("MEAN", [x, axes], shape, options="ReducerOptions", keepDims=True)

    def excited(self, x, inner=8, **last):
        """Squeeze and excite, with the hard sigmoid as the converter writes it."""
        channels = self.lite.shape(x)[-1]
        factor = self.conv(self.mean(x), inner, activation="RELU")
        factor = self.conv(factor, channels, activation="NONE", **last)
        three = self.lite.constant(np.full(channels, 3, np.float32))
        sixth = self.lite.constant(np.float32(1 / 6))
        factor = self.pair("ADD", factor, three, "RELU6")
        return self.pair("MUL", x, self.pair("MUL", factor, sixth))

    def flat(self, x):
        size = int(np.prod(self.lite.shape(x)))
        shape = self.lite.constant([1, size], np.int32)
        return self.lite.op(
            "RESHAPE", [x, shape], (1, size), options="ReshapeOptions", newShape=[1, size]
        )

    def dense(self, x, classes=5, weights=None):
        """The end of the network, of which everything counts."""
        if len(self.lite.shape(x)) > 2:
            x = self.flat(x)
        if weights is None:
            weights = self.weights(classes, self.lite.shape(x)[-1])
        bias = self.lite.constant(self.bias(len(weights)))
        return self.lite.op(
            "FULLY_CONNECTED",
            [x, self.lite.constant(weights), bias],
            (1, len(weights)),
            options="FullyConnectedOptions",
        )

    def file(self, *outputs) -> bytes:
        return self.lite.file(*outputs)


def _side(side: int, kernel: int, stride: int, padding: str) -> int:
    return -(-side // stride) if padding == "SAME" else (side - kernel) // stride + 1


def silenced(net, x, value, count=16, dead=slice(8, 16), **more):
    """A 1x1 convolution with filters that have no weights left and answer `value`."""
    weights = net.weights(count, 1, 1, net.lite.shape(x)[-1])
    weights[dead] = 0
    bias = net.bias(count)
    bias[dead] = value
    return net.conv(x, count, weights=weights, bias=bias, **more)


def detector_that_chooses() -> bytes:
    """A float detector of an image and two classes that ends in LiteRT's operator for boxes."""
    net = Network()
    anchors = Anchors((AnchorLevel((SIDE, SIDE), ((0.3, 0.3),)),), (10.0, 10.0, 5.0, 5.0))
    raw = Signature(
        (),
        (
            ModelOutput("boxes", (anchors.count, 4), anchors=anchors),
            ModelOutput("scores", (anchors.count, 2), "sigmoid"),
        ),
    )
    x = net.conv(net.image, 8, kernel=3)
    ends = []
    for end in raw.outputs:
        shape = (1, *end.shape)
        sides = net.lite.constant(np.array(shape, np.int32))
        values = net.conv(x, shape[-1], activation="NONE")
        ends.append(
            net.lite.op(
                "RESHAPE", [values, sides], shape, options="ReshapeOptions", newShape=[*shape]
            )
        )
    ends[1] = net.lite.op("LOGISTIC", [ends[1]], net.lite.shape(ends[1]))
    content = postprocess.append(net.file(*ends), raw)
    return FORMATS.load("tflite").seal(content, ["image"], [*postprocess.NAMES])
