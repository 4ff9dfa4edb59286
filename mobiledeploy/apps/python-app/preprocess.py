"""An image as the model's input, exactly as at its training and calibration (contract.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def read(path: Path) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: upright by its EXIF, laid on white where it is transparent."""
    with Image.open(path) as file:
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return np.array(image.convert("RGB"))


def prepare(image: NDArray[np.uint8], contract: dict[str, Any]) -> NDArray[Any]:
    """The input tensor of the model for an image [H, W, 3], RGB."""
    return tensor(pixels(image, contract), contract)


def pixels(image: NDArray[np.uint8], contract: dict[str, Any]) -> NDArray[np.uint8]:
    """[height, width, channels]: what the model sees of an image [H, W, 3], RGB."""
    how, (height, width, _) = contract["image"]["preprocessing"], contract["image"]["shape"]
    return resize(crop(image, how["crop"]), (height, width), how)


def tensor(pixels: NDArray[np.uint8], contract: dict[str, Any]) -> NDArray[Any]:
    """The input tensor of the model for the pixels that it sees."""
    tables = codes(real_values(contract["image"]["preprocessing"]), contract["input"])
    values = np.stack([tables[c][pixels[..., c]] for c in range(pixels.shape[-1])], axis=-1)
    if contract["layout"] == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[np.newaxis])


def crop(image: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """The centre of an image: `share` of each side."""
    height, width = image.shape[:2]
    top, left = int((height - height * share) / 2), int((width - width * share) / 2)
    return np.ascontiguousarray(image[top : height - top, left : width - left])


def resize(
    image: NDArray[np.uint8], size: tuple[int, int], how: dict[str, Any]
) -> NDArray[np.uint8]:
    """[height, width, channels]: the channels in the model's order, or one of a gray image."""
    gray = how["channels"] == "gray"
    whole = Image.fromarray(image)
    whole = whole.convert("L") if gray else whole
    if image.shape[:2] != size:
        # Pillow widens its filter for smaller sizes, so that nothing aliases.
        whole = whole.resize((size[1], size[0]), FILTERS[how["resize"]])
    pixels = np.asarray(whole)
    if gray:
        return pixels[..., np.newaxis]
    return pixels[..., ::-1] if how["channels"] == "bgr" else pixels


def real_values(how: dict[str, Any]) -> NDArray[np.float32]:
    """[3, 256]: the real value of each pixel value, for each channel of the model."""
    low, high = how["input_range"]
    values = low + np.arange(256) / 255 * (high - low)
    rows = [(values - mean) / std for mean, std in zip(how["mean"], how["std"], strict=True)]
    return np.array(rows, np.float32)


def codes(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    """Real values as the numbers of the input tensor: codes of an integer one."""
    dtype = np.dtype(tensor["dtype"])
    if dtype.kind == "f":
        return values.astype(dtype)
    steps = values / np.float32(tensor["scale"][0])
    # Halves of uint8 round up, a little below a half too: pixel p has the code p then.
    rounded = np.floor(steps + np.float32(0.501)) if dtype == np.uint8 else np.rint(steps)
    limits = np.iinfo(dtype)
    whole = np.clip(rounded + tensor["zero_point"][0], limits.min, limits.max)
    return np.asarray(whole, dtype)
