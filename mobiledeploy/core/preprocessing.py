"""Turns samples into a model's inputs, and its raw outputs into real values.

Calibration images, evaluation images, golden samples and the benchmark's input all go through these
functions: a model never gets two kinds of preprocessing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.pixels import PixelCache
from mobiledeploy.core.ports import Array, Pixels, Samples
from mobiledeploy.core.samples import AbsentArray
from mobiledeploy.core.types import Layout, ModelInput, Preprocessing, Tensor

ONLY_INPUT = "images"
"""What data may call the only input of a model, whatever the model calls it."""

# As a fraction of a step: the error of a half after float32 has scaled it.
_ABOUT_HALF = 1e-3
_IMAGE_AXES = 3
_WIDEST_CODE = 2
"""Bytes of the widest integer that stands for a real number by its scale."""
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
    if preprocessing.channels not in ("rgb", "bgr", "gray"):
        raise UsageError(f"channels {preprocessing.channels!r} are not rgb, bgr or gray")


def prepare(
    image: Pixels, preprocessing: Preprocessing, resolution: tuple[int, int]
) -> NDArray[np.float32]:
    """An image as the model's input in real numbers: `resized`, then `real_values`.

    Args:
        image: uint8 [H, W, 3], RGB.
        preprocessing: its docstring gives the formula and the order of the steps.
        resolution: (height, width) of the model's input in pixels. The aspect ratio is not kept.

    Returns:
        float32 [height, width, 3], or [height, width, 1] for channels `gray`.

    Raises:
        InputError: `image` is not uint8 [H, W, 3].
        UsageError: see `validate`.
    """
    return real_values(resized(image, preprocessing, resolution), preprocessing)


def resized(
    image: Pixels, preprocessing: Preprocessing, resolution: tuple[int, int]
) -> NDArray[np.uint8]:
    """The pixels that a model sees: cropped, resized, with its channels.

    Returns:
        uint8 [height, width, 3], or [height, width] for channels `gray`.

    The crop is that of `crop_margins`. Resizing is Pillow's, which widens its filter for smaller
    sizes (no aliasing) and rounds to whole pixel values; an image that has the resolution already
    is not resized.

    Raises:
        InputError: `image` is not uint8 [H, W, 3].
        UsageError: see `validate`.
    """
    validate(preprocessing)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"an image is {image.dtype} {list(image.shape)}, not uint8 [height, width, 3]"
        )
    height, width = image.shape[:2]
    top, left = crop_margins((height, width), preprocessing.crop)
    pixels = image[top : height - top, left : width - left]
    if preprocessing.channels == "gray":
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    if pixels.shape[:2] != tuple(resolution):
        region = Image.fromarray(np.ascontiguousarray(pixels))
        size = (resolution[1], resolution[0])
        pixels = np.asarray(region.resize(size, _FILTERS[preprocessing.resize]))
    if preprocessing.channels == "bgr":
        pixels = pixels[..., ::-1]
    return pixels


def real_values(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """`resized` pixels as real numbers, float32 [height, width, channels].

    UsageError as of `validate`: the pixels may be of a cache.
    """
    validate(preprocessing)
    tables = _tables(preprocessing.input_range, preprocessing.mean, preprocessing.std)
    if preprocessing.channels == "gray":
        gray: NDArray[np.float32] = np.take(tables[0], pixels)[..., np.newaxis]
        return gray
    if (tables == tables[0]).all():
        return np.take(tables[0], pixels)
    return np.stack([tables[channel][pixels[..., channel]] for channel in range(3)], axis=-1)


def crop_margins(size: tuple[int, int], crop: float) -> tuple[int, int]:
    """The pixels that a central crop cuts off above and below, and those at the left and right.

    ``int((H - H * crop) / 2)`` for `size` = (H, W), as in `tf.image.central_crop`.
    """
    height, width = size
    return int((height - height * crop) / 2), int((width - width * crop) / 2)


def sample_inputs(
    samples: Samples,
    index: int,
    signature: Sequence[ModelInput],
    cache: PixelCache | None = None,
) -> list[NDArray[np.float32]]:
    """The inputs of a model for one sample, in real numbers, each of the shape of its signature.

    The only image of a model is the sample's image, whatever its name; another input is the array
    of its name. If a model's only input is a tensor and no array has its name, it is `images`.
    Pixels are taken from the `cache`, or kept there.

    Raises:
        BrokenImage: an image cannot be read.
        InputError: the data has no array for an input, or one of another shape.
    """
    images = sum(end.kind == "image" for end in signature)
    inputs = []
    for end in signature:
        if end.kind == "image":
            assert end.preprocessing is not None
            pixels = cache.get(index, end) if cache else None
            if pixels is None:
                image = samples.image(index) if images == 1 else samples.array(index, end)
                height, width = end.shape[:2]
                pixels = resized(image, end.preprocessing, (height, width))
                if cache:
                    cache.put(index, end, pixels)
            inputs.append(real_values(pixels, end.preprocessing))
            continue
        values = sample_array(samples, index, end, len(signature))
        if values.shape != end.shape:
            raise InputError(
                f"{samples.source} has {list(values.shape)} as {end.name}, "
                f"the model takes {list(end.shape)}"
            )
        inputs.append(values.astype(np.float32))
    return inputs


def sample_array(samples: Samples, index: int, end: ModelInput, inputs: int) -> Array:
    """The array of an input that is no image, of a model with so many `inputs`.

    See `sample_inputs` for its name and the errors.
    """
    try:
        return samples.array(index, end)
    except AbsentArray as error:
        if inputs > 1:
            raise
        try:
            return samples.array(index, replace(end, name=ONLY_INPUT))
        except AbsentArray:
            raise error from None


def extent(preprocessing: Preprocessing) -> tuple[float, float]:
    """The smallest and the largest real value that a pixel of any channel can have."""
    tables = _tables(preprocessing.input_range, preprocessing.mean, preprocessing.std)
    if preprocessing.channels == "gray":
        tables = tables[:1]
    return float(tables.min()), float(tables.max())


def scaling(preprocessing: Preprocessing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(factors, offsets), [C] each: pixel p of a channel becomes ``factor * p + offset``."""
    channels = 1 if preprocessing.channels == "gray" else 3
    low, high = preprocessing.input_range
    mean, std = (np.array(x[:channels]) for x in (preprocessing.mean, preprocessing.std))
    return (high - low) / 255 / std, (low - mean) / std


