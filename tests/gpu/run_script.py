"""A script on the pretended GPU, as a command: python -m gpu.run_script train.py ARGUMENTS, also under torchrun.

A training step that makes the host wait ends the script with a traceback. The environment's PRETENDED_RECORD names a folder for
what each rank has to tell: the operations that waited, and which GPUs were touched.
"""

import json
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gpu.on_host import OnHost

ROOT = Path(__file__).parent.parent.parent


def guard_steps() -> None:
    """Have every step raise where the host waits, in the first of a process alone it may. What comes between steps, such as log lines, is free."""
    from retinanet import train_setup

    train_steps = train_setup.train_steps

    def guarded(*args: Any, **kwargs: Any) -> Iterator[float]:
        steps = train_steps(*args, **kwargs)
        while True:
            if guard_steps.is_warm and dist.is_initialized() is False:
                torch.cuda.set_sync_debug_mode("error")
            try:
                rate = next(steps, None)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            if rate is None:
                return
            guard_steps.is_warm = True
            yield rate

    guard_steps.is_warm = False
    train_setup.train_steps = guarded
