"""The device of a run and the number format of the network; losses, box code and NMS are always in float32."""

import importlib.util
import os
import resource
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from retinanet.runtime.errors import UserError

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LEAST_CAPABILITY = (7, 0)  # of the GPUs that Triton compiles for: Volta, 2017


def find_device(name: str) -> torch.device:
    """The device called `name`: cpu, cuda or cuda:N; auto is the GPU if there is one. UserError where it isn't there.

    Under torchrun cuda is the GPU with the number of the process on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    if name.startswith("cuda:") and local_rank and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(f"--device {name} would be the GPU of all ranks, and each needs its own. Give cuda or auto.")
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank}"
    if int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: PyTorch sees {torch.cuda.device_count()} GPUs here. Use --device cpu, start no more "
            "processes than there are GPUs, or check the driver."
        )
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The format called `name`; auto is bfloat16 where the GPU has it, else float32.

    float32 on a GPU means TF32 in convolutions and products, as PyTorch does in convolutions anyway: float32's range,
    10 bits of mantissa, several times the speed. Raises UserError where the device lacks the format. For the start of
    a program: from here on the GPU of `device` is the current one.
    """
    if device.type == "cuda" and device.index is not None:
        # Events, pinned memory and Triton take the current GPU, and a wrong one loses 0.5 GB to their context.
        torch.cuda.set_device(device)
    if name == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        name = "bfloat16" if has_bfloat16 else "float32"
    if name == "float16" and device.type == "cpu":
        raise UserError("--precision float16 is for GPUs. Choose float32 or bfloat16 on a CPU.")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return PRECISIONS[name]


def make_deterministic() -> None:
    """Have a GPU repeat its numbers to the last digit, as a CPU does anyway.

    Operations without a deterministic way are warned of. For the start of a process, before a GPU is used.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a check for bugs, which costs time
    torch.backends.cudnn.benchmark = False  # its search may choose another algorithm each time


@contextmanager
def searching_algorithms(wanted: bool) -> Iterator[None]:
    """In here cuDNN times its algorithms for each shape of a batch that is new: seconds, which few shapes repay."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which the network runs in `precision`, its weights staying float32."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def lacking_for_compilation(device: torch.device) -> str | None:
    """The first thing that torch.compile, or Triton on a GPU, lacks for `device`: the end of "needs ..."."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "the package triton, which PyTorch's CUDA builds for Linux bring"
        if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
            return "a GPU of compute capability 7.0 (Volta, 2017) or newer"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "a C compiler, such as gcc"
    if device.type == "cuda" and not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python.h, which comes with a package such as python3-dev"
    return None


def num_workers(asked: int | None, device: torch.device) -> int:
    """The loader processes `asked` for; by default up to 8 for a GPU, one for a CPU, whose cores are needed."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device.type == "cpu" else min(8, cores)


def memory_in_use(device: torch.device) -> int:
    """Bytes at the peak: of the GPU's memory, or of this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
