"""The file of --log_dir: the same bytes as stdout, a number for each run, and nothing of a run that never began."""

import json
import re
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.built import small_network
from support.scripts import TINY

from retinanet.runtime import console, log_file
from retinanet.runtime.errors import UserError
from retinanet.runtime.log_file import LogFile, LogName, next_number, parse_name
from retinanet.runtime.streams import STDOUT

pytestmark = pytest.mark.usefixtures("narrow_network")

NAME = LogName("train", depth=18)
RUN = (*TINY, "--epochs", 1, "--batch_size", 4, "--workers", 0, "--log_every", 1, "--learning_rate", 0.001)


@pytest.fixture
def log(monkeypatch):
    log = LogFile()
    monkeypatch.setattr(console, "LOG", log)
    return log


def test_earlier_lines_are_in_the_file(log, tmp_path, capsys):
    with log.recording(tmp_path / "a" / "log"):
        console.say("before")
        with log.opened(NAME):
            console.say("während")
            path = log.path
            assert path.read_text() == "before\nwährend\n"  # at once
        console.say("two\nlines")
    assert path == tmp_path / "a" / "log" / "train_depth18_no1.log"
    assert path.read_bytes() == capsys.readouterr().out.encode()
    console.say("after")
    assert "after" not in path.read_text()


def test_lines_start_with_the_time_if_asked(log, tmp_path, capsys):
    with log.recording(tmp_path), STDOUT.set_up(timed=True), log.opened(NAME):
        console.say("one", "two")
        text = log.path.read_text()
    console.say("three")
    out = capsys.readouterr().out
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) one\n\1 two\n", text)
    assert out == text + "three\n"


def test_a_quiet_command_writes_its_log_only(log, tmp_path, capsys):
    with log.recording(tmp_path), STDOUT.set_up(quiet=True), log.opened(NAME):
        console.say("one")
        console.warn("two")
        assert log.path.read_text() == "one\ntwo\n"
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(": two\n")


def test_without_a_folder_nothing_is_kept(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with log.recording(None), log.opened(NAME):
        console.say("line")
        assert log.path is None
    assert not list(tmp_path.iterdir())


def test_other_ranks_write_nothing(log, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with log.recording(tmp_path):
        console.say("line")
        with log.opened(NAME):
            console.say("line")
            assert log.path.read_bytes() == b""


def test_a_run_that_does_not_begin_leaves_nothing(log, tmp_path):
    with pytest.raises(UserError), log.recording(tmp_path / "a" / "log"), log.opened(NAME):
        raise UserError("the output folder can't be written to")
    assert not list(tmp_path.iterdir())
    (tmp_path / "log").mkdir()
    with pytest.raises(UserError), log.recording(tmp_path / "log"), log.opened(NAME):
        raise UserError("the output folder can't be written to")
    assert not list((tmp_path / "log").iterdir())


@pytest.mark.parametrize("folder", ["file", "file/log"])
def test_a_folder_that_can_not_be_made(log, tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*can't be written to.*--log_dir"), log.recording(tmp_path / folder):
        log.opened(NAME).__enter__()


def test_a_full_disk_is_reported_once_and_nothing_is_lost(log, tmp_path, capsys):
    """A limit on the size of files stands in for the disk: it takes part of a line too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with log.recording(tmp_path), log.opened(NAME):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
        try:
            for line in ("one", "two", "three"):
                console.say(line)
            assert log.path.read_bytes() == b"one\nt"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        console.say("four")
        content = log.path.read_bytes()
    out, err = capsys.readouterr()
    assert content == out.encode() == b"one\ntwo\nthree\nfour\n"
    assert err.count("can't be written (File too large)") == err.count("\n") == 1


def test_runs_started_at_once_get_numbers_of_their_own(tmp_path, monkeypatch):
    def slowly(folder):
        number = next_number(folder)
        time.sleep(0.02)  # in which another run could take the same number
        return number

    def begin(kind):
        log = LogFile()
        with log.recording(tmp_path / "log"), log.opened(LogName(kind)):
            pass

    monkeypatch.setattr(log_file, "next_number", slowly)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, ("train", "valid", "test", "train") * 2))
    names = [path.name for path in (tmp_path / "log").iterdir()]
    assert sorted(parse_name(name).number for name in names) == list(range(1, 9))


def test_without_locks_a_name_is_taken_once(log, tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "next_number", lambda folder: 1)
    (tmp_path / "train_depth18_no1.log").write_text("another run's")
    with log.recording(tmp_path), log.opened(NAME):
        assert log.path.name == "train_depth18_no2.log"


def test_train_and_test_write_what_they_print(script, coco_path, tmp_path):
    torch.save(small_network(channels=16).backbone.state_dict(), tmp_path / "backbone.pth")
    log_dir, name = tmp_path / "log", "depth18_seed3407_lr1e-3_epochs1"
    paths = ("--coco_path", coco_path, "--log_dir", log_dir)
    flags = (*paths, "--output_path", tmp_path / "output", *RUN, "--weights", tmp_path / "backbone.pth")
    run = script("train", *flags)
    path = log_dir / f"train_{name}_no1.log"
    assert (run.code, path.read_text()) == (0, run.out)
    lines = run.out.splitlines()
    assert lines[0].startswith("Backbone weights: ")  # said before the file was there
    assert f"Log: {path}" in lines
    settings = json.loads(next(line for line in lines if line.startswith("Settings: ")).removeprefix("Settings: "))
    told = {
        "output_path": str(tmp_path / "output"),
        "epochs": 1,
        "batch_size": 4,
        "optimizer": "adam",
        "milestones": [48, 64],
    }
    assert {**settings, **told} == settings
    assert not {"workers", "log_every", "log_dir", "resume"} & settings.keys()

    checkpoint = ("--checkpoint_path", tmp_path / "output" / "best.pt", "--results_path", tmp_path / "rows.json")
    for number, (set_name, kind) in enumerate([("val", "valid"), ("test", "test")], start=2):
        run = script("test", *paths, *checkpoint, "--device", "cpu", "--set_name", set_name)
        assert (run.code, (log_dir / f"{kind}_{name}_no{number}.log").read_text()) == (0, run.out)
        assert run.out.startswith(f"Checkpoint: {checkpoint[1]}, depth 18, after 1 epochs\n")
        assert f"Settings: {json.dumps(settings)}" in run.out

    run = script("train", *flags, "--epochs", 2, "--resume")
    assert "Resumed from" in run.out
    assert (log_dir / "train_depth18_seed3407_lr1e-3_epochs2_no4.log").read_text() == run.out


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
def test_a_refused_run_leaves_no_log(script, coco_path, tmp_path, more):
    (tmp_path / "file").touch()
    more = [str(word).format(file=tmp_path / "file") for word in more]
    log_dir = ("--log_dir", tmp_path / "log")
    run = script("train", "--coco_path", coco_path, "--output_path", tmp_path / "out", *RUN, *log_dir, *more)
    assert run.code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"data", "file"}


def test_a_log_folder_that_can_not_be_written_to_ends_before_training(script, coco_path, tmp_path):
    (tmp_path / "log").touch()
    flags = ("--log_dir", tmp_path / "log")
    run = script("train", "--coco_path", coco_path, "--output_path", tmp_path / "output", *RUN, *flags)
    assert run.code == 2
    assert "choose another --log_dir" in run.err.lower()
    assert not (tmp_path / "output").exists()
