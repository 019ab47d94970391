import json
import platform
import sys
from datetime import datetime

import pytest
import torch
from support.warm import finished

from retinanet.checkpoints.output_folder import LOCK, move_earlier_run, open_folder, write_end, write_record
from retinanet.runtime.errors import UserError


def test_a_new_folder_is_made(tmp_path):
    with open_folder(tmp_path / "a" / "b"):
        assert move_earlier_run(tmp_path / "a" / "b") is None
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {LOCK}


def test_what_a_killed_write_left_is_removed(tmp_path):
    for name in ("last.pt.0123abcd.part", "retinanet_epoch10.pt.part", "mine.part", "last.pt"):
        (tmp_path / name).touch()
    open_folder(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, "mine.part", "last.pt"}


def test_a_folder_has_one_run_at_a_time(tmp_path):
    imports = "import sys, pathlib; from retinanet.checkpoints.output_folder import open_folder"
    code = f"{imports}; open_folder(pathlib.Path(sys.argv[1]))"
    with open_folder(tmp_path):
        assert "another run is writing there" in finished(["-c", code, tmp_path]).stderr
    assert finished(["-c", code, tmp_path]).returncode == 0


def test_an_earlier_run_moves_and_other_files_stay(tmp_path):
    for k in (1, 2, 3):
        for name in ("run.json", "best.pt", "last.pt", "retinanet_epoch10.pt"):
            (tmp_path / name).write_text(f"run {k}")
        for name in ("notes.txt", "start.pt"):
            (tmp_path / name).write_text("mine")
        assert move_earlier_run(tmp_path) == (tmp_path / f"before_{k}", 4)
        assert {path.name for path in tmp_path.iterdir()} == {
            "notes.txt",
            "start.pt",
            *(f"before_{i}" for i in range(1, k + 1)),
        }
    assert [(tmp_path / f"before_{k}" / "best.pt").read_text() for k in (1, 2, 3)] == ["run 1", "run 2", "run 3"]


def test_a_gap_in_the_numbers_overwrites_nothing(tmp_path):
    (tmp_path / "before_2").mkdir()
    (tmp_path / "run.json").touch()
    assert move_earlier_run(tmp_path) == (tmp_path / "before_1", 1)


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output_path"):
        open_folder(tmp_path / "file" / "output")


def test_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--depth", "18"])
    write_record(tmp_path, {"settings": {"depth": 18, "milestones": [48, 64]}})
    write_end(tmp_path, "stopped by SIGTERM")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["command"][1:] == ["train.py", "--depth", "18"]
    assert record["settings"] == {"depth": 18, "milestones": [48, 64]}
    assert record["versions"]["torch"] == torch.__version__
    assert record["host"] == platform.node()
    assert "git_commit" in record
    start, end = (datetime.fromisoformat(record[name]) for name in ("start_time", "end_time"))
    assert start <= end <= datetime.now().astimezone()
    assert record["ended"] == "stopped by SIGTERM"
    for number in (1, 2):
        write_record(tmp_path, {"settings": {"depth": 18}}, resumed=f"after {number} epochs")
    again = json.loads((tmp_path / "run.json").read_text())
    assert again["started"] == record
    assert again["resumed"] == ["after 1 epochs", "after 2 epochs"]
