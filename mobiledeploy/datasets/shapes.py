"""The built-in data set of classifiers: procedural, labelled images of one plane shape each.

Every image is a pure function of (split, index, resolution, `VERSION`).

The task is hard on purpose: neighbouring classes (pentagon and hexagon, star and hexagram,
disc, ring and crescent), any rotation, small objects, oblique views, partial occlusion, clutter
that belongs to no class, low contrast, blur and sensor noise.
"""

from __future__ import annotations

import math

from mobiledeploy.core.types import Annotation
from mobiledeploy.datasets import _drawing
from mobiledeploy.datasets._drawing import Colour, Dice, Point, Scene, clutter, colour_apart

VERSION = 1
"""Part of every seed and of every identity: a change of the images raises it."""

CLASSES = _drawing.CLASSES
SPLITS = _drawing.SPLITS
LEVELS = _drawing.LEVELS


def hardness(index: int) -> int:
    """Level of an image, from 0 to `LEVELS` - 1; any run of images has all levels alike."""
    return _drawing.hardness(index)


def _scene(split: str, index: int) -> Scene:
    dice = Dice(VERSION, tuple(SPLITS).index(split), index)
    hard = (hardness(index) + dice.uniform()) / LEVELS
    base = _drawing.random_colour(dice)
    contrast = dice.uniform(0.7, 0.9) - hard * dice.uniform(0.0, 0.65)
    front = colour_apart(dice, base, contrast)
    backdrop = _drawing.backdrop_of(dice, base, contrast, hard)

    radius = 0.4 * (0.7 - 0.38 * hard) ** dice.uniform()
    reach = 0.5 - 0.95 * radius
    centre = (0.5 + dice.uniform(-reach, reach), 0.5 + dice.uniform(-reach, reach))

    paint: list[tuple[Colour, tuple[Point, ...]]] = []
    for _ in range(dice.count(0, round(6.0 * hard))):
        at = (dice.uniform(-0.1, 1.1), dice.uniform(-0.1, 1.1))
        # Clutter may rival the object in colour, never under it: there it keeps its distance.
        near = math.hypot(at[0] - centre[0], at[1] - centre[1]) < 1.6 * radius
        if near or dice.chance(0.6):
            colour = colour_apart(dice, base, contrast * dice.uniform(0.3, 0.6))
        else:
            colour = colour_apart(dice, front, dice.uniform(0.0, 0.3))
        paint.append((colour, clutter(dice, at, dice.uniform(0.08, 0.25))))

    shape = _drawing.OUTLINES[CLASSES[index % len(CLASSES)]](dice)
    paint.append((front, tuple(_drawing.placed(shape, dice, centre, radius))))

    for _ in range(dice.count(0, round(2.0 * hard))):
        # In front of the object and smaller than it, so that most of its outline stays.
        angle = dice.uniform(0.0, 2.0 * math.pi)
        off = radius * dice.uniform(0.3, 1.0)
        at = (centre[0] + off * math.cos(angle), centre[1] + off * math.sin(angle))
        colour = base if dice.chance(0.4) else colour_apart(dice, front, dice.uniform(0.3, 0.7))
        paint.append((colour, clutter(dice, at, radius * dice.uniform(0.5, 0.9))))
    return _drawing.lit(dice, backdrop, paint, contrast, hard)


class Shapes(_drawing.DrawnSamples):
    """One split at one resolution; `source` is "demo"."""

    def __init__(self, source: str, split: str, resolution: tuple[int, int]) -> None:
        super().__init__(source, split, resolution, CLASSES, f"shapes {VERSION}")

    def scene(self, index: int) -> Scene:
        """One shape, and clutter."""
        return _scene(self.split, index)

    def label(self, index: int) -> int:
        """Position of the sample's class in `classes`; any run of samples is balanced."""
        return self.checked(index) % len(CLASSES)

    def annotation(self, index: int) -> Annotation:
        """Its class."""
        return Annotation(self.label(index))


def accepts(source: str) -> bool:
    """Whether `source` names this data set."""
    return source == "demo"


def open(
    source: str, split: str, *, resolution: tuple[int, int], labels: tuple[str, ...] = ()
) -> Shapes:
    """The samples of a split.

    Args:
        source: "demo".
        split: one of `SPLITS`, or `held`, which is validation.
        resolution: (height, width) in pixels, each from 32 to 1024.
        labels: not used: the classes are known.

    Raises:
        UsageError: the demo data has no such split.
    """
    return Shapes(source, _drawing.checked_split(split), resolution)
