"""Box arithmetic: the code that the network regresses, and clipping.

Boxes are (x1, y1, x2, y2) in pixels, float32, in tensors of shape [..., 4].
"""

import math

import torch
from torch import Tensor

# The box code of Fast R-CNN (https://arxiv.org/abs/1504.08083), with the deviations that the published runs divide by.
CENTRE_DEVIATION = 0.1
SIZE_DEVIATION = 0.2
# A box grows to at most 1000/16 times its anchor: exp of what an untrained network says must not overflow.
MAX_LOG_GROWTH = math.log(1000 / 16)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sizes / 2, sizes


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Deltas (dx, dy, dw, dh) that carry `anchors` [..., 4] to `boxes` [..., 4]; both need positive sizes."""
    box_centres, box_sizes = _centres_and_sizes(boxes)
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    shift = (box_centres - anchor_centres) / anchor_sizes / CENTRE_DEVIATION
    growth = torch.log(box_sizes / anchor_sizes) / SIZE_DEVIATION
    return torch.cat([shift, growth], dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """The boxes [..., 4] that `deltas` [..., 4] make of `anchors` [..., 4]; the inverse of `encode`."""
    anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
    centres = anchor_centres + deltas[..., :2] * CENTRE_DEVIATION * anchor_sizes
    sizes = anchor_sizes * torch.exp((deltas[..., 2:] * SIZE_DEVIATION).clamp(max=MAX_LOG_GROWTH))
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """`boxes` [B, K, 4] cut at the borders of their images, whose `sizes` [B, 2] are (height, width)."""
    heights, widths = sizes.to(boxes.dtype).unbind(dim=-1)
    limits = torch.stack([widths, heights, widths, heights], dim=-1)[:, None]  # [B, 1, 4]
    return torch.minimum(boxes.clamp(min=0), limits)
