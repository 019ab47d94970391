import json
import re
import statistics

import pytest
from support.data_folder import write_set

from retinanet.checkpoints.checkpoint import load_run
from retinanet.checkpoints.resume import load_saved
from retinanet.commands import train as train_command
from retinanet.reports.log_table import print_spread
from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import Ranks
from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings
from retinanet.training.opening import with_seed

pytestmark = pytest.mark.usefixtures("narrow_network")

FLAGS = (
    *("--coco_path", "data", "--depth", 18, "--channels", 8, "--weights", "none", "--min_side", 64, "--max_side", 64),
    *("--batch_size", 3, "--epochs", 1, "--learning_rate", 0.001),
)


def table(out):
    """The cells of the table's rows by their first."""
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_each_seed_is_a_run_of_its_own(script, tmp_path, monkeypatch):
    for name, count in (("train", 6), ("val", 4)):
        write_set(tmp_path / "data", name, count)
    monkeypatch.chdir(tmp_path)
    both = script("train", *FLAGS, "--output_path", "output", "--seeds", 5, 6, "--log_dir", "log")
    assert both.code == 0
    alone = script("train", *FLAGS, "--output_path", "alone", "--seed", 6)
    losses = re.findall(r"^\[(.*)\]$", both.out, re.M)
    assert re.findall(r"^\[(.*)\]$", alone.out, re.M) == losses[1:]
    assert losses[0] != losses[1]
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"seed5", "seed6"}
    assert json.loads((tmp_path / "output" / "seed5" / "run.json").read_text())["settings"]["seed"] == 5
    logs = {path.name for path in (tmp_path / "log").iterdir()}
    assert logs == {f"train_depth18_seed{seed}_lr1e-3_epochs1_no{number}.log" for number, seed in ((1, 5), (2, 6))}

    last = (tmp_path / "log" / "train_depth18_seed6_lr1e-3_epochs1_no2.log").read_text()
    assert both.out.endswith(last)
    told = table(last)
    final = [float(losses[0]), float(losses[1])]
    wanted = [statistics.mean(final), statistics.stdev(final), *final]
    assert [float(cell) for cell in told["final loss"]] == pytest.approx(wanted, abs=1e-4)
    _, run = load_run(tmp_path / "output" / "seed6" / "last.pt")
    assert float(told["AP"][3]) == pytest.approx(run["state"]["numbers"]["AP"], abs=1e-4)
    assert {"AP50", "AR100", "AP of red", "AP of green"} < told.keys()

    # Gone on with, what is finished is told again and not trained again.
    again = script("train", *FLAGS, "--output_path", "output", "--seeds", 5, 6, "--resume")
    assert again.code == 0
    assert "Epoch: " not in again.out
    assert table(again.out) == told


@pytest.fixture
def in_data(tmp_path, monkeypatch):
    """A folder with the data that FLAGS name, to be in."""
    for name, count in (("train", 6), ("val", 4)):
        write_set(tmp_path / "data", name, count)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seed_of(run):
    assert run.code == 0, run.err
    (seed,) = re.findall(r"^Seed: (\d+)$", run.out, re.M)
    return int(seed)


def test_a_random_seed_survives_resume(script, in_data):
    first = script("train", *FLAGS, "--seed", "random")
    drawn = seed_of(first)
    assert f"--seed random: drew {drawn}" in first.out
    resumed = script("train", *FLAGS, "--epochs", 2, "--seed", "random", "--resume")
    assert seed_of(resumed) == drawn
    assert f"--seed random: resuming with the saved run's {drawn}" in resumed.out
    assert "Resumed from output after 1 epochs and 0 iterations" in resumed.out
    whole = script("train", *FLAGS, "--epochs", 2, "--seed", drawn, "--output_path", "whole")
    assert re.findall(r"^\[(.*)\]$", resumed.out, re.M) == re.findall(r"^\[(.*)\]$", whole.out, re.M)
    # Without --resume, and in a folder without a run, it is drawn.
    assert seed_of(script("train", *FLAGS, "--seed", "random")) != drawn
    assert seed_of(script("train", *FLAGS, "--seed", "random", "--resume", "--output_path", "other")) != drawn


