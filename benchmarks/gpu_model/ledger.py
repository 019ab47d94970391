"""Counts a GPU's work: the launches, FLOPs and bytes of each operation."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from gpu.launches import Launches
from torch import Tensor

from benchmarks.gpu_model.roofline import Convolution, Work

aten = torch.ops.aten
WRITE_ONLY = {"zero_", "fill_", "copy_", "_foreach_zero_", "_foreach_copy_"}
PICK_ROWS = {"index", "gather", "index_select"}  # these read no more than they return


class Ledger(Launches):
    """Counts launches as Launches does, and also FLOPs and the bytes that each kernel reads and writes.

    An operation is assumed to read each of its arguments on the GPU once, and to write each result once. That includes
    convolutions, because cuDNN's use of caches and workspaces is unknown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[Convolution] = []
        self.bytes_by_operation: Counter[str] = Counter()

    @property
    def work(self) -> Work:
        return Work(self.convolutions, self.bytes_by_operation.total(), self.total)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        before = self.total
        found = super().__torch_dispatch__(func, types, args, kwargs)
        if self.total > before:
            self._note(func, args, kwargs or {}, found)
        return found

    def _note(self, func: Any, args: tuple, kwargs: dict, found: Any) -> None:
        name = func.overloadpacket.__name__
        if func is aten.convolution.default:
            self.convolutions.append(_forward(args[0], args[1], found))
            if args[2] is not None:  # a PyTorch kernel adds the bias
                self.bytes_by_operation["bias"] += 2 * _bytes(found)
        elif func is aten.convolution_backward.default:
            gradient, features, weight = args[:3]
            for is_wanted in args[-1][:2]:  # of the features, of the weight
                if is_wanted:
                    self.convolutions.append(_forward(features, weight, gradient))
            if args[-1][2]:
                self.bytes_by_operation["bias gradient"] += _bytes(gradient)
        else:
            self.bytes_by_operation[name] += _moved(name, args, kwargs, found)


def _forward(features: Tensor, weight: Tensor, output: Tensor) -> Convolution:
    """Returns the work of a convolution; each of its gradients needs as many FLOPs and moves as many bytes."""
    return Convolution(2.0 * output.numel() * weight[0].numel(), _bytes((features, weight, output)))


def _moved(name: str, args: tuple, kwargs: dict, found: Any) -> int:
    if name in PICK_ROWS:
        return 2 * _bytes(found) + _bytes(args[1:])
    if name.startswith("_fused_adam"):  # reads weights, gradients and two moments, and writes all but the gradients
        return _bytes(args[:4]) + _bytes((args[0], args[2], args[3]))
    written = _bytes(args[0]) if name.startswith("_foreach") and name.endswith("_") else _bytes(found)
    return written + (_bytes(args[1:]) if name in WRITE_ONLY else _bytes((args, kwargs)))


def _bytes(parts: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(parts))


def _tensors(parts: Any) -> Iterator[Tensor]:
    if isinstance(parts, Tensor):
        if parts.device.type == "cuda":
            yield parts
    elif isinstance(parts, (tuple, list)):
        for part in parts:
            yield from _tensors(part)
    elif isinstance(parts, dict):
        yield from _tensors(tuple(parts.values()))
