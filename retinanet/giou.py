"""The generalised IoU of two boxes as a loss: https://arxiv.org/abs/1902.09630."""

import math

import torch
from torch import Tensor

from retinanet.boxes import CENTRE_DEVIATION, MAX_LOG_GROWTH, SIZE_DEVIATION


def giou_loss(deltas: Tensor, wanted: Tensor) -> Tensor:
    """1 - GIoU, from 0 to 2, of the boxes that `deltas` and `wanted` [..., 4] make of one and the same anchor: [...].

    Shifting or stretching an axis does not change it, so that any anchor will do: here one of side 1 in the origin.
    """
    x1, y1, x2, y2, area = _box(deltas, MAX_LOG_GROWTH)  # as decode does
    left, top, right, bottom, wanted_area = _box(wanted, math.inf)
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp(min=0)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp(min=0)
    shared = width * height
    union = area + wanted_area - shared
    around = (torch.maximum(x2, right) - torch.minimum(x1, left)) * (torch.maximum(y2, bottom) - torch.minimum(y1, top))
    return 2 - shared / union - union / around


def _box(deltas: Tensor, max_log_growth: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x1, y1, x2, y2 and area of the box that each of `deltas` makes of that anchor."""
    x, y = (deltas[..., :2] * CENTRE_DEVIATION).unbind(dim=-1)
    width, height = (deltas[..., 2:] * SIZE_DEVIATION).clamp(max=max_log_growth).exp().unbind(dim=-1)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2, width * height
