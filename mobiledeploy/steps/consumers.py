"""Google's consumers of an exported TFLite (MediaPipe, Task Library), which read its metadata.

They open files with float or uint8 inputs and outputs, and prepare images themselves. Where the
metadata cannot express the preprocessing, they do it in their own way or refuse the file.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core import preprocessing
from mobiledeploy.core.types import FileFacts, NamedWarning, Preprocessing, Tensor


def warnings(pre: Preprocessing, facts: FileFacts) -> tuple[NamedWarning, ...]:
    """Warnings where these consumers prepare images differently from the evaluation; () if not."""
    if len(facts.inputs) > 1:
        return ()
    (image,) = facts.inputs
    if facts.format != "tflite" or image.dtype not in ("float32", "uint8"):
        return ()
    warnings_ = []
    # A float file is for everybody, and most networks are judged with a crop: everybody would be
    # warned. A uint8 file is made for these consumers.
    if image.dtype == "uint8" and pre.crop < 1:
        warnings_.append(
            NamedWarning(
                "metadata-crop",
                f"TFLite metadata cannot say a crop of {pre.crop:g}: MediaPipe and the Task "
                "Library squeeze the whole image, the model sees other pixels there than in the "
                "evaluation, and the accuracy told here is not theirs",
                "crop each image before these take it, or export with --crop 1",
            )
        )
    if pre.channels != "rgb":
        warnings_.append(
            NamedWarning(
                "metadata-channels",
                f"TFLite metadata cannot say {pre.channels.upper()}: MediaPipe refuses the file",
                "feed it by a runtime of your own, or train for RGB",
            )
        )
    one = len(set(zip(pre.mean, pre.std, strict=True))) == 1
    if image.dtype == "float32" and not one:
        warnings_.append(
            NamedWarning(
                "metadata-normalization",
                "MediaPipe has one mean and one deviation for all channels: it refuses the file",
                "feed it by a runtime of your own, or put the normalization into the model",
            )
        )
    if image.dtype == "uint8" and not _codes_are_pixels(pre, image):
        warnings_.append(
            NamedWarning(
                "metadata-normalization",
                "MediaPipe and the Task Library feed pixel p of a uint8 input as code p, which is "
                "not this normalization: the model sees other pixels there than in the "
                "evaluation, and the accuracy told here is not theirs",
                "put the normalization into the model, or feed it by a runtime of your own",
            )
        )
    return tuple(warnings_)


def _codes_are_pixels(pre: Preprocessing, image: Tensor) -> bool:
    """Whether pixel p of every channel becomes code p."""
    row = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    x = preprocessing.prepare(row, dataclasses.replace(pre, crop=1.0), (1, 256))
    tensor = dataclasses.replace(image, shape=(1, *row.shape))
    return bool((preprocessing.to_input(x, tensor, "NHWC") == row).all())
