"""True numbers on the pretended GPU: what its kernels should have computed, the CPU's do, in the same memory.

Each operation first runs PyTorch's own CUDA code on the pretended runtime: checks of devices and dtypes, allocations,
launches. Then the CPU's kernel works on tensors that lie in the very same memory. cuDNN and cuBLAS hold
runtimes of their own, and an operation that reads its own result back would read garbage: these run on the CPU alone.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpu.runtime import Runtime

aten = torch.ops.aten
CPU = torch.device("cpu")
# No value changes, or the runtime's copies do all: PyTorch's own code is enough.
MEMORY_ALONE = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
    *("is_pinned", "record_stream", "_local_scalar_dense", "lift_fresh"),
}
FROM_LIBRARIES = {
    *("convolution", "convolution_backward", "cudnn_batch_norm", "cudnn_batch_norm_backward"),
    *("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot"),
}
# A shape or a Python value depends on what the tensor holds: the host has to wait for it.
READ_BACK = {"nonzero", "masked_select", "_unique2", "unique_dim", "equal", "nms", "repeat_interleave"}
MASKABLE = {"index", "index_put", "index_put_", "_index_put_impl_"}
_own_text_of = Tensor.__repr__
HALVES = (torch.float16, torch.bfloat16)


class OnHost(TorchDispatchMode):
    """Operations with a tensor on the pretended GPU, or that make one, get their results from the CPU.

    `waits` names the operations that made the host wait, in order; with torch.cuda.set_sync_debug_mode("error") the
    first of them raises. `formats` has the dtypes of each operation's first tensor. `memory_ends_at`: a function and an
    operation; called from there, in whichever depth, the operation finds no memory left on the GPU. An empty
    name is any function's.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.Tensor.__repr__ = _text_of  # from here on
        self.runtime = Runtime()
        self.memory_ends_at: tuple[str, str] | None = None
        self.waits: list[str] = []
        self.formats: dict[str, set[torch.dtype]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in((*args, *kwargs.values())))
        device = _gpu_of(tensors, kwargs)
        if device is None or func.namespace in ("c10d", "_c10d_functional"):  # gloo copies to the host by itself
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if self.memory_ends_at and name == self.memory_ends_at[1] and _is_within(self.memory_ends_at[0]):
            torch.empty(2**50, dtype=torch.uint8, device=device)  # raises as PyTorch does
        if tensors:
            self.formats[name].add(tensors[0].dtype)
        if name in MEMORY_ALONE or _is_view(func):
            return self._run(name, func, args, kwargs)
        reads = name in READ_BACK or (name in MASKABLE and any(_is_mask(index) for index in args[1]))
        if reads:
            self._notice_wait(name)
        if reads or name in FROM_LIBRARIES:
            found = _computed(func, args, kwargs)
            return _mapped(lambda tensor: _moved(tensor, device), found)
        result = self._run(name, func, args, kwargs)
        _write(name, _computed(func, args, kwargs), result)
        return result

    def _run(self, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        before = self.runtime.waits
        result = func(*args, **kwargs)
        if self.runtime.waits > before:
            self._notice_wait(name)
        return result

    def _notice_wait(self, name: str) -> None:
        self.waits.append(name)
        if torch.cuda.get_sync_debug_mode() == 2:
            raise RuntimeError(f"{name} makes the host wait for the GPU")


def on_cpu(tensor: Tensor) -> Tensor:
    """A CPU tensor in the memory of a tensor of the pretended GPU; others as they are."""
    if tensor.device.type != "cuda":
        return tensor
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    same = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), CPU, storage.nbytes())
    return torch.empty(0, dtype=tensor.dtype).set_(same, tensor.storage_offset(), tensor.shape, tensor.stride())


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with `function` of each tensor in it."""
    if isinstance(value, Tensor):
        return function(value)
    return type(value)(_mapped(function, part) for part in value) if type(value) in (list, tuple) else value


def _is_within(function: str) -> bool:
    frame = sys._getframe()
    while frame and function and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def _text_of(tensor: Tensor, **more: Any) -> str:
    """PyTorch's own would switch OnHost off, and take a size that no kernel has written for true."""
    text = _own_text_of(on_cpu(tensor), **more)
    return f"{text} on {tensor.device}" if tensor.is_cuda else text


def _gpu_of(tensors: list[Tensor], kwargs: dict) -> torch.device | None:
    devices = [tensor.device for tensor in tensors]
    if kwargs.get("device") is not None:
        devices.append(torch.device(kwargs["device"]))
    return next((device for device in devices if device.type == "cuda"), None)


def _is_view(func: Any) -> bool:
    return any(result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _computed(func: Any, args: tuple, kwargs: dict) -> Any:
    """What `func` gives on the CPU; what it changes in place changes in the GPU's memory."""
    name = func.overloadpacket.__name__
    args = _mapped(on_cpu, args)
    kwargs = {key: _mapped(on_cpu, value) for key, value in kwargs.items() if key != "non_blocking"}
    kwargs.pop("pin_memory", None)
    if kwargs.get("device") is not None:
        kwargs["device"] = CPU
    if name in FROM_LIBRARIES:
        return _from_library(func, name, args, kwargs)
    return func(*args, **kwargs)


def _from_library(func: Any, name: str, args: tuple, kwargs: dict) -> Any:
    """As cuDNN and cuBLAS do: products of halves are added up in float32, and there are none of whole numbers."""
    if not args[0].dtype.is_floating_point:
        raise RuntimeError(f"{name} is not implemented for {args[0].dtype} on a GPU")
    wide = _mapped(lambda tensor: tensor.float() if tensor.dtype in HALVES else tensor, args)
    result = OF_CUDNN.get(name, func)(*wide, **kwargs)
    if args[0].dtype not in HALVES or name.startswith("cudnn_batch_norm"):
        return result
    return _mapped(lambda tensor: tensor.to(args[0].dtype), result)


def _batch_norm(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return (*aten.native_batch_norm(x, *rest), torch.empty(0, dtype=torch.uint8))


def _batch_norm_backward(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    mean: Tensor,
    var: Tensor,
    batch_mean: Tensor,
    batch_scale: Tensor,
    epsilon: float,
    reserve: Tensor,
) -> tuple[Tensor, ...]:
    of_batch = (batch_mean, batch_scale, True, epsilon, [True] * 3)
    return aten.native_batch_norm_backward(gradient, x, weight, mean, var, *of_batch)


OF_CUDNN = {
    "cudnn_batch_norm": _batch_norm,
    "cudnn_batch_norm_backward": _batch_norm_backward,
}


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    on_cpu(made).copy_(tensor)
    return made


def _write(name: str, found: Any, result: Any) -> None:
    """Put what the CPU found into the tensors that the GPU's code made."""
    for value, target in zip(tensors_in(found), tensors_in(result), strict=True):
        if value.data_ptr() == target.data_ptr():
            continue
        if value.shape == target.shape:
            on_cpu(target).copy_(value)
        elif value.numel() and target.numel():  # some have space for themselves among their results
            raise AssertionError(f"{name} gives {tuple(value.shape)} on the CPU, {tuple(target.shape)} on a GPU")
