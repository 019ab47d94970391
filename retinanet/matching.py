"""Which object each anchor is responsible for."""

from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.structures import Targets

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.4
# Overlaps worked out at a time: on a CPU what stays in its cache (12 times faster than all at once), on a GPU what the
# images of a large batch with hundreds of objects each leave room for.
OVERLAPS_ON_CPU, OVERLAPS_ON_GPU = 2**18, 2**27


class Matches(NamedTuple):
    """For every anchor the object that overlaps it most, and what that makes of the anchor."""

    objects: Tensor  # int64 [B, A], 0..M-1
    foreground: Tensor  # bool [B, A], it must find its object
    background: Tensor  # bool [B, A], it must find nothing; anchors that are neither are ignored


def match(
    anchors: Tensor,
    targets: Targets,
    foreground_iou: float = FOREGROUND_IOU,
    background_iou: float = BACKGROUND_IOU,
) -> Matches:
    """Match `anchors` [A, 4] with the objects of each image by IoU, as in the RetinaNet paper, section 4.1.

    No object is forced on an anchor that overlaps it less than `foreground_iou`: the published runs do without.
    Of objects that overlap an anchor equally, the first is taken.
    """
    num_images, most, _ = targets.boxes.shape
    at_a_time = OVERLAPS_ON_CPU if anchors.device.type == "cpu" else OVERLAPS_ON_GPU
    parts = anchors.split(max(1, at_a_time // (num_images * most)))
    best, objects = (torch.cat(found, dim=1) for found in zip(*(_best(part, targets) for part in parts), strict=True))
    return Matches(objects, best >= foreground_iou, best < background_iou)


def _best(anchors: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The largest IoU of each anchor with an object of each image, and that object: [B, A] both."""
    # Coordinate by coordinate: tensors whose last side is A, which run several times faster than pairs of coordinates.
    left, top, right, bottom = anchors.t().contiguous()  # [A]
    x1, y1, x2, y2 = targets.boxes[..., None].unbind(dim=2)  # [B, M, 1]
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)  # [B, M, A]
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0)
    shared = width.mul_(height)
    together = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)
    return (shared / together.sub_(shared)).max(dim=1)  # a padding box of zeros overlaps nothing
