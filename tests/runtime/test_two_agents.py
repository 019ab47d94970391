"""If one of two torchrun agents, as on two machines, is killed and restarted, the run ends with equal numbers."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.rank_runs import assert_same_weights, command, environment, losses, write_script
from support.warm import free_port

pytestmark = pytest.mark.waits

# Or the run would be over before it is disturbed.
SLOW = "before_each_batch(lambda batch: time.sleep(0.5))"


def kill_with_ranks(agent: subprocess.Popen) -> None:
    """As when a machine dies. Its ranks have sessions of their own."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    for pid in (agent.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    agent.wait()


def test_a_killed_agent_is_restarted(folder):
    flags = ("--batch_size", 3, "--epochs", 2, "--save_every", 1, "--timeout", 20, "--resume")
    where = ("--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"localhost:{free_port()}", "--rdzv_id", "7")
    launch = ["-m", "retinanet.launch", "--nproc_per_node", "1", "--max-restarts", "3", *where]
    script = write_script(folder, "train_slow.py", SLOW)
    words = [sys.executable, *launch, *command(folder, "agents", *flags, script=script)]

    def agent(name: str) -> subprocess.Popen:
        more = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with open(folder / f"{name}.log", "w") as log:
            return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment(**more))

    agents = [agent("first")]  # which keeps the meeting place
    try:
        time.sleep(1)
        agents.append(agent("second"))
        while not (folder / "agents" / "last.pt").exists():
            assert agents[0].poll() is None, (folder / "first.log").read_text()
            time.sleep(0.05)
        kill_with_ranks(agents[1])
        agents[1] = agent("back")
        codes = [one.wait(timeout=150) for one in agents]
    finally:
        for one in agents:
            if one.poll() is None:
                kill_with_ranks(one)

    log = "".join((folder / f"{name}.log").read_text() for name in ("first", "back"))  # rank 0 may be of either
    assert codes == [0, 0], log
    assert re.search(r"Resumed from \S+ after 0 epochs and [1-9] iterations", log), log
    alone = (folder / "log").read_text()
    torch.testing.assert_close(losses(log)[-4:], losses(alone)[-4:], rtol=1e-4, atol=2e-5)
    assert_same_weights(folder, "agents")
