"""Computes the RetinaNet loss of a whole batch: focal loss on the logits, and smooth L1 or GIoU loss on the deltas."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.detector.boxes import encode, giou_loss, iou_of_deltas
from retinanet.detector.focal_loss import FocalLoss
from retinanet.detector.matching import in_crowds, matches_of, without_crowds
from retinanet.detector.settings import DEFAULT_LOSS, LossSettings
from retinanet.detector.structures import Losses, Predictions, Targets

GIOU_WEIGHT = 2.0  # relative to the classification loss, as in https://arxiv.org/abs/1912.02424


class Assignment(NamedTuple):
    """The targets and weights of a batch's anchors. Of the B * A anchors, the R that can be foreground are called rows.

    The anchors themselves aren't stored, because the losses need only the deltas: shifting or scaling an axis doesn't
    change the losses. (DIoU and CIoU losses would change, so they would need the anchors of the rows.)
    """

    weights: Tensor  # [B, A], for classification: 1 / (foreground anchors of the image * B), 0 if ignored
    rows: Tensor | None  # int64 [R]; None means all anchors
    terms: Tensor  # int64 [R], the index of each row's class in the flattened logits
    deltas: Tensor  # [R, 4], the deltas to predict
    row_weights: Tensor  # [R], like weights; 0 for rows without an object


def detection_loss(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    settings: LossSettings = DEFAULT_LOSS,
    size: tuple[int, int] | None = None,
) -> Losses:
    """Returns the two losses of a batch, always in float32. For `size`, see assign_targets.

    The classification loss is the focal loss (https://arxiv.org/abs/1708.02002, equation 5), summed over an image's
    anchors and classes and divided by max(1, number of foreground anchors). With the class loss "quality", a foreground
    anchor's target score for its object's class is the IoU of its predicted box with the object
    (https://arxiv.org/abs/2006.04388), and alpha is not used. The regression loss is the mean, over an image's
    foreground anchors, of the smooth L1 loss (quadratic below `beta` and averaged over the 4 deltas) or of 2 x (1 -
    GIoU). With an IoU branch, the regression loss also includes the cross-entropy between the predicted IoU and the IoU
    of the predicted box with the object; no gradient flows through the latter. Both losses are averaged over the batch.
    In an image without objects, no anchor is foreground, and the regression loss is 0.
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
    """Assigns a target and a weight to each of `anchors` [A, 4] in each image.

    ATSS needs the `size` (H, W) of the network's input. Crowd regions are not objects. With `ignore_crowds`, anchors in
    a crowd region are ignored instead of being background.

    With `sparse`, the result has a row for each foreground anchor; otherwise for every anchor, most of them with weight
    0. The latter is for GPUs, where the host would have to wait for the number of foreground anchors, and for compiled
    steps, which need a fixed number of rows.
    """
    matches = matches_of(anchors, without_crowds(targets), settings, size)
    background = matches.background
    if settings.ignore_crowds:
        background = background & ~in_crowds(anchors, targets)
    num_images = len(targets.boxes)
    image_weights = 1 / matches.foreground.sum(dim=1, keepdim=True).clamp(min=1) / num_images  # [B, 1]
    foreground = matches.foreground.flatten()
    rows = foreground.nonzero().squeeze(1) if sparse else None
    selected = slice(None) if rows is None else rows
    firsts = torch.arange(num_images, device=foreground.device)[:, None] * targets.boxes.shape[1]
    objects = (matches.objects + firsts).flatten()[selected]  # [R], indices into B * M
    row_anchors = anchors.expand(num_images, -1, -1).flatten(0, 1)[selected]  # [R, 4]
    # An anchor without an object may refer to a padding box. Its size is 0, and the logarithm of 0 would lead to NaN.
    boxes = torch.where(foreground[selected, None], targets.boxes.flatten(0, 1)[objects], row_anchors)
    labels = targets.labels.flatten()[objects].clamp(min=0)
    return Assignment(
        weights=(matches.foreground | background) * image_weights,
        rows=rows,
        terms=torch.arange(len(foreground), device=foreground.device)[selected] * num_classes + labels,
        deltas=encode(boxes, row_anchors),
        row_weights=(matches.foreground * image_weights).flatten()[selected],
    )


def loss_of_assigned(predictions: Predictions, assignment: Assignment, settings: LossSettings = DEFAULT_LOSS) -> Losses:
    """Returns the losses of an assignment. Unless it is sparse, no tensor's shape depends on the number of objects."""
    deltas = predictions.deltas.flatten(0, 1)
    if assignment.rows is not None:
        deltas = deltas[assignment.rows]
    deltas, iou_logits = deltas.split([4, deltas.shape[1] - 4], dim=1)  # [R, 1] with an IoU branch, otherwise [R, 0]
    has_branch = iou_logits.shape[1] == 1
    if settings.class_loss == "quality" or has_branch:
        ious = iou_of_deltas(deltas.detach().float(), assignment.deltas)  # [R]
    terms = (predictions.logits, assignment.weights, assignment.terms, assignment.row_weights)
    if settings.class_loss == "quality":
        present = predictions.logits.flatten()[assignment.terms].float()  # [R]
        entropy = F.binary_cross_entropy_with_logits(present, ious, reduction="none")
        weighted = (present.sigmoid() - ious).abs() ** settings.gamma * entropy * assignment.row_weights
        # With alpha 0, the focal loss consists of the background terms only.
        classification = FocalLoss.apply(*terms, 0.0, settings.gamma) + weighted.sum()
    else:
        classification = FocalLoss.apply(*terms, settings.alpha, settings.gamma)
    if settings.box_loss == "giou":
        errors = GIOU_WEIGHT * giou_loss(deltas.float(), assignment.deltas)  # [R]
    else:
        errors = F.smooth_l1_loss(deltas.float(), assignment.deltas, beta=settings.beta, reduction="none").mean(dim=1)
    if has_branch:
        errors = errors + F.binary_cross_entropy_with_logits(iou_logits[:, 0].float(), ious, reduction="none")
    return Losses(classification, (errors * assignment.row_weights).sum())
