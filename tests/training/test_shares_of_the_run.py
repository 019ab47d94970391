import pytest

from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 0), ({"warmup_steps": 7}, 7), ({"warmup_share": 0.05}, 60), ({"warmup_share": 0.0001}, 0)],
)
def test_the_warm_up_may_be_a_share_of_the_run(settings, steps):
    assert with_values(TrainSettings(), settings).optimisation.num_warmup_steps(1200) == steps


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({}, 0),
        ({"ema_decay": 0.99}, 0.99),
        ({"ema_share": 0.05}, 1 - 1 / 60),
        ({"ema_share": 0.0001}, 0.5),  # an average there is, whatever the share
    ],
)
def test_the_averages_window_may_be_a_share_of_the_run(settings, decay):
    assert with_values(TrainSettings(), settings).optimisation.average_decay(1200) == pytest.approx(decay)


@pytest.mark.parametrize("share", ["warmup_share", "ema_share"])
def test_a_run_with_shares_resumes_only_with_its_epochs(script, coco_path, tmp_path, share, narrow_network):
    flags = ("--coco_path", coco_path, "--output_path", tmp_path / "output", "--depth", 18, "--channels", 8)
    flags += ("--weights", "none", "--min_side", 64, "--max_side", 96, "--device", "cpu", "--workers", 0)
    assert script("train", *flags, f"--{share}", 0.3, "--epochs", 1).code == 0
    refused = script("train", *flags, f"--{share}", 0.3, "--epochs", 2, "--resume")
    assert (refused.code, "its run has --epochs 1, this command has 2" in refused.err) == (2, True)
