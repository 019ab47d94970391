"""RetinaNet's loss for a whole batch at once: focal loss from logits, and smooth L1 on the box code or GIoU."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.detector.atss import match_atss
from retinanet.detector.boxes import encode, giou_loss
from retinanet.detector.focal_loss import FocalLoss
from retinanet.detector.matching import AnchorMatches, in_crowds, match_anchors, without_crowds
from retinanet.detector.settings import DEFAULT_LOSS, LossSettings
from retinanet.detector.structures import Losses, Predictions, Targets

GIOU_WEIGHT = 2.0  # beside the classification loss, as in https://arxiv.org/abs/1912.02424


class Assignment(NamedTuple):
    """What the anchors of a batch must say, and how much each counts. R of the B * A rows must find an object."""

    weights: Tensor  # [B, A], of an anchor's classification: 1 / (foreground anchors of its image * B), 0 if ignored
    rows: Tensor | None  # int64 [R]; None are all
    terms: Tensor  # int64 [R], the class that each must find, as an index into the flat logits
    deltas: Tensor  # [R, 4], the deltas that each must say
    row_weights: Tensor  # [R], as weights, 0 if a row has nothing to find


def detection_loss(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    settings: LossSettings = DEFAULT_LOSS,
    size: tuple[int, int] | None = None,
) -> Losses:
    """The two losses of a batch, in float32 whatever the predictions are in. `size`: see assign_targets.

    Classification: focal loss (https://arxiv.org/abs/1708.02002, equation 5), per image summed over its anchors and
    classes and divided by max(1, its foreground anchors). Regression: smooth L1 with corner `beta`, per image the
    mean over its foreground anchors and the 4 coordinates; or 2 x (1 - GIoU), the mean over its foreground anchors.
    Both are then the mean over the batch. An image without an object counts: it is all background, and its regression
    loss is 0.
    """
    sparse = anchors.device.type == "cpu"
    assignment = assign_targets(anchors, targets, predictions.logits.shape[2], settings, sparse=sparse, size=size)
    return loss_of_assigned(predictions, assignment, settings)


@torch.no_grad()
def assign_targets(
    anchors: Tensor,
    targets: Targets,
    num_classes: int,
    settings: LossSettings = DEFAULT_LOSS,
    *,
    sparse: bool,
    size: tuple[int, int] | None = None,
) -> Assignment:
    """Tell `anchors` [A, 4] what to say about the objects of each image.

    ATSS needs the `size` (H, W) of the network's input, whose anchors they are. Of crowd regions nothing is said, and
    with `ignore_crowds` the anchors in them are no background.

    The rows are those of the foreground anchors with `sparse`, else all, most with weight 0: a GPU would have to be
    waited for to know how many are foreground, and a compiled step needs one number of them.
    """
    matches = _matches(anchors, without_crowds(targets), settings, size)
    background = matches.background
    if settings.ignore_crowds:
        background = background & ~in_crowds(anchors, targets)
    num_images = len(targets.boxes)
    shares = 1 / matches.foreground.sum(dim=1, keepdim=True).clamp(min=1) / num_images  # [B, 1]
    foreground = matches.foreground.flatten()
    rows = foreground.nonzero().squeeze(1) if sparse else None
    some = slice(None) if rows is None else rows
    firsts = torch.arange(num_images, device=foreground.device)[:, None] * targets.boxes.shape[1]
    objects = (matches.objects + firsts).flatten()[some]  # [R], of the B * M
    row_anchors = anchors.expand(num_images, -1, -1).flatten(0, 1)[some]  # [R, 4]
    # An object that no anchor matches may have no size, and its logarithm would come back as NaN.
    boxes = torch.where(foreground[some, None], targets.boxes.flatten(0, 1)[objects], row_anchors)
    labels = targets.labels.flatten()[objects].clamp(min=0)
    return Assignment(
        weights=(matches.foreground | background) * shares,
        rows=rows,
        terms=torch.arange(len(foreground), device=foreground.device)[some] * num_classes + labels,
        deltas=encode(boxes, row_anchors),
        row_weights=(matches.foreground * shares).flatten()[some],
    )


def _matches(anchors: Tensor, targets: Targets, settings: LossSettings, size: tuple[int, int] | None) -> AnchorMatches:
    if settings.matcher == "atss":
        assert size is not None
        return match_atss(anchors, targets, size)
    thresholds = settings.foreground_iou, settings.background_iou
    return match_anchors(anchors, targets, *thresholds, low_quality=settings.matcher == "low_quality")


def loss_of_assigned(predictions: Predictions, assignment: Assignment, settings: LossSettings = DEFAULT_LOSS) -> Losses:
    """The part of detection_loss whose shapes don't depend on the number of objects."""
    classification = FocalLoss.apply(
        predictions.logits,
        assignment.weights,
        assignment.terms,
        assignment.row_weights,
        settings.alpha,
        settings.gamma,
    )
    deltas = predictions.deltas.flatten(0, 1)
    if assignment.rows is not None:
        deltas = deltas[assignment.rows]
    if settings.box_loss == "giou":
        errors = GIOU_WEIGHT * giou_loss(deltas.float(), assignment.deltas)  # [R]
    else:
        errors = F.smooth_l1_loss(deltas.float(), assignment.deltas, beta=settings.beta, reduction="none").mean(dim=1)
    return Losses(classification, (errors * assignment.row_weights).sum())
