"""The regression that everybody has met, on published weights: one scale for all channels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mobiledeploy.core import artifacts, records
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.verbs.check import check, update_baseline
from mobiledeploy.verbs.export import export


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
    return whole.pack()


@pytest.mark.slow
def test_int8_with_one_scale_per_tensor_fails_where_per_channel_passed(real_data, here):
    images = real_data / "imagenet"
    labels = tuple((images / "labels.txt").read_text().splitlines())
    result = export(
        arch="mobilenet_v1",
        alpha=0.75,
        res=224,
        data=str(images / "images"),
        weights=str(images / "mobilenet_7_5_224_tf.h5"),
        recipe=("float32", "int8_ptq"),
        format="tflite",
        labels=labels,
    )
    path = result.path("int8_ptq")
    update_baseline(path)
    limits = {"margin": 2.0, "float_margin": 5.0}
    (found,) = check(path, **limits).checks
    assert found.outcome in ("pass", "inconclusive")
    assert found.verdicts[0].outcome == "pass"
    artifact = artifacts.load(path)
    path.write_bytes(per_tensor(path.read_bytes()))
    spoilt = dataclasses.replace(artifact, sha256=records.sha256(path))
    artifacts.record_path(path).write_text(records.dumps(spoilt))
    (found,) = check(path, **limits).checks
    message = {v.metric: v for v in found.verdicts}
    print(*(v.line for v in found.verdicts), sep="\n")
    assert message["accuracy"].outcome == "fail"
    assert message["float"].outcome == "fail"
    assert message["golden"].outcome == "fail"
    assert found.mcnemar_p < 1e-6
