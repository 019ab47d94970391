"""RetinaNet's loss for a whole batch at once: focal loss from logits and smooth L1 on the box code."""

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.boxes import encode
from retinanet.matching import BACKGROUND_IOU, FOREGROUND_IOU, match
from retinanet.structures import Losses, Predictions, Targets

ALPHA = 0.25
GAMMA = 2.0
BETA = 1 / 9


def detection_loss(
    predictions: Predictions,
    anchors: Tensor,
    targets: Targets,
    *,
    alpha: float = ALPHA,
    gamma: float = GAMMA,
    beta: float = BETA,
    foreground_iou: float = FOREGROUND_IOU,
    background_iou: float = BACKGROUND_IOU,
) -> Losses:
    """The two losses of a batch, in float32 whatever the predictions are in.

    Classification: focal loss (https://arxiv.org/abs/1708.02002, equation 5), per image summed over its anchors and
    classes and divided by max(1, its foreground anchors). Regression: smooth L1 with corner `beta`, per image the
    mean over its foreground anchors and the 4 coordinates. Both are then the mean over the batch. An image without an
    object counts: it is all background, and its regression loss is 0.
    """
    with torch.no_grad():
        matches = match(anchors, targets, foreground_iou, background_iou)
        labels = targets.labels.gather(1, matches.objects)  # [B, A]
        # Objects whose anchors were never wanted have boxes of zero size; 1 keeps the logarithm of what is masked out
        # below finite, so that no NaN comes back through the product with zero.
        boxes = targets.boxes.gather(1, matches.objects[..., None].expand(-1, -1, 4))
        boxes = torch.where(matches.foreground[..., None], boxes, anchors)  # [B, A, 4]
        wanted_deltas = encode(boxes, anchors)
        num_foreground = matches.foreground.sum(dim=1).clamp(min=1)  # [B]

    logits, deltas = predictions.logits.float(), predictions.deltas.float()
    classification = _focal_loss(logits, labels, matches.foreground, matches.background, alpha, gamma)
    regression = F.smooth_l1_loss(deltas, wanted_deltas, beta=beta, reduction="none").mean(dim=2)  # [B, A]
    regression = (regression * matches.foreground).sum(dim=1)
    return Losses((classification / num_foreground).mean(), (regression / num_foreground).mean())


def _focal_loss(
    logits: Tensor, labels: Tensor, foreground: Tensor, background: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Each image's focal loss, summed over its anchors and classes: [B].

    Nearly all of the [B, A, C] terms are "not this class". So that term is taken of all, and exchanged for "this
    class" at the one class of each foreground anchor, which saves the one-hot targets and half of the arithmetic.
    """
    wanted = logits.gather(2, labels.clamp(min=0)[..., None]).squeeze(2)  # [B, A]
    absent = _absent_loss(logits, alpha, gamma).sum(dim=2)  # [B, A]
    present = alpha * torch.sigmoid(-wanted) ** gamma * F.softplus(-wanted)
    exchanged = present - _absent_loss(wanted, alpha, gamma)
    return (absent * (foreground | background) + exchanged * foreground).sum(dim=1)


def _absent_loss(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal loss of "this class is not here", term by term."""
    return (1 - alpha) * torch.sigmoid(logits) ** gamma * F.softplus(logits)
