import math

import pytest
from conftest import write_set

from retinanet import lr_range
from retinanet.lr_range import HIGHEST, LEAST_STEPS, LOWEST, NUM_STEPS, rate_of, smoothed_mean, suggested_rate

RATES = [rate_of(step) for step in range(NUM_STEPS)]


def test_rates_grow_evenly_from_the_lowest_to_the_highest():
    assert RATES[0] == LOWEST
    assert RATES[-1] == pytest.approx(HIGHEST)
    assert RATES[200] / RATES[100] == pytest.approx(RATES[150] / RATES[50])


def test_smoothing_by_a_loop():
    losses = [3.0, 1.0, 2.0, 5.0]
    weights = [0.95**3, 0.95**2, 0.95, 1]
    wanted = sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)
    assert smoothed_mean(losses) == pytest.approx(wanted)
    assert smoothed_mean([0.7] * 500) == pytest.approx(0.7)


def test_a_tenth_of_the_rate_with_the_lowest_loss():
    losses = [2 + (math.log10(rate) + 3) ** 2 / 10 for rate in RATES]  # lowest at 1e-3
    assert suggested_rate(RATES, losses) == pytest.approx(1e-4, rel=0.06)


@pytest.mark.parametrize(
    "losses",
    [
        [1 + step / 100 for step in range(NUM_STEPS)],  # only rises
        [2 - step / 10 for step in range(LEAST_STEPS)],  # exploded before it could be told
        [math.nan] * NUM_STEPS,
    ],
)
def test_no_rate_where_the_loss_never_fell(losses):
    assert suggested_rate(RATES, losses) is None


def test_an_explosion_ends_the_curve():
    losses = [2 - step / 200 for step in range(100)] + [math.nan] * 200
    assert suggested_rate(RATES, losses) == pytest.approx(RATES[99] / 10)


FLAGS = (
    *("--coco_path", "data", "--depth", 18, "--channels", 8, "--weights", "none", "--min_side", 64, "--max_side", 64),
    *("--batch_size", 3, "--find_lr", "--output_path", "output"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, count in (("train", 7), ("val", 2)):
        write_set(tmp_path / "data", name, count)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lr_range, "NUM_STEPS", 26)
    monkeypatch.setattr(lr_range, "STEPS_A_LINE", 10)
    return tmp_path


def test_a_picture_and_nothing_else(script, folder):
    run = script("train", *FLAGS)
    assert run.code == (0 if "Suggested: --learning_rate" in run.out else 1)
    assert "Learning rate: " in run.out
    assert (folder / "lr_range.png").stat().st_size > 5000
    assert not (folder / "output").exists()
    assert {path.name for path in folder.iterdir()} == {"data", "lr_range.png"}


@pytest.mark.parametrize("flag", ["--resume", ("--seeds", 1), ("--log_dir", "log"), ("--verify_resume", 2)])
def test_contradictions(script, folder, flag):
    run = script("train", *FLAGS, *([flag] if isinstance(flag, str) else flag))
    assert run.code == 2
    assert "nothing to keep" in run.err
