"""Triggers events in the middle of a run's steps, in tests and in the scripts that they start."""

from collections.abc import Callable
from itertools import count
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from retinanet.detector.backbone import Backbone


def before_each_batch(act: Callable[[int], None]) -> RemovableHandle:
    """Calls `act` with 1, 2, 3, ... before the forward pass of each training batch, until the handle is removed.

    The hook is PyTorch's, so no part of the training is replaced.
    """
    numbers = count(1)

    def hook(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, Backbone) and module.training:
            act(next(numbers))

    return register_module_forward_pre_hook(hook)
