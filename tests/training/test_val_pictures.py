"""A picture of the val set that can't be decoded ends a run before its hours, and each is decoded once."""

import json
import re
import threading

import pytest
from support.scripts import TINY

from retinanet.data.dataset import CocoDataset
from retinanet.training import val_pictures

pytestmark = pytest.mark.usefixtures("narrow_network", "own_folder")


@pytest.fixture
def decoded(monkeypatch):
    """The pictures of val that are decoded, in any order."""
    names, original = [], CocoDataset.original

    def noting(dataset, index):
        if dataset.image_folder.name == "val":
            names.append(dataset.annotations.file_name(index))
        return original(dataset, index)

    monkeypatch.setattr(CocoDataset, "original", noting)
    return names


@pytest.fixture
def train(script, coco_path):
    def call(*more):
        return script("train", "--coco_path", coco_path, "--epochs", 1, *TINY, "--workers", 0, "--eval_every", 9, *more)

    return call


def cut_off(coco_path):
    path = coco_path / "images" / "val" / "3.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def test_a_truncated_picture_is_named_before_the_first_step(train, coco_path, tmp_path):
    cut_off(coco_path)
    run = train("--bad_images", "skip")
    assert run.code == 2
    assert "val/3.png: can't be read as an image" in run.err
    assert "Epoch: 0" not in run.out
    assert not (tmp_path / "output").exists()


def test_many_pictures_are_decoded_beside_the_first_epoch(train, coco_path, tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(val_pictures, "MOST_AT_START", 4)
    cut_off(coco_path)
    run = train()
    assert run.code == 2
    assert "val/3.png: can't be read as an image" in run.err
    assert "Epoch: 0" in run.out
    assert "Epoch 0 took" not in run.out or not list((tmp_path / "output").glob("retinanet_epoch*.pt"))
    assert json.loads((tmp_path / "output" / "run.json").read_text())["settings"]["epochs"] == 1


@pytest.mark.parametrize("most", [4, 2000])
def test_pictures_are_decoded_once(train, monkeypatch, decoded, most):
    monkeypatch.setattr(val_pictures, "MOST_AT_START", most)
    assert train().code == 0
    assert len(decoded) == 2 * 5  # the evaluation decodes them again
    decoded.clear()
    assert train("--output_path", "again").code == 0
    assert len(decoded) == 5


def test_a_resumed_run_does_not_wait(train, tmp_path, decoded):
    assert train().code == 0
    for entry in (tmp_path / "cache").rglob("*.npz"):
        entry.unlink()
    decoded.clear()
    assert train("--epochs", 2, "--resume").code == 0
    assert len(decoded) == 5


def test_check_data_decodes_for_the_training_too(script, train, coco_path, decoded):
    sizes = ("--min_side", 64, "--max_side", 96)
    assert script("retinanet/check_data/__main__", "--coco_path", coco_path, *sizes).code == 0
    decoded.clear()
    assert train().code == 0
    assert len(decoded) == 5


def test_a_file_that_hangs_ends_the_run(train, monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr(CocoDataset, "original", lambda dataset, index: stop.wait(20))
    run = train("--timeout", 0.5)
    stop.set()
    assert run.code == 4
    assert re.search(r"val/1\.png: wasn't read in 0\.5 s: the file or the disk hangs", run.err)
