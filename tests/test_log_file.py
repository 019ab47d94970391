"""The file of --log_dir: the same bytes as stdout, a number for each run, and nothing of a run that never began."""

import json
import multiprocessing
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY, write_set

from retinanet import command_line
from retinanet.errors import UserError
from retinanet.log_file import LogFile
from retinanet.log_names import LogName, parse_name
from retinanet.model import RetinaNet

NAME = LogName("train", depth=18)
RUN = (*TINY, "--epochs", 2, "--batch_size", 4, "--workers", 0, "--log_every", 1, "--learning_rate", 0.001)


@pytest.fixture
def log(monkeypatch):
    log = LogFile()
    monkeypatch.setattr(command_line, "LOG", log)
    return log


def test_what_was_said_before_is_in_the_file(log, tmp_path, capsys):
    with log.kept(tmp_path / "a" / "log"):
        command_line.say("before")
        with log.opened(NAME):
            command_line.say("während")
            path = log.path
            assert path.read_text() == "before\nwährend\n"  # at once
        command_line.say("two\nlines")
    assert path == tmp_path / "a" / "log" / "train_depth18_no1.log"
    assert path.read_bytes() == capsys.readouterr().out.encode()
    command_line.say("after")
    assert "after" not in path.read_text()


def test_without_a_folder_nothing_is_kept(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with log.kept(None), log.opened(NAME):
        command_line.say("line")
        assert (log.path, log._unwritten) == (None, b"")
    assert not list(tmp_path.iterdir())


def test_other_ranks_write_nothing(log, tmp_path, monkeypatch):
    monkeypatch.setattr(command_line, "RANK", 1)
    with log.kept(tmp_path):
        command_line.say("line")
    assert log._unwritten == b""


def test_a_run_that_does_not_begin_leaves_nothing(log, tmp_path):
    with pytest.raises(UserError), log.kept(tmp_path / "a" / "log"), log.opened(NAME):
        raise UserError("the output folder can't be written to")
    assert not list(tmp_path.iterdir())
    (tmp_path / "log").mkdir()
    with pytest.raises(UserError), log.kept(tmp_path / "log"), log.opened(NAME):
        raise UserError("the output folder can't be written to")
    assert not list((tmp_path / "log").iterdir())


@pytest.mark.parametrize("folder", ["file", "file/log"])
def test_a_folder_that_can_not_be_made(log, tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*can't be written to.*--log_dir"), log.kept(tmp_path / folder):
        log.opened(NAME).__enter__()


def test_a_full_disk_is_told_of_once_and_nothing_is_lost(log, tmp_path, capsys):
    class Disk:
        """Takes 3 bytes at a time, and `room` bytes in all."""

        room, taken = 5, b""

        def write(self, data):
            if not self.room:
                raise OSError(28, "No space left on device")
            part = data[: min(3, self.room)]
            self.taken, self.room = self.taken + part, self.room - len(part)
            return len(part)

        def close(self):
            pass

    with log.kept(tmp_path), log.opened(NAME):
        log._file.close()
        log._file = disk = Disk()
        for line in ("one", "two", "three"):
            command_line.say(line)
        assert disk.taken == b"one\nt"
        disk.room = 100
        command_line.say("four")
    out, err = capsys.readouterr()
    assert disk.taken == out.encode() == b"one\ntwo\nthree\nfour\n"
    assert err.count("can't be written (No space left on device)") == err.count("\n") == 1


def _open(folder, kind, barrier):
    log = LogFile()
    barrier.wait()
    with log.kept(folder), log.opened(LogName(kind)):
        pass


def test_runs_started_at_once_get_numbers_of_their_own(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    kinds = ("train", "valid", "test", "train") * 2
    runs = [context.Process(target=_open, args=(tmp_path, kind, barrier)) for kind in kinds]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(parse_name(path.name).number for path in tmp_path.iterdir()) == list(range(1, 9))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data folder, the output folder of a short training on it, and its log and stdout."""
    folder = tmp_path_factory.mktemp("trained")
    for name, count in (("train", 5), ("val", 3), ("test", 2)):
        write_set(folder / "data", name, count)
    words = (ROOT / "train.py", "--coco_path", "data", "--log_dir", "log", *RUN)
    command = [sys.executable, *map(str, words)]
    run = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    (folder / "stdout").write_bytes(run.stdout)
    return folder


def test_train_writes_stdout_to_the_log(trained):
    path = trained / "log" / "train_depth18_seed3407_lr1e-3_epochs2_no1.log"
    assert path.read_bytes() == (trained / "stdout").read_bytes()
    lines = path.read_text().splitlines()
    assert lines[0] == "Log: log/train_depth18_seed3407_lr1e-3_epochs2_no1.log"
    settings = json.loads(lines[1].removeprefix("Settings: "))
    assert {**settings, "output_path": "output", "epochs": 2, "batch_size": 4, "optimizer": "adam"} == settings
    assert not {"workers", "log_every", "log_dir"} & settings.keys()


@pytest.mark.parametrize(("set_name", "kind"), [("val", "valid"), ("test", "test")])
def test_test_writes_stdout_to_a_log_named_after_the_checkpoint(script, trained, tmp_path, set_name, kind):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "train_no7.log").touch()
    checkpoint = trained / "output" / "best.pt"
    paths = ("--coco_path", trained / "data", "--checkpoint_path", checkpoint, "--results_path", tmp_path / "rows.json")
    flags = (*paths, "--device", "cpu", "--set_name", set_name, "--log_dir", tmp_path / "log")
    run = script("test", *flags)
    assert run.code == 0, run.err
    assert (tmp_path / "log" / f"{kind}_depth18_seed3407_lr1e-3_epochs2_no8.log").read_text() == run.out
    assert run.out.startswith(f"Checkpoint: {checkpoint}, depth 18, after 2 epochs\nLog: ")


def test_lines_from_before_the_run_begins_and_of_a_resumed_run(script, trained, tmp_path):
    torch.save(RetinaNet(2, 18, channels=16).backbone.state_dict(), tmp_path / "backbone.pth")
    log_dir = ("--log_dir", tmp_path / "log")
    flags = ("--coco_path", trained / "data", "--output_path", tmp_path / "output", *RUN, *log_dir)
    flags = (*flags, "--weights", tmp_path / "backbone.pth")
    run = script("train", *flags, "--epochs", 1)
    assert run.out.startswith("Backbone weights: ")
    assert (tmp_path / "log" / "train_depth18_seed3407_lr1e-3_epochs1_no1.log").read_text() == run.out
    run = script("train", *flags, "--resume")
    assert "Resumed from" in run.out
    assert (tmp_path / "log" / "train_depth18_seed3407_lr1e-3_epochs2_no2.log").read_text() == run.out


@pytest.mark.parametrize(
    "more",
    [
        ("--verify_resume", 1),
        ("--max_side", 40),
        ("--weights", "none.pth"),
        ("--output_path", "{file}"),
        ("--seed", "x"),
    ],
    ids=str,
)
def test_a_refused_run_leaves_no_log(script, trained, tmp_path, more):
    (tmp_path / "file").touch()
    more = [str(word).format(file=tmp_path / "file") for word in more]
    log_dir = ("--log_dir", tmp_path / "log")
    run = script("train", "--coco_path", trained / "data", "--output_path", tmp_path / "out", *RUN, *log_dir, *more)
    assert run.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_log_folder_that_can_not_be_written_to_ends_before_training(script, trained, tmp_path):
    (tmp_path / "log").touch()
    flags = ("--log_dir", tmp_path / "log")
    run = script("train", "--coco_path", trained / "data", "--output_path", tmp_path / "output", *RUN, *flags)
    assert run.code == 2
    assert "choose another --log_dir" in run.err.lower()
    assert not (tmp_path / "output").exists()
