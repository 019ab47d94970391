"""Decides which object each anchor must find, and which anchors are background."""

from collections.abc import Iterator

import torch
from torch import Tensor

from retinanet.detector.atss import match_atss
from retinanet.detector.boxes import iou, shared_area
from retinanet.detector.settings import BACKGROUND_IOU, FOREGROUND_IOU, LossSettings
from retinanet.detector.structures import CROWD, AnchorMatches, Targets

# The number of IoUs computed at a time: as many as fit in a CPU's cache (12 times faster than all at once), or in a
# GPU's memory next to a large batch with hundreds of objects per image.
OVERLAPS_ON_CPU, OVERLAPS_ON_GPU = 2**18, 2**27


def matches_of(
    anchors: Tensor, targets: Targets, settings: LossSettings, size: tuple[int, int] | None = None
) -> AnchorMatches:
    """Matches `anchors` [A, 4] with each image's objects, using `settings.matcher`; ATSS needs the input's `size`."""
    if settings.matcher == "atss":
        assert size is not None
        return match_atss(anchors, targets, size)
    thresholds = settings.foreground_iou, settings.background_iou
    return match_anchors(anchors, targets, *thresholds, low_quality=settings.matcher == "low_quality")


def match_anchors(
    anchors: Tensor,
    targets: Targets,
    foreground_iou: float = FOREGROUND_IOU,
    background_iou: float = BACKGROUND_IOU,
    *,
    low_quality: bool = False,
) -> AnchorMatches:
    """Matches `anchors` [A, 4] with the objects of each image by IoU, as in the RetinaNet paper, section 4.1.

    By default, an anchor with an IoU below `foreground_iou` is never foreground. With `low_quality`, each object's best
    anchors are foreground too, however small their IoU; like every anchor, they are matched with the object that they
    overlap most (https://arxiv.org/abs/1506.01497, section 3.1.2). Ties go to the first object.
    """
    shape = len(targets.boxes), len(anchors)
    # Allocated before the IoUs: otherwise, with 5,000 objects, the small results of the parts would lie between the
    # large tensors and fragment the memory too badly.
    best, objects = anchors.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=anchors.device)  # [B, A]
    tops = anchors.new_zeros(targets.boxes.shape[:2])  # [B, M], each object's largest IoU
    for part, place in portions(anchors, targets):
        ious = iou(*coordinates(part, targets))  # [B, M, anchors of the part]
        best[:, place], objects[:, place] = ious.max(dim=1)
        if low_quality:
            torch.maximum(tops, ious.amax(dim=2), out=tops)
    foreground, background = best >= foreground_iou, best < background_iou
    if low_quality:
        forced = _reaching(tops, anchors, targets)
        foreground, background = foreground | forced, background & ~forced
    return AnchorMatches(objects, foreground, background)


def portions(anchors: Tensor, targets: Targets) -> Iterator[tuple[Tensor, slice]]:
    """Yields (part, slice) for parts of `anchors` [A, 4] small enough to compare at once with all of `targets`."""
    num_images, most, _ = targets.boxes.shape
    at_a_time = OVERLAPS_ON_CPU if anchors.device.type == "cpu" else OVERLAPS_ON_GPU
    step = max(1, at_a_time // (num_images * most))
    for start in range(0, len(anchors), step):
        place = slice(start, start + step)
        yield anchors[place], place


def coordinates(anchors: Tensor, targets: Targets) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Returns x1, y1, x2, y2 of all boxes, each [B, M, 1], and of `anchors` [A, 4], each [A]."""
    return targets.boxes[..., None].unbind(dim=2), anchors.t().contiguous().unbind()


def _reaching(tops: Tensor, anchors: Tensor, targets: Targets) -> Tensor:
    """Marks the anchors whose IoU with an object equals that object's largest IoU in `tops` [B, M]: bool [B, A].

    The IoUs are computed again, because storing all of them would take too much memory.
    """
    tops = tops.masked_fill(tops == 0, torch.inf)[..., None]  # an object without an overlap has no best anchor
    reaching = torch.empty(len(tops), len(anchors), dtype=torch.bool, device=anchors.device)
    for part, place in portions(anchors, targets):
        reaching[:, place] = (iou(*coordinates(part, targets)) == tops).any(dim=1)
    return reaching


CROWD_COVER = 0.5  # the fraction of an anchor's area that a crowd region must cover


def in_crowds(anchors: Tensor, targets: Targets) -> Tensor:
    """Marks the `anchors` [A, 4] with at least half of their area in one crowd region of the image: bool [B, A]."""
    is_crowd = targets.labels == CROWD  # [B, M]
    crowds = targets._replace(boxes=targets.boxes * is_crowd[..., None])
    if anchors.device.type == "cpu":  # most batches have few or no crowds; on a GPU, the host would wait to find out
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
    """Returns the `targets` with the boxes of crowd regions set to zero, so that they overlap nothing."""
    return targets._replace(boxes=targets.boxes * (targets.labels != CROWD)[..., None])
