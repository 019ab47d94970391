"""Turns PyTorch's errors about memory and dead processes into messages that suggest remedies."""

import errno
import os
import re
import resource
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.runtime.errors import OutOfResources, either
from retinanet.runtime.printable import counted

if TYPE_CHECKING:  # importing PyTorch takes seconds, and the flags are read first
    from torch import Tensor

SHARED_MEMORY = ("shared memory (/dev/shm) ran out; in Docker, --shm-size sets its size", "lower --workers")
LIKELY_CAUSES = {
    signal.SIGKILL: ("the system ran out of memory", "lower --workers", "remove --cache ram"),
    signal.SIGBUS: SHARED_MEMORY,
}
SHARED_MEMORY_SIGNS = ("unable to allocate shared memory", "unable to mmap")
FILES_SIGNS = ("Too many open files", "received 0 items of ancdata")
RECEIVING, SEMAPHORE = ("reduction.py", "recvfds"), ("synchronize.py", "__init__")  # in Python's multiprocessing
ENOUGH_FILES = 4096
HOST_SIGNS = ("can't allocate memory", "Cannot allocate memory")  # PyTorch's allocator; the system's ENOMEM
GPU_SIGNS = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")  # the driver; cuDNN and cuBLAS
# Remedies for each kind of work that can run out of memory.
SMALLER = ("lower --batch_size", "lower --min_side and --max_side")
STEP_ADVICE = (*SMALLER, "use a smaller --depth", "on a GPU, use --precision bfloat16")
COPY_ADVICE = SMALLER
DETECTION_ADVICE = (*SMALLER, "lower --num_candidates", "on a GPU, use --precision bfloat16")
GPU_ADVICE = (
    "lower --batch_size",
    "if another process uses the GPU's memory (see nvidia-smi), wait for it or choose another --device",
)
HOST_ADVICE = ("lower --workers", "lower --batch_size", "remove --cache ram", "end other processes that use memory")


@contextmanager
def memory_explained(where: str = "", advice: Sequence[str] = ()) -> Iterator[None]:
    """Raises OutOfResources if GPU or host memory runs out inside the block.

    `where` says what was being processed, such as named(images), and `advice` lists remedies. The outermost block
    passes neither.
    """
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        of_host = _is_out_of_host_memory(error)
        numbers = "" if of_host else _gpu_memory()
        fix = either(*(advice or (HOST_ADVICE if of_host else GPU_ADVICE)))
        raise OutOfResources(
            f"memory ran out{f' at {where}' if where else f': {_reason(error)}'}{numbers}. {fix[:1].upper()}{fix[1:]}."
        ) from error


def named(images: "Tensor") -> str:
    """Describes a batch of `images` [B, 3, H, W] in words."""
    batch, _, height, width = images.shape
    return f"a batch of {counted(batch, 'image')} of {height} x {width} pixels"


@contextmanager
def worker_explained() -> Iterator[None]:
    """Raises OutOfResources, with the cause, if a loader's worker process died or hung, or couldn't send a batch."""
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        text = " ".join(map(str, _with_causes(error)))
        if shortage := _shortage(error) or _shortage_of_worker(text):
            raise OutOfResources(_remedy(shortage)) from error
        if not isinstance(error, RuntimeError):
            raise
        if "DataLoader timed out" in text:
            raise OutOfResources(
                f"{text.replace('DataLoader', 'the loader')}: a file or the disk hangs. Fix that, or raise --timeout "
                "if the disk is that slow."
            ) from error
        if not (worker := re.search(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\)", text)):
            raise
        killer = re.search(r"killed by signal: (\w[\w ]*)", text)
        number = next((number for number in LIKELY_CAUSES if killer and str(signal.strsignal(number)) in text), None)
        cause = "see its output above; --workers 0 reads without workers"
        if number:
            cause = f"{LIKELY_CAUSES[number][0]}; {either(*LIKELY_CAUSES[number][1:])}"
        fate = f"killed by signal {number.name if number else killer[1].strip()}" if killer else "gone"
        raise OutOfResources(f"{worker[0]} is {fate}. Likely cause: {cause}.") from error


def end_worker_without_room(error: BaseException) -> None:
    """Ends this worker process if it can't send its batch because file descriptors or shared memory have run out.

    If the worker kept running, the main process would wait for the batch. The exit code tells worker_explained which of
    the two ran out.
    """
    if shortage := _shortage(error):
        os._exit(shortage)


def _shortage(error: BaseException) -> int | None:
    """Returns EMFILE if too many files are open, ENOSPC if shared memory is full, and None for other errors."""
    text = " ".join(map(str, _with_causes(error)))
    places = {(Path(frame.filename).name, frame.name) for frame in traceback.extract_tb(error.__traceback__)}
    # If no file can be opened for the memory of a batch, receiving the batch raises EOFError.
    if any(sign in text for sign in FILES_SIGNS) or (isinstance(error, EOFError) and RECEIVING in places):
        return errno.EMFILE
    is_semaphore = isinstance(error, OSError) and error.errno == errno.ENOSPC and SEMAPHORE in places
    return errno.ENOSPC if is_semaphore or any(sign in text for sign in SHARED_MEMORY_SIGNS) else None


def _shortage_of_worker(text: str) -> int | None:
    """Returns the shortage that ended a worker, according to PyTorch's message; None if something else ended it."""
    code = re.search(r"DataLoader worker .* exit code (\d+)", text)
    return int(code[1]) if code and int(code[1]) in (errno.EMFILE, errno.ENOSPC) else None


def _remedy(shortage: int) -> str:
    if shortage == errno.ENOSPC:
        return f"{SHARED_MEMORY[0]}. Make it larger{either(', or lower --workers')}."
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    advice = either(f"raise the limit (ulimit -n {ENOUGH_FILES})", "lower --workers")
    return f"too many open files: the limit for a process is {limit}. {advice[:1].upper()}{advice[1:]}."


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    return _is_out_of_host_memory(error) or is_out_of_gpu_memory(error)


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Returns True if PyTorch's allocator, the driver, cuDNN, cuBLAS or NCCL ran out of GPU memory."""
    if not isinstance(error, RuntimeError):
        return False
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in GPU_SIGNS)


def _is_out_of_host_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in HOST_SIGNS)
    )


def _reason(error: BaseException) -> str:
    """Returns the error's first line without the allocator's figures, because our message gives its own."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.split(r"\. GPU \d|\.$", line)[0][:160]


def _gpu_memory() -> str:
    import torch

    if not torch.cuda.is_initialized():
        return ""
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:  # a full GPU may not even have the memory for this query
        return ""
    held = torch.cuda.memory_reserved()
    return f" ({total / 1e9:.1f} GB on the GPU, {held / 1e9:.1f} held by this run, {free / 1e9:.1f} free)"
