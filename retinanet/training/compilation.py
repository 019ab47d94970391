"""Decides whether training steps are compiled, and compiles them for each batch shape."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.data.transforms import MULTIPLE, padded_sizes
from retinanet.detector.loss import Assignment
from retinanet.detector.structures import Losses
from retinanet.runtime.device import lacking_for_compilation
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.runtime.ranks import Ranks

# Compiling ResNet-50 for the first batch shape took a minute on one core, and a run has a few shapes. On an H100, a
# compiled step is predicted to save 14 ms with 16 images, and up to 8 ms with 2 images if the host takes 7 microseconds
# to launch a kernel.
BATCHES_WORTH_COMPILING = 10_000
LONGEST_COMPILATION = 300.0  # seconds for one batch shape
# A GPU computes smaller batches faster than the host launches their kernels; a CUDA graph launches all of them at once.
SMALL_BATCH_PIXELS = 4 * 608 * 1024
MOST_SHAPES = 64  # batch shapes to compile; torch.compile's own limit, 8, is meant to catch mistakes


def why_not_compiled(
    compile_: str, device: torch.device, ranks: Ranks, num_batches: int, *, was_compiled: bool | None = None
) -> str | None:
    """Returns why the network isn't compiled; None if it is.

    With `auto`, a new run is compiled on a GPU if it is long enough to repay the compilation, and a resumed run keeps
    its earlier choice (`was_compiled`; None for a new run). Raises UserError if `on` isn't possible. Either all ranks
    compile or none does.
    """
    if compile_ == "off":
        return "--compile off"
    lacking = lacking_for_compilation(device)
    if compile_ == "on" and lacking:
        raise UserError(f"--compile on needs {lacking}. Install it, or remove the flag")
    if compile_ == "on":
        return None
    if device.type != "cuda":
        return "--compile auto compiles on GPUs only"
    if was_compiled is False:
        return "as before it was resumed"
    if was_compiled is None and num_batches < BATCHES_WORTH_COMPILING:
        least = f"--compile auto needs at least {BATCHES_WORTH_COMPILING}"
        return f"{counted(num_batches, 'batch')} can't repay it: {least}"
    if ranks.all_agree(lacking is None):
        return None
    return f"it needs {lacking}" if lacking else "another process lacks what it needs"


class Compiled(NamedTuple):
    """Compilation settings: steps on batches of `batch_size` images are compiled, once per batch shape.

    The compiled code doesn't depend on the number of objects, which changes from batch to batch. Smaller batches run
    uncompiled.
    """

    batch_size: int
    # On a GPU, small batches replay CUDA graphs, which overwrite the gradients of the previous call. That rules out
    # gradient accumulation, and several ranks, which send their gradients directly from that memory.
    cuda_graphs: bool = True
    backend: str | Callable[..., Any] = "inductor"


def compiled_by_size(
    compute: Callable[[Tensor, Assignment], Losses],
    device: torch.device,
    compiled: Compiled,
) -> Callable[[Tensor, Assignment], Losses]:
    """Returns `compute`, compiled for each batch shape; on a GPU, batches with few pixels may use CUDA graphs."""
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    # While a network trains, only the numbers in its tensors change. Checking every layer for other changes would cost
    # the host 0.5 to 1 ms per step.
    unchecked: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    compile_with = partial(torch.compile, compute, fullgraph=True, dynamic=False, backend=compiled.backend)
    large = compile_with(options={**unchecked})
    if device.type != "cuda" or not compiled.cuda_graphs:
        return large
    small = compile_with(options={**unchecked, "triton.cudagraphs": True})

    def chosen(images: Tensor, assignment: Assignment) -> Losses:
        batch, _, height, width = images.shape
        if batch * height * width > SMALL_BATCH_PIXELS:
            return large(images, assignment)
        torch.compiler.cudagraph_mark_step_begin()  # the previous losses may be overwritten now
        return small(images, assignment)

    return chosen


def few_sides(min_side: int, max_side: int) -> list[int]:
    """Returns about 4 lengths to pad to, from `min_side` to `max_side`; more would mean more shapes to compile."""
    least, most = padded_sizes(np.array([min_side, max_side])).tolist()
    step = padded_sizes(np.array([(most - least) / 3])).astype(int).item()
    return sorted({*range(least, most, max(step, MULTIPLE)), most})
