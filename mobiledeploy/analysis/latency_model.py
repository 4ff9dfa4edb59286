"""wip"""
from __future__ import annotations
from collections.abc import Sequence
from mobiledeploy.analysis import cost as costs
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.types import Layer


def workload(layers: Sequence[Layer], *, family: str) -> Workload:
    """What one inference of these layers has to do (TFLite or ONNX, in execution order).

    Element-wise operators of one input, changes of shape among them, are left out: runtimes fuse
    them into their neighbours, and converters differ in which of them they leave in the file.
    """
    dense = depthwise = activations = weights = operators = 0
    plain = costs.unquantized(layers)
    for layer, row in zip(plain, costs.cost(layers).layers, strict=True):
        if not row.mult_adds and _is_fused(layer):
            continue
        if row.kind.startswith("Conv DW"):
            depthwise += row.mult_adds
        else:
            dense += row.mult_adds
        activations += row.activations
        weights += row.weights if row.mult_adds else 0
        operators += 1
    return Workload(family, dense, depthwise, activations, weights, operators)


def _is_fused(layer: Layer) -> bool:
    moving = [t for t in layer.inputs if not t.constant]
    sizes = {costs.elements(t.shape) for t in (*moving, *layer.outputs)}
    return len(moving) < 2 and len(sizes) < 2
