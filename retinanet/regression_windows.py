"""The regression head only where the loss looks at it: around the foreground anchors.

They are in a few cells of the pyramid, so on a CPU this spares nearly all of the head's work, forward and backward. (A
GPU would have to be waited for to know where they are.)
"""

import torch
from torch import Tensor

from retinanet.anchors import ANCHORS_PER_CELL
from retinanet.model import TOWER_CONVOLUTIONS, Head

REACH = TOWER_CONVOLUTIONS + 1  # cells to each side that a cell's deltas depend on, one a 3x3 convolution


def deltas_around(head: Head, levels: list[Tensor], rows: Tensor) -> Tensor:
    """Deltas [B, A, 4], of which those in `rows` (indices into the B * A) and some more are `head`'s, the others 0.

    `levels` are the pyramid's [B, channels, h, w]. An image's rows of a level are within one window.
    """
    num_images = len(levels[0])
    shapes = [level.shape[2:] for level in levels]
    looked_at = torch.zeros(num_images, sum(ANCHORS_PER_CELL * h * w for h, w in shapes), dtype=torch.bool)
    looked_at.view(-1)[rows] = True
    looked_at[0, -1] = True  # one at least: a head with no gradient at all would be no step for its optimiser

    parts = []
    by_level = looked_at.split([ANCHORS_PER_CELL * h * w for h, w in shapes], dim=1)
    for level, (height, width), wanted in zip(levels, shapes, by_level, strict=True):
        cells = wanted.view(num_images, height, width, ANCHORS_PER_CELL).any(dim=3)
        deltas = level.new_zeros(num_images, height, width, ANCHORS_PER_CELL * 4)
        for image in cells.any(dim=2).any(dim=1).nonzero().squeeze(1).tolist():
            inner, outer = _windows(cells[image])
            found = head(level[image : image + 1, :, *outer])
            shape = [side.stop - side.start for side in outer]
            start = [i.start - o.start for i, o in zip(inner, outer, strict=True)]
            stop = [i.stop - o.start for i, o in zip(inner, outer, strict=True)]
            found = found.view(*shape, -1)[start[0] : stop[0], start[1] : stop[1]]
            deltas[image, *inner] = found.to(deltas.dtype)
        parts.append(deltas.view(num_images, -1, 4))
    return torch.cat(parts, dim=1)


def _windows(cells: Tensor) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The rows and columns that hold all true `cells` [h, w], and those that their deltas depend on."""
    inner, outer = [], []
    for axis, side in ((1, cells.shape[0]), (0, cells.shape[1])):
        used = cells.any(dim=axis).nonzero()
        first, last = int(used[0]), int(used[-1])
        inner.append(slice(first, last + 1))
        outer.append(slice(max(first - REACH, 0), min(last + 1 + REACH, side)))
    return (inner[0], inner[1]), (outer[0], outer[1])
