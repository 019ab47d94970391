"""Which object each anchor is responsible for."""

from typing import NamedTuple

from torch import Tensor
from torchvision.ops import box_iou

from retinanet.structures import Targets

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.4


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
    overlaps = box_iou(targets.boxes.reshape(-1, 4), anchors)  # [B * M, A]; a padding box of zeros overlaps nothing
    best, objects = overlaps.view(num_images, most, -1).max(dim=1)  # [B, A]
    return Matches(objects, best >= foreground_iou, best < background_iou)
