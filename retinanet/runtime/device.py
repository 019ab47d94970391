"""Chooses the device and the network's precision; losses, box decoding and NMS always run in float32 or higher."""

import importlib.util
import os
import platform
import resource
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CPU_FEATURES = ("amx_int8", "amx_bf16", "avx512_vnni", "avx_vnni", "avx512_bf16")  # as /proc/cpuinfo names them
PRODUCT_SIZE = 512  # of the matrices with which bfloat16 is timed
LEAST_CAPABILITY = (7, 0)  # Triton needs a GPU of the Volta generation (2017) or newer


def find_device(name: str) -> torch.device:
    """Returns the device called `name`: cpu, cuda or cuda:N; auto is the GPU if there is one, otherwise the CPU.

    Under torchrun, cuda is the GPU whose number is this process's local rank. Raises UserError if PyTorch doesn't find
    the device, or for cuda:N if torchrun started several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    if name.startswith("cuda:") and local_rank and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            f"--device {name}: all processes would share this GPU, and each needs its own. Use --device cuda or auto."
        )
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank}"
    if int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: PyTorch sees {counted(torch.cuda.device_count(), 'GPU')} here. Check the driver with "
            "nvidia-smi, start no more processes than there are GPUs, or use --device cpu."
        )
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Returns the dtype called `name`; auto is bfloat16 if the GPU supports it, otherwise float32.

    On a GPU, float32 means TF32 in convolutions (PyTorch's default) and in matrix products: the range of float32, a
    10-bit mantissa, and several times the speed. Call this at the start of a program, because it also makes `device`
    the current GPU. Raises UserError for float16 on a CPU.
    """
    if device.type == "cuda" and device.index is not None:
        # Events, pinned memory and Triton use the current GPU; on the wrong GPU, their context would take 0.5 GB.
        torch.cuda.set_device(device)
    if name == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        name = "bfloat16" if has_bfloat16 else "float32"
    if name == "float16" and device.type == "cpu":
        raise UserError("--precision float16 needs a GPU. Use float32 or bfloat16 on a CPU.")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return PRECISIONS[name]


def fastest_precision(name: str, device_name: str) -> str:
    """Returns the precision for Detector: `name`, but bfloat16 instead of auto on CPUs where bfloat16 is faster.

    On a CPU, auto is bfloat16 if the CPU has AMX, or if it is from AMD and has avx512_bf16. On an Intel Xeon with
    avx512_bf16 but no AMX, bfloat16 is slower (figures: benchmarks/README.md). The speed isn't measured here: on a busy
    machine, a measurement could change the precision, and with it the detections, from one start to the next.
    """
    uses_cpu = device_name == "cpu" or (device_name == "auto" and not torch.cuda.is_available())
    if name != "auto" or not uses_cpu:
        return name
    features = cpu_features()
    is_faster = "amx_bf16" in features or ("avx512_bf16" in features and cpu_vendor() == "AuthenticAMD")
    return "bfloat16" if is_faster else name


def bfloat16_speed() -> float:
    """Returns the CPU's matrix-product speed in bfloat16 relative to float32; measuring it takes 0.1 s."""
    seconds = {}
    for precision in (torch.float32, torch.bfloat16):
        matrix = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE, dtype=precision)
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            taken.append(time.perf_counter() - started)
        seconds[precision] = min(taken)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def make_deterministic() -> None:
    """Makes GPU results bitwise reproducible, as CPU results already are.

    Operations without a deterministic implementation print a warning. Call this before the process uses a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # it finds bugs but costs time
    torch.backends.cudnn.benchmark = False  # the search may choose another algorithm each time


@contextmanager
def searching_algorithms(enabled: bool) -> Iterator[None]:
    """If `enabled`, cuDNN searches for its fastest algorithms inside the block; this takes seconds per input shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Returns a context in which the network runs in `precision` while its weights stay float32."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def lacking_for_compilation(device: torch.device) -> str | None:
    """Returns the first requirement of torch.compile that is not met, worded to follow "needs"; None if all are met."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "the package triton, which PyTorch's CUDA builds for Linux include"
        if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
            return "a GPU of compute capability 7.0 (Volta, 2017) or newer"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "a C compiler, such as gcc"
    if device.type == "cuda" and not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python.h, which comes with a package such as python3-dev"
    return None


def num_workers(asked: int | None, device: torch.device) -> int:
    """Returns the number of loader processes: `asked` or, if None, one per core up to 8 for a GPU, and 1 for a CPU."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device.type == "cpu" else min(8, cores)


def memory_in_use(device: torch.device) -> int:
    """Returns the peak memory use in bytes: allocated on the GPU or, for a CPU, resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block, PyTorch uses a single CPU thread; afterwards, as many as before."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def cpu_name() -> str:
    """Returns the CPU's model name, or its architecture if the system doesn't report the name."""
    return next(iter(_cpu_lines("model name")), platform.machine())


def cpu_vendor() -> str:
    """Returns the vendor as /proc/cpuinfo names it, such as AuthenticAMD; an empty string if it isn't reported."""
    return next(iter(_cpu_lines("vendor_id")), "")


def cpu_features() -> list[str]:
    """Returns those of CPU_FEATURES that the CPU has, or an empty list if the system doesn't report them."""
    flags = {flag for line in _cpu_lines("flags") for flag in line.split()}
    return [name for name in CPU_FEATURES if name in flags]


def _cpu_lines(key: str) -> list[str]:
    """Returns the values of `key` in /proc/cpuinfo, or an empty list if there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.partition(": ")[2] for line in lines if line.startswith(key)]
