"""cluster/*.sbatch on a real one-node Slurm: disturbed jobs end with the numbers of an undisturbed run.

All jobs run side by side; each is disturbed once its log shows that it trains.
"""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from support.data_folder import write_set
from support.narrow import START
from support.scripts import ROOT

from cluster.conftest import Slurm

pytestmark = pytest.mark.waits

LONGEST = 600.0  # seconds for all jobs, beside other tests
EPOCHS, DISTURBED_FROM = 60, 3  # epochs of a run; the one from which on it is disturbed
FLAGS = ("--depth", 18, "--channels", 8, "--weights", "none", "--min_side", 64, "--max_side", 96, "--device", "cpu")
FLAGS = (*FLAGS, "--batch_size", 2, "--workers", 0, "--eval_every", 1000, "--log_every", 1, "--save_every", 5)
SBATCH = ("sbatch", "--parsable", "--cpus-per-task=1")
BEFORE_THE_LIMIT = "--signal=B:USR1@175"  # seconds; Slurm may send it up to a minute early
OURS = re.compile(
    r"Epoch|Resumed|Settings|Seed|Num |Not trained|Gradients|Objects|Classes|Best|Precision|Processes|Stopped|"
    r"epoch_loss_list|\[| Average|Backbone|Batch-norm|Warning|Disk|Hint|output/|/.* holds nothing|Log:|Raw weights"
)


def terminate(slurm: Slurm, job: str) -> None:
    slurm.run("scancel", "--signal=TERM", job)


def requeue(slurm: Slurm, job: str) -> None:
    slurm.run("scontrol", "requeue", job)


def near_the_limit(slurm: Slurm, job: str) -> None:
    """Leave 2 to 3 minutes, less than Slurm signals before the end.

    Slurm looks at limits every 30 seconds. The ranks wait for the signal, or they might end first.
    """
    slurm.run("scontrol", "update", f"JobId={job}", f"TimeLimit={slurm.seconds(job) // 60 + 3}")
    for pid in ranks_of(job).values():
        os.kill(pid, signal.SIGSTOP)


def signalled(job: str) -> bool:
    """Whether SIGUSR1 waits for all stopped ranks. The launcher kills ranks that don't end within 30 seconds of it."""
    waiting = []
    for pid in ranks_of(job).values():
        status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        waiting.append(int(status["ShdPnd"], 16) >> (signal.SIGUSR1 - 1) & 1)
    return all(waiting)


def after_the_signal(slurm: Slurm, job: str) -> None:
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=240")
    for pid in ranks_of(job).values():
        os.kill(pid, signal.SIGCONT)


def kill_a_rank(slurm: Slurm, job: str) -> None:
    os.kill(ranks_of(job)[1], signal.SIGKILL)


def ranks_of(job: str) -> dict[int, int]:
    """The process id of each rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        environment = dict(line.partition("=")[::2] for line in lines)
        if environment.get("SLURM_JOB_ID") == job and "RANK" in environment:
            found[int(environment["RANK"])] = int(folder.name)
    return found


DISTURBANCES: dict[str, Callable[[Slurm, str], None] | None] = {
    "undisturbed": None,
    "term": terminate,
    "requeue": requeue,
    "limit": near_the_limit,
    "rank": kill_a_rank,
}


class Job(NamedTuple):
    output: Path
    log: str
    restarts: int
    state: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A project folder with data, from which jobs are submitted."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("train.py", "vis.py", "retinanet", "cluster"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "log").mkdir()
    for name, count in (("train", 8), ("val", 2)):
        write_set(folder / "data", name, count)
    return folder


@pytest.fixture(scope="module")
def jobs(slurm, folder) -> dict[str, Job]:
    """All that was submitted, ended."""
    ids = {}
    how = {"cwd": folder, "PYTHON": sys.executable, "PROCESSES": "2", "PYTHONPATH": str(START)}
    for name in DISTURBANCES:
        flags = (*FLAGS, "--epochs", EPOCHS, "--output_path", f"output/{name}")
        ids[name] = slurm.run(*SBATCH, BEFORE_THE_LIMIT, "cluster/train.sbatch", *flags, **how)
    left = {name: disturb for name, disturb in DISTURBANCES.items() if disturb}
    started, stopped = time.monotonic(), False
    states: dict[str, str] = {}
    while set(states.values()) != {"COMPLETED"} or len(states) < len(ids):
        time.sleep(0.3)
        assert time.monotonic() < started + LONGEST, f"{states}, not disturbed yet: {list(left)}"
        for name, job in ids.items():
            states[name] = slurm.state(job)
            log = folder / "log" / f"retinanet_{job}.log"
            if name in left and log.exists() and f"Epoch: {DISTURBED_FROM} |" in log.read_text():
                left.pop(name)(slurm, job)
                stopped = stopped or name == "limit"
        if stopped and signalled(ids["limit"]):
            after_the_signal(slurm, ids["limit"])
            stopped = False
    ended = {}
    for name, job in ids.items():
        log = (folder / "log" / f"retinanet_{job}.log").read_text()
        ended[name] = Job(folder / "output" / name, log, slurm.restarts(job), states[name])
    return ended


@pytest.mark.parametrize("name", DISTURBANCES)
def test_it_ends_with_the_numbers_of_the_undisturbed_run(jobs, name):
    undisturbed, job = jobs["undisturbed"], jobs[name]

    assert job.restarts == (name in ("term", "requeue", "limit"))
    assert losses(job.log) == losses(undisturbed.log)
    assert len(losses(job.log)) == EPOCHS
    weights, wanted = (
        torch.load(one.output / "model_final.pt", weights_only=True)["model"] for one in (job, undisturbed)
    )
    assert all(torch.equal(weights[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(("name", "signal_name"), [("term", "SIGTERM"), ("limit", "SIGUSR1")])
def test_an_orderly_stop_saves_and_reports_it_in_few_lines(jobs, name, signal_name):
    log = jobs[name].log

    assert f"Stopped by {signal_name}: output/{name}/last.pt is saved" in log
    assert f"Resumed from output/{name} after" in log
    foreign = [line for line in log.splitlines() if line.strip() and not OURS.match(line)]
    assert len(foreign) <= 3, foreign


def test_an_array_trains_each_pair_and_makes_a_table(slurm, folder):
    words = (*SBATCH, "--array=0-1", "--wait", "cluster/array.sbatch", *FLAGS, "--epochs", 2)
    environment = {"PYTHON": sys.executable, "PROCESSES": "1", "SEEDS": "1 2", "RATES": "1e-4"}
    environment["PYTHONPATH"] = str(START)
    job = slurm.run(*words, cwd=folder, **environment).split("\n")[0]

    logs = sorted((folder / "log").glob(f"array_{job}_*.log"))
    assert len(logs) == 2
    table = subprocess.run(
        [sys.executable, "vis.py", "--logs", *logs], cwd=folder, capture_output=True, text=True, check=True
    )
    rows = [line.split("|")[1:4] for line in table.stdout.splitlines() if "array_" in line]
    assert [[word.strip() for word in row] for row in rows] == [
        [f"array_{job}_0", "1", "18"],
        [f"array_{job}_1", "2", "18"],
    ]
    run = slurm.run(*SBATCH, "--array=7", "--wait", "cluster/array.sbatch", cwd=folder, check=False, **environment)
    assert "more numbers than there are pairs" in (folder / "log" / f"array_{run}_7.log").read_text()


def losses(log: str) -> list[float]:
    """The mean loss of each epoch, as the end of a log lists them."""
    return ast.literal_eval(log.rpartition("epoch_loss_list:")[2].strip().splitlines()[0])
