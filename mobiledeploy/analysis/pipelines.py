"""Identifies a foreign preprocessing by its tensors for known images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import preprocessing
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array, Pixels
from mobiledeploy.core.types import Layout, Preprocessing, Tensor

LEVELS = 255
MATCH = 1.0
"""A known pipeline explains the tensors if it is within one grey level on average: decoders and
resizers of other libraries round differently."""
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
_NONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# (input range, mean, std): the usual preprocessings of ImageNet models.
_SCALES = (
    ((0.0, 1.0), *_NONE),
    ((-1.0, 1.0), *_NONE),
    ((0.0, 255.0), *_NONE),
    ((0.0, 1.0), *_IMAGENET),
    ((0.0, 255.0), *_CAFFE),
)
_RESIZES = ("bilinear", "bicubic", "bilinear without antialiasing", "nearest neighbour")
_CROPS = (1.0, 0.875)
_OFFSETS = {
    0: "",
    1: "the zero point is left out",
    2: "codes are 128 too high, as if they were {other}",
    3: "codes are 128 too low, as if they were {other}",
}


@dataclass(frozen=True)
class PipelineDiagnosis(Record):
    """The result for a caller's tensors.

    `differences` explain them, in words, each with the value that the model needs; () if they are
    right. `error` is the unexplained rest and `error_as_wanted` the distance from correct tensors,
    both as mean grey levels (a 255th of the input range). `explained`: the error is small enough
    for a reliable result. `untold` are aspects that these images cannot show.
    """

    differences: tuple[str, ...]
    error: float
    error_as_wanted: float
    explained: bool
    untold: tuple[str, ...]


@dataclass(frozen=True)
class _Guess:
    """One way to prepare images."""

    scale: tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]]
    channels: str
    resize: str
    crop: float


def diagnose(
    images: Sequence[Pixels],
    tensors: Array,
    wanted: Preprocessing,
    resolution: tuple[int, int],
    tensor: Tensor,
    layout: Layout,
) -> PipelineDiagnosis:
    """Compares a caller's tensors with those of known pipelines for the same images.

    It tries every combination of the usual scales, channel orders, resize methods, crops and, for
    integers, offsets. It chooses the nearest, and among equally near ones the one with the fewest
    differences from `wanted`.

    Args:
        images: uint8 [H, W, 3] each, RGB.
        tensors: [N, height, width, 3] or [N, 3, height, width] from the caller's pipeline; floats,
            or integers for a model with integer input.
        wanted: what the model was trained with.
        resolution: (height, width) of the model's input.
        tensor: the model's input.
        layout: of the model's input.

    Raises:
        InputError: tensors of another count or shape, or not finite.
    """
    differences = []
    caller_tensors, found_layout = _as_nhwc(tensors, len(images), layout)
    if found_layout != layout:
        differences.append(f"the layout is {found_layout}, the model needs {layout}")
    if caller_tensors.shape[1:3] != tuple(resolution):
        height, width = caller_tensors.shape[1:3]
        size = f"{height}x{width}, the model needs {resolution[0]}x{resolution[1]}"
        return PipelineDiagnosis((*differences, f"the tensors are {size}"), 0.0, 0.0, True, ())
    own = _own(wanted)
    integers = np.dtype(tensor.dtype).kind in "iu"
    kind = caller_tensors.dtype.kind
    if integers and kind == "f":
        differences.append(
            f"the tensors are floats, the model takes {tensor.dtype}: "
            f"round(x / {tensor.scale[0]:.6g}) + {tensor.zero_point[0]}"
        )
    if not integers and kind != "f":
        differences.append(
            f"the tensors are {caller_tensors.dtype}, the model takes {tensor.dtype}"
        )
    is_coded = integers and kind != "f"
    values = caller_tensors.astype(np.float32)
    if is_coded:
        values = (values - tensor.zero_point[0]) * np.float32(tensor.scale[0])
    shifts = _shifts(tensor) if is_coded else {0: 0.0}
    level = _level(wanted)
    errors: dict[tuple[_Guess, int], float] = {}
    for guess, prepared in _prepared(images, wanted, resolution):
        if is_coded:
            prepared = _on_codes(prepared, tensor)
        for offset, shift in shifts.items():
            candidate = prepared if not shift else _on_codes(prepared + np.float32(shift), tensor)
            errors[guess, offset] = float(np.mean(np.abs(candidate - values))) / level
    as_wanted = errors[own, 0]
    least = min(errors.values())

    def strangeness(key: tuple[_Guess, int]) -> int:
        return len(_apart(key[0], own)) + bool(key[1])

    # As near as the nearest, within the rounding of another library.
    near = [key for key, error in errors.items() if error <= least + 0.02]
    best = min(near, key=lambda key: (strangeness(key), errors[key]))
    is_explained = errors[best] <= MATCH
    if is_explained:
        differences += _words(best[0], own)
        if best[1]:
            other = "int8" if tensor.dtype == "uint8" else "uint8"
            offset_text = _OFFSETS[best[1]].format(other=other)
            differences.append(f"{offset_text} (the model needs {tensor.zero_point[0]})")
    alike = [
        key for key, error in errors.items() if abs(error - errors[best]) <= 1e-6 and key != best
    ]
    one_off = [key[0] for key in alike if len(_apart(key[0], best[0])) == 1 and key[1] == best[1]]
    unknown_aspects = sorted({_apart(guess, best[0])[0] for guess in one_off})
    return PipelineDiagnosis(
        tuple(differences), errors[best], as_wanted, is_explained, tuple(unknown_aspects)
    )


def _as_nhwc(tensors: Array, count: int, layout: Layout) -> tuple[Array, Layout]:
    if tensors.ndim == 5 and tensors.shape[1] == 1:
        tensors = tensors[:, 0]
    if tensors.ndim != 4 or len(tensors) != count or 3 not in (tensors.shape[1], tensors.shape[3]):
        raise InputError(
            f"the pipeline made {list(tensors.shape)} of {count} golden images",
            f"[{count}, height, width, 3] or [{count}, 3, height, width] is needed, in their order",
        )
    if tensors.dtype.kind not in "fiu":
        raise InputError(f"the pipeline made {tensors.dtype}, neither floats nor integers")
    if not np.isfinite(tensors).all():
        raise InputError("the pipeline made NaN or infinity")
    last, second = tensors.shape[3] == 3, tensors.shape[1] == 3
    if last and not (second and layout == "NCHW"):
        return tensors, "NHWC"
    return tensors.transpose(0, 2, 3, 1), "NCHW"


def _own(wanted: Preprocessing) -> _Guess:
    scale = (wanted.input_range, wanted.mean, wanted.std)
    return _Guess(scale, wanted.channels, wanted.resize, wanted.crop)


def _level(wanted: Preprocessing) -> float:
    low, high = wanted.input_range
    return (high - low) / LEVELS / float(np.mean(wanted.std))


def _prepared(
    images: Sequence[Pixels], wanted: Preprocessing, resolution: tuple[int, int]
) -> Iterator[tuple[_Guess, NDArray[np.float32]]]:
    own = _own(wanted)
    scales = dict.fromkeys((own.scale, *_SCALES))
    crops = dict.fromkeys((own.crop, *_CROPS))
    for crop, resize in itertools.product(crops, _RESIZES):
        pixels = np.stack([_resize_pixels(p, crop, resize, resolution) for p in images])
        for channels, scale in itertools.product(("rgb", "bgr"), scales):
            how = replace(
                wanted,
                input_range=scale[0],
                mean=scale[1],
                std=scale[2],
                crop=1.0,
                channels="rgb" if channels == "rgb" else "bgr",
            )
            batch = np.stack([preprocessing.prepare(p, how, resolution) for p in pixels])
            yield _Guess(scale, channels, resize, crop), batch


def _resize_pixels(image: Pixels, crop: float, resize: str, resolution: tuple[int, int]) -> Pixels:
    """The image at the model's resolution, in levels from 0 to 255: uint8 [height, width, 3]."""
    if resize in ("bilinear", "bicubic"):
        plain = Preprocessing(
            (0.0, 255.0), crop=crop, resize="bilinear" if resize == "bilinear" else "bicubic"
        )
        pixels = preprocessing.prepare(image, plain, resolution)
    else:
        top, left = (int((side - side * crop) / 2) for side in image.shape[:2])
        region = image[top : image.shape[0] - top, left : image.shape[1] - left]
        pixels = _sample_pixels(region, resolution, nearest=resize == "nearest neighbour")
    return np.rint(pixels).astype(np.uint8)


