"""The regression that everybody has met, on published weights: one scale for all channels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.types import Overrides
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.steps import accuracy_check
from mobiledeploy.steps.export_plan import ExportConfig
from mobiledeploy.verbs import check as verb
from mobiledeploy.verbs import export as export_verb


def per_tensor(data: bytes) -> bytes:
    """The int8 file with one scale for each weight tensor, as a per-tensor converter makes it."""
    whole = Graph(data)
    model, graph = whole.model, whole.subgraph
    changed = 0
    for op in graph.operators:
        weights = graph.tensors[op.inputs[1]] if len(op.inputs) == 3 else None
        if weights is None or weights.quantization is None or len(weights.quantization.scale) < 2:
            continue
        scales = np.array(weights.quantization.scale, np.float64)
        shape = [1] * len(weights.shape)
        shape[weights.quantization.quantizedDimension] = -1
        share = scales / scales.max()
        bias = graph.tensors[op.inputs[2]]
        for tensor, kind, factor in (
            (weights, np.int8, share.reshape(shape)),
            (bias, np.int32, share),
        ):
            buffer = model.buffers[tensor.buffer]
            codes = np.array(buffer.data, np.uint8).view(kind).reshape(tensor.shape)
            buffer.data = np.rint(codes * factor).astype(kind).view(np.uint8).ravel()
            tensor.quantization.scale = [float(max(tensor.quantization.scale))]
            tensor.quantization.zeroPoint = [0]
            tensor.quantization.quantizedDimension = 0
        changed += 1
    assert changed > 20
    return whole.packed()


@pytest.mark.slow
def test_int8_with_one_scale_per_tensor_fails_where_per_channel_passed(real_data, here):
    images = real_data / "imagenet"
    labels = tuple((images / "labels.txt").read_text().splitlines())
    order = ExportConfig(
        arch="mobilenet_v1",
        alpha=0.75,
        res=224,
        data=str(images / "images"),
        weights=str(images / "mobilenet_7_5_224_tf.h5"),
        recipes=("float32", "int8_ptq"),
        formats=("tflite",),
        overrides=Overrides(labels=labels),
    )
    path = Path(export_verb.export(order).folder) / "int8_ptq.tflite"
    verb.update([path])
    limits = accuracy_check.GateLimits(margin=0.02, float_margin=0.05)
    (found,) = verb.check([path], limits=limits).checks
    assert found.outcome in ("pass", "inconclusive")
    assert found.verdicts[0].outcome == "pass"
    artifact = artifacts.load(path)
    path.write_bytes(per_tensor(path.read_bytes()))
    spoilt = dataclasses.replace(artifact, sha256=records.sha256(path))
    artifacts.record_path(path).write_text(records.dumps(spoilt))
    (found,) = verb.check([path], limits=limits).checks
    said = {v.metric: v for v in found.verdicts}
    print(*(v.line for v in found.verdicts), sep="\n")
    assert said["accuracy"].outcome == "fail"
    assert said["float"].outcome == "fail"
    assert said["golden"].outcome == "fail"
    assert found.mcnemar_p < 1e-6
