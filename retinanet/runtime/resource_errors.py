"""What PyTorch raises when memory runs out or a process dies, in words that say what helps."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retinanet.runtime.errors import OutOfResources

if TYPE_CHECKING:  # PyTorch is imported where something ran out: the flags are read before it is
    from torch import Tensor

LIKELY_CAUSES = {
    signal.SIGKILL: "the system ran out of memory; lower --workers, or leave --cache ram away",
    signal.SIGBUS: "shared memory (/dev/shm) ran out; lower --workers, or give the container more with --shm-size",
}
HOST_SIGNS = ("can't allocate memory", "Cannot allocate memory")  # PyTorch's allocator; the system's ENOMEM
GPU_SIGNS = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")  # the driver; cuDNN and cuBLAS
# What helps, by what runs out of memory.
STEP_ADVICE = (
    "Lower --batch_size, or --min_side and --max_side, or take a smaller --depth; on a GPU --precision bfloat16 needs "
    "less too."
)
COPY_ADVICE = "Lower --batch_size, or --min_side and --max_side."
DETECTION_ADVICE = (
    "Lower --batch_size, --num_candidates, or --min_side and --max_side; on a GPU --precision bfloat16 needs less too."
)
GPU_ADVICE = (
    "If another process holds the GPU's memory (nvidia-smi shows it), wait for it or choose another --device; else "
    "lower --batch_size."
)
HOST_ADVICE = "Lower --workers or --batch_size, drop --cache ram, or end other processes that hold memory."


@contextmanager
def memory_explained(where: str = "", advice: str = "") -> Iterator[None]:
    """Raise OutOfResources where memory runs out, of a GPU or of the machine.

    `where` says at which work, such as named(images), and `advice` what helps there. Without them it is for all that
    has no such block of its own.
    """
    try:
        yield
    except Exception as fault:
        if not _is_out_of_memory(fault):
            raise
        of_host = _is_out_of_host_memory(fault)
        numbers = "" if of_host else _gpu_memory()
        raise OutOfResources(
            f"memory ran out{f' at {where}' if where else f': {_reason(fault)}'}{numbers}. "
            f"{advice or (HOST_ADVICE if of_host else GPU_ADVICE)}"
        ) from fault


def named(images: "Tensor") -> str:
    """A batch of `images` [B, 3, H, W], in words."""
    batch, _, height, width = images.shape
    return f"a batch of {batch} images of {height} x {width} pixels"


@contextmanager
def worker_explained() -> Iterator[None]:
    """Raise OutOfResources, naming the likely cause, where a loader's worker process died or hangs."""
    try:
        yield
    except RuntimeError as fault:
        text = " ".join(map(str, _with_causes(fault)))
        if "DataLoader timed out" in text:
            raise OutOfResources(
                f"{text.replace('DataLoader', 'the loader')}: a file or the disk hangs. Mend that, or raise --timeout "
                "if the disk is that slow."
            ) from fault
        if not (found := re.search(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\)", text)):
            raise
        by = re.search(r"killed by signal: (\w[\w ]*)", text)
        number = next((one for one in LIKELY_CAUSES if by and str(signal.strsignal(one)) in text), None)
        cause = LIKELY_CAUSES[number] if number else "see above what it printed; --workers 0 reads without workers"
        how = f"killed by signal {number.name if number else by[1].strip()}" if by else "gone"
        raise OutOfResources(f"{found[0]} is {how}. Likely cause: {cause}.") from fault


def _with_causes(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


def _is_out_of_memory(fault: BaseException) -> bool:
    return _is_out_of_host_memory(fault) or is_out_of_gpu_memory(fault)


def is_out_of_gpu_memory(fault: BaseException) -> bool:
    """Whether PyTorch's allocator, the driver, cuDNN, cuBLAS or NCCL found no memory on the GPU."""
    if not isinstance(fault, RuntimeError):
        return False
    import torch

    return isinstance(fault, torch.OutOfMemoryError) or any(sign in str(fault) for sign in GPU_SIGNS)


def _is_out_of_host_memory(fault: BaseException) -> bool:
    return isinstance(fault, MemoryError) or (
        isinstance(fault, RuntimeError | OSError) and any(sign in str(fault) for sign in HOST_SIGNS)
    )


def _reason(fault: BaseException) -> str:
    """The fault's first line, without the numbers of PyTorch's allocator, which follow in our own words."""
    line = (str(fault).splitlines() or [type(fault).__name__])[0]
    return re.split(r"\. GPU \d|\.$", line)[0][:160]


def _gpu_memory() -> str:
    import torch

    if not torch.cuda.is_initialized():
        return ""
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:  # a GPU that is full may leave no room even for this answer
        return ""
    held = torch.cuda.memory_reserved()
    return f" ({total / 1e9:.1f} GB on the GPU, {held / 1e9:.1f} held by this run, {free / 1e9:.1f} free)"
