"""The optimiser, with what differs between the parts of the network: their share of the rate, and weight decay."""

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

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
    """Adam, AdamW, or SGD with momentum 0.9, for the parameters that are learned.

    Weight decay spares biases and the norms' scales and shifts, which it would only pull away from what the layer
    needs. `backbone_rates` are the shares of the learning rate that the backbone's stages have.
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
    # Fused: one pass over the weights instead of one for each operation.
    settings: dict[str, Any] = {"lr": learning_rate, "fused": True}
    if name == "sgd":
        optimizer = torch.optim.SGD(parameters, momentum=0.9, **settings)
        for group in groups.values():  # PyTorch leaves them as the memory was if it is the first step that is skipped
            for parameter in group:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return torch.optim.Adam(parameters, decoupled_weight_decay=name == "adamw", **settings)


def rates_of_stages(shares: Sequence[float], random_stages: Collection[str] = ()) -> list[float]:
    """The share of the learning rate of each of STAGES: as given, or the one given for all but the `random_stages`.

    Those have all to learn, as the heads have, so theirs is 1.
    """
    if len(shares) == len(STAGES):
        return list(shares)
    return [1.0 if stage in random_stages else shares[0] for stage in STAGES]


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each group of parameters its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("share", 1.0)  # a run saved before there were shares has none


def _share(path: str, shares: Sequence[float]) -> float:
    top, _, rest = path.partition(".")
    if top != "backbone":
        return 1.0
    module = rest.partition(".")[0]  # of no stage in torchvision's detectors, which benchmarks train too
    return next((share for share, modules in zip(shares, STAGES.values(), strict=True) if module in modules), 1.0)


FACTOR = 0.1


class Schedule(NamedTuple):
    """`step`: `base`, divided by 10 at each milestone epoch that has begun. `cosine`: from `base` along half a cosine
    to 0 at the end of the run (https://arxiv.org/abs/1608.03983). Both after a linear warm-up."""

    base: float
    steps_per_epoch: int
    epochs: int
    kind: str = "step"
    milestones: Sequence[int] = ()
    warmup_steps: int = 0

    @property
    def num_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """The rate of the given step; 0 is the first, and the one after the warm-up is the first with all of it."""
        if step < self.warmup_steps:
            return self.base * (step + 1) / (self.warmup_steps + 1)
        if self.kind == "cosine":
            done = (step - self.warmup_steps) / (self.num_steps - self.warmup_steps)
            return self.base * (1 + math.cos(math.pi * done)) / 2
        epoch = step // self.steps_per_epoch
        return self.base * FACTOR ** sum(epoch >= milestone for milestone in self.milestones)


def sgd_rate(batch_size: int) -> float:
    """The rate for so many images a step: RetinaNet's (https://arxiv.org/abs/1708.02002), 0.01 for 16 images, by the
    linear scaling rule (https://arxiv.org/abs/1706.02677)."""
    return 0.01 * batch_size / 16
