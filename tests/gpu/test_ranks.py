"""Two processes train on two GPUs what one trains on a CPU, each on its own GPU."""

import os
import re

import pytest
import torch
from support.data_folder import write_set
from support.scripts import ROOT, TINY
from support.warm import started_ranks

from gpu.cases import CPU, make_network

SHARED = (*TINY, "--channels", 32, "--precision", "float32", "--epochs", 1, "--workers", 0, "--log_every", 1)


@pytest.fixture
def flags(tmp_path):
    """Those of both trainings. A file of weights, so that batch norm takes no statistics of each rank's own images."""
    for name, count in (("train", 7), ("val", 3)):
        write_set(tmp_path / "data", name, count)
    torch.save(make_network(CPU).backbone.state_dict(), tmp_path / "backbone.pth")
    paths = ("--coco_path", tmp_path / "data", "--weights", tmp_path / "backbone.pth")
    return (*SHARED, *paths, "--optimizer", "sgd", "--learning_rate", 0.01)


def logged(log):
    """The losses, and the table of the evaluation."""
    losses = [float(number) for number in re.findall(r"loss: (\S+)", log)]
    return losses, [line for line in log.splitlines() if line.startswith(" Average")]


def test_two_ranks(script, tmp_path, flags):
    own = ("--device", "cuda", "--batch_size", 2, "--output_path", tmp_path / "ranks")
    words = ("-m", "gpu.run_script", ROOT / "train.py", *flags, *own)
    ranks = started_ranks(2, words, dict(os.environ))
    (out, err), (_, other_err) = (rank.communicate(timeout=120) for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], err[-3000:] + other_err[-3000:]
    held = [line for line in (err + other_err).splitlines() if "holds memory" in line]
    assert held == ["Rank 0 holds memory of GPUs [0]", "Rank 1 holds memory of GPUs [1]"]

    alone = script("train", *flags, "--batch_size", 4, "--output_path", tmp_path / "alone")
    assert alone.code == 0, alone.err
    (found, table), (wanted, own_table) = logged(out), logged(alone.out)
    assert len(wanted) >= 6
    assert found == pytest.approx(wanted, rel=1e-3)
    assert table == own_table != []
