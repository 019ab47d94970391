"""From a batch to its losses, in the chosen precision, compiled or not."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retinanet.anchors import anchors_for
from retinanet.loss import DEFAULTS, Assignment, LossSettings, assign, loss_of_assigned
from retinanet.model import RetinaNet
from retinanet.precision import autocast
from retinanet.regression_windows import deltas_around
from retinanet.structures import Losses, Predictions, Targets

ComputeLosses = Callable[[Tensor, Targets], Losses]

# A GPU is through with smaller batches before their kernels are launched one by one: CUDA graphs launch all at once.
SMALL_BATCH_PIXELS = 4 * 608 * 1024
# Compiling takes minutes; so many steps make up for them (an estimate that no GPU has confirmed yet).
STEPS_WORTH_COMPILING = 20_000
MOST_SHAPES = 64  # compiled, of batches; torch.compile's own limit, 8, is there to catch mistakes


def lacking_for_compilation(device: torch.device) -> str | None:
    """What torch.compile needs on `device` and does not find."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton, which PyTorch's CUDA builds for Linux bring"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "a C compiler, such as gcc"
    return None


def losses_of(
    model: RetinaNet,
    num_classes: int,
    device: torch.device,
    *,
    loss_settings: LossSettings = DEFAULTS,
    precision: torch.dtype = torch.float32,
    compiled_batch_size: int | None = None,
    cuda_graphs: bool = True,
    backend: str | Callable[..., Any] = "inductor",
) -> ComputeLosses:
    """A function from images uint8 [B, 3, H, W] and targets to the batch's losses, in float32 (see detection_loss).

    With `compiled_batch_size` batches of that many images go through torch.compile, once for each of their shapes; the
    number of objects, which changes all the time, stays outside. The batch that is not full runs as it is. With
    `cuda_graphs` small ones are replayed on a GPU, which overwrites the gradients of the call before.
    """

    def dense(images: Tensor, assignment: Assignment) -> Losses:
        with autocast(device, precision):
            predictions = model(images)
        return loss_of_assigned(predictions, assignment, loss_settings)

    def sparse(images: Tensor, assignment: Assignment) -> Losses:
        assert assignment.rows is not None
        with autocast(device, precision):
            levels = model.levels(images)
            logits = torch.cat([model.classification_head(level) for level in levels], dim=1)
            if model.deltas_are_local:
                deltas = deltas_around(model.regression_head, levels, assignment.rows)
            else:
                deltas = model.deltas(levels)
        return loss_of_assigned(Predictions(logits, deltas), assignment, loss_settings)

    compiled = _compiled_by_size(dense, device, backend, cuda_graphs) if compiled_batch_size else dense

    def losses(images: Tensor, targets: Targets) -> Losses:
        is_compiled = len(images) == compiled_batch_size
        is_sparse = device.type == "cpu" and not is_compiled
        height, width = images.shape[2:]
        assignment = assign(
            anchors_for(height, width, device, model.anchor_shapes),
            targets,
            num_classes,
            loss_settings,
            sparse=is_sparse,
            size=(height, width),
        )
        way = compiled if is_compiled else sparse if is_sparse else dense
        return way(images, assignment)

    return losses


def _compiled_by_size(
    compute: Callable[[Tensor, Assignment], Losses],
    device: torch.device,
    backend: str | Callable[..., Any],
    cuda_graphs: bool,
) -> Callable[[Tensor, Assignment], Losses]:
    """`compute`, compiled for each shape; with CUDA graphs for small batches."""
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    large = torch.compile(compute, fullgraph=True, dynamic=False, backend=backend)
    if device.type != "cuda" or not cuda_graphs:
        return large
    small = torch.compile(compute, fullgraph=True, dynamic=False, backend=backend, mode="reduce-overhead")

    def chosen(images: Tensor, assignment: Assignment) -> Losses:
        batch, _, height, width = images.shape
        if batch * height * width > SMALL_BATCH_PIXELS:
            return large(images, assignment)
        torch.compiler.cudagraph_mark_step_begin()  # the losses before this may be overwritten now
        return small(images, assignment)

    return chosen
