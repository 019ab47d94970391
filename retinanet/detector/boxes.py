"""Encodes boxes as deltas from anchors and decodes them, clips boxes, and computes IoU and GIoU.

Boxes are (x1, y1, x2, y2) in pixels, float32, in tensors of shape [..., 4].
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# The box encoding of Fast R-CNN (https://arxiv.org/abs/1504.08083), with the published runs' standard deviations.
CENTRE_DEVIATION = 0.1
SIZE_DEVIATION = 0.2
# A decoded box is at most 1000/16 times as wide or high as its anchor, so exp can't overflow in an untrained network.
MAX_LOG_GROWTH = math.log(1000 / 16)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sizes / 2, sizes


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Returns the deltas (dx, dy, dw, dh) from `anchors` [..., 4] to `boxes` [..., 4]; all sizes must be positive."""
    box_centres, box_sizes = _centres_and_sizes(boxes)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    shift = (box_centres - anchor_centres) / anchor_sizes / CENTRE_DEVIATION
    growth = torch.log(box_sizes / anchor_sizes) / SIZE_DEVIATION
    return torch.cat([shift, growth], dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Applies `deltas` [..., 4] to `anchors` [..., 4] and returns the boxes [..., 4]; the inverse of `encode`."""
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    centres = anchor_centres + deltas[..., :2] * CENTRE_DEVIATION * anchor_sizes
    sizes = anchor_sizes * torch.exp((deltas[..., 2:] * SIZE_DEVIATION).clamp(max=MAX_LOG_GROWTH))
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Returns `boxes` [B, K, 4] clipped to their images, whose `sizes` [B, 2] are (height, width)."""
    return torch.minimum(boxes.clamp(min=0), per_coordinate(sizes.to(boxes.dtype))[:, None])


def per_coordinate(values: Tensor) -> Tensor:
    """Expands (vertical, horizontal) `values` [..., 2], such as scales, to a value for each of x1, y1, x2, y2."""
    return torch.cat([values.flip(-1)] * 2, dim=-1)


def giou_loss(deltas: Tensor, target_deltas: Tensor) -> Tensor:
    """Returns 1 - GIoU [...], 0 to 2, of the boxes that `deltas` and `target_deltas` [..., 4] encode for one anchor.

    Shifting or scaling an axis doesn't change GIoU, so any anchor will do; the code uses one of side 1 centred on the
    origin.
    """
    (x1, y1, x2, y2), (left, top, right, bottom), shared, union = _overlap(deltas, target_deltas)
    around = (torch.maximum(x2, right) - torch.minimum(x1, left)) * (torch.maximum(y2, bottom) - torch.minimum(y1, top))
    return 2 - shared / union - union / around


def iou_of_deltas(deltas: Tensor, target_deltas: Tensor) -> Tensor:
    """Returns the IoU [...] of the boxes that `deltas` and `target_deltas` [..., 4] encode for the same anchor."""
    _, _, shared, union = _overlap(deltas, target_deltas)
    return shared / union


def _overlap(deltas: Tensor, target_deltas: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    *box, area = _box(deltas, MAX_LOG_GROWTH)  # as decode does
    *target, target_area = _box(target_deltas, math.inf)
    shared = shared_area(box, target)
    return box, target, shared, area + target_area - shared


def _box(deltas: Tensor, max_log_growth: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns x1, y1, x2, y2 and area of the boxes that `deltas` encode for an anchor of side 1 centred on (0, 0)."""
    x, y = (deltas[..., :2] * CENTRE_DEVIATION).unbind(dim=-1)
    width, height = (deltas[..., 2:] * SIZE_DEVIATION).clamp(max=max_log_growth).exp().unbind(dim=-1)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2, width * height


def shared_area(boxes: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
    """Returns the intersection areas of boxes and anchors, each given as broadcastable tensors x1, y1, x2, y2.

    The coordinates are separate tensors, because operations take several times as long if the last dimension is 2 or 4
    instead of A.
    """
    (x1, y1, x2, y2), (left, top, right, bottom) = boxes, anchors
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0)
    return width.mul_(height)


def iou(boxes: Sequence[Tensor], anchors: Sequence[Tensor]) -> Tensor:
    """Returns the IoU of boxes and anchors, given as in shared_area.

    A padding box, which is all zeros, has an IoU of 0 with every anchor.
    """
    (x1, y1, x2, y2), (left, top, right, bottom) = boxes, anchors
    shared = shared_area(boxes, anchors)
    together = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)
    return shared / together.sub_(shared)
