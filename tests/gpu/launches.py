"""Counts the kernels that a computation launches, without computing anything."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu.on_host import FROM_LIBRARIES
from gpu.runtime import Runtime

aten = torch.ops.aten


class Launches(TorchDispatchMode):
    """Counts launches by operation. PyTorch's kernels are counted by the pretended runtime.

    cuDNN and cuBLAS have runtimes of their own, so their operations give empty results and count as what is asked of
    them: a convolution is one kernel, and one for its bias; its backward pass one for each gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_operation: Counter[str] = Counter()
        self.runtime = Runtime()

    @property
    def total(self) -> int:
        return self.by_operation.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, before = func.overloadpacket.__name__, self.runtime.launches
        if func is aten.convolution.default:
            found = _like_meta(func, args)
            self.by_operation[name] += 1 if args[2] is None else 2
        elif func is aten.convolution_backward.default:
            found = _like_meta(func, args)
            self.by_operation[name] += sum(args[-1])
        elif name in FROM_LIBRARIES:
            found = _like_meta(func, args)
            self.by_operation[name] += 1
        else:
            found = func(*args, **(kwargs or {}))
            self.by_operation[name] += self.runtime.launches - before
        return found


def _like_meta(func: Any, args: tuple) -> Any:
    """Empty tensors of the shapes and strides that `func` gives."""

    def made(part: Any) -> Any:
        if part is None:
            return None
        # cuDNN's results are channels last where an argument is.
        kept = torch.channels_last if part.ndim == 4 else torch.preserve_format
        return torch.empty_like(part, device=args[0].device, memory_format=kept)

    found = func(*(arg.to("meta") if isinstance(arg, torch.Tensor) else arg for arg in args))
    return made(found) if isinstance(found, torch.Tensor) else tuple(map(made, found))
