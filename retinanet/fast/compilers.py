"""What it takes to compile for a device: PyTorch's compiler and Triton start others."""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

LEAST_CAPABILITY = (7, 0)  # of Triton's GPUs: Volta, 2017


def lacking_for_compilation(device: torch.device) -> str | None:
    """What compilation needs on `device` and does not find: the end of "needs ..."."""
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
