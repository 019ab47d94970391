"""RetinaNet's loss for a whole batch at once: focal loss from logits and smooth L1 on the box code."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retinanet.boxes import encode
from retinanet.matching import BACKGROUND_IOU, FOREGROUND_IOU, match
from retinanet.structures import Losses, Predictions, Targets

ALPHA = 0.25
GAMMA = 2.0
BETA = 1 / 9
TERMS_ON_CPU = 2**17  # terms of the focal loss at a time: what stays in the cache


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
    num_images, _, num_classes = predictions.logits.shape
    with torch.no_grad():
        matches = match(anchors, targets, foreground_iou, background_iou)
        shares = 1 / matches.foreground.sum(dim=1).clamp(min=1) / num_images  # [B], the weight of an anchor's loss
        weights = (matches.foreground | matches.background) * shares[:, None]  # [B, A]

        foreground = matches.foreground.flatten()
        rows = _rows_to_find(foreground)  # R of the B * A
        firsts = torch.arange(num_images, device=foreground.device)[:, None] * targets.boxes.shape[1]
        objects = (matches.objects + firsts).flatten()[rows]  # of the B * M
        foreground_weights = (matches.foreground * shares[:, None]).flatten()[rows]  # [R]
        labels = targets.labels.flatten()[objects].clamp(min=0)
        row_anchors = anchors.expand(num_images, -1, -1).flatten(0, 1)[rows]  # [R, 4]
        # An object that no anchor matches may have no size, and its logarithm would come back as NaN.
        boxes = torch.where(foreground[rows, None], targets.boxes.flatten(0, 1)[objects], row_anchors)
        wanted = torch.arange(len(foreground), device=foreground.device)[rows] * num_classes + labels  # [R]

    classification = FocalLoss.apply(predictions.logits, weights, wanted, foreground_weights, alpha, gamma)
    deltas = predictions.deltas.flatten(0, 1)[rows].float()
    errors = F.smooth_l1_loss(deltas, encode(boxes, row_anchors), beta=beta, reduction="none")  # [R, 4]
    return Losses(classification, errors.mean(dim=1) @ foreground_weights)


def _rows_to_find(foreground: Tensor) -> Tensor | slice:
    """The rows of the foreground anchors; on a GPU, which would have to be waited for, all (the others weigh 0)."""
    return foreground.nonzero().squeeze(1) if foreground.device.type == "cpu" else slice(None)


class FocalLoss(torch.autograd.Function):
    """The focal loss of a batch and its gradient, together and part by part: a few passes instead of some twenty.

    Nearly all of the [B, A, C] terms are "this class is not here". So that term is taken of all, and exchanged for
    "it is here" at the one class of each foreground anchor, which saves the one-hot targets and half of the arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        weights: Tensor,
        wanted: Tensor,
        wanted_weights: Tensor,
        alpha: float,
        gamma: float,
    ) -> Tensor:
        """The weighted sum of all terms of `logits` [B, A, C]; `weights` [B, A] are the anchors'.

        `wanted` [R] are the terms that are "it is here", as indices into the flat logits, with their own weights.
        """
        num_classes = logits.shape[2]
        at_a_time = max(1, TERMS_ON_CPU // num_classes) if logits.device.type == "cpu" else weights.numel()
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        absent = torch.zeros((), device=logits.device)
        for some, weight, filled in zip(
            logits.flatten(0, 1).split(at_a_time),
            weights.flatten().split(at_a_time),
            gradient.flatten(0, 1).split(at_a_time),
            strict=True,
        ):
            terms, slopes = _terms(some.float(), gamma)
            absent += terms.sum(dim=1) @ weight
            torch.mul(slopes, (1 - alpha) * weight[:, None], out=filled)

        wanted_logits = logits.flatten()[wanted].float()  # [R]
        present_terms, present_slopes = _terms(-wanted_logits, gamma)
        absent_terms, absent_slopes = _terms(wanted_logits, gamma)
        exchanged = (alpha * present_terms - (1 - alpha) * absent_terms) @ wanted_weights
        slopes = (-alpha * present_slopes - (1 - alpha) * absent_slopes) * wanted_weights
        gradient.view(-1).index_add_(0, wanted, slopes.to(gradient.dtype))
        ctx.save_for_backward(gradient)
        return (1 - alpha) * absent + exchanged

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient, None, None, None, None, None


def _terms(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """score^gamma x -log(1 - score), term by term, and its derivative by the logit."""
    scores = torch.sigmoid(logits)
    weights = scores**gamma
    entropy = F.softplus(logits)
    slopes = (1 - scores).mul_(entropy).mul_(gamma).add_(scores).mul_(weights)
    return entropy.mul_(weights), slopes
