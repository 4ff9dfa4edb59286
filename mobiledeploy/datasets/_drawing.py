"""What the built-in data sets draw with: random numbers, outlines of plane shapes, scenes, pixels.

A scene is laid out in unit coordinates, so an index shows the same scene at every resolution; in an
image that is not square the unit square is centred and the background runs on to both sides.

Only the raw stream of numpy's PCG64 is used, which numpy keeps fixed over versions and
platforms (NEP 19); its distributions carry no such promise.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.ports import Array, Pixels
from mobiledeploy.core.types import ModelInput

CLASSES = (
    "disc",
    "ring",
    "crescent",
    "triangle",
    "square",
    "pentagon",
    "hexagon",
    "star",
    "hexagram",
    "cross",
    "arrow",
    "heart",
)
"""Names of the shapes in label order. Each is its own mirror image, so flips keep the label."""

SPLITS = {"train": 20_000, "calibration": 200, "validation": 1_000, "test": 2_000}
"""Splits and their sizes in images; no two splits share a seed."""

LEVELS = 10
"""Levels of hardness, from large bare shapes to small ones in clutter; all are as frequent."""

SENSOR = 192
"""Cells per unit of the sensor whose noise is laid over an image."""

Point = tuple[float, float]
Colour = tuple[float, float, float]


class Dice:
    """Random numbers of one image, in the order in which its scene asks for them."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))
        self._pool = self._bits.random_raw(256).tolist()[::-1]

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        if not self._pool:
            self._pool = self._bits.random_raw(256).tolist()[::-1]
        return low + (high - low) * ((int(self._pool.pop()) >> 11) * 2.0**-53)

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return self.uniform() < probability

    def count(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + int(self.uniform() * (high - low + 1))

    def field(self, rows: int, columns: int) -> NDArray[np.float32]:
        """Nearly normal noise [rows, columns], mean 0, deviation 1: sums of four bytes."""
        size = rows * columns
        raw = np.asarray(self._bits.random_raw((size + 1) // 2), dtype="<u8")
        parts = raw.view(np.uint8)[: size * 4].reshape(size, 4)
        sums = parts[:, 0].astype(np.int16)
        for column in range(1, 4):
            sums += parts[:, column]
        # Four uniform bytes: mean 4 * 127.5, variance 4 * (256**2 - 1) / 12.
        deviation = math.sqrt((256**2 - 1) / 3)
        noise = (sums.astype(np.float32) - np.float32(510.0)) * np.float32(1.0 / deviation)
        return noise.reshape(rows, columns)


# --- outlines: closed polygons about the origin, within radius 1 -------------------------


def _arc(radius: float, start: float, stop: float, points: int, x: float = 0.0) -> list[Point]:
    """Points on an arc about (x, 0), both ends included; angles in radians."""
    step = (stop - start) / (points - 1)
    return [
        (x + radius * math.cos(start + step * k), radius * math.sin(start + step * k))
        for k in range(points)
    ]


def _regular(corners: int) -> Callable[[Dice], list[Point]]:
    def outline(dice: Dice) -> list[Point]:
        wobble = [1.0 + dice.uniform(-0.04, 0.04) for _ in range(corners)]
        turn = 2.0 * math.pi / corners
        return [(r * math.cos(turn * k), r * math.sin(turn * k)) for k, r in enumerate(wobble)]

    return outline


def _pointed(points: int, low: float, high: float) -> Callable[[Dice], list[Point]]:
    def outline(dice: Dice) -> list[Point]:
        inner = dice.uniform(low, high)
        turn = math.pi / points
        return [
            (r * math.cos(turn * k), r * math.sin(turn * k))
            for k in range(2 * points)
            for r in (inner if k % 2 else 1.0,)
        ]

    return outline


def _disc(dice: Dice) -> list[Point]:
    return _arc(1.0, 0.0, 2.0 * math.pi, 49)


def _ring(dice: Dice) -> list[Point]:
    # One closed line: round the rim, across the band, back round the hole.
    hole = dice.uniform(0.4, 0.7)
    return _arc(1.0, 0.0, 2.0 * math.pi, 49) + _arc(hole, 2.0 * math.pi, 0.0, 37)


def _crescent(dice: Dice) -> list[Point]:
    # A disc less a disc of radius `bite` about (shift, 0); they meet at (x, +-y).
    shift = dice.uniform(0.4, 0.6)
    bite = dice.uniform(0.72, 0.85)
    x = (1.0 - bite**2 + shift**2) / (2.0 * shift)
    outer = math.acos(x)
    inner = math.acos((x - shift) / bite)
    rim = _arc(1.0, outer, 2.0 * math.pi - outer, 41)
    return rim + _arc(bite, 2.0 * math.pi - inner, inner, 33, x=shift)


def _cross(dice: Dice) -> list[Point]:
    arm = dice.uniform(0.22, 0.36)
    corner = [(1.0, -arm), (1.0, arm), (arm, arm)]
    quarters = [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)]
    return [(a * x + b * y, c * x + d * y) for a, b, c, d in quarters for x, y in corner]


def _arrow(dice: Dice) -> list[Point]:
    neck = dice.uniform(-0.05, 0.3)
    shaft = dice.uniform(0.16, 0.32)
    head = dice.uniform(0.62, 0.85)
    half = [(1.0, 0.0), (neck, head), (neck, shaft), (-1.0, shaft)]
    return half + [(x, -y) for x, y in reversed(half[1:])]


def _heart(dice: Dice) -> list[Point]:
    # x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled into the disc.
    notch = dice.uniform(4.5, 6.0)
    points = []
    for k in range(48):
        t = 2.0 * math.pi * k / 48
        x = 16.0 * math.sin(t) ** 3
        y = 13.0 * math.cos(t) - notch * math.cos(2 * t) - 2.0 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16.0, (y + 2.5) / 16.0))
    return points


