"""Converts rotated boxes and outlines to axis-aligned boxes."""

import math
from collections import Counter
from collections.abc import Sequence

from retinanet.convert.sets import Box
from retinanet.runtime.errors import DataFault
from retinanet.runtime.printable import counted

DECIMALS = 3  # decimal places of computed pixel values
Sides = tuple[float, float, float, float]  # left, top, width, height


def around_rotated(left: float, top: float, width: float, height: float, degrees: float) -> Sides:
    """Returns the axis-aligned box around a box that is rotated about its centre."""
    if not degrees % 360:
        return left, top, width, height
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    wide, high = width * cos + height * sin, width * sin + height * cos
    return left + (width - wide) / 2, top + (height - high) / 2, wide, high


def around_points(points: Sequence[tuple[float, float]]) -> Sides:
    """Returns the box around points (x, y)."""
    left, top = min(x for x, _ in points), min(y for _, y in points)
    return left, top, max(x for x, _ in points) - left, max(y for _, y in points) - top


def clear_box(label: int, sides: Sides, where: str) -> Box:
    """Returns a box with rounded numbers; raises DataFault if it has no area or if a number isn't finite."""
    if not all(map(math.isfinite, sides)):
        raise DataFault("numbers that aren't finite", f"{where}: has a number that is not finite. Write pixels.")
    left, top, width, height = (round(side, DECIMALS) for side in sides)
    if width <= 0 or height <= 0:
        raise DataFault("boxes without area", f"{where}: the box has no area. Draw it again, or remove it.")
    return Box(label, left, top, width, height)


def without_box(left_out: Counter[str]) -> list[str]:
    """Returns a list with a note on how many shapes of each kind have no box; [] if there are none."""
    counts = [counted(count, name.removesuffix("s")) for name, count in sorted(left_out.items())]
    return [f"shapes without a box are left out: {', '.join(counts)}"] if counts else []
