"""A step of several batches is the step of one large batch."""

import os
import signal
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.built import small_losses, small_network, small_set, small_state
from support.data_folder import change_json
from support.scripts import TINY

from retinanet.data.dataloader import LoaderSettings, training_loader
from retinanet.data.device_feed import in_steps
from retinanet.data.sampler import AspectRatioBasedSampler, Shown
from retinanet.detector.structures import Losses
from retinanet.runtime.ranks import Ranks
from retinanet.training import weight_average
from retinanet.training.engine import progress_of, train_steps

pytestmark = pytest.mark.usefixtures("narrow_network")

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 5))
def test_draws_share_the_large_batch(num_images, batch_size, accumulate, num_ranks, first):
    sizes = np.random.default_rng(num_images).integers(1, 99, (num_images, 2))
    large = AspectRatioBasedSampler(Shown(sizes), batch_size * accumulate * num_ranks, seed=1)
    large.start_at(3, first)
    draws = []
    for rank in range(num_ranks):
        sampler = AspectRatioBasedSampler(
            Shown(sizes), batch_size, seed=1, accumulate=accumulate, ranks=Ranks(rank, num_ranks)
        )
        assert len(sampler) == len(large)
        sampler.start_at(3, first)
        draws.append(list(sampler))
    for step, whole in enumerate(large):
        parts = [draw for of_rank in draws for draw in of_rank[step * accumulate : (step + 1) * accumulate]]
        assert len(parts) == accumulate * num_ranks
        assert sorted(index for part in parts for index in part.indices) == sorted(whole.indices)
        assert all(part.sides == whole.sides and len(part.indices) <= batch_size for part in parts)


def train(dataset, batch_size, accumulate, change=None):
    """The state after an epoch of 7 images, with what there was to log."""
    torch.manual_seed(7)
    state = small_state(optimizer="sgd")
    loader, sampler = training_loader(dataset, LoaderSettings(batch_size), seed=1, accumulate=accumulate)
    batches = in_steps((loaded.batch for loaded in loader), accumulate)
    plain = small_losses(state.network)
    compute = (lambda *batch: change(plain(*batch))) if change else plain
    steps = train_steps(state, batches, rates=[0.1] * len(sampler), clip_norm=1.0, compute_losses=compute)
    return state, [progress_of(state, rate) for rate in steps]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 4), (2, 2), (3, 2)])
