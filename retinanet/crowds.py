"""Anchors that lie in crowd regions, where nobody has marked the single objects."""

import torch
from torch import Tensor

from retinanet.matching import coordinates, portions, shared_area
from retinanet.structures import CROWD, Targets

CROWD_COVER = 0.5  # of an anchor's own area


def in_crowds(anchors: Tensor, targets: Targets) -> Tensor:
    """Which of `anchors` [A, 4] one crowd region of the image covers to a half or more: bool [B, A]."""
    is_crowd = targets.labels == CROWD  # [B, M]
    crowds = targets._replace(boxes=targets.boxes * is_crowd[..., None])
    if anchors.device.type == "cpu":  # most batches have none or few, but a GPU would have to be waited for to know
        rows = is_crowd.any(dim=0).nonzero().squeeze(1)
        if not len(rows):
            return torch.zeros(len(is_crowd), len(anchors), dtype=torch.bool)
        crowds = Targets(crowds.boxes[:, rows], crowds.labels[:, rows])
    covers = torch.empty(len(is_crowd), len(anchors), dtype=torch.bool, device=anchors.device)
    for part, place in portions(anchors, targets):
        boxes, (left, top, right, bottom) = coordinates(part, crowds)
        covered = shared_area(boxes, (left, top, right, bottom)).amax(dim=1)  # [B, A]
        covers[:, place] = covered >= CROWD_COVER * ((right - left) * (bottom - top))
    return covers


def without_crowds(targets: Targets) -> Targets:
    """`targets` with boxes of zeros, which nothing overlaps, for their crowd regions."""
    return targets._replace(boxes=targets.boxes * (targets.labels != CROWD)[..., None])
