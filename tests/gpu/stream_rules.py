"""Memory given back too early: a tensor of one stream that another stream uses must be recorded there.

PyTorch's allocator gives a tensor's memory away as soon as Python drops it, to the next tensor of the stream that it
was made on. It doesn't know of another stream's work with it, unless record_stream says so.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpu.on_host import tensors_in


class StreamRules(TorchDispatchMode):
    """Notes which stream made each tensor; `unrecorded()` has what another one used without record_stream."""

    def __init__(self) -> None:
        super().__init__()
        self.makers: dict[int, int] = {}  # the stream of a storage, by its address
        self.recorded: set[tuple[int, int]] = set()
        self.used: dict[tuple[int, int], str] = {}  # by another stream, and in which operation
        self.kept: list[Any] = []  # so that no address comes twice

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "record_stream":
            self.recorded.add((_address(args[0]), args[1].stream_id))
            return func(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in((*args, *(kwargs or {}).values())):
            if not tensor.is_cuda:
                continue
            stream = torch.cuda.current_stream(tensor.device).stream_id
            if self.makers.get(_address(tensor), stream) != stream:
                self.used.setdefault((_address(tensor), stream), name)
        for tensor in tensors_in(result):
            if tensor.is_cuda and _address(tensor) not in self.makers:
                self.makers[_address(tensor)] = torch.cuda.current_stream(tensor.device).stream_id
                self.kept.append(tensor.untyped_storage())
        return result

    def unrecorded(self) -> list[str]:
        return [name for key, name in self.used.items() if key not in self.recorded]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
