"""What a step does to all parameters or statistics, in a few kernels, without waiting for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Scale the gradients to a norm of `most` together if it is larger. Returns the norm that they had.

    As PyTorch's clip_grad_norm_ on one device, which sorts the gradients by device and format first, at each step.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1))
    return norm


@torch.no_grad()
def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """New tensors of the same values."""
    made = [torch.empty_like(tensor) for tensor in tensors]
    if made:
        torch._foreach_copy_(made, list(tensors))
    return made


@torch.no_grad()
def put_back(tensors: Sequence[Tensor], old: Sequence[Tensor], where: Tensor) -> None:
    """`tensors` become `old` again if `where` is true. It is one value, on the device: so is the choice."""
    if not tensors:
        return
    # Not a sum of shares: what is not finite would stay so.
    chosen = torch.where(where, torch.cat(list(old)), torch.cat(list(tensors)))
    torch._foreach_copy_(list(tensors), chosen.split([len(tensor) for tensor in tensors]))
