import os
import subprocess
import sys

from conftest import ROOT


def test_a_few_of_each_fault_keep_every_promise(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)}
    words = [sys.executable, ROOT / "benchmarks" / "faults.py", "--small"]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" of ") >= 8
