"""A terminal shows fewer lines of a run than its log, a file or a pipe."""

import re
import sys

import pytest
from support.scripts import TINY

pytestmark = pytest.mark.usefixtures("narrow_network")
AP_LINE = re.compile(r"AP \d\.\d{3}, AP50 \d\.\d{3} after epoch [12]")


@pytest.fixture
def train(script, coco_path, tmp_path):
    def call(name):
        flags = (*TINY, "--workers", 0, "--batch_size", 4, "--epochs", 2, "--eval_every", 1)
        places = ("--output_path", tmp_path / name, "--log_dir", tmp_path / f"{name}_log")
        run = script("train", "--coco_path", coco_path, *places, *flags)
        assert run.code == 0, run.err
        (log,) = (tmp_path / f"{name}_log").iterdir()
        return run.out.splitlines(), log.read_text().splitlines()

    return call


def test_a_terminal_shows_one_line_per_evaluation_and_the_table_at_the_end(train, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown, log = train("output")
    is_table = [line.startswith(" Average ") for line in shown]
    assert sum(is_table) == 12
    assert is_table[-13:-1] == [True] * 12
    assert shown[-1].startswith("Best: ")
    assert sum(AP_LINE.fullmatch(line) is not None for line in shown) == 2
    assert not [line for line in shown if line.startswith(("Settings:", "epoch_loss_list:", "["))]

    assert sum(line.startswith(" Average ") for line in log) == 24
    assert not [line for line in log if AP_LINE.fullmatch(line)]
    assert sum(line.startswith("Settings: ") for line in log) == 1
    assert log[-2] == "epoch_loss_list:"
    assert [line for line in shown if line in log] == [line for line in shown if not AP_LINE.fullmatch(line)]


def test_a_pipe_gets_what_the_log_gets(train):
    shown, log = train("output")
    assert shown == log
    assert sum(line.startswith(" Average ") for line in shown) == 24
    assert sum(line.startswith(("Settings: ", "epoch_loss_list:")) for line in shown) == 2


def test_the_table_of_a_run_that_was_finished_before(script, train, coco_path, tmp_path, monkeypatch):
    train("output")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    flags = (*TINY, "--workers", 0, "--batch_size", 4, "--epochs", 2, "--eval_every", 1, "--resume")
    run = script("train", "--coco_path", coco_path, "--output_path", tmp_path / "output", *flags)
    assert sum(line.startswith(" Average ") for line in run.out.splitlines()) == 12
