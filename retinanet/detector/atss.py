"""Matches anchors with objects by adaptive training sample selection (ATSS, https://arxiv.org/abs/1912.02424).

Each object has its own IoU threshold. If a cell is a candidate, so are all its anchors, as in the authors' code.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.detector.anchors import STRIDES, brought, level_shapes
from retinanet.detector.boxes import iou
from retinanet.detector.structures import AnchorMatches, Targets

NUM_CELLS = 9  # candidate cells per level, the nearest to the object's centre


class Levels(NamedTuple):
    """The L pyramid levels of a network input. Cell counts are float32, because they are used in float arithmetic."""

    strides: Tensor  # float32 [L, 1]
    shapes: Tensor  # float32 [L, 1, 2], (columns, rows)
    firsts: Tensor  # int64 [L, 1], the index of each level's first cell
    offsets: Tensor  # float32 [O, 2], (columns, rows) from a point's cell to each cell that can be among its 9 nearest


def match_atss(anchors: Tensor, targets: Targets, size: tuple[int, int]) -> AnchorMatches:
    """Matches the `anchors` [A, 4] of a network input of `size` (H, W) with the objects of each image.

    On each level, an object's candidates are the anchors of the 9 cells nearest to its centre (ties: the first), or of
    all cells if the level has fewer. A candidate is foreground if its centre lies inside the object and its IoU with
    the object is at least the mean plus the standard deviation of the IoUs of all the object's candidates. An anchor
    claimed by several objects goes to the object with the largest IoU (ties: the first). Anchors that aren't foreground
    are background. An object smaller than a cell may get no anchor.
    """
    num_images, most, _ = targets.boxes.shape
    per_cell = len(anchors) // sum(rows * columns for rows, columns in level_shapes(*size))
    levels = levels_of(*size, anchors.device)
    x1, y1, x2, y2 = targets.boxes[..., None].unbind(dim=2)  # [B, M, 1]
    cells, exists = nearest_cells(targets.boxes, levels)  # [B, M, L, 9, 2], [B, M, L, 9]
    x, y = ((cells + 0.5) * levels.strides[..., None]).flatten(2, 3).unbind(dim=3)  # [B, M, L * 9]
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)

    columns, rows = cells.long().unbind(dim=4)
    firsts = (levels.firsts + rows * levels.shapes[..., 0].long() + columns) * per_cell
    of_cell = torch.arange(per_cell, device=anchors.device)
    candidates = (firsts.where(exists, 0)[..., None] + of_cell).flatten(2)  # [B, M, L * 9 * per cell]
    exists = exists[..., None].expand(-1, -1, -1, -1, per_cell).flatten(2)
    inside = inside[..., None].expand(-1, -1, -1, per_cell).flatten(2)

    ious = iou((x1, y1, x2, y2), anchors.t().contiguous()[:, candidates].unbind())  # [B, M, L * 9 * per cell]
    chosen = exists & inside & (ious >= _threshold(ious, exists))
    # One integer combines IoU and rank, so that a single maximum decides: positive floats sort like their bits.
    ranks = torch.arange(most - 1, -1, -1, device=anchors.device)[:, None]
    keys = (ious.view(torch.int32).long() * most + ranks).where(chosen, -1)
    best = torch.full((num_images, len(anchors)), -1, device=anchors.device)
    best.scatter_reduce_(1, candidates.flatten(1), keys.flatten(1), "amax")
    return AnchorMatches(most - 1 - best % most, best >= 0, best < 0)


def _threshold(ious: Tensor, exists: Tensor) -> Tensor:
    """Returns the mean plus the standard deviation of each object's candidate IoUs: float64 [B, M, 1].

    In float64, the mean of equal IoUs is exactly that IoU, so all of them reach the threshold.
    """
    wide, counts = ious.double(), exists.sum(dim=2, keepdim=True)
    means = (wide * exists).sum(dim=2, keepdim=True) / counts
    squares = ((wide - means).square() * exists).sum(dim=2, keepdim=True)
    return means + (squares / (counts - 1)).sqrt()


def nearest_cells(boxes: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Returns the cells (column, row) nearest to each box's centre, [B, M, L, 9, 2], and a mask, [B, M, L, 9].

    The mask is False for the unused entries of a level with fewer than 9 cells.
    """
    places = (boxes[:, :, None, :2] + boxes[:, :, None, 2:]) / 2 / levels.strides  # [B, M, L, 2], in cells
    places = places[:, :, :, None]
    centre_cells = torch.minimum(places.floor().clamp(min=0), levels.shapes - 1)
    cells = centre_cells + levels.offsets  # [B, M, L, O, 2]
    exists = ((cells >= 0) & (cells < levels.shapes)).all(dim=4)
    x, y = (cells + 0.5 - places).unbind(dim=4)
    distances = (x * x + y * y).masked_fill(~exists, torch.inf)
    # Stable, so that equally near cells have the same order on every device.
    distances, order = (ranked[..., :NUM_CELLS] for ranked in distances.sort(dim=3, stable=True))
    return cells.gather(3, order[..., None].expand(-1, -1, -1, -1, 2)), distances < torch.inf


@lru_cache(maxsize=1024)  # an entry takes 2 KB; varying training sides give hundreds of padded sizes
def levels_of(height: int, width: int, device: torch.device) -> Levels:
    """Returns the pyramid levels of a network input of `height` x `width` pixels, on `device`."""
    shapes = torch.tensor(level_shapes(height, width))  # [L, 2], (rows, columns)
    num_cells = shapes.prod(dim=1)
    return Levels(
        strides=brought(torch.tensor(STRIDES).float()[:, None], device),
        shapes=brought(shapes.flip(1).float()[:, None], device),
        firsts=brought((num_cells.cumsum(dim=0) - num_cells)[:, None], device),
        offsets=brought(torch.tensor(_offsets()).float(), device),
    )


def _offsets() -> list[tuple[int, int]]:
    """Returns the offsets (columns, rows) from a point's cell to each cell that can be among the 9 nearest, row by row.

    Take the rectangle of cells with the point's cell in one corner and a cell C in the opposite corner. All its cells
    are at least as near as C, so if it has more than 10 cells, C can't be among the 9 nearest. (The limit is 10, not 9:
    if the point lies on the border between two cells, a cell that is exactly as near as C may come after it in the
    order.)
    """
    reach = range(-NUM_CELLS, NUM_CELLS + 1)
    return [(x, y) for y in reach for x in reach if (abs(x) + 1) * (abs(y) + 1) <= NUM_CELLS + 1]
