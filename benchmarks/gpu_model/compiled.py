"""Lists the kernels that Inductor plans for a compiled step, and the bytes that each kernel moves.

Inductor only plans: no kernel is generated or run. It doesn't expose its plan, so this module reads its internals
(torch 2.11 to 2.15).
"""

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from torch._inductor import config
from torch._inductor.graph import GraphLowering
from triton.backends.compiler import GPUTarget


class Planned:
    """A context in which compiled functions return uninitialised tensors.

    `moved` lists the bytes that each kernel moves, except for convolutions.
    """

    def __init__(self) -> None:
        self.moved: list[int] = []  # bytes of each kernel except the convolutions
        self.num_convolutions = 0

    def __enter__(self) -> "Planned":
        # Triton would look for a driver to find the kind of GPU.
        target = SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", 90, 32), get_current_device=lambda: 0)
        triton.runtime.driver.set_active(target)
        planned = self

        def compile_to_module(graph: GraphLowering) -> SimpleNamespace:
            planned._note(graph)
            graph.cache_key, graph.cache_path, graph.cache_linemap = "planned", "/dev/null", []
            kinds = [_kind(output) for output in graph.graph_outputs]
            return SimpleNamespace(call=lambda inputs: tuple(map(_empty, kinds)), __file__="/dev/null")

        self._patches = [
            patch.object(GraphLowering, "compile_to_module", compile_to_module),
            config.patch(force_disable_caches=True),
        ]
        for change in self._patches:
            change.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        for change in reversed(self._patches):
            change.__exit__(*raised)

    def _note(self, graph: GraphLowering) -> None:
        graph.init_wrapper_code()
        graph._update_scheduler()
        for kernel in graph.scheduler.nodes:
            if "convolution" in str(getattr(kernel.node, "python_kernel_name", "")):
                self.num_convolutions += 1
            elif type(kernel).__name__ != "NopKernelSchedulerNode":
                self.moved.append(_bytes_of(kernel))


def _bytes_of(kernel: Any) -> int:
    """Returns how many bytes `kernel` reads and writes; counts only the accessed parts of tensors, unlike Inductor."""
    parts: dict[str, int] = {}
    for access in kernel.read_writes.reads_and_writes():
        parts[access.name] = parts.get(access.name, 0) + access.numbytes_hint()
    whole = kernel.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
    return sum(min(size, parts[name]) for name, size in whole.items())


def _kind(output: Any) -> tuple[list[int], list[int], torch.dtype, torch.device] | None:
    """Returns sizes, strides, dtype and device of one of Inductor's outputs; None if the output is None."""
    if type(output).__name__ == "NoneAsConstantBuffer":
        return None
    sizes, strides = ([int(side) for side in sides] for sides in (output.get_size(), output.get_stride()))
    return sizes, strides, output.get_dtype(), output.get_device()


def _empty(kind: tuple[list[int], list[int], torch.dtype, torch.device] | None) -> Tensor | None:
    if kind is None:
        return None
    sizes, strides, dtype, device = kind
    return torch.empty_strided(sizes, strides, dtype=dtype, device=device)
