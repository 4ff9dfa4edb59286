"""Turns an image into a model's input, and a raw output into scores.

Calibration images, evaluation images, golden samples and the benchmark's input all go through these
functions: a model never gets two kinds of preprocessing.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import Array, Pixels
from mobiledeploy.core.types import Layout, Preprocessing, Tensor

# As a fraction of a step: the error of a half after float32 has scaled it.
_ABOUT_HALF = 1e-3
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def validate(preprocessing: Preprocessing) -> None:
    """UsageError naming the invalid field: an empty range, a deviation of 0, a crop of 0."""
    low, high = preprocessing.input_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"input range {low:g},{high:g} is not low,high", "for example -1,1")
    if not all(map(math.isfinite, preprocessing.mean)):
        raise UsageError(f"mean {preprocessing.mean} is not finite")
    if not all(math.isfinite(std) and std > 0 for std in preprocessing.std):
        raise UsageError(f"std {preprocessing.std} is not above 0")
    if not 0 < preprocessing.crop <= 1:
        raise UsageError(f"crop {preprocessing.crop:g} is not above 0 and at most 1")
    if preprocessing.resize not in _FILTERS:
        raise UsageError(f"resize {preprocessing.resize!r} is not {' or '.join(_FILTERS)}")
    if preprocessing.channels not in ("rgb", "bgr"):
        raise UsageError(f"channels {preprocessing.channels!r} are not rgb or bgr")


def prepare(
    image: Pixels, preprocessing: Preprocessing, resolution: tuple[int, int]
) -> NDArray[np.float32]:
    """An image as the model's input in real numbers.

    Args:
        image: uint8 [H, W, 3], RGB.
        preprocessing: its docstring gives the formula and the order of the steps.
        resolution: (height, width) of the model's input in pixels. The aspect ratio is not kept.

    Returns:
        float32 [height, width, 3].

    The crop starts at ``int((H - H * crop) / 2)``, as in `tf.image.central_crop`. Resizing is
    Pillow's, which widens its filter for smaller sizes (no aliasing) and rounds to whole pixel
    values; an image that has the resolution already is not resized.

    Raises:
        InputError: `image` is not uint8 [H, W, 3].
        UsageError: see `validate`.
    """
    validate(preprocessing)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"an image is {image.dtype} {list(image.shape)}, not uint8 [height, width, 3]"
        )
    top, left = (int((side - side * preprocessing.crop) / 2) for side in image.shape[:2])
    pixels = image[top : image.shape[0] - top, left : image.shape[1] - left]
    if pixels.shape[:2] != tuple(resolution):
        region = Image.fromarray(np.ascontiguousarray(pixels))
        size = (resolution[1], resolution[0])
        pixels = np.asarray(region.resize(size, _FILTERS[preprocessing.resize]))
    if preprocessing.channels == "bgr":
        pixels = pixels[..., ::-1]
    tables = _tables(preprocessing.input_range, preprocessing.mean, preprocessing.std)
    if (tables == tables[0]).all():
        return np.take(tables[0], pixels)
    return np.stack([tables[channel][pixels[..., channel]] for channel in range(3)], axis=-1)


def extent(preprocessing: Preprocessing) -> tuple[float, float]:
    """The smallest and the largest real value that a pixel of any channel can have."""
    tables = _tables(preprocessing.input_range, preprocessing.mean, preprocessing.std)
    return float(tables.min()), float(tables.max())


@functools.lru_cache(maxsize=8)
def _tables(
    input_range: tuple[float, float],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> NDArray[np.float32]:
    """[3, 256]: the real value of every pixel value per channel, rounded to float32 only once."""
    low, high = input_range
    values = low + np.arange(256) / 255 * (high - low)
    return np.stack([((values - m) / s).astype(np.float32) for m, s in zip(mean, std, strict=True)])


def to_input(x: NDArray[np.float32], tensor: Tensor, layout: Layout) -> Array:
    """The input tensor of a model file for one prepared image.

    Args:
        x: float32 [height, width, 3] from `prepare`.
        tensor: the model's input: its shape with a batch of 1, its dtype, scale and zero point.
        layout: NHWC or NCHW, the order of `tensor.shape`.

    Returns:
        Contiguous [1, height, width, 3] or [1, 3, height, width] of the tensor's dtype. For an
        integer tensor ``round(x / scale) + zero_point``, saturated. Halves round to even, as ONNX's
        QuantizeLinear requires and XNNPACK does: the model's own quantization of a float input
        gives the same codes. (TFLite's reference kernel rounds halves away from zero.) For a uint8
        tensor halves are rounded up: with a range of -1,1 every pixel lies between two codes, and
        other programs that feed such a tensor (MediaPipe) give pixel p the code p, the upper one.

    Raises:
        InputError: another shape, or an integer tensor without one scale and zero point.
    """
    batch = x[np.newaxis] if layout == "NHWC" else x.transpose(2, 0, 1)[np.newaxis]
    if batch.shape != tuple(tensor.shape):
        raise InputError(
            f"the model's input {tensor.name} is {list(tensor.shape)}, "
            f"the image makes {list(batch.shape)} ({layout})"
        )
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return np.ascontiguousarray(batch, dtype=dtype)
    limits = np.iinfo(dtype)
    codes = nearest_codes(batch, tensor).clip(limits.min, limits.max)
    return np.ascontiguousarray(codes.astype(dtype))


def nearest_codes(x: NDArray[np.float32], tensor: Tensor) -> NDArray[np.float32]:
    """The codes of real values, rounded as in `to_input` but not saturated.

    InputError for a tensor without one scale and zero point.
    """
    scale, zero_point = _per_tensor(tensor)
    codes: NDArray[np.float32]
    if tensor.dtype == "uint8":
        codes = np.floor(x / scale + np.float32(0.5 + _ABOUT_HALF)) + np.float32(zero_point)
    else:
        codes = np.rint(x / scale) + np.float32(zero_point)
    return codes


def from_output(raw: Array, tensor: Tensor) -> NDArray[np.float32]:
    """Real-valued scores from the raw output of a model file.

    Args:
        raw: [1, classes], or with more axes of length 1, as the runtime returned it.
        tensor: the model's output: its dtype, scale and zero point.

    Returns:
        float32 [classes]: ``scale * (raw - zero_point)`` for an integer tensor.

    Raises:
        InputError: more than one axis is longer than 1, or an integer tensor without one scale
            and zero point.
    """
    if raw.size == 0 or raw.size != max(raw.shape, default=1):
        raise InputError(f"the model's output {tensor.name} is {list(raw.shape)}, not [1, classes]")
    row = raw.reshape(-1)
    if np.dtype(tensor.dtype).kind == "f":
        return row.astype(np.float32)
    scale, zero_point = _per_tensor(tensor)
    return (row.astype(np.int32) - zero_point).astype(np.float32) * scale


def _per_tensor(tensor: Tensor) -> tuple[np.float32, int]:
    if np.dtype(tensor.dtype).kind not in "iu":
        raise InputError(f"tensor {tensor.name} is {tensor.dtype}, neither float nor integer")
    if len(tensor.scale) != 1 or len(tensor.zero_point) != 1 or not tensor.scale[0] > 0:
        raise InputError(
            f"tensor {tensor.name} is {tensor.dtype} without one scale and one zero point",
            "its real values cannot be computed",
        )
    return np.float32(tensor.scale[0]), tensor.zero_point[0]
