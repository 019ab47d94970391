"""The anchor boxes of the pyramid, computed once per input size and device."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)  # P3..P7
SIDE = 4  # an anchor's side, in strides of its level
RATIOS = (0.5, 1.0, 2.0)  # height / width
SCALES = (2 ** (0 / 3), 2 ** (1 / 3), 2 ** (2 / 3))
ANCHORS_PER_CELL = len(RATIOS) * len(SCALES)
GRID_SIDE = 1024  # pixels: anchors are cut out of grids whose sides are multiples of it


class AnchorShapes(NamedTuple):
    """The anchors of a cell, the same on every level but for its stride; the defaults are those of a new network."""

    side: float = SIDE
    ratios: tuple[float, ...] = RATIOS
    scales: tuple[float, ...] = SCALES

    @property
    def per_cell(self) -> int:
        return len(self.ratios) * len(self.scales)


DEFAULT_SHAPES = AnchorShapes()
# The paper's, whatever stands above: torchvision's detector has them, and checkpoints that do not say theirs.
PAPER_SHAPES = AnchorShapes(4, (0.5, 1.0, 2.0), (1.0, 2 ** (1 / 3), 2 ** (2 / 3)))


def cell_anchors(stride: int, shapes: AnchorShapes = DEFAULT_SHAPES) -> Tensor:
    """The anchors of one cell around the origin, ratio by ratio and each scale by scale: float64 [per cell, 4]."""
    halves = []
    for ratio in shapes.ratios:
        for scale in shapes.scales:
            length = shapes.side * stride * scale
            halves.append((length / ratio**0.5 / 2, length * ratio**0.5 / 2))
    half_sizes = torch.tensor(halves, dtype=torch.float64)
    return torch.cat([-half_sizes, half_sizes], dim=1)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """The rows and columns of cells of each level, P3 to P7, for a network input of `height` x `width` pixels."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


@lru_cache(maxsize=32)  # a data set has few padded sizes; 32 of 608 x 1024 are 60 MB
def anchors_for(height: int, width: int, device: torch.device, shapes: AnchorShapes = DEFAULT_SHAPES) -> Tensor:
    """All anchors of `shapes` of a network input of `height` x `width` pixels: float32 [A, 4], on `device`.

    They are ordered as the network's predictions are: by level, row, column, then ratio and scale. A level has
    ceil(side / stride) cells a side, and a cell's anchors are centred in it. A size that was not there before is no
    reason to wait for the device: with --train_sides most batches have one.
    """
    grids = _grids(*(-(-side // GRID_SIDE) * GRID_SIDE for side in (height, width)), device, shapes)
    parts = [grid[:rows, :columns] for grid, (rows, columns) in zip(grids, level_shapes(height, width), strict=True)]
    return torch.cat([part.reshape(-1, 4) for part in parts])


@lru_cache(maxsize=8)  # one of 1024 x 1024 is 3 MB
def _grids(height: int, width: int, device: torch.device, shapes: AnchorShapes) -> list[Tensor]:
    """The anchors of all cells of each level: float32 [rows, columns, k, 4]. Smaller inputs have their first ones."""
    grids = []
    for stride, (rows, columns) in zip(STRIDES, level_shapes(height, width), strict=True):
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * stride
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack([x, y, x, y], dim=-1)  # [rows, columns, 4]
        grids.append(brought((centres[:, :, None] + cell_anchors(stride, shapes)).float(), device))
    return grids


def brought(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's `tensor` on `device`. A GPU is not waited for, as it would be with memory that is not pinned."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
