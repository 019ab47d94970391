"""Triggers events in the middle of a run, both in tests and in scripts that tests start."""

from collections.abc import Callable
from itertools import count
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from retinanet.detector.backbone import Backbone


def before_each_batch(act: Callable[[int], None]) -> RemovableHandle:
    """Calls `act` with 1, 2, 3, ... before the forward pass of each training batch, until the handle is removed.

    The hook is a PyTorch hook, so no part of the training code is replaced.
    """
    numbers = count(1)

    def hook(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, Backbone) and module.training:
            act(next(numbers))

    return register_module_forward_pre_hook(hook)
