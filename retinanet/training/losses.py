"""Computes the losses of a batch in the chosen precision, in plain PyTorch or compiled."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet.detector.anchors import anchors_for
from retinanet.detector.loss import Assignment, assign_targets, loss_of_assigned
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import DEFAULT_LOSS, LossSettings
from retinanet.detector.structures import Losses, Targets
from retinanet.detector.windows import can_be_sparse, predictions_around
from retinanet.runtime.device import autocast
from retinanet.runtime.ranks import Ranks
from retinanet.training.compilation import Compiled, compiled_by_size

ComputeLosses = Callable[[Tensor, Targets], Losses]


def losses_of(
    model: RetinaNet,
    num_classes: int,
    device: torch.device,
    *,
    loss_settings: LossSettings = DEFAULT_LOSS,
    precision: torch.dtype = torch.float32,
    compiled: Compiled | None = None,
) -> ComputeLosses:
    """Returns a function that maps images, uint8 [B, 3, H, W], and targets to the batch's float32 losses."""

    def plain(images: Tensor, assignment: Assignment) -> Losses:
        with autocast(device, precision):
            if assignment.rows is not None and can_be_sparse(model):
                predictions = predictions_around(model, images, assignment.rows)
            else:
                predictions = model(images)
        return loss_of_assigned(predictions, assignment, loss_settings)

    full = compiled_by_size(plain, device, compiled) if compiled else plain

    def losses(images: Tensor, targets: Targets) -> Losses:
        is_compiled = compiled is not None and len(images) == compiled.batch_size
        height, width = images.shape[2:]
        assignment = assign_targets(
            anchors_for(height, width, device, model.architecture.anchors),
            targets,
            num_classes,
            loss_settings,
            sparse=device.type == "cpu" and not is_compiled,
            size=(height, width),
        )
        return (full if is_compiled else plain)(images, assignment)

    return losses


def shared(model: nn.Module, compute_losses: Callable[[Tensor, Targets], Losses], ranks: Ranks) -> Any:
    """Returns `compute_losses`, wrapped so that its backward pass averages the gradients of `model` over the ranks.

    All ranks start with rank 0's weights. If batch-norm statistics are learned, all ranks take rank 0's statistics in
    each step.
    """
    if ranks.size == 1:
        return compute_losses
    has_statistics = any(isinstance(module, nn.BatchNorm2d) and module.training for module in model.modules())
    # Newer versions of PyTorch have renamed this argument.
    parameters = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    flag: dict[str, Any] = {name: has_statistics}
    step = DistributedDataParallel(_Step(model, compute_losses), **flag)
    # After its first backward pass, it groups the gradients anew, which rounds their sums over three or more ranks
    # differently. It does so here, so that the first step of a resumed run is rounded as in a run that never stopped.
    step().backward()
    model.zero_grad()
    return step


def unshared(compute_losses: Any) -> AbstractContextManager[None]:
    """Returns a context in which `compute_losses` only accumulates gradients on each rank, without averaging them."""
    is_shared = isinstance(compute_losses, DistributedDataParallel)
    return compute_losses.no_sync() if is_shared else nullcontext()


class _Step(nn.Module):
    """Computes the losses in a module's forward pass, because DistributedDataParallel only wraps forward passes."""

    def __init__(self, model: nn.Module, compute_losses: Callable[[Tensor, Targets], Losses]) -> None:
        super().__init__()
        self.model, self.compute_losses = model, compute_losses

    def forward(self, *batch: Any) -> Any:
        """Returns the losses of a batch or, if called without one, a number that depends on every trainable weight."""
        if batch:
            return self.compute_losses(*batch)
        return torch.stack([weights.sum() for weights in self.model.parameters() if weights.requires_grad]).sum()
