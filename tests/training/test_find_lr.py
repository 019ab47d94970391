import math

import numpy as np
import pytest
from support.data_folder import write_set

from retinanet.training import find_lr
from retinanet.training.find_lr import (
    HIGHEST,
    LOWEST,
    WINDOW,
    has_exploded,
    medians,
    rate_of,
    suggested_rate,
)

pytestmark = pytest.mark.usefixtures("narrow_network")

NUM_STEPS = 300
RATES = [rate_of(step, NUM_STEPS) for step in range(NUM_STEPS)]


def test_rates_grow_evenly_from_the_lowest_to_the_highest():
    assert RATES[0] == LOWEST
    assert RATES[-1] == pytest.approx(HIGHEST)
    assert RATES[200] / RATES[100] == pytest.approx(RATES[150] / RATES[50])


def test_medians_by_a_loop():
    losses = np.random.default_rng(0).exponential(1, 50).tolist()
    assert medians(losses).tolist() == [np.median(losses[start : start + WINDOW]) for start in range(50 - WINDOW + 1)]
    assert len(medians(losses[: WINDOW - 1])) == 0


def curve(at):
    """Losses that are lowest at the rate `at`, some of them far out."""
    losses = np.array([2 + (math.log10(rate) - math.log10(at)) ** 2 / 10 for rate in RATES])
    losses[::9] *= 30
    return losses.tolist()


@pytest.mark.parametrize("at", [1e-5, 1e-4, 3e-3])
def test_the_rate_with_the_lowest_loss(at):
    assert suggested_rate(RATES, curve(at)) == pytest.approx(at, rel=0.4)


@pytest.mark.parametrize(
    "losses",
    [
        [1 + step / 100 for step in range(NUM_STEPS)],  # only rises
        [2 - step / 10 for step in range(WINDOW - 1)],  # ended before it could be told
        [1 - 1e-5 * step for step in range(NUM_STEPS)],
        [math.nan] * NUM_STEPS,
        [],
    ],
)
def test_no_rate_where_the_loss_never_fell(losses):
    assert suggested_rate(RATES, losses) is None


def test_an_explosion_ends_the_test():
    falling = [2 - step / 200 for step in range(100)]
    assert not has_exploded(falling)
    assert not has_exploded([*falling, *[100.0] * (WINDOW // 2)])  # some batches alone
    for end in (100.0, math.inf):
        assert has_exploded([*falling, *[end] * (WINDOW // 2 + 1)])
    assert has_exploded([*falling, math.nan])  # such a step is skipped: the weights can't get worse
    assert suggested_rate(RATES, [*falling, *[math.nan] * 50]) == RATES[99 - WINDOW // 2]


FLAGS = (
    *("--coco_path", "data", "--depth", 18, "--channels", 8, "--weights", "none", "--min_side", 64, "--max_side", 64),
    *("--batch_size", 3, "--find_lr", "--steps", 50, "--output_path", "output"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, count in (("train", 7), ("val", 2)):
        write_set(tmp_path / "data", name, count)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find_lr, "STEPS_A_LINE", 10)
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
    assert "doesn't save a run" in run.err or "each replace the training" in run.err
