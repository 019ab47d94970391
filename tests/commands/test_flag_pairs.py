"""Every pair of the flags that improve on the published runs trains a step, and so do all together."""

from itertools import combinations, permutations

import pytest
import torch
from support.built import small_network, small_run
from support.data_folder import write_set

from retinanet.training.engine import rest_of_epoch

pytestmark = pytest.mark.usefixtures("narrow_network")

IMPROVEMENTS = [
    ("--schedule", "cosine"),
    ("--warmup_steps", 3),
    ("--accumulate", 2),
    ("--ema_decay", 0.9),
    ("--weight_decay", 0.1),
    ("--train_sides", 64, 96),
    ("--augment", "photometric", "crop", "zoom_out"),
    ("--class_loss", "quality"),
    ("--box_loss", "giou"),
    ("--iou_branch",),
    ("--matcher", "atss"),
    ("--head_norm", "group"),
    ("--anchor_scale", 2, "--anchor_ratios", 0.7, 1.4, "--anchor_octaves", 1),
    ("--freeze_stages", 2),
    ("--backbone_rate", 0.1, 0.2, 0.3, 0.5, 1),
]
OTHERS = [("--augment", "jitter"), ("--matcher", "low_quality"), ("--ignore_crowds",), ("--tile", 64)]
# Each flag is on in 4 of 7 runs, other ones than every other flag. So any two are on together in a run, and each is on
# in a run in which the other is off.
PLACES = list(combinations(range(7), 4))[:: 35 // len(IMPROVEMENTS)]
MIXED = [[flag for flag, runs in zip(IMPROVEMENTS, PLACES, strict=False) if run in runs] for run in range(7)]
CASES = [[], *MIXED, IMPROVEMENTS, [*IMPROVEMENTS, *OTHERS]]  # of a flag the last counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("train", "val"):
        write_set(folder, name, 4)
    torch.manual_seed(0)
    torch.save(small_network(channels=32).backbone.state_dict(), folder / "backbone.pth")
    return folder


def one_step(folder, *flags):
    """The run after a step, and the weights that it started with."""
    run = small_run(folder, "--weights", folder / "backbone.pth", "--channels", 32, "--epochs", 5, *flags)
    start = {name: tensor.clone() for name, tensor in run.state.network.named_parameters()}
    next(rest_of_epoch(run))
    return run, start


def test_every_pair_is_tried():
    for one, other in permutations(IMPROVEMENTS, 2):
        assert any(one in run and other in run for run in MIXED)
        assert any(one in run and other not in run for run in MIXED)


@pytest.mark.parametrize("flags", CASES, ids=lambda flags: " ".join(flag[0] for flag in flags) or "none")
def test_a_step_changes_all_that_is_learned(folder, flags):
    run, start = one_step(folder, *(word for flag in flags for word in flag))
    state = run.state
    assert state.last_losses.isfinite().all()
    assert state.skipped.take_new() == []
    for name, parameter in state.network.named_parameters():
        assert parameter.isfinite().all()
        # The output layers start with weights of zero, so in the first step no gradient passes through them.
        if parameter.requires_grad and ".output.bias" in name and "head" in name:
            assert not torch.equal(parameter, start[name]), name
        elif not parameter.requires_grad:
            assert torch.equal(parameter, start[name]), name
