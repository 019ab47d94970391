"""Computes the focal loss of a batch and its gradient (https://arxiv.org/abs/1708.02002, equation 5)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TERMS_ON_CPU = 2**17  # terms computed at a time; this many fit in the cache


class FocalLoss(torch.autograd.Function):
    """Computes the loss and its gradient together, part by part, in a few passes over the logits instead of twenty.

    Nearly all of the [B, A, C] terms are background terms. So every logit first gets a background term, which a
    foreground term then replaces for each foreground anchor's class. This avoids one-hot targets and halves the
    arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, weights: Tensor, present: Tensor, present_weights: Tensor, alpha: float, gamma: float
    ) -> Tensor:
        """Returns the focal loss summed over `logits` [B, A, C], with each anchor's terms weighted by `weights` [B, A].

        `present` [R] holds the indices of the foreground terms in the flattened logits, and `present_weights` [R] their
        weights.
        """
        num_classes = logits.shape[2]
        at_a_time = max(1, TERMS_ON_CPU // num_classes) if logits.device.type == "cpu" else weights.numel()
        # In float16, background gradients would underflow before backward multiplies them by the loss scale.
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
        # Replace the background slopes: adding a difference would leave only rounding error for confident objects.
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
    """Returns each logit's term -score^gamma log(1 - score), and its derivative with respect to the logit."""
    scores = torch.sigmoid(logits)
    weights = scores**gamma
    entropy = F.softplus(logits)
    slopes = (1 - scores).mul_(entropy).mul_(gamma).add_(scores).mul_(weights)
    return entropy.mul_(weights), slopes
