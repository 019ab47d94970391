"""Two processes train on two GPUs what they train on a CPU, each on its own one."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, write_set

FLAGS = (*TINY, "--precision", "float32", "--epochs", 1, "--batch_size", 2, "--workers", 0, "--log_every", 1)


def run_ranks(folder, device):
    paths = ("--coco_path", folder / "data", "--output_path", folder / device)
    port = 29500 + os.getpid() % 1000
    torchrun = (
        "torch.distributed.run",
        "--nproc_per_node",
        2,
        "--rdzv_backend",
        "c10d",
        "--rdzv_endpoint",
        f"localhost:{port}",
    )
    words = (
        *torchrun,
        "-m",
        "gpu.run_script",
        ROOT / "train.py",
        *paths,
        *FLAGS,
        "--device",
        device,
        "--optimizer",
        "sgd",
    )
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def numbers(log):
    """The logged losses, and the table of the evaluation."""
    found = re.findall(r"loss: (\S+)", log)
    return [float(number) for number in found], [line for line in log.splitlines() if line.startswith(" Average")]


def test_two_ranks(tmp_path):
    for name, count in (("train", 7), ("val", 3)):
        write_set(tmp_path / "data", name, count)
    runs = {device: run_ranks(tmp_path, device) for device in ("cuda", "cpu")}
    for run in runs.values():
        assert run.returncode == 0, run.stderr[-3000:]
    (found, table), (wanted, own_table) = (numbers(runs[device].stdout) for device in ("cuda", "cpu"))
    assert found == pytest.approx(wanted, rel=1e-3)
    assert len(found) >= 6
    assert table == own_table != []
    told = sorted(line for line in runs["cuda"].stderr.splitlines() if "holds memory" in line)
    assert told == ["Rank 0 holds memory of GPUs [0]", "Rank 1 holds memory of GPUs [1]"]
