import os
import signal
import subprocess
import sys
import time

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


def test_a_worker_that_is_killed_or_hangs_ends_the_run(script, coco_path, tmp_path, monkeypatch):
    def killed(path, *others):
        os.kill(os.getpid(), signal.SIGKILL)

    def hangs(path, *others):
        time.sleep(100)

    flags = ("--coco_path", coco_path, "--output_path", tmp_path / "output", *TINY, "--workers", 1, "--timeout", 2)
    for trouble, words in ((killed, "is killed by signal SIGKILL"), (hangs, "timed out after 2")):
        monkeypatch.setattr("retinanet.data.read_image", trouble)
        run = script("train", *flags)
        assert (run.code, words in run.err, "Traceback" in run.err) == (4, True, False), run.err
