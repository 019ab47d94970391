"""Turns the rows of YOLO label files into boxes, after deciding what the numbers after a box mean."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from retinanet.convert.sets import Box
from retinanet.convert.shapes import DECIMALS
from retinanet.runtime.errors import DataFault, UserError
from retinanet.settings.convert import BOXES, KEYPOINTS, OUTLINES, TRACKS

SLACK = 0.01  # rounding may carry a box past its image by this fraction of the side
ENOUGH_ROWS = 10  # this many rows can't all happen to look like a box and keypoints
VISIBILITIES = {0.0, 1.0, 2.0}  # of a keypoint: not labelled, hidden, visible


class Row(NamedTuple):
    where: str  # "file:line" for messages
    label: int
    numbers: list[float]  # all numbers after the class


def row_of(line: str, labels: dict[int, int], where: str) -> Row:
    """Parses a line: the class number (a key of `labels`), then other numbers, separated by spaces or commas."""
    words = [word.rstrip(",") for word in line.split()]
    if len(words) == 1:
        words = line.strip().split(",")
    try:
        label = labels.get(float(words[0]))  # type: ignore[call-overload]  # 1.0 is the key 1
    except ValueError:
        label = None
    if label is None or words[0].startswith("-"):
        numbers_are = f"a number from 0 to {len(labels) - 1}" if max(labels) < len(labels) else f"one of {[*labels]}"
        raise DataFault(
            "classes that aren't in the list",
            f"{where}: class {words[0]!r} is not {numbers_are}, as in the list of classes. Correct it.",
        )
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError as fault:
        raise DataFault(
            "words that aren't numbers", f"{where}: {fault}. Write fractions of the image, such as 0.5."
        ) from None
    if not all(map(math.isfinite, numbers)):
        raise DataFault(
            "numbers that aren't finite",
            f"{where}: has a number that is not finite. Write fractions of the image, such as 0.5.",
        )
    return Row(where, label, numbers)


def meaning_of(rows: Sequence[Row], points: Sequence[int] | None) -> str:
    """Returns what rows with more than a box and a score contain: KEYPOINTS, OUTLINES or TRACKS; "" without such rows.

    `points` is kpt_shape: (keypoints, numbers per keypoint). Raises UserError, naming the flag that decides, if the
    rows are ambiguous.
    """
    if points:
        return KEYPOINTS
    rows = [row for row in rows if len(row.numbers) > 5]  # 5 numbers can be neither an outline nor keypoints
    if not rows:
        return ""
    num_numbers = {len(row.numbers) for row in rows}
    if num_numbers == {6} and all(_may_be_track(row.numbers) for row in rows):
        if any(row.numbers[5] > 1 for row in rows):  # outside the image, if it were a coordinate
            return TRACKS
        raise _question(rows[0], "a box with a score and the number of a track, or an outline", TRACKS)
    share = sum(_is_box_around(row.numbers) for row in rows) / len(rows)
    if share == 1 and len(num_numbers) == 1 and (len(rows) >= ENOUGH_ROWS or not _may_be_outline(rows)):
        return KEYPOINTS
    if share > 0.5:
        raise _question(rows[0], "a box with keypoints, or an outline", KEYPOINTS)
    return OUTLINES


def _question(row: Row, meanings: str, other: str) -> UserError:
    return UserError(
        f"{row.where}: has {len(row.numbers) + 1} numbers, which can be {meanings}. Say which with --rows {other} or "
        f"--rows {OUTLINES}."
    )


def _may_be_track(numbers: Sequence[float]) -> bool:
    return 0 <= numbers[4] <= 1 and numbers[5] >= 0 and numbers[5].is_integer()


def _is_box_around(numbers: Sequence[float]) -> bool:
    """Returns True if the first four numbers are a box inside the image and the rest are points in that box."""
    x, y, width, height = numbers[:4]
    if min(width, height) <= 0 or not all(
        -SLACK <= side <= 1 + SLACK for side in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    ):
        return False
    rest = numbers[4:]
    pairs = list(zip(rest[::2], rest[1::2], strict=True)) if len(rest) % 2 == 0 else []
    triples = list(zip(rest[::3], rest[1::3], rest[2::3], strict=True)) if len(rest) % 3 == 0 else []
    if any(visibility not in VISIBILITIES for _, _, visibility in triples):
        triples = []

    def are_inside(points: Sequence[Sequence[float]]) -> bool:
        placed = [point for point in points if point[0] or point[1]]
        return bool(placed) and all(
            abs(px - x) <= width / 2 + SLACK and abs(py - y) <= height / 2 + SLACK for px, py, *_ in placed
        )

    return are_inside(pairs) or are_inside(triples)


def _may_be_outline(rows: Sequence[Row]) -> bool:
    return all(len(row.numbers) % 2 == 0 and max(row.numbers) <= 1 + SLACK for row in rows)


def box_of(row: Row, meaning: str, points: Sequence[int] | None, size: tuple[int, int]) -> Box:
    """Returns a row's box, in pixels, for an image of `size` (width, height)."""
    where, label, numbers = row
    num_numbers = len(numbers)
    is_outline = meaning == OUTLINES and num_numbers >= 6 and num_numbers % 2 == 0
    allowed = {
        BOXES: num_numbers == 5,
        TRACKS: num_numbers in (5, 6),
        KEYPOINTS: num_numbers - 4 == math.prod(points) if points else num_numbers >= 6,
        OUTLINES: is_outline,
    }
    if num_numbers != 4 and not allowed.get(meaning):
        advice = ""
        if num_numbers == 5:
            advice = " If the sixth is a score, set --rows boxes; if it is the number of a track, --rows tracks."
        raise DataFault(
            "rows with a wrong number of numbers",
            f"{where}: has {num_numbers + 1} numbers. A box has 5: class, centre x, centre y, width, height.{advice}",
        )
    used = numbers if is_outline else numbers[:4]
    if outside := [number for number in used if not -SLACK <= number <= 1 + SLACK]:
        raise DataFault(
            "coordinates outside 0 to 1",
            f"{where}: {outside[0]:g} is not from 0 to 1. Write fractions of the image, not pixels.",
        )
    if is_outline:
        left, top = min(numbers[::2]), min(numbers[1::2])
        wide, high = max(numbers[::2]) - left, max(numbers[1::2]) - top
    else:
        x, y, wide, high = used
        left, top = x - wide / 2, y - high / 2
    if wide <= 0 or high <= 0:
        raise DataFault(
            "boxes without area", f"{where}: the box has no area. Remove the line, or correct its width and height."
        )
    width, height = size
    x, y, wide, high = (round(number, DECIMALS) for number in (left * width, top * height, wide * width, high * height))
    return Box(label, x, y, wide, high)
