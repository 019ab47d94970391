import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from support.built import small_losses, small_network, small_state
from support.scripts import ROOT, TINY
from support.warm import finished

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.batches import Batch
from retinanet.data.dataloader import LoaderSettings
from retinanet.data.dataset import CocoDataset
from retinanet.data.device_feed import on_device
from retinanet.detector.settings import DetectionSettings
from retinanet.detector.structures import Targets
from retinanet.evaluation import detect_set, views
from retinanet.evaluation.views import Views
from retinanet.runtime.console import run
from retinanet.runtime.errors import OutOfResources
from retinanet.runtime.resource_errors import STEP_ADVICE, memory_explained, named, worker_explained
from retinanet.training.engine import train_steps

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")
LACKING = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_few_of_each_fault_keep_every_promise(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)}
    ended = finished(["-m", "tests.faults", "--small"], environment=environment, folder=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" of ") >= 6


@pytest.mark.parametrize(
    "fault",
    [
        LACKING,
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        *map(
            RuntimeError,
            (
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried",
                "unable to mmap 4096 bytes from file </torch_1>: Cannot allocate memory (12)",
                "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
                "CUDA driver error: out of memory",
                "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "NCCL error: unhandled cuda error. Cuda failure 2 'out of memory'",
            ),
        ),
    ],
    ids=lambda fault: f"{type(fault).__name__} {fault}"[:60],
)
def test_running_out_of_memory_names_the_batch_and_the_flags(fault):
    words = r"batch of 2 images of 64 x 96 pixels.*--batch_size.*--min_side"
    with (
        pytest.raises(OutOfResources, match=words),
        memory_explained(named(torch.zeros(2, 3, 64, 96)), STEP_ADVICE),
    ):
        raise fault


def lack(*_, **__):
    raise LACKING


def batches():
    targets = Targets(torch.zeros(2, 1, 4), torch.full((2, 1), -1))
    images, sizes = torch.zeros(2, 3, 64, 96, dtype=torch.uint8), torch.tensor([[64, 96]] * 2)
    return [Batch(images, targets, sizes, torch.ones(2, 2), torch.arange(2))]


@pytest.mark.parametrize("phase", ["forward", "optimizer.step"])
def test_a_training_step_names_its_batch_where_memory_runs_out(phase):
    state = small_state()
    losses = lack if phase == "forward" else small_losses(state.network)
    if phase == "optimizer.step":
        state.optimizer.step = lack
    with pytest.raises(OutOfResources, match=r"batch of 2 images of 64 x 96.*--depth"):
        list(train_steps(state, [batches()], rates=[1e-3], clip_norm=1.0, compute_losses=losses))


def test_a_copy_names_its_batch_where_memory_runs_out(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "to", lack)
    with pytest.raises(OutOfResources, match=r"batch of 2 images of 64 x 96.*--batch_size"):
        list(on_device(batches(), CPU))


@pytest.mark.parametrize(
    ("module", "name", "told"),
    [
        (views, "mirrored", "a batch of 2 images"),
        (views, "find_candidates", "a batch of 2 images"),
        (detect_set, "suppress", "2 images, 18 candidates each"),
    ],
)
def test_detection_names_its_batch_when_memory_runs_out(coco_path, monkeypatch, module, name, told):
    annotations = load_annotations(coco_path / "val.json")
    dataset = CocoDataset(annotations, coco_path / "images" / "val", 64, 96)
    monkeypatch.setattr(module, name, lack)
    with pytest.raises(OutOfResources, match=rf"{told}.*--num_candidates"):
        detect_set.detect_all(
            small_network(),
            dataset,
            LoaderSettings(2),
            device=CPU,
            detection=DetectionSettings(num_candidates=9),
            views=Views(flip=True),
        )


@pytest.mark.parametrize(
    ("fault", "advice"),
    [(LACKING, "nvidia-smi"), (RuntimeError("CUDA error: out of memory"), "nvidia-smi"), (MemoryError(), "--workers")],
    ids=["allocator", "driver", "host"],
)
def test_anywhere_else_a_script_ends_with_one_message_and_code_4(capfd, fault, advice):
    def main():
        raise fault

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 4
    told = capfd.readouterr().err
    assert "memory ran out" in told
    assert advice in told
    assert told.count("\n") == 1


def test_other_faults_pass():
    for context in (memory_explained(), memory_explained("a copy"), worker_explained()):
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
def test_dead_workers_are_reported_with_their_likely_cause(text, told):
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
import retinanet.data.dataset
from retinanet.runtime.console import run_command
from retinanet.settings.train import train_settings
parent, read_image = os.getpid(), retinanet.data.dataset.read_image
def spoiled(path, *others, **how):
    if os.getpid() == parent:
        return read_image(path, *others, **how)
    {trouble}
retinanet.data.dataset.read_image = spoiled
run_command(train_settings, "train")
"""
    flags = ("--coco_path", coco_path, "--output_path", tmp_path / "output", *TINY, "--workers", 1, "--timeout", 2)
    ended = finished(["-c", code, *flags], timeout=60, is_narrow=True)
    assert ended.returncode == 4, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("limit", [28, 36])
def test_too_few_open_files_end_the_run_at_once(coco_path, tmp_path, limit):
    flags = ("--coco_path", coco_path, "--output_path", tmp_path / "output", *TINY, "--workers", 2, "--timeout", 50)
    code = f"""
import resource
from retinanet.runtime.console import run_command
from retinanet.settings.train import train_settings
def limited():
    settings = train_settings()
    resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
    return settings
run_command(limited, "train")
"""
    ended = finished(["-c", code, *flags], timeout=40, is_narrow=True)
    assert ended.returncode == 4, ended.stderr
    line = ended.stderr.splitlines()[-1]
    assert f"too many open files: the limit for a process is {limit}. Raise the limit (ulimit -n 4096)" in line
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("received 0 items of ancdata"), "too many open files"),
        (OSError(errno.EMFILE, "Too many open files", "1.png"), "too many open files"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device"), "--shm-s"),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 24. Det"), "too many open files"),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 28. Det"), "--shm-size"),
    ],
)
def test_shortages_are_told_by_name(error, told):
    with pytest.raises(OutOfResources, match=told), worker_explained():
        raise error


@pytest.mark.parametrize("room", ["16k", "64k"])
def test_little_shared_memory_ends_the_run_at_once(coco_path, room, request):
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))  # tmp_path may be in /dev/shm, which the mount hides
    request.addfinalizer(lambda: shutil.rmtree(folder))
    shutil.copytree(coco_path, folder / "data")
    mount = f"mount -t tmpfs -o size={room} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "bash", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a small /dev/shm needs root")
    flags = ("--coco_path", folder / "data", "--output_path", folder / "output", *TINY, "--workers", 2, "--timeout", 50)
    words = shlex.join(map(str, [sys.executable, ROOT / "train.py", *flags]))
    cache = {"XDG_CACHE_HOME": str(folder / "cache")}
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        ["unshare", "-m", "bash", "-c", f"{mount} && {words}"],
        capture_output=True,
        text=True,
        timeout=45,
        env=environment,
    )
    assert ended.returncode == 4, ended.stderr
    assert ended.stderr.splitlines()[-1].endswith(
        "shared memory (/dev/shm) ran out; in Docker, --shm-size sets its size. Make it larger, or lower --workers."
    )
    assert "Traceback" not in ended.stderr
