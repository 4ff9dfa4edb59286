"""A model and what is to be known of it, from wherever it comes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FRAMEWORKS
from mobiledeploy.core.types import Model, ModelSpec, Source
from mobiledeploy.frameworks import tf_keras


def open_(source: Source) -> tuple[Model, ModelSpec]:
    """The live model, and its spec with the true resolution and class count.

    InputError for a file that holds no image classifier, UsageError for a resolution that it
    cannot take.
    """
    if source.file is None:
        weights = None if source.weights is None else Path(source.weights)
        return tf_keras.build(source.spec, weights), source.spec
    framework = FRAMEWORKS.load(source.file.framework)
    model = framework.load(source.file)
    inputs, outputs = framework.shapes(model)
    classes = outputs[1]
    if classes is None or classes < 2:
        raise InputError("the model gives one score; a classifier of two or more classes is needed")
    height, width = inputs[1], inputs[2]
    resolution = source.resolution or (height or 0, width or 0)
    if 0 in resolution:
        raise UsageError("the model takes any resolution", "say which with --res")
    if any(
        fixed not in (None, asked) for fixed, asked in zip((height, width), resolution, strict=True)
    ):
        raise UsageError(f"the model takes {height}x{width} only", "leave --res away")
    return model, dataclasses.replace(source.spec, resolution=resolution, classes=classes)