def test_weights_and_losses_equal_the_large_batchs(tmp_path, batch_size, accumulate):
    dataset = small_set(tmp_path, 7)  # the last step is not full: some of its batches are empty
    state, progress = train(dataset, batch_size, accumulate)
    wanted, wanted_progress = train(dataset, batch_size * accumulate, 1)
    assert [one.iteration for one in progress] == [one.iteration for one in wanted_progress] == [1, 2]
    for one, other in zip(progress, wanted_progress, strict=True):
        assert one.num_images == other.num_images
        found = (one.classification, one.regression, one.running, one.epoch_mean)
        assert found == pytest.approx((other.classification, other.regression, other.running, other.epoch_mean))
    for name, tensor in state.network.state_dict().items():
        torch.testing.assert_close(tensor, wanted.network.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_each_step_goes_into_the_average_once(tmp_path):
    model = small_network()
    state = small_state(model, optimizer="sgd", average_decay=0.9)
    loader, _ = training_loader(small_set(tmp_path, 8), LoaderSettings(2), seed=1, accumulate=2)
    wanted = {name: value.clone() for name, value in model.named_parameters()}
    how = {"rates": [0.1] * 2, "clip_norm": 1.0, "compute_losses": small_losses(model)}
    steps = in_steps((loaded.batch for loaded in loader), 2)
    for step, _ in enumerate(train_steps(state, steps, **how), start=1):
        kept = (1 + step) / (10 + step)
        with torch.no_grad():
            wanted = {name: kept * wanted[name] + (1 - kept) * value for name, value in model.named_parameters()}
    for name, value in wanted.items():
        torch.testing.assert_close(state.average.weights[name], value)


def test_a_batch_that_is_not_finite_skips_its_whole_step(tmp_path):
    calls = iter(range(100))

    def change(losses):
        return Losses(losses.classification * (torch.nan if next(calls) == 1 else 1), losses.regression)

    state, _ = train(small_set(tmp_path, 8), 2, 2, change)
    (told,) = state.skipped.take_new()
    assert told["iteration"] == 1
    assert len(told["images"]) == 4
    assert state.running_loss.window.isnan().sum() == len(state.running_loss.window) - 1


@pytest.fixture
def improved(script, coco_path, tmp_path):
    def call(*flags):
        paths = ("--coco_path", coco_path, "--output_path", tmp_path / "output")
        return script("train", *paths, *TINY, "--epochs", 2, "--workers", 0, "--log_every", 1, *flags)

    return call


def test_averaged_weights_are_evaluated_and_saved_with_the_raw_ones(improved, script, coco_path, tmp_path):
    run = improved("--ema_decay", 0.9, "--accumulate", 2, "--warmup_steps", 1, "--learning_rate", 0.001)
    assert run.code == 0, run.err
    assert "Hint: a step has 4 images" not in run.out  # a rate of the user's own
    assert run.out.count("Raw weights: AP ") == 1
    path = tmp_path / "output" / "model_final.pt"
    content = torch.load(path, weights_only=True)
    assert content["ema"].keys() == content["model"].keys()
    assert not torch.equal(content["ema"]["backbone.conv1.weight"], content["model"]["backbone.conv1.weight"])
    results = {}
    for flags in ((), ("--raw_weights",)):
        out = ("--results_path", tmp_path / "results.json", "--set_name", "val", "--num_draws", 0, "--threshold", 0)
        tested = script("test", "--coco_path", coco_path, "--checkpoint_path", path, *out, *flags)
        assert tested.code == 0, tested.err
        assert ("averaged weights, depth 18, after 2 epochs" in tested.out) == (not flags)
        results[flags] = (tmp_path / "results.json").read_text()
    assert results[()] != results[("--raw_weights",)]


@pytest.mark.parametrize("call", [0, 1])  # the averaged weights put in; the trained ones put back
def test_a_signal_between_raw_and_averaged_weights_mixes_none(improved, tmp_path, monkeypatch, call):
    calls, copy = count(), weight_average._copy

    def interrupted(source, target):
        names = list(target)
        is_the_one = next(calls) == call
        copy(source, {name: target[name] for name in names[:30]})
        if is_the_one:
            os.kill(os.getpid(), signal.SIGTERM)
        copy(source, target)

    monkeypatch.setattr(weight_average, "_copy", interrupted)
    run = improved("--ema_decay", 0.9, "--eval_every", 1, "--learning_rate", 0.001)
    assert run.code == 128 + signal.SIGTERM, run.err
    trained, saved = (torch.load(tmp_path / "output" / name) for name in ("retinanet_epoch1.pt", "last.pt"))
    assert all(torch.equal(saved["model"][name], tensor) for name, tensor in trained["model"].items())


def test_a_set_without_objects_is_reported_once(improved, coco_path):
    change_json(coco_path / "val.json", lambda content: content["annotations"].clear())
    run = improved("--ema_decay", 0.9, "--epochs", 1)
    assert (run.code, run.out.count("has no objects to compare with")) == (0, 1), run.err


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", None), ("adamw", None), ("sgd", "0.005")])
def test_only_sgds_rate_grows_with_the_batch(improved, optimizer, rate):
    run = improved("--accumulate", 4, "--optimizer", optimizer)
    assert run.code == 0
    assert ("Hint: the learning rate" in run.out) == (rate is not None)
    assert rate is None or f"for 8 images, use --learning_rate {rate} with" in run.out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--schedule", "cosine", "--milestones", 1), "--milestones only apply to --schedule step"),
        (("--backbone_rate", 0.1, 0.2), "--backbone_rate has 2 values. Set one, or 5"),
        (
            ("--freeze_stages", 5, "--backbone_rate", 0.1, "--weights", "imagenet"),
            "leaves nothing to train at --backbone_rate",
        ),
        (("--warmup_steps", 8), "a run of 2 epochs of 8 images has 8 steps, all of which --warmup_steps 8 would take"),
        (
            ("--warmup_steps", 4, "--batch_size", 3, "--drop_last"),
            "8 images has 4 steps, all of which --warmup_steps 4 would",
        ),
        (("--accumulate", 5, "--drop_last"), "can't fill one batch of 10"),
        (("--accumulate", 9), "needs more batches per step than an epoch's 8 images can fill. Lower it"),
        (("--ema_decay", 1), "--ema_decay"),
        (("--accumulate", 0), "--accumulate"),
    ],
)
def test_contradictions(improved, tmp_path, flags, told):
    run = improved(*flags)
    assert (run.code, told in run.err) == (2, True), run.err
    assert not (tmp_path / "output").exists()


def test_images_that_come_again_count_towards_the_steps(improved):
    run = improved("--repeat_threshold", 1, "--warmup_steps", 8)
    assert (run.code, "Iteration: 5 |" in run.out) == (0, True), run.err


def test_a_cosine_run_resumes_only_to_its_own_end(improved):
    flags = ("--schedule", "cosine", "--ema_decay", 0.9)
    assert improved(*flags).code == 0
    refused = improved(*flags, "--resume", "--epochs", 3)
    assert (refused.code, "its run has --epochs 2, this command has 3" in refused.err) == (2, True)
