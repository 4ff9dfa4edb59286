"""What several rooms know of detectors: the anchors of their boxes, and who chooses the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.ports import AnchoredArchitecture
from mobiledeploy.core.types import Anchors, ModelOutput, ModelSpec

POSTPROCESS = "TFLite_Detection_PostProcess"
"""LiteRT's own operator that chooses the best boxes. With several threads it can lose some."""


def anchors_of(spec: ModelSpec) -> Anchors | None:
    """The anchors of a card's network; None for a network without them, and for other models."""
    if spec.card is None:
        return None
    architecture = ARCHITECTURES.load(spec.architecture)
    if not isinstance(architecture, AnchoredArchitecture):
        return None
    return architecture.anchors(**spec.arguments, resolution=spec.resolution)


def with_anchors(
    outputs: Sequence[ModelOutput], anchors: Anchors | None
) -> tuple[ModelOutput, ...]:
    """The outputs, of which that of a box for each anchor has the anchors."""
    if anchors is None:
        return tuple(outputs)
    return tuple(
        dataclasses.replace(end, anchors=anchors) if end.shape == (anchors.count, 4) else end
        for end in outputs
    )
