"""Runs train.py as several ranks on a CPU, and reads the ranks' logs and weights."""

import os
import re
from pathlib import Path

import torch

from support.scripts import ROOT, TINY

FLAGS = (*TINY, "--eval_every", 2, "--optimizer", "sgd", "--learning_rate", 0.01, "--log_every", 1, "--workers", 0)
SCRIPT = """
import os, signal, sys, time
sys.path[:0] = {paths}
from support.accidents import before_each_batch
from support.narrow import narrowed
from retinanet.runtime.console import run_command
from retinanet.settings.train import train_settings
narrowed.start()
{change}
run_command(train_settings, "train")
"""


def write_script(folder: Path, name: str, change: str = "") -> str:
    """Writes a train.py, with a narrow network, that runs the code `change` first; returns the script's name."""
    (folder / name).write_text(SCRIPT.format(paths=[str(ROOT), str(ROOT / "tests")], change=change))
    return name


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}


def command(folder: Path, output: str, *more: object, script: str = "train.py") -> list[str]:
    paths = ("--coco_path", folder / "data", "--output_path", folder / output)
    words = (folder / script, *paths, *FLAGS, "--weights", folder / "backbone.pth", *more)
    return [str(word) for word in words]


def losses(log: str) -> torch.Tensor:
    """Returns the classification and regression losses of the S steps in a log: [S, 2]."""
    lines = re.findall(r"Classification loss: (\S+) \| Regression loss: (\S+)", log)
    return torch.tensor([[float(classification), float(regression)] for classification, regression in lines])


def assert_same_weights(folder: Path, output: str) -> None:
    """Asserts that the final weights equal those of the one-process run."""
    one, other = (torch.load(folder / name / "model_final.pt")["model"] for name in ("alone", output))
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-5)