def _sample_pixels(
    image: Pixels, resolution: tuple[int, int], *, nearest: bool
) -> NDArray[np.float32]:
    """Each pixel from the one or the four pixels around its centre, at any scale.

    As cv2.INTER_LINEAR, tf.image.resize and Android's Bitmap.createScaledBitmap do.
    """
    axes = []
    for size, old in zip(resolution, image.shape[:2], strict=True):
        at = (np.arange(size) + 0.5) * old / size - 0.5
        low = np.clip(np.floor(at + 0.5 if nearest else at), 0, old - 1).astype(int)
        share = np.zeros(size) if nearest else np.clip(at - low, 0, 1)
        axes.append((low, np.minimum(low + 1, old - 1), share.astype(np.float32)))
    (top, below, down), (left, right, across) = axes
    rows = image.astype(np.float32)
    rows = rows[top] * (1 - down)[:, None, None] + rows[below] * down[:, None, None]
    image_: NDArray[np.float32] = (
        rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None]
    )
    return image_


def _shifts(tensor: Tensor) -> dict[int, float]:
    """The shift of a tensor's real values by a wrong offset."""
    scale, zero = tensor.scale[0], tensor.zero_point[0]
    shifts = {0: 0.0, 1: -zero * scale, 2: 128 * scale, 3: -128 * scale}
    return {k: v for k, v in shifts.items() if k != 1 or zero}


def _on_codes(x: NDArray[np.float32], tensor: Tensor) -> NDArray[np.float32]:
    """The real values that codes represent.

    Codes are unlimited, since wrong ones may exceed int8.
    """
    codes = preprocessing.nearest_codes(x, tensor)
    return (codes - np.float32(tensor.zero_point[0])) * np.float32(tensor.scale[0])


def _apart(one: _Guess, other: _Guess) -> list[str]:
    names = {
        "scale": "input range",
        "channels": "channel order",
        "resize": "resize",
        "crop": "crop",
    }
    return [name for f, name in names.items() if getattr(one, f) != getattr(other, f)]


def _words(guess: _Guess, own: _Guess) -> list[str]:
    words = []
    if guess.scale != own.scale:
        words.append(f"pixels are {_scale(guess)}, the model needs {_scale(own)}")
    if guess.channels != own.channels:
        words.append(
            f"channels are {guess.channels.upper()}, the model needs {own.channels.upper()}"
        )
    if guess.resize != own.resize:
        words.append(f"the resize is {guess.resize}, the model needs {own.resize}")
    if guess.crop != own.crop:
        words.append(f"the central crop is {guess.crop:g}, the model needs {own.crop:g}")
    return words


def _scale(guess: _Guess) -> str:
    (low, high), mean, std = guess.scale
    text = f"[{low:g}, {high:g}]"
    if (mean, std) != _NONE:
        text += f" with mean {', '.join(f'{m:g}' for m in mean)} and std "
        text += ", ".join(f"{s:g}" for s in std)
    return text
