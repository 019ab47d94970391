"""Computes the anchor boxes of the pyramid, and caches them by input size, device and shapes."""

from functools import lru_cache

import torch
from torch import Tensor

from retinanet.detector.settings import AnchorShapes

STRIDES = (8, 16, 32, 64, 128)  # P3..P7
GRID_SIDE = 1024  # pixels; anchors are sliced from grids whose sides are multiples of this
DEFAULT_SHAPES = AnchorShapes()
ANCHORS_PER_CELL = DEFAULT_SHAPES.per_cell


def cell_anchors(stride: int, shapes: AnchorShapes = DEFAULT_SHAPES) -> Tensor:
    """Returns the anchors of one cell, centred on the origin, ordered by ratio, then scale: float64 [per cell, 4]."""
    pairs = [(ratio**0.5, shapes.side * stride * scale) for ratio in shapes.ratios for scale in shapes.scales]
    half_sizes = torch.tensor([(side / root / 2, side * root / 2) for root, side in pairs], dtype=torch.float64)
    return torch.cat([-half_sizes, half_sizes], dim=1)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Returns the sizes of levels P3 to P7 in cells, (rows, columns), for an input of `height` x `width` pixels."""
    return [((height + stride - 1) // stride, (width + stride - 1) // stride) for stride in STRIDES]


def anchor_grids(height: int, width: int, shapes: AnchorShapes = DEFAULT_SHAPES) -> list[Tensor]:
    """Returns each level's anchors for an input of this size: float32 [rows, columns, per cell, 4], on the CPU."""
    grids = []
    for stride, (rows, columns) in zip(STRIDES, level_shapes(height, width), strict=True):
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * stride
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack([x, y, x, y], dim=-1)  # [rows, columns, 4]
        grids.append((centres[:, :, None] + cell_anchors(stride, shapes)).float())
    return grids


@lru_cache(maxsize=32)  # a dataset has few padded sizes; 32 entries of 608 x 1024 take 60 MB
def anchors_for(height: int, width: int, device: torch.device, shapes: AnchorShapes = DEFAULT_SHAPES) -> Tensor:
    """Returns all anchors of an input of `height` x `width` pixels: float32 [A, 4], on `device`.

    They are in the order of the network's predictions: by level, row, column, ratio and scale. A level has ceil(height
    / stride) rows and ceil(width / stride) columns of cells, and anchors are centred on each cell. The host never waits
    for the device, even if the size is new, as in most batches of multi-scale training.
    """
    grids = _grids_on(*(-(-side // GRID_SIDE) * GRID_SIDE for side in (height, width)), device, shapes)
    parts = [grid[:rows, :columns] for grid, (rows, columns) in zip(grids, level_shapes(height, width), strict=True)]
    return torch.cat([part.reshape(-1, 4) for part in parts])


@lru_cache(maxsize=8)  # a grid for 1024 x 1024 pixels takes 3 MB
def _grids_on(height: int, width: int, device: torch.device, shapes: AnchorShapes) -> list[Tensor]:
    return [brought(grid, device) for grid in anchor_grids(height, width, shapes)]


def brought(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a CPU `tensor` to `device`. Copies to a GPU use pinned memory, because otherwise the host would wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
