import json
import sys

import pytest
import torch

from retinanet.errors import UserError
from retinanet.output import prepare_folder, write_record


def test_a_new_folder_is_made(tmp_path):
    assert prepare_folder(tmp_path / "a" / "b") is None
    assert (tmp_path / "a" / "b").is_dir()


def test_an_earlier_run_moves_and_other_files_stay(tmp_path):
    for k in (1, 2, 3):
        for name in ("run.json", "best.pt", "retinanet_epoch10.pt", "retinanet_epoch10.pt.part"):
            (tmp_path / name).write_text(f"run {k}")
        for name in ("notes.txt", "start.pt"):
            (tmp_path / name).write_text("mine")
        assert prepare_folder(tmp_path) == (tmp_path / f"before_{k}", 4)
        assert {path.name for path in tmp_path.iterdir()} == {
            "notes.txt",
            "start.pt",
            *(f"before_{i}" for i in range(1, k + 1)),
        }
    assert [(tmp_path / f"before_{k}" / "best.pt").read_text() for k in (1, 2, 3)] == ["run 1", "run 2", "run 3"]


def test_a_gap_in_the_numbers_overwrites_nothing(tmp_path):
    (tmp_path / "before_2").mkdir()
    (tmp_path / "run.json").touch()
    assert prepare_folder(tmp_path) == (tmp_path / "before_1", 1)


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output_path"):
        prepare_folder(tmp_path / "file" / "output")


def test_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--depth", "18"])
    write_record(tmp_path, {"depth": 18, "milestones": [48, 64]}, ["cat"], torch.device("cpu"))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["command"][1:] == ["train.py", "--depth", "18"]
    assert record["settings"] == {"depth": 18, "milestones": [48, 64]}
    assert record["class_names"] == ["cat"]
    assert record["versions"]["torch"] == torch.__version__
    assert "git_commit" in record
