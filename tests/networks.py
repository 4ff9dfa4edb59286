"""Live networks as sources open them, for tests that start behind a source."""

import dataclasses

import numpy as np

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.types import ModelInput, NetworkInput


def taking_images(model, size, channels=3):
    """The model as one that takes an image of `size` (height, width)."""
    end = ModelInput("image", "image", (*size, channels))
    return dataclasses.replace(model, inputs=(NetworkInput(end),))


def shapes(model):
    """The shapes of the model's inputs, then of its outputs."""
    handle = model.handle
    return tuple(tuple(tensor.shape) for tensor in (*handle.inputs, *handle.outputs))


def answers(opened, images):
    """The answers [N, ...] of a model with one image and one output to images [N, H, W, C]."""
    (answer,) = opened.answers(Batch((np.asarray(images),)))
    return answer
