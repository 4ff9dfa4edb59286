"""A pool over the whole picture as a mean, whose answer has codes of its own.

TFLite's int8 AVERAGE_POOL_2D gives its answer the scale of what it reads. The average of a whole
picture lies in a fraction of that range, and has a fraction of the codes. MEAN, which computes the
same, has a scale of its own (LiteRT 8-bit quantization specification,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core.ports import Images, Progress, quiet
from mobiledeploy.core.types import Draft
from mobiledeploy.frameworks.flat import Flat

PRESERVES = True


def apply(draft: Draft, images: Images, progress: Progress = quiet) -> Draft:
    """The draft with such pools replaced; without integers where there was one."""
    flat = Flat(draft.floats)
    found = [
        op
        for op in flat.ops
        if flat.kind(op) == "AVERAGE_POOL_2D"
        and flat.activation(op) == "NONE"
        and flat.shape(int(op.outputs[0]))[1:3] == (1, 1)
        and flat.shape(int(op.inputs[0]))[1:3]
        == (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
    ]
    if not found:
        return draft
    axes = flat.add_constant("axes", np.array([1, 2], np.int32))
    for op in found:
        flat.become_mean(op, axes)
    return dataclasses.replace(draft, floats=flat.packed(), integers=None)