OUTLINES: dict[str, Callable[[Dice], list[Point]]] = {
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "triangle": _regular(3),
    "square": _regular(4),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "star": _pointed(5, 0.4, 0.55),
    "hexagram": _pointed(6, 0.5, 0.62),
    "cross": _cross,
    "arrow": _arrow,
    "heart": _heart,
}


def placed(points: Sequence[Point], dice: Dice, centre: Point, radius: float) -> list[Point]:
    """The outline turned, seen a little from the side, turned again, and put in its place."""
    squeeze = dice.uniform(0.72, 1.0)
    first = dice.uniform(0.0, 2.0 * math.pi)
    second = dice.uniform(0.0, 2.0 * math.pi)
    c1, s1, c2, s2 = math.cos(first), math.sin(first), math.cos(second), math.sin(second)
    out = []
    for x, y in points:
        u, v = c1 * x - s1 * y, squeeze * (s1 * x + c1 * y)
        out.append((centre[0] + radius * (c2 * u - s2 * v), centre[1] + radius * (s2 * u + c2 * v)))
    return out


def _blob(dice: Dice, centre: Point, radius: float) -> list[Point]:
    """A lobed closed curve that is no member of any class."""
    lobes = [(k, dice.uniform(0.1, 0.3) / (k - 1), dice.uniform(0.0, 6.3)) for k in (2, 3, 4)]
    out = []
    for step in range(32):
        t = 2.0 * math.pi * step / 32
        r = radius * (1.0 + sum(a * math.sin(k * t + phase) for k, a, phase in lobes))
        out.append((centre[0] + r * math.cos(t), centre[1] + r * math.sin(t)))
    return out


def _stroke(dice: Dice, centre: Point, length: float, width: float) -> list[Point]:
    """A bent band of the given length and width, as a closed polygon."""
    angle = dice.uniform(0.0, 2.0 * math.pi)
    bend = dice.uniform(-1.6, 1.6)
    left: list[Point] = []
    right: list[Point] = []
    x, y = centre
    x -= 0.5 * length * math.cos(angle)
    y -= 0.5 * length * math.sin(angle)
    steps = 10
    for k in range(steps + 1):
        heading = angle + bend * (k / steps - 0.5)
        nx, ny = -math.sin(heading), math.cos(heading)
        left.append((x + 0.5 * width * nx, y + 0.5 * width * ny))
        right.append((x - 0.5 * width * nx, y - 0.5 * width * ny))
        x += length / steps * math.cos(heading)
        y += length / steps * math.sin(heading)
    return left + right[::-1]


# --- scenes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What an image shows, in unit coordinates and colours in [0, 1]."""

    backdrop: NDArray[np.uint8]
    """[g, g, 3]: a coarse grid of colours, spread smoothly over the image."""
    paint: tuple[tuple[Colour, tuple[Point, ...]], ...]
    """Polygons from the back to the front."""
    light: NDArray[np.float32]
    """[3, 3]: a factor on the brightness, spread smoothly over the image."""
    blur: float
    """Deviation of the blur as a share of the shorter side."""
    noise: NDArray[np.float32]
    """[SENSOR, SENSOR], in units of full scale."""


