"""Builds the optimiser, with weight decay and a learning-rate multiplier for each part of the network."""

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from retinanet.detector.settings import STAGES


def build_optimizer(
    model: nn.Module,
    name: str,
    learning_rate: float,
    weight_decay: float,
    backbone_rates: Sequence[float] = (1.0,) * len(STAGES),
) -> torch.optim.Optimizer:
    """Returns Adam, AdamW, or SGD with momentum 0.9, for the parameters that are trained.

    Weight decay doesn't apply to biases or the norms' scales and shifts, which it would only pull away from useful
    values. `backbone_rates` are the learning-rate multipliers of the backbone's stages.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for path, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((_share(path, backbone_rates), decay), []).append(parameter)
    parameters = [
        {"params": group, "share": share, "weight_decay": decay, "lr": learning_rate * share}
        for (share, decay), group in groups.items()
    ]
    # Fused: one pass over the weights instead of one per operation.
    settings: dict[str, Any] = {"lr": learning_rate, "fused": True}
    if name == "sgd":
        optimizer = _without_compiler(torch.optim.SGD)(parameters, momentum=0.9, **settings)
        for group in groups.values():  # if the first step is skipped, PyTorch leaves the buffers uninitialised
            for parameter in group:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return _without_compiler(torch.optim.Adam)(parameters, decoupled_weight_decay=name == "adamw", **settings)


def _without_compiler(kind: type[torch.optim.Optimizer]) -> Any:
    """Returns the optimiser class `kind` without the decorators that keep PyTorch's compiler out of its methods.

    The decorators import the compiler, and that import takes 1.5 s whenever training starts. They aren't needed,
    because only the network and the loss are ever compiled.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(plain["step"])})


def rates_of_stages(shares: Sequence[float], random_stages: Collection[str] = ()) -> list[float]:
    """Returns the learning-rate multiplier of each of STAGES: `shares` itself, if it has one per stage.

    A single share applies to all stages except `random_stages`, which have the multiplier 1: like the heads, they have
    everything to learn.
    """
    if len(shares) == len(STAGES):
        return list(shares)
    return [1.0 if stage in random_stages else shares[0] for stage in STAGES]


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of each parameter group to `learning_rate` times the group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("share", 1.0)  # runs saved by earlier versions have no shares


def _share(path: str, shares: Sequence[float]) -> float:
    top, _, rest = path.partition(".")
    if top != "backbone":
        return 1.0
    module = rest.partition(".")[0]  # in torchvision's detectors, which benchmarks train, no stage contains this module
    return next((share for share, modules in zip(shares, STAGES.values(), strict=True) if module in modules), 1.0)
