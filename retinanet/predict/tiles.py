"""Sliced inference: small objects in large images, found in tiles that the network sees enlarged."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.detector.structures import Candidates

EDGE = 0.01  # of a tile: an object that comes this near to an inner edge may be cut off there


class Tiles(NamedTuple):
    """How an image is cut."""

    side: int  # of a tile, pixels of the image
    overlap: float  # of neighbours, a share of their side


def tile_corners(size: Sequence[int], tiles: Tiles) -> list[tuple[int, int]]:
    """The (top, left) of the tiles that cover an image of `size`, the last of each row and column at its border.

    None where the image is no larger than a tile: it is seen whole anyway.
    """
    if max(size) <= tiles.side:
        return []
    tops, lefts = (_starts(length, tiles) for length in size)
    return [(top, left) for top in tops for left in lefts]


def _starts(length: int, tiles: Tiles) -> list[int]:
    """Where tiles begin along a side of `length`, evenly spread, with at least the overlap."""
    if length <= tiles.side:
        return [0]
    step = max(1, int(tiles.side * (1 - tiles.overlap)))
    count = -(-(length - tiles.side) // step) + 1
    return [round(number * (length - tiles.side) / (count - 1)) for number in range(count)]


def cut(image: Tensor, corner: tuple[int, int], tiles: Tiles) -> Tensor:
    """The tile [3, h, w] of `image` at `corner`."""
    top, left = corner
    return image[:, top : top + tiles.side, left : left + tiles.side]


def without_cut_off(boxes: Tensor, corner: tuple[int, int], tiles: Tiles, size: Sequence[int]) -> Tensor:
    """Which of `boxes` [N, 4], pixels of the image, don't reach an edge of their tile inside the image: bool [N].

    What is cut off there is seen by a neighbour, or in the whole image if it is larger than the overlap.
    """
    (height, width), (top, left), margin = size, corner, max(1.0, EDGE * tiles.side)
    bottom, right = min(top + tiles.side, height), min(left + tiles.side, width)
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    inside = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for is_inner, far in (
        (left > 0, x1 > left + margin),
        (top > 0, y1 > top + margin),
        (right < width, x2 < right - margin),
        (bottom < height, y2 < bottom - margin),
    ):
        if is_inner:
            inside &= far
    return inside


def moved(candidates: Candidates, scale: Tensor, corner: tuple[int, int]) -> Candidates:
    """The candidates [1, N] of a tile, in pixels of its image. `scale` (vertical, horizontal) is the tile's."""
    top, left = corner
    boxes = candidates.boxes / scale.flip(0).repeat(2) + candidates.boxes.new_tensor([left, top, left, top])
    return candidates._replace(boxes=boxes)
