"""Times contestants in turn, in windows after a warm-up, and reports median and spread; also measures peak memory."""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from retinanet.checkpoints.provenance import git_commit
from retinanet.reports.tables import markdown_head
from retinanet.runtime.device import cpu_features, cpu_name

LISTED_SHARE = 0.003  # operators with a smaller share of the time than this are summed up in one row


class Timing(NamedTuple):
    """The seconds per call: the median, minimum and maximum over the timed windows."""

    median: float
    least: float
    most: float

    def rate(self, num_images: int) -> str:
        return f"{num_images / self.median:.3g} ({num_images / self.most:.3g} to {num_images / self.least:.3g})"


def time_in_turn(
    contestants: Mapping[str, Callable[[], object]], device: torch.device, warm_up: int, repeats: int
) -> dict[str, Timing]:
    """Times the contestants in turn, window by window, so that changes in the machine's speed affect all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for window in range(warm_up + repeats):
        for name, work in contestants.items():
            synchronise(device)
            started = time.perf_counter()
            work()
            synchronise(device)
            if window >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timing(statistics.median(taken), min(taken), max(taken)) for name, taken in seconds.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(module: str, argv: list[str], name: str) -> float:
    """Returns the peak memory in GB of a few calls to a contestant, measured in a separate run of `module`."""
    torch.cuda.empty_cache()  # gives the other process the memory that this one doesn't need
    command = [sys.executable, "-m", module, *argv, "--memory_of", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_peak(work: Callable[[], object], device: torch.device) -> None:
    """Prints this process's peak memory in GB after a few calls to `work`."""
    for _ in range(3):
        work()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_of_this_process()
    print(peak / 1e9)


def matrix_rate(device: torch.device, precision: torch.dtype, size: int | None = None) -> float:
    """Returns the measured operations/s of large matrix products, taken as the highest rate that the chip can reach."""
    size = size or (8192 if device.type == "cuda" else 2048)
    left, right = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    timing = time_in_turn({"product": lambda: left @ right}, device, warm_up=3, repeats=9)["product"]
    return 2 * size**3 / timing.median


def count_operations(work: Callable[[], object]) -> int:
    """Counts the operations of the convolutions and matrix products in a call, including the backward pass."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def print_profile(work: Callable[[], object], device: torch.device, precision: torch.dtype, calls: int = 5) -> None:
    """Prints the device time that each PyTorch operator takes in a call to `work`, excluding its callees.

    A line below the table gives the time that the convolutions and matrix products would take at the measured matmul
    rate.
    """
    work()
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as profiler:
        for _ in range(calls):
            work()
        synchronise(device)
    times = [
        (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.key, event.count)
        for event in profiler.key_averages()
        if event.device_type == DeviceType.CPU  # the operators, to which their kernels' time is added
    ]
    total = sum(microseconds for microseconds, _, _ in times)
    times.sort(reverse=True)
    listed = [row for row in times if row[0] >= LISTED_SHARE * total]
    others = times[len(listed) :]
    listed.append((sum(row[0] for row in others), f"{len(others)} others", sum(row[2] for row in others)))
    print(markdown_head("operator of ours", "ms", "share", "calls"))
    for microseconds, name, count in listed:
        print(f"| {name} | {microseconds / calls / 1e3:.2f} | {microseconds / total:.1%} | {count // calls} |")
    operations, rate = count_operations(work), matrix_rate(device, precision)
    print(
        f"\nAll: {total / calls / 1e3:.1f} ms. {operations / 1e9:.3g} GFLOP, which would take "
        f"{operations / rate * 1e3:.1f} ms at the measured rate of matrix products, {rate / 1e12:.3g} TFLOP/s."
    )


def peak_of_this_process() -> int:
    """Returns this process's own peak memory so far, in bytes; getrusage may return the parent's peak instead."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def describe(device: torch.device) -> str:
    """Returns the date, commit, machine and versions, for the line under a table."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    return f"{time.strftime('%Y-%m-%d')}, commit {git_commit()}, {chip_of(device)}, {versions}"


def chip_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, {' '.join(cpu_features())}"