def test_a_run_that_torchrun_restarts_keeps_its_random_seed(script, in_data, monkeypatch):
    drawn = seed_of(script("train", *FLAGS, "--seed", "random"))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert seed_of(script("train", *FLAGS, "--epochs", 2, "--seed", "random")) == drawn


def test_a_random_seed_of_what_trains_nothing(script, in_data, monkeypatch):
    verified = script("train", *FLAGS, "--seed", "random", "--verify_resume", 1)
    assert verified.code == 0
    assert "--seed random: drew " in verified.out
    found = script("train", *FLAGS, "--seed", "random", "--find_lr", "--steps", 50)
    assert found.code == (0 if "Suggested: --learning_rate" in found.out else 1)
    assert "--seed random: drew " in found.out


class Second(Ranks):
    def wait(self):
        pass


def test_a_rank_that_does_not_know_all_numbers_tells_none(monkeypatch, tmp_path, capsys):
    numbers = {0: {"AP": 0.5, "final loss": 1.0}, 1: {"final loss": 2.0}}  # seed 0 had been finished
    monkeypatch.setattr(train_command, "join", lambda *how: Second(1, 2))
    monkeypatch.setattr(train_command, "load_sets", lambda *how: None)
    monkeypatch.setattr(
        train_command, "train_run", lambda run, *how: (run.optimisation.seed, numbers[run.optimisation.seed])
    )
    settings = with_values(TrainSettings(), {"seeds": (0, 1), "device": "cpu", "output_path": tmp_path})
    assert train_command.train(settings) == 0
    assert capsys.readouterr().out == ""


RANDOM_SEED = with_values(TrainSettings(), {"seed": "random"})


class Listening(Ranks):
    """A rank but the first, which takes what the first has drawn."""

    def from_first(self, make):
        return 11


def test_rank_0_draws_for_all():
    assert with_seed(RANDOM_SEED, None, Listening(1, 2)).optimisation.seed == 11
    assert with_seed(with_values(TrainSettings(), {"seed": 5}), None, Listening(1, 2)).optimisation.seed == 5


@pytest.mark.parametrize("seed", ["7", -1, None, 2**70])
def test_a_saved_seed_that_is_none(script, in_data, seed):
    script("train", *FLAGS)
    saved = load_saved(in_data / "output" / "last.pt")
    saved.checkpoint.settings["seed"] = seed
    with pytest.raises(UserError, match=r"last\.pt: its run has the seed"):
        with_seed(RANDOM_SEED, saved, Ranks())
    del saved.checkpoint.settings["seed"]  # as versions wrote that knew no --seed
    assert with_seed(RANDOM_SEED, saved, Ranks()).optimisation.seed == 3407


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((1, 2, 1), "a seed is listed twice"),
        ((1, 2, "--seed", 5), "--seed is for a single run"),
        ((1, 2, "--seed", "random"), "--seed is for a single run"),
    ],
)
def test_contradictions(script, tmp_path, flags, words):
    run = script("train", "--coco_path", tmp_path, "--seeds", *flags)
    assert run.code == 2
    assert words in run.err


def test_numbers_that_are_not_known(capsys):
    print_spread({1: {"AP": 0.25, "APs": float("nan")}, 2: {"AP": 0.75, "APs": float("nan")}})
    told = table(capsys.readouterr().out)
    assert told["AP"] == ["0.5000", "0.3536", "0.2500", "0.7500"]
    assert told["APs"] == ["-"] * 4
    print_spread({1: {"AP": 0.25}})
    assert table(capsys.readouterr().out)["AP"] == ["0.2500", "-", "0.2500"]


def test_weights_that_one_seeds_run_would_replace_are_refused(script, tmp_path, monkeypatch):
    for name in ("train", "val"):
        write_set(tmp_path / "data", name, 4)
    monkeypatch.chdir(tmp_path)
    assert script("train", *FLAGS, "--output_path", "output/seed0").code == 0
    how = (*FLAGS, "--weights", "output/seed0/best.pt", "--output_path", "output")
    refused = script("train", *how, "--seeds", 0, 1)
    assert (refused.code, (tmp_path / "output" / "before_1").exists()) == (2, False)
    assert "--weights output/seed0/best.pt: is in the folder of seed 0, whose run moves the files" in refused.err
    assert not (tmp_path / "output" / "seed0" / "before_1").exists()
