"""The built-in data sets of detectors and of segmentation: procedural images of plane shapes.

An image shows from one to seven shapes of the classes of `shapes`, and is hard by the same means:
any rotation, small objects, oblique views, clutter that belongs to no class, low contrast, blur
and sensor noise. Shapes may hide a part of one another. Every image is a pure function of (split,
index, resolution, `VERSION`).

The images are the same in both data sets. `demo-boxes` has the box of each shape, also of what
something in front of it hides. `demo-masks` has the class of each pixel; what shows no shape is the
class `background`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from mobiledeploy.analysis import masks
from mobiledeploy.core.types import Annotation
from mobiledeploy.datasets import _drawing
from mobiledeploy.datasets._drawing import Colour, Dice, Point, Scene, clutter, colour_apart

VERSION = 1
"""Part of every seed and of every identity: a change of the images raises it."""

BOXES, MASKS = "demo-boxes", "demo-masks"
SHAPES = _drawing.CLASSES
CLASSES = {BOXES: SHAPES, MASKS: ("background", *SHAPES)}
SPLITS = _drawing.SPLITS

_SCENES = 1
"""The last part of every seed, so that no scene has the random numbers of one of `shapes`."""
_TRIES = 20


@dataclass(frozen=True)
class Layout:
    """A scene, and the place in `SHAPES` of each of its polygons; -1 for clutter."""

    scene: Scene
    shapes: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """A disc that an object fills."""

    centre: Point
    radius: float

    def distance(self, at: Point) -> float:
        return math.hypot(at[0] - self.centre[0], at[1] - self.centre[1])


@functools.lru_cache(maxsize=64)
def layout(split: str, index: int) -> Layout:
    """What an image shows. An image and its annotation are asked for one after the other."""
    dice = Dice(VERSION, tuple(SPLITS).index(split), index, _SCENES)
    hard = (_drawing.hardness(index) + dice.uniform()) / _drawing.LEVELS
    base = _drawing.random_colour(dice)
    contrast = dice.uniform(0.7, 0.9) - hard * dice.uniform(0.0, 0.6)
    backdrop = _drawing.backdrop_of(dice, base, contrast, hard)
    places = _places(dice, hard)
    fronts = [colour_apart(dice, base, contrast) for _ in places]

    paint: list[tuple[Colour, tuple[Point, ...]]] = []
    shapes: list[int] = []
    for _ in range(dice.count(0, round(5.0 * hard))):
        at = (dice.uniform(-0.1, 1.1), dice.uniform(-0.1, 1.1))
        # Clutter may rival an object in colour, never under one: there it keeps its distance.
        near = any(place.distance(at) < 1.6 * place.radius for place in places)
        if near or dice.chance(0.6):
            colour = colour_apart(dice, base, contrast * dice.uniform(0.3, 0.6))
        else:
            rival = fronts[dice.count(0, len(fronts) - 1)]
            colour = colour_apart(dice, rival, dice.uniform(0.0, 0.3))
        paint.append((colour, clutter(dice, at, dice.uniform(0.06, 0.2))))
        shapes.append(-1)

    for number, (place, front) in enumerate(zip(places, fronts, strict=True)):
        # The first one makes classes as frequent in any run of images.
        kind = index % len(SHAPES) if number == 0 else dice.count(0, len(SHAPES) - 1)
        outline = _drawing.OUTLINES[SHAPES[kind]](dice)
        outline = _drawing.placed(outline, dice, place.centre, place.radius)
        paint.append((front, tuple(outline)))
        shapes.append(kind)

    for _ in range(dice.count(0, round(2.0 * hard))):
        # In front of an object and smaller than it, so that most of its outline stays.
        number = dice.count(0, len(places) - 1)
        (x, y), radius = places[number].centre, places[number].radius
        angle = dice.uniform(0.0, 2.0 * math.pi)
        off = radius * dice.uniform(0.4, 1.0)
        at = (x + off * math.cos(angle), y + off * math.sin(angle))
        front = fronts[number]
        colour = base if dice.chance(0.4) else colour_apart(dice, front, dice.uniform(0.3, 0.7))
        paint.append((colour, clutter(dice, at, radius * dice.uniform(0.4, 0.7))))
        shapes.append(-1)
    return Layout(_drawing.lit(dice, backdrop, paint, contrast, hard), tuple(shapes))


def _places(dice: Dice, hard: float) -> list[_Place]:
    """Where objects are: one to seven, that touch each other a little where the image is hard."""
    places: list[_Place] = []
    for _ in range(dice.count(1, 3 + round(4.0 * hard))):
        radius = 0.28 * (0.7 - 0.38 * hard) ** dice.uniform()
        reach = 0.5 - 0.95 * radius
        for _ in range(_TRIES):
            at = (0.5 + dice.uniform(-reach, reach), 0.5 + dice.uniform(-reach, reach))
            apart = 1.02 - 0.3 * hard
            if all(p.distance(at) >= apart * (p.radius + radius) for p in places):
                places.append(_Place(at, radius))
                break
    return places


class Scenes(_drawing.DrawnSamples):
    """One split at one resolution; `source` says whether boxes or masks are annotated."""

    def __init__(self, source: str, split: str, resolution: tuple[int, int]) -> None:
        kind = f"scenes {VERSION} {source}"
        super().__init__(source, split, resolution, CLASSES[source], kind)

    def scene(self, index: int) -> Scene:
        """Several shapes, and clutter."""
        return layout(self.split, index).scene

    def label(self, index: int) -> int:
        """-1: the image as a whole has no class."""
        self.checked(index)
        return -1

    def annotation(self, index: int) -> Annotation:
        """Its boxes with their classes, or its mask at the size of the image."""
        shown = layout(self.split, self.checked(index))
        if self.source == MASKS:
            values = [shape + 1 for shape in shown.shapes]
            return Annotation(
                mask=masks.encode(_drawing.values_at(shown.scene, values, self.resolution))
            )
        objects = [
            (shape, _drawing.box_at(outline, self.resolution))
            for (_, outline), shape in zip(shown.scene.paint, shown.shapes, strict=True)
            if shape >= 0
        ]
        return Annotation(
            labels=tuple(shape for shape, _ in objects), boxes=tuple(box for _, box in objects)
        )


def accepts(source: str) -> bool:
    """Whether `source` names one of both data sets."""
    return source in CLASSES


def open(
    source: str, split: str, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Scenes:
    """The samples of a split.

    Args:
        source: "demo-boxes" or "demo-masks".
        split: one of `SPLITS`, or `held`, which is validation.
        resolution: (height, width) in pixels, each from 32 to 1024.
        labels: not used: the classes are known.

    Raises:
        UsageError: the demo data has no such split.
    """
    return Scenes(source, _drawing.checked_split(split), resolution)