def on_codes(preprocessing: Preprocessing) -> Preprocessing | None:
    """The preprocessing by which pixel p of every channel has the int8 code p - 128, exactly.

    It is ``(p - mean) / std`` of pixels 0..255, with a whole `mean` and one `std` for all channels:
    the `mean` is the pixel nearest to the value 0 (the lower one of two), and `std` keeps the unit
    (of several channels the average). A range of -1,1 gives mean 127 and std 127.5.

    Returns:
        None if each pixel of `preprocessing` has a code of its own already.
    """
    factors, offsets = scaling(preprocessing)
    zeros = -offsets / factors
    nearest = min(max(math.ceil(float(zeros.mean()) - 0.5 - _ABOUT_HALF), 0), 255)
    if np.allclose(factors, factors[0], rtol=1e-6) and np.allclose(zeros, nearest, atol=0.01):
        return None
    std = float(np.mean(1 / factors))
    return replace(
        preprocessing, input_range=(0.0, 255.0), mean=(float(nearest),) * 3, std=(std,) * 3
    )


def between(
    one: Preprocessing, other: Preprocessing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(ratio, change), [C] each: what `one` gives is ``ratio * y + change`` of `other`'s y."""
    (factors, offsets), (other_factors, other_offsets) = scaling(one), scaling(other)
    ratio = factors / other_factors
    return ratio, offsets - ratio * other_offsets


def alike(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether two files of one model may state these: they are equal, or one is `on_codes`."""
    return one == other or on_codes(one) == other or on_codes(other) == one


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
    """The input tensor of a model file for one prepared image, or another input's real values.

    Args:
        x: float32 [height, width, channels] from `prepare`, or of any other shape.
        tensor: the model's input: its shape with a batch of 1, its dtype, scale and zero point.
        layout: NHWC or NCHW, the order of the axes of tensors that have four.

    Returns:
        Contiguous [1, height, width, channels] or [1, channels, height, width] of the tensor's
        dtype, or [1, ...]. For an integer tensor with a scale ``round(x / scale) + zero_point``,
        saturated. Halves round to even, as ONNX's
        QuantizeLinear requires and XNNPACK does: the model's own quantization of a float input
        gives the same codes. (TFLite's reference kernel rounds halves away from zero.) For a uint8
        tensor halves are rounded up: with a range of -1,1 every pixel lies between two codes, and
        other programs that feed such a tensor (MediaPipe) give pixel p the code p, the upper one.

    Raises:
        InputError: another shape, or an integer tensor of 8 or 16 bits without one scale and zero
            point.
    """
    is_first = layout == "NCHW" and x.ndim == _IMAGE_AXES
    batch = x.transpose(2, 0, 1)[np.newaxis] if is_first else x[np.newaxis]
    if batch.shape != tuple(tensor.shape):
        raise InputError(
            f"the model's input {tensor.name} is {list(tensor.shape)}, "
            f"the image makes {list(batch.shape)} ({layout})"
        )
    dtype = np.dtype(tensor.dtype)
    if _is_plain(tensor):
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


def from_output(raw: Array, tensor: Tensor, layout: Layout = "NHWC") -> NDArray[np.float32]:
    """The real values of a raw output of a model file.

    Args:
        raw: [1, ...], as the runtime returned it.
        tensor: the model's output: its dtype, scale and zero point.
        layout: NHWC or NCHW, the order of the axes of an output that has four.

    Returns:
        float32 without the batch, channels last: ``scale * (raw - zero_point)`` for an integer
        tensor.

    Raises:
        InputError: no batch of 1, or an integer tensor of 8 or 16 bits without one scale and zero
            point.
    """
    if raw.size == 0 or raw.ndim == 0 or raw.shape[0] != 1:
        raise InputError(f"the model's output {tensor.name} is {list(raw.shape)}, not [1, ...]")
    values = raw[0]
    if layout == "NCHW" and values.ndim == _IMAGE_AXES:
        values = values.transpose(1, 2, 0)
    if _is_plain(tensor):
        return np.asarray(values, np.float32)
    scale, zero_point = _per_tensor(tensor)
    real: NDArray[np.float32] = (values.astype(np.int32) - zero_point).astype(np.float32) * scale
    return real


def _is_plain(tensor: Tensor) -> bool:
    """Whether the tensor holds its values themselves: floats, indices, bool."""
    dtype = np.dtype(tensor.dtype)
    return dtype.kind in "fb" or (dtype.itemsize > _WIDEST_CODE and not tensor.scale)


def _per_tensor(tensor: Tensor) -> tuple[np.float32, int]:
    if np.dtype(tensor.dtype).kind not in "iu":
        raise InputError(f"tensor {tensor.name} is {tensor.dtype}, neither float nor integer")
    if len(tensor.scale) != 1 or len(tensor.zero_point) != 1 or not tensor.scale[0] > 0:
        raise InputError(
            f"tensor {tensor.name} is {tensor.dtype} without one scale and one zero point",
            "its real values cannot be computed",
        )
    return np.float32(tensor.scale[0]), tensor.zero_point[0]
