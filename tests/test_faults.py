import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY

from retinanet.errors import OutOfResources
from retinanet.faults import memory_explained, worker_explained


def test_a_few_of_each_fault_keep_every_promise(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)}
    words = [sys.executable, ROOT / "benchmarks" / "faults.py", "--small"]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" of ") >= 8


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_memory_that_runs_out_is_told_with_the_batch_and_the_flags(fault):
    with (
        pytest.raises(OutOfResources, match=r"batch of 2 images of 64 x 96 pixels.*--batch_size.*--min_side"),
        memory_explained(torch.zeros(2, 3, 64, 96)),
    ):
        raise fault


def test_other_faults_pass():
    for context in (memory_explained(torch.zeros(1, 3, 8, 8)), worker_explained()):
        with pytest.raises(RuntimeError, match="a bug"), context:
            raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", r"\(pid 12\) is killed by signal SIGKILL.*memory"),
        ("DataLoader worker (pid 12) is killed by signal: Bus error. It", r"SIGBUS.*shared memory.*--shm-size"),
        ("DataLoader worker (pid 12) is killed by signal: Terminated. ", r"killed by signal Terminated.*--workers 0"),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", r"\(pid\(s\) 12, 13\) is gone.*--workers 0"),
        ("DataLoader timed out after 5 seconds", r"the loader timed out after 5 seconds.*--timeout"),
    ],
)
def test_dead_workers_are_told_with_their_likely_cause(text, told):
    with pytest.raises(OutOfResources, match=told), worker_explained():
        raise RuntimeError(text)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "is killed by signal SIGKILL"),
        ("time.sleep(100)", "timed out after 2"),
    ],
)
def test_a_worker_that_is_killed_or_hangs_ends_the_run(coco_path, tmp_path, trouble, words):
    code = f"""
import os, signal, time
import retinanet.data, train
from retinanet.command_line import run
def spoiled(path, *others):
    {trouble}
retinanet.data.read_image = spoiled
run(train.main)
"""
    flags = ("--coco_path", coco_path, "--output_path", tmp_path / "output", *TINY, "--workers", 1, "--timeout", 2)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, flags)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
