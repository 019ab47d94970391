"""The focal loss and its gradient in one pass over the logits of a GPU, in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

TERMS_AT_ONCE = 2048  # of one program; 16 for each of its threads


def focal_sum(
    logits: Tensor, weights: Tensor, present: Tensor, present_weights: Tensor, alpha: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """As FocalLoss.forward, and the gradient: [B, A, C]. `present` has an index for each anchor, in their order."""
    logits = logits.contiguous()
    dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype  # see FocalLoss
    gradient = torch.empty_like(logits, dtype=dtype)
    num_programs = triton.cdiv(logits.numel(), TERMS_AT_ONCE)
    sums = torch.empty(num_programs, device=logits.device)
    per_anchor = (weights.contiguous(), present.contiguous(), present_weights.contiguous())
    numbers = (logits.numel(), logits.shape[2], alpha, gamma)
    _kernel[(num_programs,)](logits, *per_anchor, gradient, sums, *numbers, TERMS_AT_ONCE)
    return sums.sum(), gradient


@triton.jit
def _add(one: tl.tensor, other: tl.tensor) -> tl.tensor:
    return one + other


@triton.jit
def _kernel(
    logits: tl.tensor,
    weights: tl.tensor,
    present: tl.tensor,
    present_weights: tl.tensor,
    gradient: tl.tensor,
    sums: tl.tensor,
    num_terms: tl.tensor,
    num_classes: tl.tensor,
    alpha: tl.tensor,
    gamma: tl.tensor,
    at_once: tl.constexpr,
) -> None:
    first = tl.program_id(0).to(tl.int64) * at_once  # a large batch has more than 2^31 terms
    place = tl.arange(0, at_once)
    term = first + place
    inside = term < num_terms
    anchor = first // num_classes + ((first % num_classes).to(tl.int32) + place) // num_classes
    present_weight = tl.load(present_weights + anchor, mask=inside, other=0.0)
    is_present = (tl.load(present + anchor, mask=inside, other=-1) == term) & (present_weight > 0)
    logit = tl.load(logits + term, mask=inside, other=0.0).to(tl.float32)
    sign = tl.where(is_present, -1.0, 1.0)
    weight = tl.where(
        is_present, alpha * present_weight, (1 - alpha) * tl.load(weights + anchor, mask=inside, other=0.0)
    )

    # Of the wrong answer: score^gamma x -log(1 - score), as in FocalLoss.
    wrong = sign * logit
    small = tl.exp(-tl.abs(wrong))
    rounded = 1 + small  # log(rounded) / (rounded - 1) is right for it, so this is log(1 + small) to the last digits
    entropy = tl.maximum(wrong, 0.0) + tl.where(
        rounded == 1, small, tl.log(rounded) * (small / tl.maximum(rounded - 1, 1e-30))
    )
    score = tl.exp(wrong - entropy)
    modulated = weight * tl.exp(gamma * (wrong - entropy))
    slope = sign * modulated * (gamma * (1 - score) * entropy + score)
    tl.store(gradient + term, slope.to(gradient.dtype.element_ty), mask=inside)
    tl.store(sums + tl.program_id(0), tl.reduce(tl.where(inside, modulated * entropy, 0.0), 0, _add))