def hardness(index: int) -> int:
    """Level of an image, from 0 to `LEVELS` - 1; any run of images has all levels alike."""
    return index // len(CLASSES) % LEVELS


def random_colour(dice: Dice) -> Colour:
    return dice.uniform(0.05, 0.95), dice.uniform(0.05, 0.95), dice.uniform(0.05, 0.95)


def colour_apart(dice: Dice, base: Colour, distance: float) -> Colour:
    """A colour at the given Euclidean distance (in RGB) from `base`, as near as [0, 1] allows."""
    parts = [dice.uniform(-1.0, 1.0) for _ in range(3)]
    norm = math.sqrt(sum(p * p for p in parts)) or 1.0
    channels = []
    for value, part in zip(base, parts, strict=True):
        step = distance * part / norm
        # A channel that would leave the range goes the other way and keeps its contrast.
        channels.append(value + step if 0.0 <= value + step <= 1.0 else value - step)
    red, green, blue = (min(1.0, max(0.0, value)) for value in channels)
    return red, green, blue


def backdrop_of(dice: Dice, base: Colour, contrast: float, hard: float) -> NDArray[np.uint8]:
    """A coarse grid [g, g, 3] of colours about `base`; rougher where the image is `hard`."""
    cells = dice.count(3, 24)
    rough = hard * dice.uniform(0.0, 0.5) * contrast / math.sqrt(3.0)
    shade = dice.field(cells, cells)[:, :, None] + 0.5 * dice.field(cells, cells * 3).reshape(
        cells, cells, 3
    )
    grid = np.asarray(base, dtype=np.float32) + np.float32(rough) * shade
    backdrop: NDArray[np.uint8] = np.rint(np.clip(grid, 0.0, 1.0) * 255.0).astype(np.uint8)
    return backdrop


def clutter(dice: Dice, at: Point, size: float) -> tuple[Point, ...]:
    """The outline of a stroke or a blob, neither a member of any class."""
    if dice.chance(0.6):
        width = size * dice.uniform(0.12, 0.35)
        return tuple(_stroke(dice, at, size * dice.uniform(1.5, 4.0), width))
    return tuple(_blob(dice, at, size * dice.uniform(0.25, 0.6)))


def lit(
    dice: Dice,
    backdrop: NDArray[np.uint8],
    paint: Sequence[tuple[Colour, tuple[Point, ...]]],
    contrast: float,
    hard: float,
) -> Scene:
    """The scene of a backdrop and polygons, with its light, its blur and its noise."""
    light = np.float32(1.0) + np.float32(hard * dice.uniform(0.0, 0.15)) * dice.field(3, 3)
    blur = dice.uniform(0.0, 0.012) if dice.chance(0.6 * hard) else 0.0
    # Low contrast comes with little noise, or nothing of the object would be left.
    deviation = hard * dice.uniform(0.0, 0.3) * min(contrast, 0.4)
    noise = np.float32(deviation) * dice.field(SENSOR, SENSOR)
    return Scene(backdrop, tuple(paint), light, blur, noise)


# --- pixels -------------------------------------------------------------------------------


def _spread(field: NDArray[np.float32], resolution: tuple[int, int]) -> NDArray[np.float32]:
    """A square field over the unit square, mirrored on to the sides of a longer image."""
    height, width = resolution
    side = min(height, width)
    image = Image.fromarray(field).resize((side, side), Image.Resampling.BILINEAR)
    return np.pad(np.asarray(image), _margins(resolution), mode="symmetric")


