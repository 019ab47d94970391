"""A real one-node Slurm of this machine, started without systemd in a folder of its own, and ended by process ids."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol")
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
KillWait=60
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ReturnToService=2
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


class Slurm:
    """The cluster, by its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *words: Any, check: bool = True, cwd: Path | None = None, **environment: str) -> str:
        """What a command prints. `environment`: more variables."""
        whole = self.environment | environment
        texts = [str(word) for word in words]
        ran = subprocess.run(texts, capture_output=True, text=True, env=whole, cwd=cwd, check=False)
        assert not check or ran.returncode == 0, f"{words}: {ran.stderr}"
        return ran.stdout.strip()

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED ...; empty once Slurm has forgotten it."""
        return self._facts(job).get("JobState", "")

    def restarts(self, job: str) -> int:
        return int(self._facts(job)["Restarts"])

    def seconds(self, job: str) -> int:
        """For how long the job has run; less than an hour."""
        minutes, seconds = self._facts(job)["RunTime"].split(":")[-2:]
        return 60 * int(minutes) + int(seconds)

    def _facts(self, job: str) -> dict[str, str]:
        text = self.run("scontrol", "--oneliner", "show", "job", job, check=False)
        return dict(word.partition("=")[::2] for word in text.split() if "=" in word)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    if not os.environ.get("RETINANET_SLURM_TESTS"):
        pytest.skip("starts a Slurm on this machine: set RETINANET_SLURM_TESTS=1")
    if not all(map(shutil.which, NEEDED)):
        pytest.skip("no Slurm here: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    for name in ("spool", "state"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, cpus=os.cpu_count()))
    cluster = Slurm(folder)
    munged = start_munge()
    started = []
    try:
        for daemon in ("slurmctld", "slurmd"):
            cluster.run(daemon, "-f", folder / "slurm.conf")
            started.append(folder / f"{daemon}.pid")
            time.sleep(1)
        until(lambda: "idle" in cluster.run("sinfo", "--noheader", "--format=%T", check=False), 20, "an idle node")
        yield cluster
        assert cluster.run("squeue", "--noheader") == "", "no job is left in the queue"
    finally:
        cluster.run("scancel", "--user=root", check=False)
        for pid_file in reversed(started):
            if pid_file.exists():
                end(int(pid_file.read_text()))
        if munged:
            end(munged)


def start_munge() -> int | None:
    """Start munged where none is running; its process id."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return None
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged"], check=True)
    until(lambda: Path("/run/munge/munged.pid").exists(), 10, "munged")
    return int(Path("/run/munge/munged.pid").read_text())


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def until(is_so: Any, seconds: float, what: str) -> None:
    """Wait until `is_so()`; AssertionError, naming `what`, after so many seconds."""
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends, f"{what} did not come in {seconds} s"
        time.sleep(0.2)
