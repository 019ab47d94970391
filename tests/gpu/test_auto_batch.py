"""--batch_size auto on the pretended GPU, whose memory is what a test says."""

import json

import pytest
import torch
from support.data_folder import write_set
from support.scripts import TINY

from retinanet.training import batch_size

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_it_finds_a_batch_and_trains_with_it(script, tmp_path, host, monkeypatch):
    write_set(tmp_path / "data", "train", 12)
    write_set(tmp_path / "data", "val", 2)
    how = ("--coco_path", tmp_path / "data", "--output_path", tmp_path / "output", *TINY, "--device", "cuda")
    how = (*how, "--workers", 0, "--batch_size", "auto", "--eval_every", 100)
    peaks = []
    reserved = torch.cuda.max_memory_reserved
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peaks.append(reserved(device)) or peaks[-1])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    monkeypatch.setattr(batch_size, "MOST", 16)  # larger batches would take long
    script("train", *how, "--epochs", 1)
    ample = peaks[:]  # of 1, 2, 4 ... images
    assert ample[4] > ample[3]
    limit = (ample[3] + ample[4]) // 2  # between 8 and 16
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(limit / 0.8), 10**12))

    run = script("train", *how, "--epochs", 1)

    assert run.code == 0, run.err
    size = json.loads((tmp_path / "output" / "run.json").read_text())["settings"]["batch_size"]
    assert 8 <= size < 16
    assert f"--batch_size auto: {size}, whose steps take" in run.out
    again = script("train", *how, "--epochs", 2, "--resume")
    assert again.code == 0, again.err
    assert f"resuming with the saved run's {size}" in again.out


def test_where_nothing_fits(script, tmp_path, host, monkeypatch):
    write_set(tmp_path / "data", "train", 2)
    write_set(tmp_path / "data", "val", 2)
    host.memory_ends_at = ("", "convolution")

    run = script("train", "--coco_path", tmp_path / "data", *TINY, "--device", "cuda", "--batch_size", "auto")

    assert run.code == 2
    assert "needs more than 80% of the free memory of cuda" in run.err


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
