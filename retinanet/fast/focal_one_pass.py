"""The focal loss of a GPU in one pass over the logits.

For 16 images of 608 x 1024 and 80 classes PyTorch's operations move 16 GB; this moves 1.5 GB.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, library

from retinanet.detector.focal_loss import FocalLoss
from retinanet.fast.compilers import lacking_for_compilation

FocalSum = Callable[[Tensor, Tensor, Tensor, Tensor, float, float], Tensor]
SHARE = 1e-4  # of a sum that the two ways may differ by; they do by 1e-6


@library.custom_op("retinanet::focal_sum", mutates_args=(), device_types="cuda")
def focal_sum(
    logits: Tensor, weights: Tensor, present: Tensor, present_weights: Tensor, alpha: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """The sum of FocalLoss.forward, and its gradient [B, A, C]: float32 where the logits are float16.

    `present` and `present_weights` have one entry for each of the B * A anchors, in their order.
    """
    from retinanet.fast import focal_kernel  # imports Triton, which only PyTorch's CUDA builds bring

    return focal_kernel.focal_sum(logits, weights, present, present_weights, alpha, gamma)


@focal_sum.register_kernel("cpu")
def _plain_sum(
    logits: Tensor, weights: Tensor, present: Tensor, present_weights: Tensor, alpha: float, gamma: float
) -> tuple[Tensor, Tensor]:
    wide = logits.detach().to(_gradient_format(logits)).requires_grad_()
    with torch.enable_grad():
        total = FocalLoss.apply(wide, weights, present, present_weights, alpha, gamma)
    return total.detach(), torch.autograd.grad(total, wide)[0]


@focal_sum.register_fake
def _shapes(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    gradient = torch.empty_like(logits, dtype=_gradient_format(logits), memory_format=torch.contiguous_format)
    return logits.new_empty((), dtype=torch.float32), gradient


def _gradient_format(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.dtype == torch.float16 else logits.dtype  # see FocalLoss


class OnePassFocalLoss(torch.autograd.Function):
    """FocalLoss, where every anchor has its entry in `present`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *others: Any) -> Tensor:
        total, gradient = focal_sum(logits, *others)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return total

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * loss_gradient).to(ctx.dtype), None, None, None, None, None


def focal_loss_on(device: torch.device, dtype: torch.dtype) -> FocalSum:
    """The fastest way to FocalLoss's numbers on `device`, for dense assignments. Waits for the device.

    The kernel is tried on a few logits of `dtype` before it is trusted: how Triton compiles depends on the machine.
    """
    if device.type != "cuda" or lacking_for_compilation(device):
        return FocalLoss.apply
    try:
        with torch.cuda.device(device):
            if _agrees(device, dtype):
                return OnePassFocalLoss.apply
        problem = "it gave other numbers than PyTorch"
    except Exception as error:  # whatever Triton, its compiler or the driver raise
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(f"The focal loss runs without its Triton kernel, which is slower: {problem}", stacklevel=2)
    return FocalLoss.apply


def _agrees(device: torch.device, dtype: torch.dtype) -> bool:
    num_images, num_anchors, num_classes = 2, 700, 3
    logits = torch.linspace(-8, 8, num_images * num_anchors * num_classes, device=device).view(num_images, -1, 3)
    logits = logits.to(dtype)
    weights = torch.full((num_images, num_anchors), 0.25, device=device)
    is_present = torch.arange(weights.numel(), device=device) % 5 == 0
    present = torch.arange(weights.numel(), device=device) * num_classes + 1
    found = focal_sum(logits, weights, present, is_present * weights.flatten(), 0.25, 2.0)
    wanted = _plain_sum(logits, weights, present, is_present * weights.flatten(), 0.25, 2.0)
    of_gradient = 2e-2 if dtype == torch.bfloat16 else SHARE
    return all(
        bool((got.float() - own.float()).norm() <= share * own.float().norm())
        for got, own, share in zip(found, wanted, (SHARE, of_gradient), strict=True)
    )
