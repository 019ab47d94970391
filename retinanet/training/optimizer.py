"""Builds the optimiser, with weight decay and a learning-rate multiplier for each part of the network."""

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

    Weight decay doesn't apply to biases and the norms' scales and shifts, which it would only pull away from useful
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
        optimizer = torch.optim.SGD(parameters, momentum=0.9, **settings)
        for group in groups.values():  # if the first step is skipped, PyTorch leaves the buffers uninitialised
            for parameter in group:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return torch.optim.Adam(parameters, decoupled_weight_decay=name == "adamw", **settings)


def rates_of_stages(shares: Sequence[float], random_stages: Collection[str] = ()) -> list[float]:
    """Returns the learning-rate multiplier of each of STAGES: as given, or 1 for `random_stages`.

    A single given multiplier applies to all other stages. Random stages have everything to learn, like the heads.
    """
    if len(shares) == len(STAGES):
        return list(shares)
    return [1.0 if stage in random_stages else shares[0] for stage in STAGES]


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of each parameter group to its share of `learning_rate`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("share", 1.0)  # runs saved by earlier versions have no shares


def _share(path: str, shares: Sequence[float]) -> float:
    top, _, rest = path.partition(".")
    if top != "backbone":
        return 1.0
    module = rest.partition(".")[0]  # in torchvision's detectors, which benchmarks train, no stage contains this module
    return next((share for share, modules in zip(shares, STAGES.values(), strict=True) if module in modules), 1.0)
