"""TFLite's own operator for detectors behind a finished TFLite: it decodes, and chooses, boxes.

`TFLite_Detection_PostProcess` is a custom operator that LiteRT and TFLite have built in. It works
in float: integers are made real before it. Its options are those of TensorFlow's Object Detection
API, but that each class has its own suppression, as `tasks/detection.py` does it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flatbuffers import flexbuffers

from mobiledeploy.analysis import anchors as anchors_
from mobiledeploy.core.detectors import POSTPROCESS
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Anchors, ModelOutput, Signature
from mobiledeploy.graphs.graph import Graph

MOST = 100
"""Boxes of one image: those of the metric."""
OVERLAP = 0.6
LEAST_SCORE = 1e-8
"""A score of 0 is no box; all others rank."""
NAMES = ("detection_boxes", "detection_classes", "detection_scores", "detection_count")


def outputs() -> tuple[ModelOutput, ...]:
    """The outputs of the operator, in its order."""
    shapes: Sequence[tuple[int, ...]] = ((MOST, 4), (MOST,), (MOST,), ())
    return tuple(ModelOutput(*end) for end in zip(NAMES, shapes, strict=True))


def chosen(graph: Graph) -> tuple[str, ...]:
    """The names of what the operator gives in a model that ends in it; they are never integers."""
    kind = f"CUSTOM:{POSTPROCESS}"
    return tuple(
        graph.name(int(i)) for op in graph.ops if graph.kind(op) == kind for i in op.outputs
    )


def boxes(signature: Signature) -> tuple[int, Anchors]:
    """The place of the raw boxes among the outputs, and their anchors; InputError without them."""
    for place, end in enumerate(signature.outputs):
        if end.anchors is not None and len(signature.outputs) == len(NAMES) // 2:
            return place, end.anchors
    raise InputError(
        "the model has no raw boxes and scores with known anchors",
        "leave out --output: the file answers as the model does",
    )


def append(content: bytes, signature: Signature) -> bytes:
    """The file with the operator behind its raw boxes and scores; its outputs are float32.

    `signature` is that of the file, of whose outputs one has anchors.
    """
    place, anchors = boxes(signature)
    graph = Graph(content)
    ends = graph.outputs
    operators = graph.ops
    real = []
    for index in (ends[place], ends[1 - place]):
        own = index
        if graph.scale(index)[0].size:
            own = graph.add_tensor(f"{graph.name(index)}/real", graph.shape(index), "float32")
            operators.append(graph.add_op("DEQUANTIZE", [index], [own]))
        real.append(own)
    table = anchors_.table(anchors).astype(np.float32)
    constant = graph.add_constant("anchors", table)
    shapes = [(1, *end.shape) for end in outputs()]
    results = [
        graph.add_tensor(f"{POSTPROCESS}:{number}", shape, "float32")
        for number, shape in enumerate(shapes)
    ]
    options = _options(anchors, signature.outputs[1 - place].shape[-1])
    operators.append(graph.add_custom_op(POSTPROCESS, [*real, constant], results, options))
    graph.subgraph.operators, graph.subgraph.outputs = operators, results
    # Its outputs are others now, and `name_ends` writes it anew.
    graph.model.signatureDefs = []
    return graph.pack()


def _options(anchors: Anchors, classes: int) -> bytes:
    y, x, height, width = anchors.scales
    options = {
        "max_detections": MOST,
        "max_classes_per_detection": 1,
        "detections_per_class": MOST,
        "num_classes": classes,
        "use_regular_nms": True,
        "nms_score_threshold": LEAST_SCORE,
        "nms_iou_threshold": OVERLAP,
        "y_scale": y,
        "x_scale": x,
        "h_scale": height,
        "w_scale": width,
    }
    return bytes(flexbuffers.Dumps(options))
