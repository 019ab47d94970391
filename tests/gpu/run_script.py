"""A script on the pretended GPU, as a command of its own: python -m gpu.run_script SCRIPT|-m MODULE ARGUMENTS

Among ranks gloo takes NCCL's place, which needs a real GPU. At its end each process prints the GPUs
whose memory it holds.
"""

import os
import runpy
import sys
from typing import Any

import torch.distributed as dist
from support.narrow import narrowed

from gpu.on_host import OnHost


def with_gloo() -> None:
    init = dist.init_process_group

    def init_without_nccl(backend: str, *args: Any, **kwargs: Any) -> None:
        init(backend.replace("nccl", "gloo"), *args, **kwargs)

    dist.init_process_group = init_without_nccl


if __name__ == "__main__":
    del sys.argv[0]
    with_gloo()
    narrowed.start()  # as in the tests
    sys.executable = os.environ.get("PRETENDED_PYTHON", sys.executable)  # for what the script starts
    with OnHost() as host:
        try:
            if sys.argv[0] == "-m":
                del sys.argv[0]
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(sys.argv[0], run_name="__main__")
        finally:
            held = [number for number in range(2) if host.runtime.bytes_used(number)]
            print(f"Rank {os.environ.get('RANK', 0)} holds memory of GPUs {held}", file=sys.stderr, flush=True)
