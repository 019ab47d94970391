"""What PyTorch raises when memory runs out or a process dies, in words that say what helps."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from retinanet.errors import OutOfResources

LIKELY_CAUSES = {
    signal.SIGKILL: "the system ran out of memory; lower --workers, or leave --cache ram away",
    signal.SIGBUS: "shared memory (/dev/shm) ran out; lower --workers, or give the container more with --shm-size",
}


@contextmanager
def memory_explained(images: Tensor) -> Iterator[None]:
    """Raise OutOfResources, naming the batch `images` [B, 3, H, W] and the flags that help, where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:  # torch.OutOfMemoryError is a RuntimeError
        if not _is_out_of_memory(fault):
            raise
        batch, _, height, width = images.shape
        raise OutOfResources(
            f"memory ran out at a batch of {batch} images of {height} x {width} pixels{_gpu_memory(images.device)}. "
            "Lower --batch_size, or --min_side and --max_side, or take a smaller --depth; on a GPU --precision "
            "bfloat16 needs less too."
        ) from fault


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
    return (
        isinstance(fault, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in str(fault)
        or "CUDA out of memory" in str(fault)
    )


def _gpu_memory(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    return f" ({total / 1e9:.1f} GB on the GPU, {held / 1e9:.1f} held by this run, {free / 1e9:.1f} free)"
