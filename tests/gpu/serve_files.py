"""Runs the tests of one file after another, each in a process forked from this one, which has imported PyTorch.

For each line on stdin, {"words": pytest's arguments, "reports": a file for its reports, "output": one for what it
prints}, a line on stdout says that it has ended. This process itself never has to do with a GPU.
"""

import json
import os
import sys

import pytest
import torchvision  # noqa: F401


def run_file(words: list[str], reports: str, output: str) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ["PRETENDED_REPORTS"] = reports
    try:
        pytest.main(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        run_file(**json.loads(line))
        print("ended", flush=True)
