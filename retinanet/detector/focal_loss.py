"""The focal loss of a batch and its gradient (https://arxiv.org/abs/1708.02002, equation 5)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TERMS_ON_CPU = 2**17  # terms at a time, which fit in the cache


class FocalLoss(torch.autograd.Function):
    """Loss and gradient together, part by part: a few passes over the logits instead of some twenty.

    Nearly all of the [B, A, C] terms are background terms. So every logit gets one, which is replaced by the foreground
    term at the one class of each foreground anchor: no one-hot targets, and half of the arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, weights: Tensor, present: Tensor, present_weights: Tensor, alpha: float, gamma: float
    ) -> Tensor:
        """The weighted sum of all terms of `logits` [B, A, C]; `weights` [B, A] are the anchors'.

        `present` [R] are the indices of the foreground terms in the flat logits, with weights `present_weights` [R].
        """
        num_classes = logits.shape[2]
        at_a_time = max(1, TERMS_ON_CPU // num_classes) if logits.device.type == "cpu" else weights.numel()
        # Background terms underflow in float16 until backward multiplies them by the gradient scaler's factor.
        dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=dtype, memory_format=torch.contiguous_format)
        absent = torch.zeros((), device=logits.device)
        rows = (logits.flatten(0, 1), weights.flatten(), gradient.flatten(0, 1))
        for some, weight, filled in zip(*(tensor.split(at_a_time) for tensor in rows), strict=True):
            terms, slopes = _terms(some.float(), gamma)
            absent += terms.sum(dim=1) @ weight
            torch.mul(slopes, (1 - alpha) * weight[:, None], out=filled)

        present_logits = logits.flatten()[present].float()  # [R]
        present_terms, present_slopes = _terms(-present_logits, gamma)
        absent_terms, _ = _terms(present_logits, gamma)
        exchanged = (alpha * present_terms - (1 - alpha) * absent_terms) @ present_weights
        # Written over the background's, not added: for a confident object the sum would be all rounding error.
        flat = gradient.view(-1)
        slopes = (-alpha * present_slopes * present_weights).to(dtype)
        flat.index_copy_(0, present, torch.where(present_weights > 0, slopes, flat[present]))
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return (1 - alpha) * absent + exchanged

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * loss_gradient).to(ctx.dtype), None, None, None, None, None


def _terms(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """score^gamma x -log(1 - score), term by term, and its derivative by the logit."""
    scores = torch.sigmoid(logits)
    weights = scores**gamma
    entropy = F.softplus(logits)
    slopes = (1 - scores).mul_(entropy).mul_(gamma).add_(scores).mul_(weights)
    return entropy.mul_(weights), slopes