def _margins(resolution: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns outside of the centred unit square, before and after it."""
    height, width = resolution
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return (top, height - side - top), (left, width - side - left)


def render(scene: Scene, resolution: tuple[int, int]) -> NDArray[np.uint8]:
    """The scene as uint8 RGB [H, W, 3]."""
    height, width = resolution
    side = min(height, width)
    (top, _), (left, _) = _margins(resolution)
    # Drawn larger and averaged down, which smooths the edges.
    factor = 3 if side <= 128 else 2

    backdrop = Image.fromarray(scene.backdrop)
    if width == height:
        canvas = backdrop.resize((width * factor, height * factor), Image.Resampling.BILINEAR)
    else:
        square = backdrop.resize((side * factor, side * factor), Image.Resampling.BILINEAR)
        pads = [(before * factor, after * factor) for before, after in _margins(resolution)]
        canvas = Image.fromarray(np.pad(np.asarray(square), [*pads, (0, 0)], mode="symmetric"))

    draw = ImageDraw.Draw(canvas)
    # Pillow's integer coordinates are pixel centres: hence the half.
    dx, dy, scale = left * factor - 0.5, top * factor - 0.5, side * factor
    for colour, outline in scene.paint:
        red, green, blue = (round(255.0 * value) for value in colour)
        draw.polygon(
            [(x * scale + dx, y * scale + dy) for x, y in outline], fill=(red, green, blue)
        )
    image = canvas.reduce(factor)
    if scene.blur > 0.0:
        image = image.filter(ImageFilter.GaussianBlur(scene.blur * side))

    pixels = np.asarray(image).astype(np.float32)
    pixels *= _spread(scene.light, resolution)[:, :, None]
    pixels += (_spread(scene.noise, resolution) * np.float32(255.0))[:, :, None]
    np.rint(pixels, out=pixels)
    np.clip(pixels, 0.0, 255.0, out=pixels)
    return pixels.astype(np.uint8)


def values_at(
    scene: Scene, values: Sequence[int], resolution: tuple[int, int]
) -> NDArray[np.uint8]:
    """[H, W]: of each pixel the value of the polygon that its centre shows; 0 for the backdrop.

    `values` are those of the scene's polygons.
    """
    height, width = resolution
    side = min(height, width)
    (top, _), (left, _) = _margins(resolution)
    # An odd factor has a point in the middle of each pixel.
    factor = 3
    canvas = Image.new("L", (width * factor, height * factor))
    draw = ImageDraw.Draw(canvas)
    dx, dy, scale = left * factor - 0.5, top * factor - 0.5, side * factor
    for (_, outline), value in zip(scene.paint, values, strict=True):
        draw.polygon([(x * scale + dx, y * scale + dy) for x, y in outline], fill=value)
    return np.array(canvas)[factor // 2 :: factor, factor // 2 :: factor]


def box_at(
    outline: Sequence[Point], resolution: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an outline in fractions of the image, clipped to it."""
    height, width = resolution
    side = min(height, width)
    (top, _), (left, _) = _margins(resolution)
    across = [(left + x * side) / width for x, _ in outline]
    down = [(top + y * side) / height for _, y in outline]
    ends = (min(across), min(down), max(across), max(down))
    x1, y1, x2, y2 = (min(max(end, 0.0), 1.0) for end in ends)
    return x1, y1, x2, y2


# --- the data sets ------------------------------------------------------------------------


class DrawnSamples(ABC):
    """One split at one resolution; images are drawn when asked for.

    Attributes:
        source: the word of `--data`.
        split: one of `SPLITS`.
        classes: class names in label order.
        resolution: (height, width) in pixels.
        identity: sha256 (hex) of all that the images depend on.
    """

    def __init__(
        self,
        source: str,
        split: str,
        resolution: tuple[int, int],
        classes: tuple[str, ...],
        kind: str,
    ) -> None:
        self.source = source
        self.split = split
        self.classes = classes
        self.resolution = resolution
        height, width = resolution
        facts = f"{kind} {split} {len(self)} {height}x{width} {','.join(classes)}"
        self.identity = hashlib.sha256(facts.encode()).hexdigest()

    @abstractmethod
    def scene(self, index: int) -> Scene:
        """What the image shows."""

    def __len__(self) -> int:
        return SPLITS[self.split]

    def id(self, index: int) -> str:
        """Name of a sample, such as "validation/00017"."""
        return f"{self.split}/{self.checked(index):05d}"

    def array(self, index: int, end: ModelInput) -> Array:
        """Another drawn image, or noise of -1 to 1 for a tensor: enough to run a model."""
        number = self.checked(index)
        seed = f"{self.split} {number} {end.name}".encode()
        if end.kind == "image":
            scene = self.scene((number + zlib.crc32(seed)) % len(self))
            return render(scene, (end.shape[0], end.shape[1]))
        noise = np.random.Generator(np.random.PCG64(zlib.crc32(seed)))
        return noise.uniform(-1, 1, end.shape).astype(np.float32)

    def image(self, index: int) -> Pixels:
        """The image, uint8 RGB [H, W, 3]."""
        return render(self.scene(self.checked(index)), self.resolution)

    def checked(self, index: int) -> int:
        """The index; IndexError outside of the split."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.split}")
        return index


def checked_split(split: str) -> str:
    """The split of that name, `held` is validation; UsageError where there is none."""
    if split == "held":
        split = "validation"
    if split not in SPLITS:
        raise UsageError(f"the demo data has no split {split!r}", f"it has {', '.join(SPLITS)}")
    return split
