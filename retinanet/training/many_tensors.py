"""What a step does to all parameters or statistics, in a few kernels, without waiting for the device."""

from collections.abc import Sequence
from typing import Any

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


class ListedAdam(torch.optim.Adam):
    """PyTorch's fused Adam, or AdamW if decoupled, with the same numbers.

    PyTorch lists parameters and moments at each step, which takes longer than launching the kernels. Here they are
    listed once.
    """

    _listed: list[tuple[list[Tensor], ...]] | None = None  # of each group: parameters, first and second moments, steps

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._listed = None  # the moments are other tensors now

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if closure is not None or not self._is_listed():
            loss = super().step(closure)  # the first makes the moments
            self._listed = self._lists()
            return loss
        assert self._listed is not None
        found_inf = getattr(self, "found_inf", None)
        for group, (parameters, means, squares, steps) in zip(self.param_groups, self._listed, strict=True):
            beta1, beta2 = group["betas"]
            torch._foreach_add_(steps, 1)
            (torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_)(
                parameters,
                [parameter.grad for parameter in parameters if parameter.grad is not None],
                means,
                squares,
                [],
                steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                found_inf=found_inf,
            )
            if found_inf is not None:  # then this was no step
                torch._foreach_sub_(steps, [found_inf] * len(steps))
        return None

    def _is_listed(self) -> bool:
        """Whether there are lists, of the parameters that the groups have now."""
        if self._listed is None:
            return False
        pairs = zip(self._listed, self.param_groups, strict=True)
        return all(parameters is group["params"] for (parameters, *_), group in pairs)

    def _lists(self) -> list[tuple[list[Tensor], ...]] | None:
        groups = [group["params"] for group in self.param_groups]
        if any(parameter not in self.state for group in groups for parameter in group):
            return None  # some had no gradient
        names = "exp_avg", "exp_avg_sq", "step"
        return [(group, *([self.state[p][name] for p in group] for name in names)) for group in groups]
